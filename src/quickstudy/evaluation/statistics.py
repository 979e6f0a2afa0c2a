"""Statistics: what a mean over tasks is worth, and whether one learner is better than another.

    over tasks    Student's interval and Hall's, which allows for skew; both together        other tasks too
    over draws    mean ± t_{0.975, ν} · sqrt(sum_t sd_t² / D_t) / T                           these tasks

Draws are nested in tasks: two draws of one task share what is particular to it, so they are not independent evidence
about other tasks. `over_tasks` therefore looks at the means of tasks alone. Their spread already holds that of draws
and test rows. With T tasks, their standard deviation s and their skewness g:

    Student    mean - q s / √T                                  q = ± t_{0.975, T-1}
    Hall       mean - ((1 + 3 a (q - b))^(1/3) - 1) / a · s / √T     a = g / (3 √T), b = g / (6 √T)

The second is the monotone transformation of Hall 1992, J. Royal Stat. Soc. B 54, 221. The interval reaches from the
lower of the two lower ends to the higher of the two upper ends. Effects that few tasks have (one task in five gains
much, the others nothing) are the case in which it fails: with six tasks it is likely that none of them is seen.

    p = fraction of the 2^T sign patterns s with |mean_t s_t d_t| >= |mean_t d_t|     d_t: mean difference in task t

is the paired sign-flip test. Its null is symmetry: the differences of tasks lie symmetrically around 0, so each could
as well have had the other sign. With T tasks no p is below 2^(1-T), so four tasks can never decide. Where differences
are skewed, a mean of 0 is not symmetry, and this test decides too often. `tasks_p` is therefore the larger of this p
and that of the interval.

Average ranks with a critical difference: Demšar 2006, JMLR 7 (Friedman and Nemenyi). `over_draws` uses the degrees of
freedom of Welch and Satterthwaite. It takes test rows as given; `crossed` does not. `benchmarks/simulations.py`
simulates coverage and size of all of this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from quickstudy.evaluation.record import DrawsMean, TasksMean

Values = Mapping[str, Sequence[float]]  # task → value of each draw

_LEVEL = 0.95
_ROUNDING = 1e-12  # of the largest value: what differs by less differs in the last digits of floating-point numbers
_MOST_TASKS = 16  # 2^16 sign patterns are listed; beyond that a random sample of as many is taken


@dataclass(frozen=True, slots=True)
class TheseTasksMean:
    """Mean over these tasks, as evidence about them alone: were other support sets drawn, or other rows scored.

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
    half = student_quantile(n - 1) * sd / n**0.5
    return DrawsMean(mean, sd, mean - half, mean + half, n)


def over_tasks(values: Values) -> TasksMean:
    """Return the mean over tasks with its interval: what other tasks would give.

    Args:
        values: Values of the draws of each task: scores, or paired differences. Every task counts once, whatever its
            draws.

    >>> mean = over_tasks({"a": [1.0, 3.0], "b": [3.0, 5.0], "c": [2.0]})
    >>> round(mean.mean, 2), round(mean.low, 2), round(mean.high, 2), mean.n
    (2.67, -0.2, 7.69, 3)
    """
    means = task_means(values)
    n, mean = len(means), float(means.mean())
    if n < 2:
        return TasksMean(mean, None, None, n)
    error, (a, b) = float(means.std(ddof=1)) / n**0.5, _skew_terms(means)
    quantile = student_quantile(n - 1)
    places = [place for q in (-quantile, quantile) for place in (q, _skewed(q, a, b))]
    return TasksMean(mean, mean - max(places) * error, mean - min(places) * error, n)


def tasks_p(values: Values) -> float:
    """Return p that the mean over other tasks is 0: the larger of the sign-flip test's and of the interval's.

    At most 0.05 only where 0 is outside the interval that `over_tasks` gives.

    >>> tasks_p({"a": [1.0], "b": [2.0], "c": [1.0], "d": [2.0], "e": [1.5]})
    0.0625
    """
    return max(paired_p(values), _interval_p(task_means(values)))


