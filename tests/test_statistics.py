"""Statistics: coverage and size by simulation, and agreement with scipy where it has the same test."""

import numpy as np
import pytest
from scipy.stats import permutation_test, rankdata, skew
from scipy.stats import t as student
from simulations import two_p
from worlds import EFFECTS, World, task_differences

from quickstudy.evaluation.crossed import over_rows, picked_bonus
from quickstudy.evaluation.pairs import compare_all, differences, holm
from quickstudy.evaluation.rows import TaskRows, grouped_rows, right_rows, unpack
from quickstudy.evaluation.statistics import average_ranks, over_draws, over_tasks, paired_p, tasks_p
from quickstudy.tasks.split import Example

SIMULATIONS = 1000


def test_a_single_task_says_nothing_of_others() -> None:
    assert tasks_p({"a": [0.1, 0.2]}) == 1


@pytest.mark.parametrize("tasks", [6, 12])
@pytest.mark.parametrize("effect", [name for name in EFFECTS if not name.startswith("rare")])
def test_the_interval_over_tasks_covers_and_the_p_of_reports_keeps_its_size(effect: str, tasks: int) -> None:
    simulated = task_differences(effect, tasks, 1.0, SIMULATIONS)
    covered = np.mean([mean.low <= 0 <= mean.high for mean in map(over_tasks, simulated)])
    assert 0.93 <= covered <= 0.975
    assert np.mean([tasks_p(values) <= 0.05 for values in simulated]) <= 0.06


@pytest.mark.parametrize("effect", ["normal", "t3"])
def test_sign_flips_keep_their_size_where_differences_are_symmetrical(effect: str) -> None:
    simulated = task_differences(effect, 6, 0.0, SIMULATIONS)
    assert np.mean([paired_p(values) <= 0.05 for values in simulated]) <= 0.05


def test_effects_that_few_tasks_have_are_the_case_that_nothing_here_holds_for() -> None:
    """The negative control, which the docs state: with six tasks, one in four samples shows none of these effects."""
    simulated = task_differences("rare, one task in five", 6, 0.0, SIMULATIONS)
    assert np.mean([mean.low <= 0 <= mean.high for mean in map(over_tasks, simulated)]) < 0.8
    assert np.mean([tasks_p(values) <= 0.05 for values in simulated]) > 0.2


def test_the_interval_over_tasks_is_students_or_wider_on_the_side_of_the_skew() -> None:
    """Symmetrical means have Student's interval; of skewed ones the side of the long tail reaches further."""
    even = over_tasks({str(i): [float(value)] for i, value in enumerate([-3, -1, 1, 3])})
    wanted = student.interval(0.95, 3, 0, np.std([-3, -1, 1, 3], ddof=1) / 2)
    assert (even.low, even.high) == pytest.approx(wanted)
    values = np.array([0.0, 0.1, 0.2, 0.1, 0.3, 2.0])
    mean, error = values.mean(), values.std(ddof=1) / 6**0.5
    skewed = over_tasks({str(i): [value] for i, value in enumerate(values)})
    g = skew(values, bias=False)
    a, b = g / (3 * 6**0.5), g / (6 * 6**0.5)
    hall = (np.cbrt(1 + 3 * a * (student.ppf(0.025, 5) - b)) - 1) / a
    assert skewed.low == pytest.approx(mean - student.ppf(0.975, 5) * error)
    assert skewed.high == pytest.approx(mean - hall * error)
    assert skewed.high - mean > 2 * (mean - skewed.low)


@pytest.mark.parametrize("shift", [0.2, 0.5, 0.8, 1.2])
def test_a_p_of_at_most_5_percent_means_that_0_is_outside_the_interval(shift: float) -> None:
    for values in task_differences("skewed, exponential", 9, 0.5, 200):
        moved = {task: [value + shift for value in draws] for task, draws in values.items()}
        mean = over_tasks(moved)
        assert tasks_p(moved) >= paired_p(moved)
        if tasks_p(moved) <= 0.05:
            assert not mean.low <= 0 <= mean.high
        elif paired_p(moved) <= 0.05:
            assert mean.low <= 0 <= mean.high


