"""EpisodeSampler: episodes as a pure function of (seed, index).

    task ~ w,   N ~ U[n_way],   K ~ U[k_shot],   Q ~ U[n_query]
    then N labels, and K + Q rows of each, without replacement

    w_t = 1 / T (uniform),   size_t / sum (size),   size_t^(1/temperature) / sum (temperature)

Temperature weighting is that of multilingual pre-training (Arivazhagan et al. 2019, arXiv:1907.05019). `sampler[i]`
depends on nothing but the seed and i, so there is no state to save: any process can make any episode, and a resumed
run sees the episodes that it would have seen. What is done to label texts is drawn from a stream of its own, so it
changes nothing else of an episode.

The lower ends of `n_way` and `k_shot` are promises. A task with fewer labels is refused, and a class with fewer than
K + 1 rows is never drawn. Above the lower ends, an episode takes what there is: the rows of a class with fewer than K
+ Q of them are divided between support and query set in proportion, so that small classes can be used.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from quickstudy.errors import DataError
from quickstudy.seeding import rng
from quickstudy.tasks.episode import Episode, EpisodeSpec, bounds
from quickstudy.tasks.mix import Mix
from quickstudy.tasks.name_mix import NameMix
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Task

Weighting = Literal["uniform", "size", "temperature"]


class EpisodeSampler:
    """Draws episodes from a set of tasks.

    Args:
        tasks: Tasks to draw from.
        spec: Size of the episodes.
        seed: All episodes follow from it.
        split: Split to draw from.
        weighting: How often each task is drawn.
        temperature: For `weighting="temperature"`; 1 is like `size`, and a large number is like `uniform`.
        names: In which share of the episodes label texts are missing, wrong, or say nothing.
        mix: How often each of several groups of tasks is drawn from; by default there is a single group.

    Raises:
        DataError: There are no tasks, or a task cannot give the smallest episode that `spec` allows.

    >>> from quickstudy.tasks.split import ListSplit
    >>> rows = [Example(f"text {i}", label=i % 2) for i in range(20)]
    >>> task = Task("demo", {"train": ListSplit(rows)}, ("no", "yes"))
    >>> sampler = EpisodeSampler([task], EpisodeSpec(2, 3, 4), seed=0)
    >>> len(sampler[7].support), len(sampler[7].query), sampler[7] == sampler[7]
    (6, 8, True)
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        spec: EpisodeSpec,
        *,
        seed: int,
        split: str = "train",
        weighting: Weighting = "uniform",
        temperature: float = 2.0,
        names: NameMix = NameMix(),
        mix: Mix | None = None,
    ) -> None:
        if not tasks:
            raise DataError("there is no task to draw episodes from")
        self.tasks, self.spec, self.seed, self.split = tuple(tasks), spec, seed, split
        self.names, self.mix = names, mix
        self._sources = [_source(task, split, spec) for task in self.tasks]
        self.weights = _weights([len(task.split(split)) for task in self.tasks], weighting, temperature)

    def __getitem__(self, index: int) -> Episode:
        random = rng(self.seed, "episode", self.split, index)
        weights = self.mix.weights(self.weights, index) if self.mix else self.weights
        position = int(random.choice(len(self.tasks), p=weights))
        n, k, q = (_draw(random, size) for size in (self.spec.n_way, self.spec.k_shot, self.spec.n_query))
        episode = self._sources[position].draw(random, n, k, q)
        texts = self.names.draw(episode.label_texts, rng(self.seed, "names", self.split, index))
        return replace(episode, label_texts=texts if episode.label_names else ())


class _Source(Protocol):
    """The rows of one task, as episodes are drawn from them."""

    def draw(self, random: np.random.Generator, n: int, k: int, q: int) -> Episode:
        """Return an episode of N ways, K shots and Q queries, or of as many rows as there are."""
        ...


def _source(task: Task, split: str, spec: EpisodeSpec) -> _Source:
    return _ScoredRows(task, split, spec) if task.kind == "regression" else _ClassRows(task, split, spec)


