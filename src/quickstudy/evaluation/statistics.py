"""Statistics: what a mean over tasks and draws is worth, and whether one learner is better than another.

    over draws    mean ± t_{0.975, ν} · sqrt(sum_t sd_t² / D_t) / T                these tasks, other support sets
    over tasks    percentiles of the bootstrap mean over resampled tasks            other tasks too

Draws are nested in tasks: two draws of one task share what is particular to it, so they are not independent evidence
about other tasks. `over_tasks` therefore resamples whole tasks with all their draws: the spread of task means already
holds that of the draws, and resampling the draws as well would count it twice (Davison and Hinkley 1997, §3.8). With
few tasks plain percentiles are too narrow (Hesterberg 2015, arXiv:1411.5279), so their distances from the mean are
widened by sqrt(T / (T-1)) · t_{0.975, T-1} / 1.96, which makes them Student's interval where task means are normal.
Its coverage is measured by simulation in tests/test_statistics.py.

Over draws, ν are the degrees of freedom of Welch and Satterthwaite, D - 1 for one task.

    p = fraction of the 2^T sign patterns s with |mean_t s_t d_t| >= |mean_t d_t|     d_t: mean difference in task t

is the paired permutation test: if neither is better, a task's difference could as well have had the other sign. With
T tasks no p is below 2^(1-T), so four tasks can never decide. Several comparisons are corrected by Holm 1979. Average
ranks with a critical difference: Demšar 2006, JMLR 7 (Friedman and Nemenyi).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata, studentized_range, t

from quickstudy.evaluation.record import DrawsMean, Evidence, PairedTest, TasksMean

Values = Mapping[str, Sequence[float]]  # task → value of each draw

_LEVEL = 0.95
_RESAMPLES = 10_000
_MOST_TASKS = 16  # 2^16 sign patterns are listed; beyond that a random sample of as many is taken


@dataclass(frozen=True, slots=True)
class TheseTasksMean:
    """Mean over these tasks, as evidence about them alone: were other support sets drawn.

    Attributes:
        mean: The mean.
        low: Lower end of its 95 % interval; None where draws tell nothing, as are `high` and `p`.
        high: Upper end.
        p: Probability of a mean as far from 0 if it were 0.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None


def summarize(values: Sequence[float]) -> DrawsMean:
    """Return the mean over the draws of one task with Student's interval; one draw has no interval.

    >>> found = summarize([0.5, 0.6, 0.7])
    >>> round(found.mean, 3), round(found.sd, 3), round(found.low, 3), round(found.high, 3), found.n
    (0.6, 0.1, 0.352, 0.848, 3)
    """
    array = np.asarray(values, dtype=np.float64)
    n, mean = len(array), float(array.mean())
    if n < 2:
        return DrawsMean(mean, None, None, None, n)
    sd = float(array.std(ddof=1))
    half = float(t.ppf((1 + _LEVEL) / 2, n - 1)) * sd / n**0.5
    return DrawsMean(mean, sd, mean - half, mean + half, n)


def over_tasks(values: Values, *, seed: int = 0) -> TasksMean:
    """Return the mean over tasks with its interval, and how probable it is that the mean is above 0.

    Args:
        values: Values of the draws of each task: scores, or paired differences. Every task counts once, whatever its
            draws.
        seed: Of the resampling.

    >>> mean = over_tasks({"a": [1.0, 3.0], "b": [3.0, 5.0], "c": [2.0]})
    >>> round(mean.mean, 2), mean.low < 2, mean.high > 4, mean.above
    (2.67, True, True, 1.0)
    """
    means = _task_means(values)
    n, mean = len(means), float(means.mean())
    if n < 2:
        return TasksMean(mean, None, None, n, None)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES) / n
    resampled = weights @ means
    tail = (1 + _LEVEL) / 2
    widened = (n / (n - 1)) ** 0.5 * float(t.ppf(tail, n - 1) / norm.ppf(tail))
    low, high = mean + widened * (np.quantile(resampled, [1 - tail, tail]) - mean)
    above = float(np.mean(resampled > 0) + np.mean(resampled == 0) / 2)
    return TasksMean(mean, float(low), float(high), n, above)


