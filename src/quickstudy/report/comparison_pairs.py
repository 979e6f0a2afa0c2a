"""Comparison pairs: who is better than whom, in a headline, a matrix of differences, and groups of equals.

Evidence is of two kinds, as in evaluation/statistics.py: `here` speaks of these tasks, the rest of other tasks too.
"""

from collections.abc import Mapping, Sequence

from quickstudy.report.comparison_file import Comparison, Row
from quickstudy.report.number import p_value, points, share, shots_text

_LEVEL = 0.05


def headline(comparison: Comparison) -> list[str]:
    """Return sentences: which learner has the best mean at the largest number of shots, and what tells it from the next."""
    shots = comparison.largest
    rows = [row for row in comparison.averages if row["shots"] == shots]
    best, *others = sorted(rows, key=lambda row: -row["mean"])
    over = f"the mean over {best['n']} tasks" if best["n"] > 1 else "the score on one task"
    first = f"{best['learner']} is {'best' if others else 'the only learner'} at {shots_text(shots)}: {over} is "
    first += f"{share(best['mean'])} %"
    if best["low"] is not None:
        first += f" (95 % interval over tasks: {share(best['low'])} to {share(best['high'])})"
    if not others:
        return [f"{first}."]
    following, pairs = others[0]["learner"], comparison.results["by_shots"][shots]["pairs"]
    pair = oriented(pairs).get((best["learner"], following))
    if pair is None:
        return [f"{first}.", f"It was not compared with the next, {following}, on the same draws."]
    ahead = f"The next, {following}, is {points(abs(pair['mean'])).lstrip('+')} points behind."
    return [f"{first}.", ahead, _verdict("On these tasks", pair["here"]), _beyond(pair, len(pairs))]


def _verdict(where: str, row: Row) -> str:
    if row.get("p_holm") is None:
        return f"{where}: not decided, as there is too little to compare."
    told = "the difference is told from chance" if row["p_holm"] <= _LEVEL else "the evidence does not tell them apart"
    return f"{where}: {told} (p {p_text(row['p_holm'])} after Holm's correction)."


def _beyond(pair: Row, pairs: int) -> str:
    """The verdict on other tasks too; with too few tasks none could be given, whatever the scores."""
    least = pairs * 2.0 ** (1 - pair["n"])
    if least <= _LEVEL:
        return _verdict("On other tasks too", pair)
    few = f"{pair['n']} task{'s' * (pair['n'] > 1)}" + (f" and {pairs} pairs" if pairs > 1 else "")
    return f"On other tasks too: cannot be decided, as with {few} no p is below {_LEVEL}."


def p_text(value: float) -> str:
    """Return a p value as it stands after the letter p.

    >>> p_text(0.2), p_text(0.0001)
    ('= 0.200', '< 0.001')
    """
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"


def oriented(pairs: Sequence[Row]) -> dict[tuple[str, str], Row]:
    """Return the pairs by (row, column), each seen from both sides: row minus column."""
    found = {}
    for pair in pairs:
        found[pair["a"], pair["b"]] = pair
        found[pair["b"], pair["a"]] = _turned(pair) | {"here": _turned(pair["here"])}
    return found


def _turned(row: Row) -> Row:
    low, high = (None if row[key] is None else -row[key] for key in ("high", "low"))
    return row | {"mean": -row["mean"], "low": low, "high": high}


def differences(comparison: Comparison, shots: str, *, here: bool) -> list[Row]:
    """Return the matrix of paired differences, a line per learner.

    Args:
        comparison: The results.
        shots: At which number.
        here: Evidence about these tasks; else about other tasks too.

    Returns:
        Lines of `learner` and `cells`; a cell is None or has `text`, `tint` from 0 to 1, `sign`, `sure` and `why`.
    """
    pairs = oriented(comparison.results["by_shots"][shots]["pairs"])
    most = max((abs(pair["mean"]) for pair in pairs.values()), default=0) or 1
    names = [name for name in comparison.learners if any(name in key for key in pairs)]

    def cell(row: str, column: str) -> Row | None:
        if (row, column) not in pairs:
            return None
        pair = pairs[row, column]
        of = pair["here"] if here else pair
        p = of.get("p_holm")
        between = "no interval" if of["low"] is None else f"95 %: {points(of['low'])} to {points(of['high'])}"
        return {
            "text": points(pair["mean"]),
            "tint": abs(pair["mean"]) / most,
            "sign": "up" if pair["mean"] > 0 else "down",
            "sure": p is not None and p <= _LEVEL,
            "why": f"{row} minus {column}, {between}, p {'not known' if p is None else p_text(p)}",
        }

    return [{"learner": row, "cells": [cell(row, column) for column in names]} for row in names]


def groups(ranks: Mapping[str, float], difference: float) -> list[tuple[int, int]]:
    """Return the largest groups that are not told apart, as (first, last) place among the learners by rank.

    >>> groups({"a": 1.0, "b": 1.5, "c": 2.4, "d": 4.0}, 1.0)
    [(0, 1), (1, 2)]
    """
    values = sorted(ranks.values())
    found: list[tuple[int, int]] = []
    for first, low in enumerate(values):
        last = max(place for place, value in enumerate(values) if value == low or value - low < difference)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found
