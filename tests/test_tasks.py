"""Tasks and episodes: `EpisodeSampler` is a pure function of (seed, index) that keeps its promises."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import score_task, word_task
from quickstudy.errors import DataError, RecipeError
from quickstudy.seeding import derive_seed, rng
from quickstudy.tasks.episode import Episode, EpisodeSpec, bounds
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.tasks.split import Example, ListSplit, SubsetSplit, hold_out
from quickstudy.tasks.task import Task

SPEC = EpisodeSpec((2, 4), (1, 5), (2, 6))

# A pure function of (seed, index)


def test_an_episode_depends_on_nothing_but_seed_and_index() -> None:
    tasks = [sized(f"t{i}", [20 + i, 15, 12, 9]) for i in range(5)]
    one, other = (EpisodeSampler(tasks, SPEC, seed=3) for _ in range(2))
    forward = [one[i] for i in range(40)]
    order = np.random.default_rng(0).permutation(40)
    assert {int(i): other[int(i)] for i in order} == dict(enumerate(forward))
    assert [one[i] for i in range(40)] == forward


def test_the_global_random_state_is_neither_used_nor_touched() -> None:
    sampler = EpisodeSampler([sized("t", [20, 20])], SPEC, seed=0)
    np.random.seed(1)
    before, first = np.random.get_state()[1].tolist(), sampler[0]
    assert np.random.get_state()[1].tolist() == before
    np.random.seed(2)
    assert sampler[0] == first


def test_another_process_makes_the_same_episodes() -> None:
    """Python's own hashes differ from process to process; nothing may hang on them."""
    script = (
        "from quickstudy.tasks.sampler import *\n"
        "rows = [Example(f'text {i}', label=i % 3) for i in range(60)]\n"
        "from quickstudy.tasks.split import ListSplit\n"
        "tasks = [Task(n, {'train': ListSplit(rows)}, ('a', 'b', 'c')) for n in 'xyz']\n"
        "sampler = EpisodeSampler(tasks, EpisodeSpec((2, 3), (1, 4), 2), seed=5)\n"
        "print([sampler[i] for i in range(20)])"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout != ""


@pytest.mark.parametrize("change", ["seed", "index", "split"])
def test_another_seed_index_or_split_gives_another_episode(change: str) -> None:
    task = word_task(rows=200)
    sampler = EpisodeSampler([task], EpisodeSpec(2, 8, 8), seed=0)
    other = {
        "seed": EpisodeSampler([task], EpisodeSpec(2, 8, 8), seed=1)[0],
        "index": sampler[1],
        "split": EpisodeSampler([task], EpisodeSpec(2, 8, 8), seed=0, split="test")[0],
    }[change]
    assert set(other.support) != set(sampler[0].support)


# What is in an episode


@given(
    sizes=st.lists(st.integers(0, 30), min_size=2, max_size=6),
    n_way=st.tuples(st.integers(2, 4), st.integers(0, 3)),
    k_shot=st.tuples(st.integers(1, 6), st.integers(0, 6)),
    n_query=st.tuples(st.integers(1, 6), st.integers(0, 6)),
    index=st.integers(0, 10**9),
)
@settings(max_examples=150, deadline=None)
def test_every_episode_keeps_the_rules(
    sizes: list[int], n_way: tuple[int, int], k_shot: tuple[int, int], n_query: tuple[int, int], index: int
) -> None:
    (n_low, n_high), (k_low, k_high), (q_low, q_high) = ((low, low + more) for low, more in (n_way, k_shot, n_query))
    task, spec = sized("t", sizes), EpisodeSpec((n_low, n_high), (k_low, k_high), (q_low, q_high))
    usable = [size for size in sizes if size > k_low]
    if len(usable) < n_low:
        with pytest.raises(DataError):
            EpisodeSampler([task], spec, seed=0)
        return
    episode = EpisodeSampler([task], spec, seed=0)[index]
    texts = [example.text for example in (*episode.support, *episode.query)]
    assert len(set(texts)) == len(texts)  # support and query disjoint, no row twice
    n = len(episode.label_names)
    assert min(n_low, len(usable)) <= n <= min(n_high, len(usable))
    assert len(set(episode.label_names)) == n
    support, query = (Counter(e.label for e in part) for part in (episode.support, episode.query))
    assert sorted(support) == sorted(query) == list(range(n))
    full = []
    for label, name in enumerate(episode.label_names):
        size = sizes[task.label_names.index(name)]
        assert k_low <= support[label] <= k_high
        assert 1 <= query[label] <= q_high
        if size >= k_high + q_high:
            assert query[label] >= q_low
            full.append((support[label], query[label]))
        assert all(e.text.startswith(f"{name} ") for e in (*episode.support, *episode.query) if e.label == label)
    assert len(set(full)) <= 1  # large classes all have the same K and Q


def test_ranges_are_used_from_end_to_end_evenly() -> None:
    sampler = EpisodeSampler([sized("t", [40] * 6)], EpisodeSpec((2, 5), (1, 4), (3, 5)), seed=0)
    episodes = [sampler[i] for i in range(1200)]
    drawn = {
        "n_way": [len(e.label_names) for e in episodes],
        "k_shot": [len(e.support) // len(e.label_names) for e in episodes],
        "n_query": [len(e.query) // len(e.label_names) for e in episodes],
    }
    for name, values in (("n_way", range(2, 6)), ("k_shot", range(1, 5)), ("n_query", range(3, 6))):
        shares = Counter(drawn[name])
        assert set(shares) == set(values)
        expected = 1200 / len(values)
        assert all(abs(count - expected) < 5 * expected**0.5 for count in shares.values()), name


def test_labels_come_in_every_order() -> None:
    sampler = EpisodeSampler([sized("t", [10, 10, 10])], EpisodeSpec(3, 1, 1), seed=0)
    orders = Counter(sampler[i].label_names for i in range(600))
    assert len(orders) == 6
    assert all(abs(count - 100) < 50 for count in orders.values())


def test_fixed_sizes_are_met_exactly_where_there_are_enough_rows() -> None:
    sampler = EpisodeSampler([word_task(n_way=4, rows=60)], EpisodeSpec(3, 5, 7), seed=0)
    for i in range(20):
        support, query = (Counter(e.label for e in part) for part in (sampler[i].support, sampler[i].query))
        assert support == dict.fromkeys(range(3), 5)
        assert query == dict.fromkeys(range(3), 7)


def test_more_ways_than_a_task_has_means_all_it_has() -> None:
    sampler = EpisodeSampler([sized("t", [10, 10, 10])], EpisodeSpec((2, 9), 1, 1), seed=0)
    ways = Counter(len(sampler[i].label_names) for i in range(200))
    assert set(ways) == {2, 3}
    assert ways[3] > ways[2]


def test_small_classes_are_shared_out_in_proportion() -> None:
    """6 rows where 4 + 8 are asked for: a third, 2, would be support; the promised 3 are kept."""
    kept = EpisodeSampler([sized("t", [6, 40])], EpisodeSpec(2, (3, 4), 8), seed=0)
    low = EpisodeSampler([sized("t", [6, 40])], EpisodeSpec(2, (1, 4), 8), seed=0)
    for sampler, least in ((kept, 3), (low, 1)):
        for i in range(30):
            episode = sampler[i]
            small, large = (episode.label_names.index(name) for name in ("c0", "c1"))
            support, query = (Counter(e.label for e in part) for part in (episode.support, episode.query))
            k = support[large]
            assert query[large] == 8
            assert support[small] == max(least, 6 * k // (k + 8))
            assert support[small] + query[small] == 6


def test_classes_too_small_for_the_promise_are_never_drawn() -> None:
    sampler = EpisodeSampler([sized("t", [3, 20, 4, 20])], EpisodeSpec((2, 4), (3, 6), 2), seed=0)
    names = {name for i in range(100) for name in sampler[i].label_names}
    assert names == {"c1", "c2", "c3"}


def test_pairs_and_other_splits_pass_through() -> None:
    task = word_task(pair=True)
    episode = EpisodeSampler([task], EpisodeSpec(2, 3, 3), seed=0, split="test")[0]
    known = {(e.text, e.text_pair) for e in (task.split("test")[i] for i in range(60))}
    assert {(e.text, e.text_pair) for e in (*episode.support, *episode.query)} <= known
    assert (episode.task, episode.kind) == ("tone", "classification")


# Promises


@pytest.mark.parametrize(
    ("sizes", "spec", "numbers"),
    [
        ([20, 20], EpisodeSpec(3, 2, 2), ("3-way 2-shot", "2 of its labels have the 3 rows", "c0: 20, c1: 20")),
        ([20, 20], EpisodeSpec((3, 5), 2, 2), ("3-way 2-shot",)),
        ([20, 8, 8], EpisodeSpec(2, 8, 2), ("2-way 8-shot", "1 of its labels have the 9 rows", "c1: 8")),
        ([20, 0], EpisodeSpec(2, (1, 5), 2), ("2-way 1-shot", "c1: 0")),
    ],
)
def test_a_task_that_cannot_keep_the_promise_is_refused(
    sizes: list[int], spec: EpisodeSpec, numbers: Sequence[str]
) -> None:
    with pytest.raises(DataError) as caught:
        EpisodeSampler([sized("fine", [40] * 5), sized("poor", sizes)], spec, seed=0)
    assert "task 'poor' cannot give" in str(caught.value)
    assert "Lower n_way or k_shot" in str(caught.value)
    for number in numbers:
        assert number in str(caught.value)


def test_the_smallest_task_that_can_keep_the_promise_is_taken() -> None:
    episode = EpisodeSampler([sized("t", [4, 4])], EpisodeSpec(2, 3, 5), seed=0)[0]
    assert (len(episode.support), len(episode.query)) == (6, 2)


def test_no_tasks_and_missing_splits_are_refused() -> None:
    with pytest.raises(DataError, match="no task to draw episodes from"):
        EpisodeSampler([], SPEC, seed=0)
    with pytest.raises(DataError, match=r"no split 'tset'\n  Did you mean 'test'\?"):
        EpisodeSampler([word_task()], SPEC, seed=0, split="tset")
    only_test = Task("t", {"test": word_task().test_split}, ("a", "b"))
    with pytest.raises(DataError, match=r"no split 'train'\n  Add one, e.g. as a file train.jsonl .*; it has: test\."):
        EpisodeSampler([only_test], SPEC, seed=0)
    with pytest.raises(DataError, match=r"no split 'train'\n  Its published draws serve evaluation only"):
        EpisodeSampler([replace(only_test, fixed_draws={(4, 0): word_task().test_split})], SPEC, seed=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_way": 1}, "n_way = 1 is not possible"),
        ({"n_way": (1, 3)}, r"n_way = \(1, 3\) is not possible"),
        ({"n_way": (4, 2)}, r"n_way = \(4, 2\) is not possible"),
        ({"k_shot": 0}, "k_shot = 0 is not possible"),
        ({"n_query": 0}, "n_query = 0 is not possible"),
        ({"n_query": (3, 2)}, r"n_query = \(3, 2\) is not possible"),
    ],
)
def test_an_impossible_spec_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=rf"{message}\n  Give a whole number of at least \d, or a range"):
        EpisodeSpec(**values)


def test_bounds_of_a_number_and_of_a_range() -> None:
    assert bounds(3) == (3, 3)
    assert bounds((2, 7)) == (2, 7)


# Weighting


@pytest.mark.parametrize(
    ("weighting", "temperature", "powers"), [("uniform", 2.0, 0.0), ("size", 2.0, 1.0), ("temperature", 4.0, 0.25)]
)
def test_weights_have_their_closed_form_and_episodes_follow_them(
    weighting: Any, temperature: float, powers: float
) -> None:
    sizes = [16, 100, 1000]
    tasks = [sized(f"t{size}", [size // 2, size - size // 2]) for size in sizes]
    sampler = EpisodeSampler(tasks, EpisodeSpec(2, 1, 1), seed=0, weighting=weighting, temperature=temperature)
    raw = [size**powers for size in sizes]
    expected = np.array([value / sum(raw) for value in raw])
    np.testing.assert_allclose(sampler.weights, expected, rtol=1e-12)
    count = 2000
    found = Counter(sampler[i].task for i in range(count))
    for size, p in zip(sizes, expected, strict=True):
        assert abs(found[f"t{size}"] - count * p) < 4.5 * (count * p * (1 - p)) ** 0.5


def test_temperature_one_is_size_and_a_high_one_is_uniform() -> None:
    tasks = [sized("small", [5, 5]), sized("large", [500, 500])]

    def weights(weighting: Any, temperature: float = 2.0) -> np.ndarray:
        return EpisodeSampler(tasks, SPEC, seed=0, weighting=weighting, temperature=temperature).weights

    np.testing.assert_allclose(weights("temperature", 1.0), weights("size"))
    np.testing.assert_allclose(weights("temperature", 1e9), weights("uniform"), atol=1e-8)


# Regression


@pytest.mark.parametrize("rows", [60, 20])
def test_regression_episodes_carry_floats_and_no_labels(rows: int) -> None:
    task = score_task(rows=rows)
    sampler = EpisodeSampler([task], EpisodeSpec((2, 3), (2, 4), 5), seed=0)
    scores = {e.text: e.label for e in (task.train_split[i] for i in range(rows))}
    for i in range(30):
        episode = sampler[i]
        assert (episode.kind, episode.label_names) == ("regression", ())
        drawn = (*episode.support, *episode.query)
        assert len({id(e) for e in drawn}) == len(drawn) <= rows
        assert all(isinstance(e.label, float) and scores[e.text] == e.label for e in drawn)


def test_regression_episodes_have_k_times_n_support_and_q_times_n_query_rows() -> None:
    sampler = EpisodeSampler([score_task(rows=60)], EpisodeSpec(3, 4, 5), seed=0)
    assert {(len(sampler[i].support), len(sampler[i].query)) for i in range(10)} == {(12, 15)}


@pytest.mark.parametrize("rows", range(10, 34, 4))
def test_regression_keeps_the_promised_support_when_rows_are_few(rows: int) -> None:
    sampler = EpisodeSampler([score_task(rows=rows)], EpisodeSpec(2, (4, 8), 8), seed=0)
    for i in range(20):
        episode = sampler[i]
        assert len(episode.support) >= 8
        assert len(episode.query) >= 2
        assert len(episode.support) + len(episode.query) <= rows


def test_too_few_regression_rows_are_refused() -> None:
    with pytest.raises(DataError, match=r"has 9 rows in 'train', too few for an episode\n  At least 10 are needed"):
        EpisodeSampler([score_task(rows=9)], EpisodeSpec(2, 4, 8), seed=0)


# Splits, tasks, seeds


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=80),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**40),
)
@settings(max_examples=100, deadline=None)
def test_hold_out_is_a_stratified_partition(labels: list[int], fraction: float, seed: int) -> None:
    split = ListSplit(Example(f"row {i}", label=label) for i, label in enumerate(labels))
    kept, held = hold_out(split, fraction, seed=seed)
    parts = [[part[i].text for i in range(len(part))] for part in (kept, held)]
    assert sorted(parts[0] + parts[1]) == sorted(f"row {i}" for i in range(len(labels)))
    for part in (kept, held):
        assert [part[i].label for i in range(len(part))] == part.labels.tolist()
        rows = [int(part[i].text.split()[1]) for i in range(len(part))]
        assert rows == sorted(rows)  # the order of the file
    for label, size in Counter(labels).items():
        expected = min(size - 1, max(1, round(fraction * size)))
        assert int((held.labels == label).sum()) == expected


@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.99])
def test_hold_out_leaves_each_label_in_both_parts(fraction: float) -> None:
    split = ListSplit(Example(str(i), label=i % 3) for i in range(6))
    kept, held = hold_out(split, fraction, seed=0)
    assert set(kept.labels.tolist()) == set(held.labels.tolist()) == {0, 1, 2}