def over_draws(values: Values) -> TheseTasksMean:
    """Return the mean over these tasks with its interval, were other support sets drawn; and p that it is 0.

    Args:
        values: Values of the draws of each task, at least two of each: scores, or paired differences.

    >>> found = over_draws({"a": [0.5, 0.6, 0.7]})
    >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3), round(found.p, 3)
    (0.6, 0.352, 0.848, 0.009)
    """
    mean = float(task_means(values).mean())
    tasks = [np.asarray(of_task, dtype=np.float64) for of_task in values.values()]
    unknown = TheseTasksMean(mean, None, None, None)
    if min(map(len, tasks)) < 2:
        return unknown
    variances = np.array([of_task.var(ddof=1) / len(of_task) for of_task in tasks])
    error = float(variances.sum()) ** 0.5 / len(tasks)
    if differs_by_rounding(error, values):  # no draw differs: they tell nothing of what other draws would give
        return unknown
    freedom = float(variances.sum()) ** 2 / float((variances**2 / [len(of_task) - 1 for of_task in tasks]).sum())
    half = student_quantile(freedom) * error
    return TheseTasksMean(mean, mean - half, mean + half, student_p(mean / error, freedom))


def paired_p(values: Values) -> float:
    """Return the two-sided p of the paired sign-flip test that tasks' differences are symmetrical around 0.

    >>> paired_p({"a": [1.0], "b": [2.0], "c": [1.0], "d": [2.0], "e": [1.5]})
    0.0625
    """
    means = task_means(values)
    n = len(means)
    if n <= _MOST_TASKS:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(0).choice([-1, 1], size=(2**_MOST_TASKS, n))
        signs[0] = 1  # what was observed is one of the patterns: p is never 0
    flipped = np.abs(signs @ means)
    return float(np.mean(flipped >= abs(means.sum()) * (1 - 1e-12)))


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
    from scipy.stats import rankdata, studentized_range  # a table of predictions need not wait for them

    ranks = rankdata(-table.round(12), axis=1).mean(axis=0)  # the same mean in other digits is the same rank
    k = len(learners)
    q = float(studentized_range.ppf(_LEVEL, k, np.inf)) / 2**0.5
    difference = q * (k * (k + 1) / (6 * len(tasks))) ** 0.5
    return dict(zip(learners, map(float, ranks), strict=True)), difference if k > 1 else None


def task_means(values: Values) -> NDArray[np.float64]:
    """Return the mean over the draws of each task."""
    return np.array([fmean(of_task) for of_task in values.values()], dtype=np.float64)


def differs_by_rounding(error: float, values: Values) -> bool:
    """Return whether a standard error of values is no larger than what rounding makes of equal ones.

    >>> differs_by_rounding(1e-17, {"a": [0.8 - 0.7, 0.9 - 0.8]}), differs_by_rounding(0.01, {"a": [0.1, 0.12]})
    (True, False)
    """
    return error <= _ROUNDING * max(abs(value) for of_task in values.values() for value in of_task)


def student_quantile(freedom: float) -> float:
    """Return the quantile of Student's distribution that 95 % intervals reach to.

    >>> round(student_quantile(5), 3)
    2.571
    """
    return float(stdtrit(freedom, (1 + _LEVEL) / 2))


def student_p(ratio: float, freedom: float) -> float:
    """Return the two-sided p of a mean that is so many standard errors from 0.

    >>> round(student_p(2.571, 5), 3)
    0.05
    """
    return float(2 * stdtr(freedom, -abs(ratio)))


def _interval_p(means: NDArray[np.float64]) -> float:
    """Return the p at which the interval over tasks would just reach 0: the larger of Student's and Hall's."""
    n, error = len(means), float(means.std(ddof=1)) / len(means) ** 0.5 if len(means) > 1 else 0.0
    if error == 0:
        return 0.0 if n > 1 and means.any() else 1.0
    ratio, (a, b) = float(means.mean()) / error, _skew_terms(means)
    corrected = ratio + a * ratio**2 + a**2 * ratio**3 / 3 + b
    return max(student_p(ratio, n - 1), student_p(corrected, n - 1))


def _skew_terms(means: NDArray[np.float64]) -> tuple[float, float]:
    """Return a and b of Hall's interval; 0 where there is no skewness to speak of, or too few tasks to see it."""
    n, centred = len(means), means - means.mean()
    spread = float(np.mean(centred**2)) ** 0.5
    if n < 3 or spread <= 1e-12 * float(np.abs(means).max()):
        return 0.0, 0.0
    skewness = float(np.mean(centred**3)) / spread**3 * (n * (n - 1)) ** 0.5 / (n - 2)
    return skewness / (3 * n**0.5), skewness / (6 * n**0.5)


def _skewed(quantile: float, a: float, b: float) -> float:
    """Return the place that Hall's interval gives to a quantile."""
    return quantile if abs(a) < 1e-9 else float(np.cbrt(1 + 3 * a * (quantile - b)) - 1) / a
