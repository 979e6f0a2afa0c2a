"""Compare: learners × tasks × shots, in cells that are computed once.

    comparison/
      cells/<key>.json      the draws of one learner on one task at one number of shots
      results.parquet       the figures of every draw          results.json    intervals, paired tests, ranks, costs

A cell's key is a hash of all that its figures follow from: the learner's weights and settings, the task's texts and draws. A
cell whose file is there is never computed again: an interrupted comparison goes on, and one more learner, task or number of shots
costs its own cells only. All draws of a task are encoded together, whichever of its cells are missing, so the figures do not
depend on where a comparison was interrupted.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from hashlib import file_digest, sha256
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

import quickstudy
from quickstudy.build import build_learner
from quickstudy.config import Recipe, load_recipe
from quickstudy.data.catalog import load_tasks
from quickstudy.errors import DataError, RecipeError, RunError, did_you_mean
from quickstudy.evaluation.draws import support_sets, test_examples, with_test_split
from quickstudy.evaluation.evaluate import Row, evaluate_learners
from quickstudy.evaluation.leakage import find_overlap, refuse_overlap
from quickstudy.evaluation.statistics import Values, average_ranks, compare_all, over_tasks
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import METHODS, make
from quickstudy.models.bundled import resolve
from quickstudy.models.encoder import Encoder
from quickstudy.runs import Run
from quickstudy.storage import write_json
from quickstudy.tasks.task import Task

_TIMES = ("seconds_adapt", "seconds_predict")  # not figures: they differ from run to run


@dataclass(frozen=True)
class Settings:
    """What all cells of a comparison share.

    Attributes:
        draws: Support sets per number of shots.
        seed: Which support sets and test rows.
        limit: Score at most so many test rows; None for all.
        encoder: Encoder of learners that are named by their method alone.
    """

    draws: int = 10
    seed: int = 0
    limit: int | None = None
    encoder: str = "minilm"


@dataclass(frozen=True)
class _Job:
    """The missing cells of one learner on one task, as a process gets them."""

    learner: str
    name: str
    reference: str
    task: str
    shots: tuple[int, ...]
    missing: dict[int, Path]
    settings: Settings


def compare(
    learners: Sequence[str],
    tasks: Sequence[str],
    out: str | Path,
    *,
    shots: Sequence[int] = (4, 8, 16),
    settings: Settings = Settings(),
    workers: int = 1,
    allow_overlap: bool = False,
    on_cell: Callable[[int, int, str], None] = lambda _done, _all, _what: None,
) -> dict[str, Any]:
    """Compare learners on tasks, or go on with a comparison.

    Args:
        learners: Run folders (meta-trained), recipe files (their method on their untouched encoder), or names of methods.
        tasks: Task references.
        out: Folder of the comparison; what it holds already is used.
        shots: Labelled examples per class (K).
        settings: What the cells share.
        workers: Processes; the processor's cores are dealt to them.
        allow_overlap: Go on although scored texts were meta-trained on.
        on_cell: Told of every finished cell: how many are done, of how many, and which.

    Returns:
        The content of `results.json`.

    Raises:
        QuickstudyError: Unknown learners or tasks, a folder that holds something else, or scored texts that were meta-trained on.
    """
    folder = Path(out)
    if folder.exists() and not (folder / "cells").is_dir():
        raise RunError("this folder is no comparison", where=str(folder), fix="Choose another --out.")
    named = {_name(spec): spec for spec in learners}
    if not named or len(named) < len(learners):
        raise DataError("learners need different names", fix="Give at least one learner, and each once.")
    loaded = [(reference, task) for reference in tasks for task in load_tasks(reference)]
    names = [task.name for _, task in loaded]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"two tasks have the name {twice!r}", fix="Name each once.")
    for spec in named.values():
        _check_overlap(spec, [task for _, task in loaded], settings.seed, allow=allow_overlap)
    jobs = []
    cells: list[Path] = []
    for name, spec in named.items():
        weights = _fingerprint(spec, settings)
        for reference, task in loaded:
            keys = {
                k: folder / "cells" / f"{_key(weights, task, k, settings)}.json"
                for k in _possible(task, shots, settings)
            }
            cells += keys.values()
            if missing := {k: file for k, file in keys.items() if not file.is_file()}:
                jobs.append(_Job(spec, name, reference, task.name, tuple(keys), missing, settings))
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    done, total = len(cells) - sum(len(job.missing) for job in jobs), len(cells)
    for job in _run(jobs, workers):
        done += len(job.missing)
        on_cell(done, total, f"{job.task}, {job.name}")
    rows = [row for file in cells for row in json.loads(file.read_text(encoding="utf-8"))]
    figures = [{key: value for key, value in row.items() if key not in _TIMES} for row in rows]
    pq.write_table(pa.Table.from_pylist(figures), folder / "results.parquet")
    results = {
        "quickstudy": quickstudy.__version__,
        "torch": torch.__version__,
        "learners": named,
        "tasks": list(tasks),
        "shots": list(shots),
        "draws": settings.draws,
        "seed": settings.seed,
        "limit": settings.limit,
        "by_shots": {str(k): _summary([row for row in rows if row["shots"] == k]) for k in shots},
    }
    write_json(folder / "results.json", results)
    return results


def _run(jobs: Sequence[_Job], workers: int) -> Iterator[_Job]:
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            _compute(job)
            yield job
        return
    threads = max(1, torch.get_num_threads() // workers)
    # Processes are started afresh: a fork of a process whose threads have run would hang.
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        for job, _ in zip(jobs, pool.map(_compute, jobs), strict=True):
            yield job


def _compute(job: _Job) -> None:
    """Compute the missing cells of a job; each is written as it is finished."""
    learner = _load_learner(job.learner, job.settings.encoder)
    task = next(task for task in load_tasks(job.reference) if task.name == job.task)
    found: dict[int, list[Row]] = {k: [] for k in job.missing}
    draws = {
        k: len(support_sets(with_test_split(task, job.settings.seed), k, job.settings.draws, job.settings.seed))
        for k in found
    }

    def keep(row: Row) -> None:
        rows = found[row["shots"]]
        rows.append(row)
        if len(rows) == draws[row["shots"]]:
            write_json(job.missing[row["shots"]], rows)

    evaluate_learners(
        {job.name: learner},
        [task],
        shots=job.shots,
        only=tuple(job.missing),
        draws=job.settings.draws,
        seed=job.settings.seed,
        limit=job.settings.limit,
        on_row=keep,
    )


@lru_cache(maxsize=1)  # the jobs of a learner follow one another
def _load_learner(spec: str, encoder: str) -> MetaLearner:
    if _is_run(spec):
        return Run.open(spec).learner()
    if spec.endswith(".toml"):
        return build_learner(load_recipe(spec))
    return make(spec, Encoder.load(encoder))


def _name(spec: str) -> str:
    """Return what a learner is called in tables, after checking that there is one."""
    if _is_run(spec):
        return Path(spec).resolve().name
    if spec.endswith(".toml"):
        return f"{load_recipe(spec).name}, untouched"
    if spec not in METHODS:
        raise RecipeError(
            f"{spec!r} is neither a run folder, a recipe file nor a method", fix=did_you_mean(spec, METHODS)
        )
    return spec


def _is_run(spec: str) -> bool:
    return (Path(spec) / "config.toml").is_file()


def _possible(task: Task, shots: Sequence[int], settings: Settings) -> list[int]:
    """Return the numbers of shots that a task has draws of; published draws may lack some."""
    ready = with_test_split(task, settings.seed)
    return [k for k in shots if support_sets(ready, k, settings.draws, settings.seed)]


def _fingerprint(spec: str, settings: Settings) -> str:
    """Return a hash of all that a learner's predictions follow from."""
    recipe: Recipe | None = None
    if _is_run(spec):
        recipe, folder = Run.open(spec).recipe, Path(spec)
        files = [*sorted((folder / "encoder").glob("*")), folder / "meta_learner.safetensors"]
    else:
        recipe = load_recipe(spec) if spec.endswith(".toml") else None
        source = Path(resolve(recipe.encoder.name if recipe else settings.encoder))
        files = sorted(source.glob("*")) if source.is_dir() else []
    return _hash([_method(spec, recipe), [_file_hash(file) for file in files if file.is_file()]])


