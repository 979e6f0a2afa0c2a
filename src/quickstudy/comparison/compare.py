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

from quickstudy.comparison.cell import Job, key_of, run_jobs
from quickstudy.comparison.learner import LearnerSpec
from quickstudy.comparison.results import provenance, results_of, write_figures
from quickstudy.data.catalog import load_tasks
from quickstudy.errors import DataError, RunError
from quickstudy.evaluation.draws import most_shots
from quickstudy.evaluation.protocol import Protocol, Trial, by_shots, save_draws, trials
from quickstudy.storage import write_json
from quickstudy.tasks.task import Task

_BASELINES = ("majority", "label-names", "nearest-neighbour", "linear-probe", "protonet")
_SHOTS = (4, 8, 16)


def compare(
    learners: Sequence[str],
    tasks: Sequence[str],
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
    """Compare learners on tasks, or go on with a comparison.

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
    if folder.exists() and not (folder / "cells").is_dir():
        raise RunError("this folder is no comparison", where=str(folder), fix="Choose another --out.")
    specs = [LearnerSpec(spec, encoder) for spec in learners]
    if not specs:
        raise DataError("there is no learner to compare", fix="Give at least one.")
    named = {spec.name(): spec for spec in specs}
    if len(named) < len(specs):
        called = [spec.name() for spec in specs]
        twice = next(name for name in called if called.count(name) > 1)
        raise DataError(f"two learners are called {twice!r}", fix="Give each once; rename a run's folder.")
    loaded = [(reference, task) for reference in tasks for task in load_tasks(reference)]
    plans = _plans([task for _, task in loaded], protocol)
    held_out = [task for _, task in loaded]
    described: dict[str, dict[str, Any]] = {}
    for name, spec in named.items():
        overlap = spec.overlap(held_out, protocol.seed, allow=allow_overlap)
        described[name] = {**spec.describe(), "overlap": overlap}
    cells = {
        (name, task.name, k): folder / "cells" / f"{key_of(described[name]['weights'], task, own)}.json"
        for name in named
        for task in held_out
        for k, own in by_shots(plans[task.name]).items()
    }
    missing = {cell: file for cell, file in cells.items() if not file.is_file()}
    jobs = [
        Job(due, reference, task.name, files, protocol, texts)
        for reference, task in loaded
        for group in _groups(named)
        if (files := {(n, k): file for (n, of, k), file in missing.items() if n in group and of == task.name})
        and (due := {name: group[name] for name, _ in files})
    ]
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    write_json(folder / "draws.json", save_draws(protocol, plans))
    done = len(cells) - len(missing)
    for job in run_jobs(jobs, workers, ray=ray):
        done += len(job.missing)
        on_cell(done, len(cells), f"{job.task}, {', '.join(job.learners)}")
    rows = [row for file in cells.values() for row in json.loads(file.read_text(encoding="utf-8"))]
    source = provenance(protocol, described, held_out, plans, texts=texts)
    write_figures(folder, rows, source)
    results = results_of(rows, source)
    write_json(folder / "results.json", results)
    return results


def compare_for(
    tasks: Sequence[str],
    out: str | Path,
    learners: Sequence[str] = (),
    *,
    shots: int | None = None,
    encoder: str = "minilm",
    on_cell: Callable[[int, int, str], None] = lambda _done, _all, _what: None,
) -> dict[str, Any]:
    """Compare what there is to choose from on one's own tasks: the given learners, and baselines that need no run.

    Args:
        tasks: Task references.
        out: Folder of the comparison.
        learners: Run folders, recipe files or names of methods.
        shots: Labelled examples per class that there will be; fewer where the tasks' own examples do not suffice to measure that.
        encoder: Encoder of learners that are named by their method alone.
        on_cell: As for `compare`.
    """
    most = min(most_shots(task) for reference in tasks for task in load_tasks(reference))
    counts = sorted({min(k, most) for k in ([shots] if shots else _SHOTS)})
    if not most:
        raise DataError(
            "a task has a label with a single example: it cannot be adapted to and scored", fix="Add examples of it."
        )
    named = [*learners, *(name for name in _BASELINES if name not in learners)]
    return compare(named, tasks, out, protocol=Protocol(shots=tuple(counts)), encoder=encoder, on_cell=on_cell)


def _plans(tasks: Sequence[Task], protocol: Protocol) -> dict[str, list[Trial]]:
    names = [task.name for task in tasks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"two tasks have the name {twice!r}", fix="Name each once.")
    plans = {task.name: trials(protocol, task) for task in tasks}
    if not any(plans.values()):
        raise DataError(f"no task has draws of {', '.join(map(str, protocol.shots))} shots", fix="Use other --shots.")
    return plans


def _groups(named: Mapping[str, LearnerSpec]) -> list[dict[str, LearnerSpec]]:
    """Return learners that run the same encoder together: methods do, runs and recipes have their own."""
    groups: dict[str, dict[str, LearnerSpec]] = {}
    for name, spec in named.items():
        groups.setdefault("" if spec.recipe() is None else name, {})[name] = spec
    return list(groups.values())
