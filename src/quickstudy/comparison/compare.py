"""Compare: learners × tasks × shots, in cells that are computed once.

    comparison/
      cells/<key>.json                    the draws of one learner on one task at one number of shots
      draws.json                          the protocol and what it drew
      results.jsonl, results.parquet      the figures of every draw
      results.json                        intervals, paired tests, ranks, costs, and what the report shows

A cell whose file is there is never computed again: an interrupted comparison goes on, and one more learner, task or number of
shots costs its own cells only.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from quickstudy.comparison.cell import Job, key_of, run_jobs, trials_hash
from quickstudy.comparison.learner import LearnerSpec
from quickstudy.comparison.results import provenance, results_of, write_figures
from quickstudy.data.reference import load_tasks
from quickstudy.errors import DataError, RunError
from quickstudy.evaluation.draws import most_shots
from quickstudy.evaluation.protocol import Protocol, by_shots, plan, save_draws, scored
from quickstudy.report.comparison import write_comparison
from quickstudy.storage import write_json
from quickstudy.tasks.task import Task

_BASELINES = ("majority", "label-names", "nearest-neighbour", "linear-probe", "protonet")
_SHOTS = (4, 8, 16)


Names = str | Path | Sequence[str | Path]


def compare(
    learners: Names,
    tasks: Names,
    out: str | Path,
    *,
    protocol: Protocol = Protocol(),
    encoder: str = "minilm",
    workers: int = 1,
    ray: str | None = None,
    allow_overlap: bool = False,
    texts: bool = True,
    on_cell: Callable[[int, int, str], None] = lambda _done, _all, _what: None,
) -> dict[str, Any]:
    """Compare learners on tasks, or go on with a comparison; writes its results and report.

    Args:
        learners: Run folders (meta-trained), recipe files (their method on their untouched encoder), or names of methods.
        tasks: Task references.
        out: Folder of the comparison; what it holds already is used.
        protocol: What learners adapt to and are scored on.
        encoder: Encoder of learners that are named by their method alone.
        workers: Processes; the processor's cores are dealt to them.
        ray: Address of a Ray cluster to compute on; `local` starts one on this machine.
        allow_overlap: Go on although scored texts were meta-trained on; the report says so.
        texts: Keep support sets and wrongly predicted texts in the results, for the report to show.
        on_cell: Told of every finished job: how many cells are done, of how many, and which.

    Returns:
        The content of `results.json`.

    Raises:
        QuickstudyError: Unknown learners or tasks, a folder that holds something else, or scored texts that were meta-trained on.
    """
    if ray and not find_spec("ray"):
        raise RunError("Ray is not installed", fix="pip install 'quickstudy[ray]'")
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()) and not (folder / "cells").is_dir():
        raise RunError("this folder is no comparison", where=str(folder), fix="Choose another --out.")
    named = _named([LearnerSpec(spec, encoder) for spec in _listed(learners)], protocol)
    loaded = [(reference, task) for reference in _listed(tasks) for task in load_tasks(reference)]
    held_out = {task.name: task for _, task in loaded}
    plans = plan(protocol, [task for _, task in loaded])
    tested = [scored(task, plans[of]) for of, task in held_out.items()]
    described = {
        name: spec.describe(encoder_only=protocol.name == "full") | spec.overlap(tested, allow=allow_overlap)
        for name, spec in named.items()
    }
    hashes = {(of, k): trials_hash(own) for of, planned in plans.items() for k, own in by_shots(planned).items()}
    cells = {
        (name, of, k): folder / "cells" / f"{key_of(described[name]['weights'], held_out[of], planned)}.json"
        for name in named
        for (of, k), planned in hashes.items()
    }
    missing = {cell: file for cell, file in cells.items() if not file.is_file()}
    jobs = [
        Job(due, reference, task.name, files, protocol, texts)
        for group in _groups(named)
        for reference, task in loaded
        if (files := {(n, k): file for (n, of, k), file in missing.items() if n in group and of == task.name})
        and (due := {name: group[name] for name, _ in files})
    ]
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    _write_draws(folder / "draws.json", save_draws(protocol, plans))
    done = len(cells) - len(missing)
    for job in run_jobs(jobs, workers, ray=ray):
        done += len(job.missing)
        on_cell(done, len(cells), f"{job.task}, {', '.join(job.learners)}")
    rows = [row for (name, of, _), file in cells.items() for row in _rows(file, name, held_out[of], texts=texts)]
    source = provenance(protocol, described, list(held_out.values()), plans, texts=texts)
    write_figures(folder, rows, source)
    results = results_of(rows, source)
    write_json(folder / "results.json", results, indent=None)
    write_comparison(folder)
    return results


def _listed(names: Names) -> list[str]:
    return [str(name) for name in ([names] if isinstance(names, str | Path) else names)]


def _named(specs: Sequence[LearnerSpec], protocol: Protocol) -> dict[str, LearnerSpec]:
    """Return learners by the name that they have in tables.

    Raises:
        DataError: There is none, or one of them is there twice.
    """
    if not specs:
        raise DataError("there is no learner to compare", fix="Give at least one.")
    named: dict[str, LearnerSpec] = {}
    for spec in specs:
        if spec.name() in named:
            fix = "Give each once; rename a run's folder or a recipe."
            raise DataError(f"two learners are called {spec.name()!r}", fix=fix)
        named[spec.name()] = spec
    if protocol.name == "full":  # the method does not count
        encoders: dict[str, str] = {}
        for name, spec in named.items():
            other = encoders.setdefault(spec.fingerprint(encoder_only=True), name)
            if other != name:
                raise DataError(
                    f"{other!r} and {name!r} have the same encoder, which is all that full fine-tuning takes of them",
                    fix="Give one of them.",
                )
    return named


def _write_draws(file: Path, draws: dict[str, Any]) -> None:
    """Write what was drawn; draws of other tasks by the same protocol stay."""
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        if before["protocol"] == json.loads(json.dumps(draws["protocol"])):
            draws = {**draws, "tasks": before["tasks"] | draws["tasks"]}
    write_json(file, draws, indent=None)


def _rows(file: Path, learner: str, task: Task, *, texts: bool) -> list[dict[str, Any]]:
    """Return the rows of a cell; it may have been computed for a learner that was called otherwise."""
    found = []
    for row in json.loads(file.read_text(encoding="utf-8")):
        if not texts:
            row.pop("wrong", None)
        found.append(row | {"learner": learner, "domain": task.domain})
    return found


def compare_for(
    tasks: Names,
    out: str | Path,
    learners: Names = (),
    *,
    shots: int | None = None,
    encoder: str = "minilm",
    allow_overlap: bool = False,
    on_cell: Callable[[int, int, str], None] = lambda _done, _all, _what: None,
) -> dict[str, Any]:
    """Compare what there is to choose from on one's own tasks: the given learners, and baselines that need no run.

    Args:
        tasks: Task references.
        out: Folder of the comparison.
        learners: Run folders, recipe files or names of methods.
        shots: Labelled examples per class that there will be; fewer where the tasks' own examples do not suffice to measure that.
        encoder: Encoder of learners that are named by their method alone.
        allow_overlap: Go on although scored texts were meta-trained on; the report says so.
        on_cell: As for `compare`.
    """
    loaded = [task for reference in _listed(tasks) for task in load_tasks(reference)]
    possible = [{k for k, _ in task.fixed_draws} or set(range(1, most_shots(task) + 1)) for task in loaded]
    counts = {
        max((k for k in set.intersection(*possible) if k <= wanted), default=0)
        for wanted in ([shots] if shots else _SHOTS)
    }
    if not max(counts):
        raise DataError(
            "a task has too few examples of a label to adapt to some and score others",
            fix="Add examples, or ask for more --shots where the published draws have more.",
        )
    given = _listed(learners)
    return compare(
        [*given, *(name for name in _BASELINES if name not in given)],
        tasks,
        out,
        protocol=Protocol(shots=tuple(counts - {0})),
        encoder=encoder,
        allow_overlap=allow_overlap,
        on_cell=on_cell,
    )


def _groups(named: Mapping[str, LearnerSpec]) -> list[dict[str, LearnerSpec]]:
    """Return learners that run the same encoder together: methods do, runs and recipes have their own."""
    groups: dict[str, dict[str, LearnerSpec]] = {}
    for name, spec in named.items():
        groups.setdefault("" if spec.recipe() is None else name, {})[name] = spec
    return list(groups.values())
