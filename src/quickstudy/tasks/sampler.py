"""EpisodeSampler: episodes as a pure function of (seed, index).

    task ~ w,   N ~ U[n_way],   K ~ U[k_shot],   Q ~ U[n_query],   then N labels and K + Q rows of each, without replacement

    w_t = 1 / T (uniform),   size_t / sum (size),   size_t^(1/temperature) / sum (temperature)

Temperature weighting is that of multilingual pre-training (Arivazhagan et al. 2019, arXiv:1907.05019). Because `sampler[i]`
depends on nothing but the seed and i, there is no state to save: any process can make any episode, and a resumed run
sees the episodes it would have seen.

The lower ends of `n_way` and `k_shot` are promises: a task with fewer labels, or a class with fewer than K + 1 rows, is refused
or never drawn. Above that, an episode takes what there is: a class with fewer than K + Q rows is shared out in proportion, so
that small classes are not thrown away.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quickstudy.errors import DataError
from quickstudy.seeding import rng
from quickstudy.tasks.episode import Episode, EpisodeSpec, bounds
from quickstudy.tasks.split import Example, Split
from quickstudy.tasks.task import Task

Weighting = Literal["uniform", "size", "temperature"]


class EpisodeSampler:
    """Draws episodes from a set of tasks.

    Args:
        tasks: Tasks to draw from.
        spec: Size of the episodes.
        seed: Everything follows from it.
        split: Split to draw from.
        weighting: How often each task comes.
        temperature: For `weighting="temperature"`; 1 is `size`, large is `uniform`.

    Raises:
        DataError: No tasks, or a task that cannot give the smallest episode that `spec` allows.

    >>> from quickstudy.tasks.split import ListSplit
    >>> rows = [Example(f"text {i}", label=i % 2) for i in range(20)]
    >>> sampler = EpisodeSampler([Task("demo", {"train": ListSplit(rows)}, ("no", "yes"))], EpisodeSpec(2, 3, 4), seed=0)
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
    ) -> None:
        if not tasks:
            raise DataError("there is no task to draw episodes from")
        self.tasks, self.spec, self.seed, self.split = tuple(tasks), spec, seed, split
        self._rows = [_rows_by_label(task, split, spec) for task in self.tasks]
        self.weights = _weights([len(task.split(split)) for task in self.tasks], weighting, temperature)

    def __getitem__(self, index: int) -> Episode:
        random = rng(self.seed, "episode", self.split, index)
        position = int(random.choice(len(self.tasks), p=self.weights))
        task, rows = self.tasks[position], self._rows[position]
        n, k, q = (_draw(random, size) for size in (self.spec.n_way, self.spec.k_shot, self.spec.n_query))
        split = task.split(self.split)
        least = bounds(self.spec.k_shot)[0]
        if task.kind == "regression":
            return _regression_episode(task, split, random, n * k, n * q, bounds(self.spec.n_way)[0] * least)
        usable = [label for label, of_label in enumerate(rows) if len(of_label) > least]
        chosen = random.permutation(usable)[:n]
        support: list[Example] = []
        query: list[Example] = []
        for position, label in enumerate(chosen):
            drawn = _take(random, rows[label], k + q)
            cut = k if len(drawn) == k + q else min(max(least, len(drawn) * k // (k + q)), len(drawn) - 1)
            for group, chosen_rows in ((support, drawn[:cut]), (query, drawn[cut:])):
                group.extend(_relabel(split[int(row)], position) for row in chosen_rows)
        names = tuple(task.label_names[label] for label in chosen)
        return Episode(task.name, names, tuple(support), tuple(query))


def _rows_by_label(task: Task, split: str, spec: EpisodeSpec) -> list[NDArray[np.int64]]:
    labels = task.split(split).labels
    n_way, k_shot = bounds(spec.n_way)[0], bounds(spec.k_shot)[0]
    if task.kind == "regression":
        if len(labels) < n_way * (k_shot + 1):
            raise DataError(
                f"task {task.name!r} has {len(labels)} rows in {split!r}, too few for an episode",
                fix=f"At least {n_way * (k_shot + 1)} are needed: lower n_way or k_shot, or add rows.",
            )
        return []
    rows = [np.flatnonzero(labels == label) for label in range(len(task.label_names))]
    usable = sum(len(of_label) > k_shot for of_label in rows)
    if usable < n_way:
        counts = ", ".join(f"{name}: {len(r)}" for name, r in zip(task.label_names, rows, strict=True))
        raise DataError(
            f"task {task.name!r} cannot give a {n_way}-way {k_shot}-shot episode: {usable} of its labels have the "
            f"{k_shot + 1} rows it takes in {split!r} ({counts})",
            fix="Lower n_way or k_shot (a range such as [2, 5] takes what a task has), or add labelled rows.",
        )
    return rows


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


def _regression_episode(
    task: Task, split: Split, random: np.random.Generator, n_support: int, n_query: int, least: int
) -> Episode:
    total = min(n_support + n_query, len(split))
    cut = max(least, min(n_support, total * n_support // (n_support + n_query)))
    drawn = random.choice(len(split), size=total, replace=False)
    examples = tuple(split[int(row)] for row in drawn)
    return Episode(task.name, (), examples[:cut], examples[cut:], "regression")
