"""Facts: what the page and the card of a run show, read from the files of its folder."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

from quickstudy.errors import RunError
from quickstudy.evaluation.json_file import as_record
from quickstudy.evaluation.results import Curve, Results
from quickstudy.evaluation.results_file import RESULTS, read_results

_FIX = "Copy the run again; without results.json: evaluate again."


@dataclass(frozen=True, slots=True)
class _Named:
    name: str


@dataclass(frozen=True, slots=True)
class _Tasks:
    train: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Outer:
    meta_batch_size: int
    keep: str


@dataclass(frozen=True, slots=True)
class RecipeFacts:
    """What a page says of a recipe."""

    method: _Named
    encoder: _Named
    tasks: _Tasks
    outer: _Outer


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run folder holds.

    Attributes:
        name: Name of the folder.
        recipe: What is said of its recipe.
        recipe_text: The whole recipe.
        curve: The meta-training; None before the first outer step.
        results: Of the evaluation; None before it.
    """

    name: str
    recipe: RecipeFacts
    recipe_text: str
    curve: Curve | None
    results: Results | None


def read_run(folder: Path) -> RunFacts:
    """Read a run folder.

    Raises:
        RunError: Not a run folder, or a damaged one.
    """
    config, log, results = folder / "config.toml", folder / "metrics.jsonl", folder / RESULTS
    if not config.is_file():
        raise RunError("this is not a run folder", where=str(folder), fix="Make one with: quickstudy pretrain")
    text = config.read_text(encoding="utf-8")
    try:
        recipe = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RunError(f"the recipe is damaged ({error})", where=str(config), fix="Copy the run again.") from error
    renew = f"Evaluate again: quickstudy evaluate {folder} --tasks ... --overwrite"
    return RunFacts(
        name=folder.resolve().name,
        recipe=as_record(RecipeFacts, recipe, config, "Copy the run again."),
        recipe_text=text,
        curve=_curve(log) if log.is_file() else None,
        results=read_results(results, renew) if results.is_file() else None,
    )


@dataclass(frozen=True, slots=True)
class _Step:
    step: int
    loss: float | None
    validation: float | None


def _curve(log: Path) -> Curve | None:
    """Return the meta-training that a log tells of."""
    fix = "Copy the run again, or remove the log."
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    try:
        records = [json.loads(line) for line in lines if line.endswith("\n")]  # the last may be cut off by a kill
    except ValueError as error:
        raise RunError(f"the log is damaged ({error})", where=str(log), fix=fix) from error
    steps = as_record(tuple[_Step, ...], records, log, fix)
    trained = [step for step in steps if step.loss is not None]
    checks = tuple((step.step, step.validation) for step in steps if step.validation is not None)
    if not trained and not checks:
        return None
    return Curve(tuple(step.step for step in trained), tuple(step.loss for step in trained), checks)
