"""Survey: what the user's files hold, and which episodes fit them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from quickstudy.data.files import list_data_files
from quickstudy.data.reference import load_tasks
from quickstudy.errors import DataError
from quickstudy.tasks.task import Task

_LOOKED_AT = 500  # texts of a task whose length is counted
_MOST_SHOTS, _MOST_QUERIES, _MOST_WAYS = 6, 4, 5
_SOURCES = ("samples", "glue", "hub", "text", "python-docs")  # references that are no paths
_VALIDATION_EVERY = 4  # a quarter of the tasks validate


@dataclass(frozen=True, slots=True)
class Seen:
    """What a task holds.

    Attributes:
        reference: Where it is, for a recipe.
        name: Its name.
        kind: `classification` or `regression`.
        pair: Whether its rows have two texts.
        rows: Rows of the train split.
        rows_per_label: Rows of each label in the train split; empty for regression.
        words: Middle number of words of a row.
        longest: Largest number of words of a row, among those that were looked at.
    """

    reference: str
    name: str
    kind: str
    pair: bool
    rows: int
    rows_per_label: dict[str, int]
    words: int
    longest: int

    def describe(self) -> str:
        """Return one line about the task."""
        what = "pairs" if self.pair else "single texts"
        labels = "labels are numbers"
        if self.rows_per_label:
            counts = self.rows_per_label.values()
            low, high = min(counts), max(counts)
            rows = f"{low} rows each" if low == high else f"{low} to {high} rows"
            labels = f"{len(counts)} labels with {rows}"
        return f"{self.name}: {self.rows:,} rows of {what}, {labels}, {self.words} words (longest {self.longest})"

    @property
    def usable(self) -> list[int]:
        """Rows of each label that can be in an episode, which takes one to learn from and one to score."""
        return [count for count in self.rows_per_label.values() if count > 1]


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of episodes: labels, examples to learn from, and scored examples, as ranges or numbers."""

    n_way: tuple[int, int]
    k_shot: tuple[int, int]
    n_query: int


def survey(references: Sequence[str]) -> list[Seen]:
    """Return what each task of some references holds.

    Raises:
        DataError: Data cannot be read, or are too few for an episode.
    """
    load_tasks(references)  # a name that is there twice is refused before the tasks are looked at one by one
    single = [(name, task) for reference in references for name, task in _single(reference)]
    names = [task.name for _, task in single]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"two of the files make a task of the name {repeated!r}", fix="Rename one of them.")
    return [_look(reference, task) for reference, task in single]


def episode_sizes(seen: Sequence[Seen]) -> Sizes:
    """Return sizes of episodes that fit the smallest class of the tasks.

    >>> tone = Seen("tone.csv", "tone", "classification", False, 14, {"good": 8, "bad": 6}, 5, 9)
    >>> episode_sizes([tone])
    Sizes(n_way=(2, 2), k_shot=(2, 4), n_query=2)
    """
    smallest = min(count for task in seen for count in (task.usable or [task.rows // 2]))
    most_labels = max(len(task.usable) or 2 for task in seen)
    n_query = max(1, min(_MOST_QUERIES, smallest // 3))
    most_shots = min(_MOST_SHOTS, smallest - n_query)
    return Sizes((2, min(_MOST_WAYS, most_labels)), (min(2, most_shots), most_shots), n_query)


def divide(seen: Sequence[Seen]) -> tuple[list[Seen], list[Seen]]:
    """Return the tasks to meta-train on, and those to meta-validate on: every fourth."""
    validation = list(seen[_VALIDATION_EVERY - 1 :: _VALIDATION_EVERY])
    return [task for task in seen if task not in validation], validation


def _single(reference: str) -> list[tuple[str, Task]]:
    """Return the tasks of a reference, each with a reference of its own; a folder of tasks is opened."""
    tasks = load_tasks(reference)
    target, mark, query = reference.partition("?")
    if target.partition(":")[0] in _SOURCES:
        return [(f"{task.name}{mark}{query}" if len(tasks) > 1 else reference, task) for task in tasks]
    path = Path(target)
    path = path.absolute() if path.name.strip(".") else path.resolve()  # the file that a link leads to has another name
    if len(tasks) == 1 and (path.is_file() or tasks[0].name == path.name):
        return [(f"{path.as_posix()}{mark}{query}", tasks[0])]
    folders = [f for f in path.iterdir() if f.is_dir() and not f.name.startswith(".")]
    inside = sorted([*list_data_files(path), *(f for f in folders if any(map(list_data_files, [f, *_below(f)])))])
    return [pair for f in inside for pair in _single(f"{f.as_posix()}{mark}{query}")]


def _below(folder: Path) -> list[Path]:
    return [f for f in folder.rglob("*") if f.is_dir()]


def _look(reference: str, task: Task) -> Seen:
    split = task.train_split
    rows_per_label = {name: int(np.sum(split.labels == label)) for label, name in enumerate(task.label_names)}
    looked_at = [split[i] for i in range(0, len(split), max(1, len(split) // _LOOKED_AT))]
    words = [len(f"{example.text} {example.text_pair or ''}".split()) for example in looked_at]
    middle, longest = int(median(words)), max(words)
    seen = Seen(reference, task.name, task.kind, task.pair, len(split), rows_per_label, middle, longest)
    if task.kind == "classification" and len(seen.usable) < 2:
        counts = ", ".join(f"{name}: {count}" for name, count in rows_per_label.items())
        what = f"too few rows for an episode, which takes two labels with two rows each ({counts})"
        raise DataError(what, where=reference, fix="Add labelled rows, or leave this file out.")
    if task.kind == "regression" and len(split) < 4:
        what = f"{len(split)} rows are too few for an episode"
        raise DataError(what, where=reference, fix="Give four rows or more, or leave this file out.")
    return seen
