"""Pairs: a matrix of paired differences, and groups of learners that are not told apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from quickstudy.evaluation.record import Evidence, PairedTest, Shots
from quickstudy.report.headline import told_from_chance
from quickstudy.report.number import p_text, points
from quickstudy.report.view import View


@dataclass(frozen=True, slots=True)
class MatrixCell:
    """A paired difference, row minus column.

    Attributes:
        text: The difference in percentage points.
        tint: Its size, from 0 to 1 for the largest of the matrix.
        sign: Whether the row is better (`up`).
        sure: Whether it is told from chance.
        why: Interval and p value.
    """

    text: str
    tint: float
    sign: Literal["up", "down"]
    sure: bool
    why: str


@dataclass(frozen=True, slots=True)
class MatrixLine:
    """A learner against every other; None where there is no pair."""

    learner: str
    cells: tuple[MatrixCell | None, ...]


def differences(view: View, shots: Shots, *, these_tasks: bool) -> list[MatrixLine]:
    """Return the matrix of paired differences, a line per learner.

    Args:
        view: The results.
        shots: At which number.
        these_tasks: Evidence about these tasks; else about other tasks too.
    """
    pairs = _oriented(view.results.table(shots).pairs)
    most = max((abs(pair.mean) for pair in pairs.values()), default=0) or 1
    names = [name for name in view.learners if any(name in key for key in pairs)]

    def cell(row: str, column: str) -> MatrixCell | None:
        if (row, column) not in pairs:
            return None
        pair = pairs[row, column]
        evidence = pair.these_tasks if these_tasks else pair.other_tasks
        between = "no interval" if evidence.low is None else f"95 %: {points(evidence.low)} to {points(evidence.high)}"
        return MatrixCell(
            text=points(pair.mean),
            tint=abs(pair.mean) / most,
            sign="up" if pair.mean > 0 else "down",
            sure=told_from_chance(evidence),
            why=f"{row} minus {column}, {between}, p {p_text(evidence.p_holm)}",
        )

    return [MatrixLine(row, tuple(cell(row, column) for column in names)) for row in names]


def groups(ranks: Mapping[str, float], difference: float) -> list[tuple[int, int]]:
    """Return the largest groups that are not told apart, as (first, last) place among the learners by rank.

    >>> groups({"a": 1.0, "b": 1.5, "c": 2.4, "d": 4.0}, 1.0)
    [(0, 1), (1, 2)]
    """
    values = sorted(ranks.values())
    largest: list[tuple[int, int]] = []
    for first, low in enumerate(values):
        last = max(place for place, value in enumerate(values) if value == low or value - low < difference)
        if last > first and (not largest or last > largest[-1][1]):
            largest.append((first, last))
    return largest


def _oriented(pairs: Sequence[PairedTest]) -> dict[tuple[str, str], PairedTest]:
    """Return the pairs by (row, column), each seen from both sides: row minus column."""
    both = {(pair.a, pair.b): pair for pair in pairs}
    return both | {(pair.b, pair.a): _turned(pair) for pair in pairs}


def _turned(pair: PairedTest) -> PairedTest:
    these, other = _negated(pair.these_tasks), _negated(pair.other_tasks)
    return replace(pair, a=pair.b, b=pair.a, mean=-pair.mean, these_tasks=these, other_tasks=other)


def _negated(evidence: Evidence) -> Evidence:
    low, high = (None if end is None else -end for end in (evidence.high, evidence.low))
    return replace(evidence, low=low, high=high)
