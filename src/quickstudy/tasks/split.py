"""Split: a sequence of labelled examples, whose labels can be read without the texts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quickstudy.errors import DataError
from quickstudy.seeding import rng

# The names of splits in published data, and their names in a task.
SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "eval": "test",
}


@dataclass(frozen=True, slots=True)
class Example:
    """One text, or a pair of texts, with its label.

    Attributes:
        text: The text.
        text_pair: The second text of a pair, else None.
        label: Position in the task's `label_names` (classification), a score (regression), or None if it is unknown.
    """

    text: str
    text_pair: str | None = None
    label: int | float | None = None


def readable(example: Example, label_names: Sequence[str]) -> dict[str, Any]:
    """Return an example as plain values, with the name of its label."""
    label = label_names[int(example.label or 0)] if label_names else example.label
    return {"text": example.text, "text_pair": example.text_pair, "label": label}


class Split(Protocol):
    """What a sampler needs to know of rows. It does not matter where they are stored."""

    @property
    def labels(self) -> NDArray[np.int64] | NDArray[np.float64]:
        """(B,) label positions (int64) or scores (float64)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


class ListSplit:
    """A split held in memory.

    Raises:
        DataError: An example without a label.
    """

    def __init__(self, examples: Iterable[Example]) -> None:
        self._examples = tuple(examples)
        kinds = {type(example.label) for example in self._examples}
        if not kinds <= {int, float}:
            raise DataError("every example of a split needs an integer or a float label", fix="Set Example.label.")
        labels = [example.label for example in self._examples]
        self.labels: NDArray[np.int64] | NDArray[np.float64]
        self.labels = np.array(labels, dtype=np.float64) if float in kinds else np.array(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int, /) -> Example:
        return self._examples[index]


class SubsetSplit:
    """Some rows of another split, in the order given."""

    def __init__(self, split: Split, rows: NDArray[np.int64]) -> None:
        self._split, self._rows = split, rows
        self.labels: NDArray[np.int64] | NDArray[np.float64] = split.labels[rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int, /) -> Example:
        return self._split[int(self._rows[index])]


def hold_out(split: Split, fraction: float, *, seed: int, stratify: bool = True) -> tuple[SubsetSplit, SubsetSplit]:
    """Cut a split in two, for data that have no test set.

    Args:
        split: The rows.
        fraction: Fraction of the rows that is held out, in (0, 1); with `stratify`, of the rows of each label.
        seed: Decides which rows.
        stratify: Keep the proportions of the labels (classification).

    Returns:
        (kept, held out). Each label with at least two rows is in both.

    >>> rows = ListSplit(Example(str(i), label=i % 2) for i in range(20))
    >>> kept, held = hold_out(rows, 0.5, seed=0)
    >>> len(kept), len(held), int(held.labels.sum())
    (10, 10, 5)
    """
    random = rng(seed, "hold_out")
    everything = np.arange(len(split))
    groups = [everything[split.labels == label] for label in np.unique(split.labels)] if stratify else [everything]
    sizes = [min(len(group) - 1, max(1, round(fraction * len(group)))) for group in groups]
    held = [random.permutation(group)[:size] for group, size in zip(groups, sizes, strict=True) if size]
    held_rows = np.sort(np.concatenate(held)) if held else everything[:0]
    return SubsetSplit(split, np.setdiff1d(everything, held_rows)), SubsetSplit(split, held_rows)