@pytest.mark.parametrize("tasks", [1, 6])
def test_the_interval_over_draws_covers_what_is_particular_to_these_tasks(tasks: int) -> None:
    random = np.random.default_rng(tasks)
    own, spread = random.standard_normal(tasks), random.uniform(0.2, 2.0, size=tasks)
    found = []
    for noise in random.standard_normal((2000, tasks, 10)):
        values = {str(i): own[i] + spread[i] * noise[i] for i in range(tasks)}
        found.append((over_draws(values), over_draws({i: v - own[int(i)] for i, v in values.items()}).p))
    assert 0.93 <= np.mean([mean.low <= own.mean() <= mean.high for mean, _ in found]) <= 0.97
    assert np.mean([p <= 0.05 for _, p in found]) <= 0.06


@pytest.mark.parametrize(("tasks", "draws"), [(1, 2), (1, 5), (6, 5), (1, 10)])
def test_rows_and_draws_together_keep_the_size_that_draws_alone_do_not(tasks: int, draws: int) -> None:
    world, random = World(tasks, 2, draws, by_draw=0.0), np.random.default_rng([tasks, draws])
    both = [two_p([world.right(random, task) for task in range(tasks)]) for _ in range(SIMULATIONS)]
    assert np.mean([p <= 0.05 for p, _ in both]) <= 0.06
    if draws > 2:
        assert np.mean([p <= 0.05 for _, p in both]) > 0.15  # the negative control: what went wrong before


def test_a_mean_over_rows_and_draws_has_the_variance_of_both() -> None:
    random = np.random.default_rng(0)
    table = random.standard_normal((4, 30)) + random.standard_normal(30) + random.standard_normal((4, 1))
    values = {"a": table.mean(axis=1).tolist()}
    found = over_rows(values, {"a": TaskRows(table)})
    rows, draws = table.mean(axis=0).var(ddof=1) / 30, table.mean(axis=1).var(ddof=1) / 4
    freedom = (rows + draws) ** 2 / (rows**2 / 29 + draws**2 / 3)
    wide = max(student.ppf(0.975, freedom) * (rows + draws) ** 0.5, student.ppf(0.975, 3) * draws**0.5)
    assert found.high - found.mean == pytest.approx(wide)
    assert over_rows({"a": [1.0, 1.0]}, {"a": TaskRows(np.ones((2, 5)))}).p is None  # no noise at all: nothing to go by
    assert over_rows({"a": [0.0, 0.0]}, {"a": TaskRows(np.zeros((2, 5)))}).p == 1.0
    assert over_rows(values, {"a": TaskRows(None)}) == over_draws(values)  # rows of their own are in the draws


def test_the_best_of_equals_looks_better_than_it_is_and_the_correction_says_by_how_much() -> None:
    random, world, errors = np.random.default_rng(0), World(1, 6, rows=(100,)), []
    for _ in range(200):
        tables = world.right(random, 0).astype(float)
        scores = [{"a": table.mean(axis=1).tolist()} for table in tables]
        bonus = picked_bonus(scores, [{"a": TaskRows(table)} for table in tables])
        best = max(np.mean(values["a"]) for values in scores)
        errors.append((best - 0.75, best - bonus - 0.75))
    before, after = np.mean(errors, axis=0)
    assert before > 0.03
    assert abs(after) < 0.4 * before


@pytest.mark.parametrize(("behind", "expected"), [(0.0, 0.56), (0.5, 0.0)])
def test_a_learner_far_behind_makes_no_bonus(behind: float, expected: float) -> None:
    """Of two equal normal means the larger is 1 / sqrt(pi) standard errors too good."""
    noise = np.random.default_rng(0).standard_normal((2, 2, 400)) * 0.1
    noise -= noise.mean(axis=(1, 2), keepdims=True)  # learners, draws, rows
    tables = noise + 0.5 - np.array([0.0, behind])[:, None, None]
    scores = [{"a": table.mean(axis=1).tolist()} for table in tables]
    bonus = picked_bonus(scores, [{"a": TaskRows(table)} for table in tables])
    terms = [t.mean(1).var(ddof=1) / 2 + t.mean(0).var(ddof=1) / 400 for t in tables]
    assert bonus / np.mean(terms) ** 0.5 == pytest.approx(expected, abs=0.15)


