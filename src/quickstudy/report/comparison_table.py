"""Comparison tables: means, tasks, pairs, costs, classes and provenance, as lines of cells; HTML and Markdown show the same.

A cell holds its text and the number behind it, by which the page sorts.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from quickstudy.report.comparison_file import Comparison, Row
from quickstudy.report.html import public
from quickstudy.report.number import NONE, count, digits, interval, p_value, points, seconds, share, shots_text
from quickstudy.report.table import percent, result_table

_COSTS: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("seconds_adapt", "seconds to adapt", seconds),
    ("adapt_peak_mib", "peak MiB, adapting", count),
    ("seconds_predict_1000", "seconds to predict 1,000", seconds),
    ("predict_peak_mib", "peak MiB, predicting", count),
    ("train_seconds", "seconds to meta-train", seconds),
    ("train_peak_mib", "peak MiB, meta-training", count),
    ("outer_steps", "outer steps", count),
    ("parameters", "parameters", count),
    ("adapted_parameters", "adapted parameters", count),
    ("bytes_saved", "MB saved", lambda value: NONE if value is None else f"{value / 1e6:,.1f}"),
)


class Cell(NamedTuple):
    """What stands in a place of a table.

    Attributes:
        text: As shown.
        value: What a column is sorted by; None where there is nothing, or for text.
        best: The best one of its line or column.
    """

    text: str
    value: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table: its title, the names of its columns, and its lines."""

    caption: str
    head: tuple[str, ...]
    lines: list[list[Cell]]


def means_table(comparison: Comparison) -> Table:
    """Return the mean over tasks of each learner, a column per number of shots."""
    columns = {k: {row["learner"]: row for row in comparison.averages if row["shots"] == k} for k in comparison.shots}
    tasks = {k: max(row["n"] for row in rows.values()) for k, rows in columns.items()}

    def cell(learner: str, k: str) -> Cell:
        row = columns[k].get(learner)
        if row is None:
            return Cell(NONE)
        fewer = f", {row['n']} of {tasks[k]} tasks" if row["n"] < tasks[k] else ""
        best = row["mean"] == max(other["mean"] for other in columns[k].values())
        return Cell(interval(row) + fewer, row["mean"], best)

    lines = [[Cell(name), *(cell(name, k) for k in columns)] for name in comparison.learners]
    heads = (f"{shots_text(k)} ({n} task{'s' * (n > 1)})" for k, n in tasks.items())
    return Table("Mean over tasks, in %, with the 95 % interval over tasks", ("learner", *heads), lines)


def tasks_table(comparison: Comparison) -> Table:
    """Return the mean over draws, a line per task and number of shots, a column per learner."""

    def cell(name: str, cells: dict[str, Row], best: str) -> Cell:
        return Cell(percent(cells[name]), cells[name]["mean"], name == best) if name in cells else Cell(NONE)

    lines = []
    for line in result_table({"summary": [row | {"shots": _number(row["shots"])} for row in comparison.summary]})[
        "lines"
    ]:
        shots = line["shots"]
        scores = [cell(name, line["cells"], line["best"]) for name in comparison.learners]
        lines.append([Cell(line["task"]), Cell(str(shots), shots if isinstance(shots, int) else None), *scores])
    caption = "Score per task, in %: mean over draws ± half of the 95 % interval over draws"
    return Table(caption, ("task", "shots", *comparison.learners), lines)


def pairs_table(comparison: Comparison, shots: str) -> Table:
    """Return all paired differences at a number of shots, with their intervals and p values."""

    def between(row: Row) -> str:
        return NONE if row["low"] is None else f"{points(row['low'])} to {points(row['high'])}"

    lines = []
    for pair in comparison.results["by_shots"][shots]["pairs"]:
        here, above = pair["here"], pair.get("above")
        lines.append(
            [Cell(pair["a"]), Cell(pair["b"]), Cell(points(pair["mean"]), pair["mean"]), Cell(between(here))]
            + [Cell(p_value(p), p) for p in (here.get("p"), here.get("p_holm"))]
            + [Cell(between(pair)), *(Cell(p_value(p), p) for p in (pair["p"], pair["p_holm"]))]
            + [Cell(share(above), above)]
        )
    head = ("learner", "minus", "points", "these tasks: 95 %", "p", "p, Holm")
    more = ("other tasks too: 95 %", "p", "p, Holm", "above 0, %")
    return Table(f"Paired differences at {shots_text(shots)}", head + more, lines)


