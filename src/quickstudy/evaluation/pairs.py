"""Pairs: every pair of learners compared on identical draws, with p values corrected for their number (Holm 1979).

p_holm of the i-th smallest p of m = max over j <= i of (m - j + 1) · p_j, at most 1
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from quickstudy.evaluation.crossed import over_rows
from quickstudy.evaluation.record import Evidence, PairedTest
from quickstudy.evaluation.rows import TaskRows, row_differences
from quickstudy.evaluation.statistics import Values, over_draws, over_tasks, task_means, tasks_p

Rows = Mapping[str, TaskRows]  # task → what rows give to the score of each draw


def compare_all(scores: Mapping[str, Values], rows: Mapping[str, Rows] | None = None) -> list[PairedTest]:
    """Compare every pair of learners on identical draws; the better mean is first in its pair.

    Args:
        scores: Learner → task → score of each draw.
        rows: Learner → task → the same by row, as far as it is known.
    """
    known = rows or {}
    pairs = [_compare(scores, known, *pair) for pair in combinations(scores, 2)]
    these = _corrected([pair.these_tasks for pair in pairs])
    other = _corrected([pair.other_tasks for pair in pairs])
    return [replace(pair, these_tasks=a, other_tasks=b) for pair, a, b in zip(pairs, these, other, strict=True)]


def differences(a: Values, b: Values) -> dict[str, list[float]]:
    """Return the paired differences a - b, draw by draw, of the tasks that both have.

    Raises:
        ValueError: A task has more draws in one than in the other: they are not pairs.
    """
    return {task: [x - y for x, y in zip(a[task], b[task], strict=True)] for task in a if task in b}


def holm(p: Sequence[float]) -> list[float]:
    """Return p values corrected for their number, in the same order (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    raised = [(len(p) - place) * p[i] for place, i in enumerate(order)]
    corrected = np.minimum(1.0, np.maximum.accumulate(raised))
    in_place = np.empty(len(p))
    in_place[order] = corrected
    return [float(value) for value in in_place]


def _compare(scores: Mapping[str, Values], rows: Mapping[str, Rows], a: str, b: str) -> PairedTest:
    between = differences(scores[a], scores[b])
    if task_means(between).mean() < 0:
        a, b, between = b, a, {task: [-value for value in of_task] for task, of_task in between.items()}
    by_row = row_differences(rows.get(a, {}), rows.get(b, {}))
    counts_rows = between.keys() <= by_row.keys()
    these = over_rows(between, by_row) if counts_rows else over_draws(between)
    other = over_tasks(between)
    these_tasks = Evidence(these.low, these.high, these.p, None)
    other_tasks = Evidence(other.low, other.high, tasks_p(between), None)
    return PairedTest(a, b, other.mean, other.n, these_tasks, other_tasks, counts_rows)


def _corrected(of_pairs: Sequence[Evidence]) -> list[Evidence]:
    """Return evidence with p values corrected for the number of pairs; what is not known stays so."""
    corrected = holm([float("nan") if evidence.p is None else evidence.p for evidence in of_pairs])
    return [
        replace(evidence, p_holm=None if evidence.p is None else p)
        for evidence, p in zip(of_pairs, corrected, strict=True)
    ]