def test_hold_out_follows_its_seed() -> None:
    split = word_task(rows=60).train_split
    one, again, other = (hold_out(split, 0.3, seed=seed)[1] for seed in (1, 1, 2))
    texts = [[part[i].text for i in range(len(part))] for part in (one, again, other)]
    assert texts[0] == texts[1] != texts[2]


def test_hold_out_of_scores_is_not_stratified() -> None:
    split = ListSplit(Example(str(i), label=i / 7) for i in range(20))
    kept, held = hold_out(split, 0.25, seed=0, stratify=False)
    assert (len(kept), len(held)) == (15, 5)
    assert held.labels.dtype == np.float64


def test_a_subset_has_its_rows_in_the_order_given() -> None:
    split = ListSplit(Example(str(i), label=i % 2) for i in range(6))
    subset = SubsetSplit(split, np.array([4, 1, 3]))
    assert [subset[i].text for i in range(len(subset))] == ["4", "1", "3"]
    assert subset.labels.tolist() == [0, 1, 1]


def test_a_split_needs_labels() -> None:
    with pytest.raises(DataError, match="needs an integer or a float label"):
        ListSplit([Example("a", label=1), Example("b")])


@pytest.mark.parametrize(("names", "found"), [((), "no labels"), (("a",), "only the label 'a'")])
def test_a_classification_task_needs_two_labels(names: tuple[str, ...], found: str) -> None:
    with pytest.raises(DataError, match=rf"task 't' has {found}\n  A classifier needs at least two labels"):
        Task("t", {}, names)