def over_draws(values: Values) -> TheseTasksMean:
    """Return the mean over these tasks with its interval, were other support sets drawn; and p that it is 0.

    Args:
        values: Values of the draws of each task, at least two of each: scores, or paired differences.

    >>> found = over_draws({"a": [0.5, 0.6, 0.7]})
    >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3), round(found.p, 3)
    (0.6, 0.352, 0.848, 0.009)
    """
    mean = float(_task_means(values).mean())
    tasks = [np.asarray(of_task, dtype=np.float64) for of_task in values.values()]
    unknown = TheseTasksMean(mean, None, None, None)
    if min(map(len, tasks)) < 2:
        return unknown
    variances = np.array([of_task.var(ddof=1) / len(of_task) for of_task in tasks])
    error = float(variances.sum()) ** 0.5 / len(tasks)
    if error == 0:  # no draw differs from another: they tell nothing of what other draws would give
        return unknown
    freedom = float(variances.sum()) ** 2 / float((variances**2 / [len(of_task) - 1 for of_task in tasks]).sum())
    half = float(t.ppf((1 + _LEVEL) / 2, freedom)) * error
    return TheseTasksMean(mean, mean - half, mean + half, float(2 * t.sf(abs(mean) / error, freedom)))


def differences(a: Values, b: Values) -> dict[str, list[float]]:
    """Return the paired differences a - b, draw by draw, of the tasks that both have.

    Raises:
        ValueError: A task has more draws in one than in the other: they are not pairs.
    """
    return {task: [x - y for x, y in zip(a[task], b[task], strict=True)] for task in a if task in b}


def paired_p(values: Values, *, seed: int = 0) -> float:
    """Return the two-sided p of the paired permutation test that the mean difference over tasks is 0.

    >>> paired_p({"a": [1.0], "b": [2.0], "c": [1.0], "d": [2.0], "e": [1.5]})
    0.0625
    """
    means = _task_means(values)
    n = len(means)
    if n <= _MOST_TASKS:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(seed).choice([-1, 1], size=(2**_MOST_TASKS, n))
        signs[0] = 1  # what was observed is one of the patterns: p is never 0
    flipped = np.abs(signs @ means)
    return float(np.mean(flipped >= abs(means.sum()) * (1 - 1e-12)))


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


def compare_all(scores: Mapping[str, Values], *, seed: int = 0) -> list[PairedTest]:
    """Compare every pair of learners on identical draws; the better mean is first in its pair.

    Args:
        scores: Learner → task → score of each draw.
        seed: Of the resampling.
    """
    tests = [_compare(scores, first, second, seed) for first, second in combinations(scores, 2)]
    return _corrected(tests)


def _compare(scores: Mapping[str, Values], first: str, second: str, seed: int) -> PairedTest:
    between = differences(scores[first], scores[second])
    a, b = (first, second) if _task_means(between).mean() >= 0 else (second, first)
    between = differences(scores[a], scores[b])
    these, other = over_draws(between), over_tasks(between, seed=seed)
    these_tasks = Evidence(these.low, these.high, these.p, None)
    other_tasks = Evidence(other.low, other.high, paired_p(between, seed=seed), None)
    return PairedTest(a, b, other.mean, other.n, other.above, these_tasks, other_tasks)


def _corrected(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """Return tests with p values corrected for the number of pairs."""
    these = _corrected_evidence([test.these_tasks for test in tests])
    other = _corrected_evidence([test.other_tasks for test in tests])
    return [replace(test, these_tasks=a, other_tasks=b) for test, a, b in zip(tests, these, other, strict=True)]


def _corrected_evidence(of_pairs: Sequence[Evidence]) -> list[Evidence]:
    corrected = holm([float("nan") if evidence.p is None else evidence.p for evidence in of_pairs])
    return [
        replace(evidence, p_holm=None if evidence.p is None else p)
        for evidence, p in zip(of_pairs, corrected, strict=True)
    ]


def average_ranks(scores: Mapping[str, Values]) -> tuple[dict[str, float], float | None]:
    """Return the average rank of each learner over the tasks (1 is best), and the critical difference at 5 %.

    Learners whose average ranks differ by less than the critical difference are not told apart (Nemenyi). One learner
    has none.

    >>> ranks, difference = average_ranks({"a": {"x": [3.0], "y": [2.0]}, "b": {"x": [1.0], "y": [1.0]}})
    >>> ranks, round(difference, 2)
    ({'a': 1.0, 'b': 2.0}, 1.39)
    """
    learners = list(scores)
    tasks = [task for task in scores[learners[0]] if all(task in scores[name] for name in learners)]
    table = np.array([[np.mean(scores[name][task]) for name in learners] for task in tasks])
    ranks = rankdata(-table, axis=1).mean(axis=0)
    k = len(learners)
    q = float(studentized_range.ppf(_LEVEL, k, np.inf)) / 2**0.5
    difference = q * (k * (k + 1) / (6 * len(tasks))) ** 0.5
    return dict(zip(learners, map(float, ranks), strict=True)), difference if k > 1 else None


def _task_means(values: Values) -> NDArray[np.float64]:
    return np.array([np.mean(of_task) for of_task in values.values()], dtype=np.float64)
