"""Comparison file: results.json of a comparison, read, checked, and laid out for tables and drawings.

What the report needs is checked before anything is drawn, so that damage is named by its place (`rows.12.learner is missing`)
and not by where a drawing failed. What is only shown, such as versions and costs, may be missing.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from quickstudy.errors import RunError
from quickstudy.evaluation.statistics import summarize
from quickstudy.storage import finite

Row = dict[str, Any]

_EACH = "*"  # stands for every key of an object
_NUMBER = (int, float)
_MAYBE = (int, float, type(None))
_ESTIMATE = {"mean": _NUMBER, "low": _MAYBE, "high": _MAYBE}
_SHAPE: dict[str, Any] = {
    "protocol": {"name": str, "draws": int},
    "learners": {
        _EACH: {"method": str, "settings": dict, "encoder": str, "trained": bool, "weights": str, "costs": dict}
        | {"curve": (dict, type(None)), "overlap": (list, type(None))}
    },
    "tasks": {
        _EACH: {"kind": str, "domain": str, "label_names": list, "metric": str, "n_test": int, "data": str}
        | {"supports": {_EACH: [{"text": str, "label": (str, int, float)}]}}
    },
    "by_shots": {
        _EACH: {
            "learners": [_ESTIMATE | {"learner": str, "n": int}],
            "pairs": [_ESTIMATE | {"a": str, "b": str, "n": int, "p": _MAYBE, "p_holm": _MAYBE, "here": _ESTIMATE}],
            "ranks": {_EACH: _NUMBER},
            "critical_difference": _MAYBE,
        }
    },
    "rows": [{"learner": str, "task": str, "kind": str, "shots": (int, str), "draw": int, "main": str}],
}


@dataclass(frozen=True)
class Comparison:
    """A comparison as the report looks at it.

    Attributes:
        results: The content of results.json.
        shots: The numbers of shots that have figures, few first; keys of `by_shots`.
        learners: Names, the best mean at the largest number of shots first: the order of columns, colours and lists.
    """

    results: dict[str, Any]
    shots: tuple[str, ...]
    learners: tuple[str, ...]

    @property
    def largest(self) -> str:
        """The largest number of shots."""
        return self.shots[-1]

    @property
    def tasks(self) -> dict[str, dict[str, Any]]:
        """What is known of each task, by name."""
        found: dict[str, dict[str, Any]] = self.results["tasks"]
        return found

    @cached_property
    def cells(self) -> dict[tuple[str, str, str], list[Row]]:
        """The rows of the draws of each (task, shots, learner)."""
        found: dict[tuple[str, str, str], list[Row]] = {}
        for row in self.results["rows"]:
            found.setdefault((row["task"], str(row["shots"]), row["learner"]), []).append(row)
        return found

    @cached_property
    def summary(self) -> list[Row]:
        """Mean, low, high and n over the draws of each (task, shots, learner), of the main metric."""
        found = []
        for task in self.tasks:
            for shots in self.shots:
                for learner in self.learners:
                    rows = self.cells.get((task, shots, learner), [])
                    values = [row[row["main"]] for row in rows if row[row["main"]] is not None]
                    if values:
                        about = {"task": task, "shots": shots, "learner": learner}
                        found.append(about | finite(summarize(values)))
        return found

    @cached_property
    def averages(self) -> list[Row]:
        """Mean over tasks with its interval, of each (shots, learner); `n` counts tasks."""
        by_shots = self.results["by_shots"]
        return [{"task": "average", "shots": k} | row for k in self.shots for row in by_shots[k]["learners"]]

    def costs(self, learner: str) -> dict[str, Any]:
        """What a learner costs."""
        found: dict[str, Any] = self.results["learners"][learner]["costs"]
        return found


def read_comparison(folder: Path) -> Comparison:
    """Read and check the results of a comparison.

    Raises:
        RunError: There are none, they are damaged, of another format, or hold no figures.
    """
    file = folder / "results.json"
    if not file.is_file():
        raise RunError(
            "this folder holds no comparison",
            where=str(folder),
            fix="Make one with: quickstudy compare ... --out FOLDER",
        )
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(
            f"the file is damaged ({error})", where=str(file), fix="Copy it again, or compare again."
        ) from error
    fault = next(chain(_faults(results, _SHAPE, ""), _strangers(results), _sizes(results)), None)
    if fault:
        raise RunError(
            f"the file is damaged, or not of a comparison by this version ({fault})",
            where=str(file),
            fix="Compare again into the same folder: what is computed already is used.",
        )
    shots = sorted((k for k, found in results["by_shots"].items() if found["learners"]), key=_order)
    if not shots:
        raise RunError("the comparison holds no figures", where=str(file), fix="Use other --shots or tasks.")
    best_first = sorted(results["by_shots"][shots[-1]]["learners"], key=lambda row: -row["mean"])
    names = dict.fromkeys([row["learner"] for row in best_first] + list(results["learners"]))
    return Comparison(results, tuple(shots), tuple(names))


def _order(shots: str) -> tuple[bool, int, str]:
    return (not shots.isdecimal(), int(shots) if shots.isdecimal() else 0, shots)


def _faults(value: Any, shape: Any, place: str) -> Iterator[str]:
    """Yield where a value does not have its shape: a type, a list of one shape, or an object of shapes."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            yield f"{place or 'all of it'} is no object"
            return
        for key in value if _EACH in shape else shape:
            at = f"{place}.{key}".lstrip(".")
            if key not in value:
                yield f"{at} is missing"
            else:
                yield from _faults(value[key], shape[_EACH if _EACH in shape else key], at)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{place} is no list"
            return
        for index, item in enumerate(value):
            yield from _faults(item, shape[0], f"{place}.{index}")
    elif not isinstance(value, shape):
        yield f"{place} is {json.dumps(value)[:40]}"


def _strangers(results: dict[str, Any]) -> Iterator[str]:
    """Yield names in the figures that are not among the learners or tasks."""
    for shots, found in results["by_shots"].items():
        for row in found["learners"]:
            if row["learner"] not in results["learners"]:
                yield f"by_shots.{shots} names {row['learner']!r}, learners does not"
    for index, row in enumerate(results["rows"]):
        for key in ("learner", "task", row["main"]):
            if key not in row:
                yield f"rows.{index}.{key} is missing"
        for key in ("learner", "task"):
            if row[key] not in results[f"{key}s"]:
                yield f"rows.{index} names {row[key]!r}, {key}s does not"


def _sizes(results: dict[str, Any]) -> Iterator[str]:
    """Yield lists that do not have the length that others give them."""
    for name, learner in results["learners"].items():
        if (curve := learner["curve"]) and len(curve["step"]) != len(curve["loss"]):
            yield f"learners.{name}.curve has steps without a loss, or losses without a step"
    for index, row in enumerate(results["rows"]):
        labels = len(results["tasks"][row["task"]]["label_names"])
        matrix, classes, bins = (row.get(key) or {} for key in ("confusion", "per_class", "reliability"))
        if matrix and {len(matrix), *map(len, matrix)} != {labels}:
            yield f"rows.{index}.confusion has not {labels} lines and columns"
        if classes and {len(classes[key]) for key in ("precision", "recall", "f1")} != {labels}:
            yield f"rows.{index}.per_class has not {labels} labels"
        if bins and len({len(bins[key]) for key in ("count", "confidence", "right")}) != 1:
            yield f"rows.{index}.reliability has lists of unequal length"
