"""Statistics: what a mean over tasks and draws is worth, and whether one learner is better than another.

    over draws    mean ± t_{0.975, ν} · sqrt(sum_t sd_t² / D_t) / T                these tasks, other support sets
    over tasks    percentiles of the bootstrap mean over resampled tasks            other tasks too

Draws are nested in tasks: two draws of one task share what is particular to it, so they are not independent evidence about
other tasks. `over_tasks` therefore resamples whole tasks with all their draws: the spread of task means already holds that of
the draws, and resampling the draws as well would count it twice (Davison and Hinkley 1997, §3.8). With few tasks plain
percentiles are too narrow (Hesterberg 2015, arXiv:1411.5279), so their distances from the mean are widened by
sqrt(T / (T-1)) · t_{0.975, T-1} / 1.96, which makes them Student's interval where task means are normal. Its coverage is measured
by simulation in tests/test_statistics.py.

Over draws, ν are the degrees of freedom of Welch and Satterthwaite, D - 1 for one task.

    p = share of the 2^T sign patterns s with |mean_t s_t d_t| >= |mean_t d_t|      d_t the mean paired difference in task t

is the paired permutation test: if neither is better, a task's difference could as well have had the other sign. With T tasks no p
is below 2^(1-T), so four tasks can never decide. Several comparisons are corrected by Holm 1979. Average ranks with a critical
difference: Demšar 2006, JMLR 7 (Friedman and Nemenyi).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata, studentized_range, t

Values = Mapping[str, Sequence[float]]  # task → value of each draw

_LEVEL = 0.95
_RESAMPLES = 10_000
_MOST_TASKS = 16  # 2^16 sign patterns are listed; beyond that a random sample of as many is taken


def summarize(values: Sequence[float]) -> dict[str, float]:
    """Return mean, sd, low, high and n of some draws; one draw has no interval.

    >>> {key: round(value, 3) for key, value in summarize([0.5, 0.6, 0.7]).items()}
    {'mean': 0.6, 'sd': 0.1, 'low': 0.352, 'high': 0.848, 'n': 3}
    """
    array = np.asarray(values, dtype=np.float64)
    n, mean = len(array), float(array.mean())
    if n < 2:
        return {"mean": mean, "sd": float("nan"), "low": float("nan"), "high": float("nan"), "n": n}
    sd = float(array.std(ddof=1))
    half = float(t.ppf((1 + _LEVEL) / 2, n - 1)) * sd / n**0.5
    return {"mean": mean, "sd": sd, "low": mean - half, "high": mean + half, "n": n}


def over_tasks(values: Values, *, seed: int = 0) -> dict[str, float]:
    """Return mean, low, high, n (tasks) of the mean over tasks, and `above`, how probable it is that the mean is above 0.

    Args:
        values: Values of the draws of each task: scores, or paired differences. Every task counts once, whatever its draws.
        seed: Of the resampling.

    >>> found = over_tasks({"a": [1.0, 3.0], "b": [3.0, 5.0], "c": [2.0]})
    >>> round(found["mean"], 2), found["low"] < 2, found["high"] > 4, found["above"]
    (2.67, True, True, 1.0)
    """
    means = _task_means(values)
    n, mean = len(means), float(means.mean())
    if n < 2:
        return {"mean": mean, "low": float("nan"), "high": float("nan"), "n": n, "above": float("nan")}
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES) / n
    resampled = weights @ means
    tail = (1 + _LEVEL) / 2
    widened = (n / (n - 1)) ** 0.5 * float(t.ppf(tail, n - 1) / norm.ppf(tail))
    low, high = mean + widened * (np.quantile(resampled, [1 - tail, tail]) - mean)
    above = float(np.mean(resampled > 0) + np.mean(resampled == 0) / 2)
    return {"mean": mean, "low": float(low), "high": float(high), "n": n, "above": above}


def over_draws(values: Values) -> dict[str, float]:
    """Return mean, low and high of the mean over these tasks, were other support sets drawn; and p that it is 0.

    Args:
        values: Values of the draws of each task, at least two of each: scores, or paired differences.

    >>> {key: round(value, 3) for key, value in over_draws({"a": [0.5, 0.6, 0.7]}).items()}
    {'mean': 0.6, 'low': 0.352, 'high': 0.848, 'p': 0.009}
    """
    mean, tasks = (
        float(_task_means(values).mean()),
        [np.asarray(of_task, dtype=np.float64) for of_task in values.values()],
    )
    if min(map(len, tasks)) < 2:
        return {"mean": mean, "low": float("nan"), "high": float("nan"), "p": float("nan")}
    parts = np.array([of_task.var(ddof=1) / len(of_task) for of_task in tasks])
    error = float(parts.sum()) ** 0.5 / len(tasks)
    if error == 0:  # no draw differs from another: they tell nothing of what other draws would give
        return {"mean": mean, "low": float("nan"), "high": float("nan"), "p": float("nan")}
    freedom = float(parts.sum()) ** 2 / float((parts**2 / [len(of_task) - 1 for of_task in tasks]).sum())
    half = float(t.ppf((1 + _LEVEL) / 2, freedom)) * error
    return {"mean": mean, "low": mean - half, "high": mean + half, "p": float(2 * t.sf(abs(mean) / error, freedom))}


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
    found = np.empty(len(p))
    found[order] = corrected
    return [float(value) for value in found]


def compare_all(scores: Mapping[str, Values], *, seed: int = 0) -> list[dict[str, Any]]:
    """Compare every pair of learners on identical draws.

    Args:
        scores: Learner → task → score of each draw.
        seed: Of the resampling.

    Returns:
        One row per pair, the better mean first: `a`, `b`, the interval of the difference (`over_tasks`), `p` and `p_holm`;
        under `here` the interval and the p values of `over_draws`, which speak of these tasks alone.
    """
    rows: list[dict[str, Any]] = []
    for one, other in combinations(scores, 2):
        between = differences(scores[one], scores[other])
        a, b = (one, other) if _task_means(between).mean() >= 0 else (other, one)
        between = differences(scores[a], scores[b])
        here = over_draws(between)
        rows.append({"a": a, "b": b, **over_tasks(between, seed=seed), "p": paired_p(between, seed=seed), "here": here})
    for of in (rows, [row["here"] for row in rows]):
        for row, corrected in zip(of, holm([row["p"] for row in of]), strict=True):
            row["p_holm"] = corrected
    return rows


def average_ranks(scores: Mapping[str, Values]) -> tuple[dict[str, float], float]:
    """Return the average rank of each learner over the tasks (1 is best), and the critical difference at 5 %.

    Learners whose average ranks differ by less than the critical difference are not told apart (Nemenyi).

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
    return dict(zip(learners, map(float, ranks), strict=True)), difference


def _task_means(values: Values) -> NDArray[np.float64]:
    return np.array([np.mean(of_task) for of_task in values.values()], dtype=np.float64)
