"""Draws: the support sets that a task is evaluated with, and what is scored; the same for every learner, every time.

    draw d of K shots = K rows of each class of the train split, chosen by (seed, task, K, d)

Tasks with published draws (`fixed_draws`) use those. Regression tasks, which have no classes, draw 2 K rows.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from quickstudy.errors import DataError
from quickstudy.evaluation.protocol import Protocol
from quickstudy.evaluation.trial import Examples, Trial
from quickstudy.seeding import derive_seed, rng
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.tasks.split import Split, hold_out
from quickstudy.tasks.task import Task


def draw_trials(protocol: Protocol, task: Task) -> list[Trial]:
    """Return the trials of a task, by shots and draw; published draws may lack some numbers of shots.

    Raises:
        DataError: Too few examples, nothing to score, or no published draws where they are asked for.
    """
    ready = with_test_split(task, protocol.seed)
    if protocol.name == "episodic":
        return list(_episodes(protocol, ready))
    tests = scored_examples(ready, protocol.limit, protocol.seed)
    if not tests:
        raise DataError(
            f"task {task.name!r} has no row left to score",
            fix="Add a test file, or more rows: half of those of each label are held out.",
        )
    if protocol.name == "full":
        train = all_examples(ready.train_split)
        return [Trial("all", d, task.label_names, train, tests) for d in range(protocol.draws)]
    if protocol.name == "fixed-draws" and not task.fixed_draws:
        raise DataError(
            f"task {task.name!r} has no published draws",
            fix="Use --protocol few-shot, or add files train_<draw>_<shots>.jsonl.",
        )
    source = replace(ready, fixed_draws={}) if protocol.name == "few-shot" else ready
    return [
        Trial(k, d, task.label_names, support, tests)
        for k in protocol.counts
        for d, support in support_sets(source, k, protocol.draws, protocol.seed).items()
    ]


def with_test_split(task: Task, seed: int) -> Task:
    """Return the task with a split to score; half of its rows are held out if it has no test or validation split."""
    if "test" in task.splits or "validation" in task.splits:
        return task
    kept, held = hold_out(task.train_split, 0.5, seed=seed, stratify=task.kind == "classification")
    return replace(task, splits={"train": kept, "test": held})


def scored_examples(task: Task, limit: int | None, seed: int) -> Examples:
    """Return what is scored: the whole test split, or a fixed random sample of `limit` rows."""
    split = task.test_split
    if limit is None or limit >= len(split):
        return all_examples(split)
    rows = np.sort(rng(seed, "limit", task.name).choice(len(split), limit, replace=False))
    return tuple(split[int(row)] for row in rows)


def support_sets(task: Task, shots: int, draws: int, seed: int) -> dict[int, Examples]:
    """Return the support set of each draw, by draw number.

    Args:
        task: The task; its train split is drawn from, or its published draws are taken.
        shots: Examples per class (K).
        draws: How many support sets.
        seed: Which of all possible support sets.

    Raises:
        DataError: A class has fewer than K examples, or not K in a published draw.
    """
    if task.fixed_draws:
        numbers = sorted(d for k, d in task.fixed_draws if k == shots and d < draws)
        return {d: _published(task, shots, d) for d in numbers}
    split = task.train_split
    if task.kind == "regression":
        if len(split) < 2 * shots:
            raise DataError(f"task {task.name!r} has {len(split)} rows, fewer than 2 x {shots}", fix="Use fewer shots.")
        chosen = {d: rng(seed, "draw", task.name, shots, d).choice(len(split), 2 * shots, False) for d in range(draws)}
        return {d: tuple(split[int(row)] for row in rows) for d, rows in chosen.items()}
    rows_of = [task.rows_of("train", label) for label in range(len(task.label_names))]
    fewest, name = min((len(rows), name) for name, rows in zip(task.label_names, rows_of, strict=True))
    if fewest < shots:
        raise DataError(
            f"task {task.name!r} has {fewest} training examples of {name!r}, fewer than the {shots} shots asked for",
            fix=f"Use --shots {fewest} or fewer, or add examples." if fewest else "Add examples of it.",
        )
    supports = {}
    for d in range(draws):
        random = rng(seed, "draw", task.name, shots, d)
        drawn = np.concatenate([random.choice(rows, shots, replace=False) for rows in rows_of])
        supports[d] = tuple(split[int(row)] for row in drawn)
    return supports


def most_shots(task: Task) -> int:
    """Return how many examples per class support sets can have: as published, or what training rows there are.

    Of a task without a test split half of the rows are held out to be scored.
    """
    if task.fixed_draws:
        return max(k for k, _ in task.fixed_draws)
    held_out = "test" not in task.splits and "validation" not in task.splits
    if task.kind == "regression":
        return len(task.train_split) // (4 if held_out else 2)
    fewest = min(len(task.rows_of("train", label)) for label in range(len(task.label_names)))
    return fewest // 2 if held_out else fewest


def all_examples(split: Split) -> Examples:
    """Return the rows of a split."""
    return tuple(split[i] for i in range(len(split)))


def _published(task: Task, shots: int, number: int) -> Examples:
    """Return a published draw, which must be what its name says: a class without rows would have no prototype."""
    split = task.fixed_draws[shots, number]
    for label, name in enumerate(task.label_names):
        rows = np.count_nonzero(split.labels == label)
        if rows != shots:
            raise DataError(
                f"draw {number} of {shots} shots of task {task.name!r} has {rows} rows of the label {name!r}, "
                f"not {shots}",
                fix=f"Correct or remove the file train_{number}_{shots}.",
            )
    return all_examples(split)


def _episodes(protocol: Protocol, task: Task) -> Iterator[Trial]:
    split = "test" if "test" in task.splits else "validation"
    for k in protocol.counts:
        n_way = min(protocol.n_way, len(task.label_names) or protocol.n_way)
        spec = EpisodeSpec(n_way, k, protocol.n_query)
        seed = derive_seed(protocol.seed, "episodic", task.name, k)
        try:
            sampler = EpisodeSampler([task], spec, seed=seed, split=split)
        except DataError as error:  # it speaks of settings of a recipe
            raise DataError(error.what, fix="Use fewer --shots or --n-way, or add rows.") from error
        for d in range(protocol.draws):
            episode = sampler[d]
            yield Trial(k, d, episode.label_names, episode.support, episode.query)