class _ClassRows:
    """The rows of each class of a task."""

    def __init__(self, task: Task, split: str, spec: EpisodeSpec) -> None:
        self._task, self._split, labels = task, task.split(split), task.split(split).labels
        self._texts = task.label_texts
        # One sort for all labels: to look for each label in turn takes minutes where there are thousands of them.
        ends = np.cumsum(np.bincount(labels.astype(np.int64), minlength=len(task.label_names)))
        self._rows = np.split(np.argsort(labels, kind="stable"), ends[:-1])
        self._least_shots = bounds(spec.k_shot)[0]
        self._usable = [label for label, rows in enumerate(self._rows) if len(rows) > self._least_shots]
        n_way, k_shot = bounds(spec.n_way)[0], self._least_shots
        if len(self._usable) < n_way:
            counts = ", ".join(f"{name}: {len(r)}" for name, r in zip(task.label_names, self._rows, strict=True))
            raise DataError(
                f"task {task.name!r} cannot give a {n_way}-way {k_shot}-shot episode: {len(self._usable)} of its "
                f"labels have the {k_shot + 1} rows it takes in {split!r} ({counts})",
                fix="Lower n_way or k_shot (a range such as [2, 5] takes what a task has), or add labelled rows.",
            )

    def draw(self, random: np.random.Generator, n: int, k: int, q: int) -> Episode:
        chosen = random.permutation(self._usable)[:n]
        support: list[Example] = []
        query: list[Example] = []
        for position, label in enumerate(chosen):
            drawn = _take(random, self._rows[label], k + q)
            cut = self._support_size(len(drawn), k, q)
            for examples, rows in ((support, drawn[:cut]), (query, drawn[cut:])):
                examples.extend(_relabel(self._split[int(row)], position) for row in rows)
        names, texts = (tuple(listed[label] for label in chosen) for listed in (self._task.label_names, self._texts))
        return Episode(self._task.name, names, tuple(support), tuple(query), label_texts=texts)

    def _support_size(self, drawn: int, k: int, q: int) -> int:
        """Return how many of the drawn rows go into the support set: K, or its proportion of fewer rows."""
        if drawn == k + q:
            return k
        return min(max(self._least_shots, drawn * k // (k + q)), drawn - 1)


class _ScoredRows:
    """The rows of a regression task, which have no classes: an episode takes N K and N Q of them."""

    def __init__(self, task: Task, split: str, spec: EpisodeSpec) -> None:
        self._task, self._split = task, task.split(split)
        n_way, k_shot = bounds(spec.n_way)[0], bounds(spec.k_shot)[0]
        self._least_support = n_way * k_shot
        if len(self._split) < n_way * (k_shot + 1):
            raise DataError(
                f"task {task.name!r} has {len(self._split)} rows in {split!r}, too few for an episode",
                fix=f"At least {n_way * (k_shot + 1)} are needed: lower n_way or k_shot, or add rows.",
            )

    def draw(self, random: np.random.Generator, n: int, k: int, q: int) -> Episode:
        total = min(n * k + n * q, len(self._split))
        cut = max(self._least_support, min(n * k, total * k // (k + q)))
        rows = random.choice(len(self._split), size=total, replace=False)
        examples = tuple(self._split[int(row)] for row in rows)
        return Episode(self._task.name, (), examples[:cut], examples[cut:], "regression")


def _weights(sizes: Sequence[int], weighting: Weighting, temperature: float) -> NDArray[np.float64]:
    power = {"uniform": 0.0, "size": 1.0, "temperature": 1.0 / temperature}[weighting]
    weights = np.asarray(sizes, dtype=np.float64) ** power
    return np.asarray(weights / weights.sum())


def _draw(random: np.random.Generator, size: int | tuple[int, int]) -> int:
    low, high = bounds(size)
    return int(random.integers(low, high + 1))


def _take(random: np.random.Generator, rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Draw up to `count` rows without replacement, in time that does not grow with the number of rows."""
    return random.choice(rows, size=min(count, len(rows)), replace=False, shuffle=True)


def _relabel(example: Example, label: int) -> Example:
    return Example(example.text, example.text_pair, label)
