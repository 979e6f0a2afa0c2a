"""Statistics: coverage and size by simulation, and agreement with scipy where it has the same test."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import permutation_test, rankdata

from quickstudy.evaluation.statistics import (
    average_ranks,
    compare_all,
    differences,
    holm,
    over_draws,
    over_tasks,
    paired_p,
)

SIMULATIONS = 2000


def _differences(tasks: int, between: float, within: float) -> list[dict[str, NDArray[np.float64]]]:
    """Simulated paired differences with mean 0: an effect of each task, and one of each of its 10 draws."""
    random = np.random.default_rng([tasks, round(10 * between), round(10 * within)])
    shape = (SIMULATIONS, tasks, 1)
    values = between * random.standard_normal(shape) + within * random.standard_normal((*shape[:2], 10))
    return [{str(task): draws for task, draws in enumerate(one)} for one in values]


@pytest.mark.parametrize(("tasks", "between", "within"), [(6, 1.0, 1.0), (12, 1.0, 0.3)])
def test_the_interval_over_tasks_covers_and_the_paired_test_keeps_its_size(
    tasks: int, between: float, within: float
) -> None:
    simulated = _differences(tasks, between, within)
    intervals = [over_tasks(values, seed=i) for i, values in enumerate(simulated)]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert 0.93 <= covered <= 0.97
    assert np.mean([paired_p(values) <= 0.05 for values in simulated]) <= 0.06


@pytest.mark.parametrize("tasks", [1, 6])
def test_the_interval_over_draws_covers_what_is_particular_to_these_tasks(tasks: int) -> None:
    random = np.random.default_rng(tasks)
    own, spread = random.standard_normal(tasks), random.uniform(0.2, 2.0, size=tasks)
    found = []
    for noise in random.standard_normal((SIMULATIONS, tasks, 10)):
        values = {str(i): own[i] + spread[i] * noise[i] for i in range(tasks)}
        found.append((over_draws(values), over_draws({i: v - own[int(i)] for i, v in values.items()}).p))
    assert 0.93 <= np.mean([mean.low <= own.mean() <= mean.high for mean, _ in found]) <= 0.97
    assert np.mean([p <= 0.05 for _, p in found]) <= 0.06


def test_draws_taken_for_independent_would_not_cover() -> None:
    """The negative control: ten draws of six tasks are not sixty tasks."""
    simulated = _differences(6, 1.0, 0.3)
    pooled = [
        over_tasks({str(i): [v] for i, v in enumerate(np.concatenate(list(one.values())))}) for one in simulated[:100]
    ]
    assert np.mean([interval.low <= 0 <= interval.high for interval in pooled]) < 0.7


def test_a_true_difference_is_found() -> None:
    values = {name: [v + 1.0 for v in draws] for name, draws in _differences(8, 0.2, 0.3)[0].items()}
    found = over_tasks(values)
    assert found.low is not None
    assert found.low > 0
    assert found.above is not None
    assert found.above > 0.999
    assert paired_p(values) == 2 / 2**8  # all signs equal: only the pattern and its mirror are as far from 0


@pytest.mark.parametrize("tasks", [5, 9])
def test_the_paired_test_is_scipys(tasks: int) -> None:
    values = _differences(tasks, 1.0, 1.0)[3]
    means = [float(np.mean(draws)) for draws in values.values()]
    theirs = permutation_test(
        (means,), lambda x, axis: np.abs(x.mean(axis)), permutation_type="samples", alternative="greater"
    )
    assert paired_p(values) == pytest.approx(theirs.pvalue, abs=1e-12)


def test_beyond_the_number_of_tasks_whose_patterns_are_listed_p_is_close_and_never_zero() -> None:
    values = {str(i): [1.0 + 0.01 * i] for i in range(20)}
    assert 0 < paired_p(values) < 1e-4
    assert paired_p({str(i): [(-1.0) ** i] for i in range(20)}) > 0.9


def test_holm_rejects_what_its_definition_rejects() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        p = random.uniform(0, 0.2, size=6)
        found, ordered = holm(list(p)), np.sort(p)
        stop = next((i for i in range(6) if ordered[i] > 0.05 / (6 - i)), 6)  # step down until one is not rejected
        assert sum(value <= 0.05 for value in found) == stop
    assert holm([]) == []


def test_pairs_are_compared_on_identical_draws_the_better_one_first() -> None:
    base = _differences(6, 1.0, 1.0)[0]
    scores = {
        "worse": base,
        "better": {t: v + 0.5 for t, v in base.items()},
        "same": {t: v + 0.0 for t, v in base.items()},
    }
    pairs = {(pair.a, pair.b): pair for pair in compare_all(scores)}
    assert pairs.keys() == {("better", "worse"), ("worse", "same"), ("better", "same")}
    assert pairs["better", "worse"].mean == pytest.approx(0.5)
    assert pairs["better", "worse"].other_tasks.low == pytest.approx(
        0.5
    )  # the tasks' spread is common to both and falls out
    assert pairs["worse", "same"].other_tasks.p == 1.0
    assert pairs["worse", "same"].above == 0.5
    raised = [pair.other_tasks.p_holm for pair in pairs.values()]
    assert raised == pytest.approx(holm([pair.other_tasks.p or 0.0 for pair in pairs.values()]))
    with pytest.raises(ValueError, match="longer"):
        differences({"a": [1.0]}, {"a": [1.0, 2.0]})


def test_average_ranks_and_the_critical_difference_of_demsar_2006() -> None:
    random = np.random.default_rng(0)
    table = random.standard_normal((14, 4))
    scores = {f"m{j}": {str(i): [table[i, j]] for i in range(14)} for j in range(4)}
    ranks, difference = average_ranks(scores)
    assert list(ranks.values()) == pytest.approx(rankdata(-table, axis=1).mean(0))
    assert difference == pytest.approx(
        2.569 * (4 * 5 / (6 * 14)) ** 0.5, abs=1e-3
    )  # its table 5 a: q = 2.569 for k = 4