def test_draws_taken_for_independent_would_not_cover() -> None:
    """The negative control: ten draws of six tasks are not sixty tasks."""
    simulated = task_differences("normal", 6, 0.3, 100, draws=10)
    pooled = [over_tasks({str(i): [v] for i, v in enumerate(np.concatenate(list(one.values())))}) for one in simulated]
    assert np.mean([interval.low <= 0 <= interval.high for interval in pooled]) < 0.7


def test_a_true_difference_is_found() -> None:
    values = {name: [v + 4.0 for v in draws] for name, draws in task_differences("normal", 8, 0.3, 1)[0].items()}
    found = over_tasks(values)
    assert found.low is not None
    assert found.low > 0
    assert paired_p(values) == 2 / 2**8  # all signs equal: only the pattern and its mirror are as far from 0


@pytest.mark.parametrize("tasks", [5, 9])
def test_the_paired_test_is_scipys(tasks: int) -> None:
    values = task_differences("normal", tasks, 1.0, 4)[3]
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
    base = {t: np.array(v) for t, v in task_differences("normal", 6, 1.0, 1)[0].items()}
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
    assert not pairs["worse", "same"].counts_rows
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


def test_draws_that_differ_by_rounding_tell_nothing() -> None:
    """0.8 - 0.7 and 0.9 - 0.8 are one difference, of one row in ten, and their floating-point numbers are two."""
    values = {"tone": [0.8 - 0.7, 0.9 - 0.8]}
    assert values["tone"][0] != values["tone"][1]
    for found in (over_draws(values), over_rows(values, {"tone": TaskRows(None)})):
        assert (found.low, found.high, found.p) == (None, None, None)


def test_means_that_differ_by_rounding_share_their_rank() -> None:
    scores = {"a": {"tone": [0.1, 0.2, 0.3]}, "b": {"tone": [0.3, 0.2, 0.1]}, "c": {"tone": [0.1, 0.1, 0.1]}}
    assert np.mean(scores["a"]["tone"]) != np.mean(scores["b"]["tone"])
    assert average_ranks(scores)[0] == {"a": 1.5, "b": 1.5, "c": 3.0}


def test_pseudo_values_stand_for_rows_where_the_score_is_a_correlation() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal(1000)
    y = 0.6 * x + 0.8 * random.standard_normal(1000)
    r = float(np.corrcoef(x, y)[0, 1])
    rows = grouped_rows([Example(str(i)) for i in range(1000)], lambda kept: float(np.corrcoef(x[kept], y[kept])[0, 1]))
    assert rows is not None
    values = unpack(rows, 1000)
    assert values.mean() == pytest.approx(r, abs=0.002)
    assert values.std(ddof=1) / len(values) ** 0.5 == pytest.approx((1 - r**2) / 1000**0.5, rel=0.3)  # Pearson 1898
    assert grouped_rows([Example("a"), Example("b")], lambda _: 0.0) is None


def test_pseudo_values_of_sorted_rows_have_the_spread_of_those_in_any_order() -> None:
    random, spreads = np.random.default_rng(0), []
    for _ in range(20):
        x, noise = random.standard_normal((2, 1000))
        y = 0.9 * x + 0.19**0.5 * noise
        x, y = x[np.argsort(y)], np.sort(y)
        rows = grouped_rows([Example("a")] * 1000, lambda kept, x=x, y=y: float(np.corrcoef(x[kept], y[kept])[0, 1]))
        assert rows is not None
        spreads.append(unpack(rows, 1000).std(ddof=1) / 50**0.5)
    assert np.mean(spreads) == pytest.approx(0.19 / 1000**0.5, rel=0.12)  # Pearson 1898; 22 % less by every 50th row


def test_right_rows_go_into_few_characters_and_come_back() -> None:
    right = np.random.default_rng(0).random(1001) < 0.7
    rows = right_rows([Example(str(i)) for i in range(1001)], right)
    assert rows.right is not None
    assert len(rows.right) == 168
    assert np.array_equal(unpack(rows, 1001), right)
    assert rows.tests != right_rows([Example("x")] * 1001, right).tests