def costs_table(comparison: Comparison) -> Table:
    """Return what each learner costs beside what it scores at the largest number of shots."""
    means = {row["learner"]: row["mean"] for row in comparison.averages if row["shots"] == comparison.largest}
    lines = []
    for name in comparison.learners:
        costs = comparison.costs(name)
        measured = [Cell(text(costs.get(key)), costs.get(key)) for key, _, text in _COSTS]
        lines.append(
            [Cell(name), Cell(share(means.get(name)), means.get(name)), *measured, Cell(costs.get("device") or NONE)]
        )
    head = ("learner", f"mean at {shots_text(comparison.largest)}, %", *(title for _, title, _ in _COSTS), "device")
    return Table("Costs", head, lines)


def classes_table(caption: str, labels: Sequence[str], scores: dict[str, list[Row]]) -> Table:
    """Return precision, recall and F1 of each label (lines) and learner (columns); a column is sorted by F1."""
    lines = [
        [Cell(label)]
        + [
            Cell(" / ".join(share(of[i][key]) for key in ("precision", "recall", "f1")), of[i]["f1"])
            for of in scores.values()
        ]
        for i, label in enumerate(labels)
    ]
    return Table(caption, ("label", *scores), lines)


def calibration_table(diagrams: Sequence[Row]) -> Table:
    """Return how far the probabilities of each learner can be trusted."""
    lines = [
        [
            Cell(one["learner"]),
            *(Cell(digits(one[key]), one[key]) for key in ("ece", "mean_ece", "log_loss")),
            Cell(count(one["n"]), one["n"]),
        ]
        for one in diagrams
    ]
    head = ("learner", "ECE, pooled", "ECE, mean of draws", "log loss, mean of draws", "predictions")
    return Table("Calibration", head, lines)


def provenance_tables(comparison: Comparison) -> list[Table]:
    """Return what the comparison was made of and with: versions and protocol, tasks, learners."""
    results = comparison.results
    made = ("quickstudy", "torch", "transformers", "python", "machine", "date")
    about: dict[str, Any] = {key: results.get(key) for key in made} | results["protocol"]
    settings = [[Cell(key), Cell(_plain(value))] for key, value in about.items()]
    tasks = [
        [
            Cell(name),
            *(Cell(task[key]) for key in ("domain", "kind", "metric")),
            *(Cell(count(n), n) for n in (task["n_test"], len(task["label_names"]))),
            Cell(task["data"]),
        ]
        for name, task in comparison.tasks.items()
    ]
    learners = [
        [Cell(name), *map(Cell, _about(results["learners"][name])), Cell(results["learners"][name]["weights"])]
        for name in comparison.learners
    ]
    return [
        Table("Versions and protocol", ("what", "value"), settings),
        Table("Tasks", ("task", "domain", "kind", "own metric", "rows scored", "labels", "data (SHA-256)"), tasks),
        Table("Learners", ("learner", "method", "encoder", "meta-trained", "settings", "weights (SHA-256)"), learners),
    ]


def _about(learner: Row) -> tuple[str, str, str, str]:
    settings = public(json.dumps(learner["settings"], ensure_ascii=False))
    return learner["method"], public(learner["encoder"]), "yes" if learner["trained"] else "no", settings


def _number(shots: str) -> int | str:
    """Lines stand by number of shots: 16 after 4."""
    return int(shots) if shots.isdecimal() else shots


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return NONE if value is None else str(value)
