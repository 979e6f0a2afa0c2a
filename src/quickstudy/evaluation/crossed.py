"""Crossed: what a mean over draws and test rows is worth on these tasks, were others of both drawn.

    variance of the mean = sum_t (var over rows of row means / R_t + var over draws of draw means / D_t) / T²

All draws of a task are scored on the same test rows. What is particular to these rows does not average out with more
draws, and what is particular to these support sets does not average out with more rows. The two terms are the crossed
random effects of draws and rows. Noise that is particular to one row in one draw is in both of them, so it counts
twice, which errs on the safe side (Owen 2007, arXiv:0704.1052). Degrees of freedom are those of Satterthwaite 1946.
With few draws their variance may seem small by chance. The interval is therefore never narrower than that over draws
alone, and p is never smaller.

A task whose draws were scored on rows of their own (episodes) has the second term alone, which then holds both.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from quickstudy.evaluation.rows import TaskRows
from quickstudy.evaluation.statistics import (
    TheseTasksMean,
    Values,
    differs_by_rounding,
    over_draws,
    student_p,
    student_quantile,
    task_means,
)

_NOISES = 4_000


def over_rows(values: Values, rows: Mapping[str, TaskRows]) -> TheseTasksMean:
    """Return the mean over these tasks with its interval, were other support sets and test rows drawn.

    Args:
        values: Values of the draws of each task, at least two of each: scores, or paired differences.
        rows: The same by row, for each of these tasks.

    >>> rows = TaskRows(np.array([[1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0]]))
    >>> found = over_rows({"a": [0.75, 0.5]}, {"a": rows})
    >>> found.mean, found.low < over_draws({"a": [0.75, 0.5]}).low + 1e-9
    (0.625, True)
    """
    mean = float(task_means(values).mean())
    if min(map(len, values.values())) < 2:
        return TheseTasksMean(mean, None, None, None)
    terms = [term for task, of_task in values.items() for term in _terms(of_task, rows[task])]
    variances, counts = (np.array(column, dtype=np.float64) for column in zip(*terms, strict=True))
    total = float(variances.sum())
    # The same on every row in every draw: known if that is no difference, else nothing to go by.
    if differs_by_rounding(total**0.5 / len(values), values):
        return TheseTasksMean(mean, 0.0, 0.0, 1.0) if mean == 0 else TheseTasksMean(mean, None, None, None)
    error, freedom = total**0.5 / len(values), total**2 / float((variances**2 / (counts - 1)).sum())
    half, p, draws = student_quantile(freedom) * error, student_p(mean / error, freedom), over_draws(values)
    if draws.high is not None and draws.p is not None:
        half, p = max(half, draws.high - mean), max(p, draws.p)
    return TheseTasksMean(mean, mean - half, mean + half, p)


def picked_bonus(scores: Sequence[Values], rows: Sequence[Mapping[str, TaskRows]]) -> float:
    """Return by how much the best of several means is too good, because it was picked for being the best.

    The noise of the means is drawn from the normal distribution with the covariance of draws and rows. It is added to
    what the true means may be: those observed, where the squared distance to the best is made smaller by its own
    noise. The result is how much better the picked mean looks than it is, on average.

    Args:
        scores: Values of the draws of each task, for each learner.
        rows: The same by row.
    """
    means = np.array([task_means(values).mean() for values in scores])
    of_tasks = [_covariance([values[task] for values in scores], [r[task] for r in rows]) for task in scores[0]]
    covariance = np.sum(of_tasks, axis=0) / len(of_tasks) ** 2
    best = int(means.argmax())
    variance = covariance.diagonal() + covariance[best, best] - 2 * covariance[best]
    likely = means[best] - np.sqrt(np.maximum(0, (means[best] - means) ** 2 - variance))
    values, vectors = np.linalg.eigh(covariance)
    noise = np.random.default_rng(0).standard_normal((_NOISES, len(means)))
    noise = noise @ (vectors * np.sqrt(np.maximum(0, values))).T
    picked = (likely + noise).argmax(axis=1)
    return max(0.0, float(noise[np.arange(_NOISES), picked].mean() - noise.mean()))


def _terms(values: Sequence[float], rows: TaskRows) -> list[tuple[float, int]]:
    """Return the variance of a task's mean that is due to draws, and that due to rows, each with its count."""
    terms = [(float(np.var(values, ddof=1)) / len(values), len(values))]
    if rows.values is not None:
        means = rows.values.mean(axis=0)
        terms.append((float(means.var(ddof=1)) / len(means), len(means)))
    return terms


def _covariance(values: Sequence[Sequence[float]], rows: Sequence[TaskRows]) -> NDArray[np.float64]:
    """Return the covariance of learners' means on a task: (L, L)."""
    draws = np.array(values, dtype=np.float64)
    covariance = np.atleast_2d(np.cov(draws)) / draws.shape[1]
    tables = [table.values for table in rows if table.values is not None]
    if len(tables) == len(rows):
        covariance = covariance + np.atleast_2d(np.cov([table.mean(axis=0) for table in tables])) / tables[0].shape[1]
    return np.asarray(covariance, dtype=np.float64)