def test_the_metric_of_a_regression_task_is_its_correlations_by_default() -> None:
    assert Task("t", {}, ("a", "b")).metric == "accuracy"
    assert Task("t", {}, kind="regression").metric == "pearson_spearman"
    assert Task("t", {}, ("a", "b"), metric="mcc").metric == "mcc"


def test_the_test_split_is_test_then_validation() -> None:
    splits = {name: ListSplit([Example(name, label=0)]) for name in ("train", "validation", "test")}
    assert Task("t", splits, ("a", "b")).test_split[0].text == "test"
    del splits["test"]
    assert Task("t", splits, ("a", "b")).test_split[0].text == "validation"
    del splits["validation"]
    with pytest.raises(DataError, match="no split 'validation'"):
        _ = Task("t", splits, ("a", "b")).test_split


def test_rows_of_a_label() -> None:
    assert sized("t", [2, 3]).rows_of("train", 1).tolist() == [1, 3, 4]


def test_seeds_differ_by_seed_purpose_and_place_and_fit_63_bits() -> None:
    places = [(s, p, i, j) for s in (0, 1) for p in ("episode", "draw") for i in range(10) for j in range(10)]
    seeds = [derive_seed(*place) for place in places]
    assert len(set(seeds)) == len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, "a", 1, 23) != derive_seed(0, "a", 12, 3)
    assert rng(7, "x", 1).random() == rng(7, "x", 1).random() != rng(7, "x", 2).random()


def test_an_episode_cannot_be_changed() -> None:
    episode = EpisodeSampler([word_task()], SPEC, seed=0)[0]
    assert isinstance(episode, Episode)
    with pytest.raises(AttributeError):
        episode.task = "other"


def sized(name: str, sizes: Sequence[int]) -> Task:
    """A task with so many rows of each label, in turns; each text starts with its label."""
    turns = sorted((i, label) for label, size in enumerate(sizes) for i in range(size))
    rows = [Example(f"c{label} {name} {i}", label=label) for i, label in turns]
    return Task(name, {"train": ListSplit(rows)}, tuple(f"c{label}" for label in range(len(sizes))))
