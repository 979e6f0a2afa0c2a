"""Comparison figures: confusions, calibration and single predictions, from the rows of the results.

Counts of several draws are added up before a share is taken of them; scores are averaged over draws.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from quickstudy.report.comparison_file import Comparison, Row

_MOST_LABELS = 30  # a larger matrix cannot be read; its most frequent confusions can
_MOST_CHARACTERS = 600  # of a text in the episode browser


def confusions(comparison: Comparison) -> list[Row]:
    """Return the confusions of each classification task at the largest number of shots that it has, added up over draws.

    Returns:
        Per task: `task`, `shots`, `labels`, `whole` (small enough for a matrix); `learners`: name → `counts` (lines are true
        labels), `right`, `total` and `frequent`, the most frequent confusions as (true, predicted, count); `classes`: name →
        scores per label.
    """
    found = []
    for task, about in comparison.tasks.items():
        shots = next(
            (k for k in reversed(comparison.shots) if any(key[:2] == (task, k) for key in comparison.cells)), None
        )
        labels = [str(name) for name in about["label_names"]]
        if about["kind"] != "classification" or shots is None:
            continue
        rows = {name: comparison.cells.get((task, shots, name), []) for name in comparison.learners}
        counted = {name: [row["confusion"] for row in of if row.get("confusion")] for name, of in rows.items()}
        scored = {name: [row["per_class"] for row in of if row.get("per_class")] for name, of in rows.items()}
        found.append(
            {
                "task": task,
                "shots": shots,
                "labels": labels,
                "whole": len(labels) <= _MOST_LABELS,
                "learners": {name: _added(tables, labels) for name, tables in counted.items() if tables},
                "classes": {name: _by_class(of, len(labels)) for name, of in scored.items() if of},
            }
        )
    return [one for one in found if one["learners"] or one["classes"]]


def _added(tables: Sequence[Sequence[Sequence[int]]], labels: Sequence[str]) -> Row:
    counts = [[sum(cell) for cell in zip(*lines, strict=True)] for lines in zip(*tables, strict=True)]
    wrong = [
        (labels[i], labels[j], value)
        for i, line in enumerate(counts)
        for j, value in enumerate(line)
        if value and i != j
    ]
    return {
        "counts": counts,
        "right": sum(line[i] for i, line in enumerate(counts)),
        "total": sum(map(sum, counts)),
        "frequent": sorted(wrong, key=lambda one: -one[2])[:_MOST_LABELS],
    }


def _by_class(scores: Sequence[Mapping[str, Sequence[float | None]]], labels: int) -> list[Row]:
    """Mean over draws of precision, recall and F1 of each label; None where no draw has one."""
    return [{key: _mean(of[key][i] for of in scores) for key in ("precision", "recall", "f1")} for i in range(labels)]


def diagrams(comparison: Comparison) -> list[Row]:
    """Return the reliability of each learner's probabilities, its predictions of all classification tasks and draws pooled.

    Returns:
        Per learner: `learner`, `index`, `n` predictions, `bins` of (mean confidence, accuracy, share of all), `ece` of the pool,
        and the means over draws of `mean_ece` and `log_loss`.
    """
    found = []
    for index, learner in enumerate(comparison.learners):
        cells = [comparison.cells.get((task, comparison.largest, learner), []) for task in comparison.tasks]
        rows = [row for cell in cells for row in cell if row.get("reliability")]
        total = sum(sum(row["reliability"]["count"]) for row in rows)
        if not total:
            continue
        of = {key: _column_sums(rows, key) for key in ("count", "confidence", "right")}
        bins = [
            (sure / n, right / n, n / total)
            for n, sure, right in zip(of["count"], of["confidence"], of["right"], strict=True)
            if n
        ]
        found.append(
            {"learner": learner, "index": index, "n": total, "bins": bins}
            | {"ece": sum(abs(sure - right) * part for sure, right, part in bins)}
            | {
                "mean_ece": _mean(row.get("ece") for row in rows),
                "log_loss": _mean(row.get("log_loss") for row in rows),
            }
        )
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _column_sums(rows: Sequence[Row], key: str) -> list[float]:
    return [sum(column) for column in zip(*(row["reliability"][key] for row in rows), strict=True)]


def episodes(comparison: Comparison) -> dict[str, Any] | None:
    """Return support sets and wrong predictions of first draws, each text once; None when the results hold no texts.

    Returns:
        `tasks`, `shots`, `learners` (names), `texts` as [text, text_pair], `support`[task][shots] as [text, label] and
        `wrong`[task][shots][learner] as [text, label, predicted, probability]; names and texts by position, null for what is not.
    """
    places: dict[tuple[str, str | None], int] = {}

    def place(example: Row) -> int:
        text = _cut(example["text"]), _cut(example.get("text_pair"))
        return places.setdefault((text[0] or "", text[1]), len(places))

    def wrong(task: str, shots: str, learner: str) -> list[list[Any]] | None:
        row = next((row for row in comparison.cells.get((task, shots, learner), []) if "wrong" in row), None)
        if row is None:
            return None
        return [[place(w), w["label"], w["predicted"], w.get("probability")] for w in row["wrong"]]

    support = [
        [[[place(e), e["label"]] for e in of["supports"].get(k, [])] or None for k in comparison.shots]
        for of in comparison.tasks.values()
    ]
    missed = [
        [[wrong(task, k, name) for name in comparison.learners] for k in comparison.shots] for task in comparison.tasks
    ]
    if not places:
        return None
    names = {"tasks": list(comparison.tasks), "shots": list(comparison.shots), "learners": list(comparison.learners)}
    return names | {"texts": [list(text) for text in places], "support": support, "wrong": missed}


def _cut(text: str | None) -> str | None:
    return f"{text[:_MOST_CHARACTERS]} …" if text and len(text) > _MOST_CHARACTERS else text