def _method(spec: str, recipe: Recipe | None) -> list[Any]:
    if recipe is None:
        return [spec]
    return [recipe.method.name, recipe.method.settings, recipe.encoder.model_dump()]


def _key(weights: str, task: Task, shots: int, settings: Settings) -> str:
    ready = with_test_split(task, settings.seed)
    tests = [(e.text, e.text_pair, e.label) for e in test_examples(ready, settings.limit, settings.seed)]
    supports = support_sets(ready, shots, settings.draws, settings.seed)
    drawn = {d: [(e.text, e.text_pair, e.label) for e in support] for d, support in supports.items()}
    return _hash([weights, task.name, task.kind, task.label_names, task.metric, tests, drawn])[:32]


def _hash(value: Any) -> str:
    return sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def _file_hash(file: Path) -> str:
    with file.open("rb") as stream:
        return f"{file.name}:{file_digest(stream, 'sha256').hexdigest()}"


def _check_overlap(spec: str, tasks: Sequence[Task], seed: int, *, allow: bool) -> None:
    if _is_run(spec) and not allow:
        trained = load_tasks(Run.open(spec).recipe.tasks.train)
        refuse_overlap(find_overlap(trained, [with_test_split(task, seed) for task in tasks]))


def _summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Return what one number of shots shows: means over tasks with intervals, costs, paired differences, ranks."""
    scores: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        scores.setdefault(row["learner"], {}).setdefault(row["task"], []).append(row[row["main"]])
    if not scores:
        return {"learners": [], "pairs": [], "ranks": {}, "critical_difference": None}
    typed: dict[str, Values] = dict(scores)
    ranks, difference = average_ranks(typed)
    learners = [
        {
            "learner": name,
            **{key: value for key, value in over_tasks(of).items() if key != "above"},
            **{time: median(row[time] for row in rows if row["learner"] == name) for time in _TIMES},
        }
        for name, of in typed.items()
    ]
    return {"learners": learners, "pairs": compare_all(typed), "ranks": ranks, "critical_difference": difference}
