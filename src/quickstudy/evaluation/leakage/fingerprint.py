"""Fingerprint: what a run was trained on as 32 bits a row, for a run that travels without its texts.

    fingerprint(row) = the first 32 bits of BLAKE2b(words of the row)

Case, punctuation and the order of the two texts of a pair do not count. Rows with the same words are found, and
nothing else is: no quotations, no near copies, no new pairs of known texts. With a million trained rows, a new row has
the fingerprint of one of them by chance in 0.02 % of cases. The texts cannot be read back from fingerprints, but
whoever has a text can see whether it was trained on.
"""

from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quickstudy.evaluation.leakage.kind import OverlapKind
from quickstudy.evaluation.leakage.search import texts_of
from quickstudy.evaluation.leakage.units import split_units
from quickstudy.evaluation.results import Overlap
from quickstudy.evaluation.trial import PlannedTask
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Task

Fingerprints = NDArray[np.uint32]  # sorted, each once

_KIND: OverlapKind = "normalised"
_BYTES = 4


def take_fingerprints(tasks: Iterable[Task]) -> Fingerprints:
    """Return the fingerprints of the train splits of tasks."""
    splits = [task.train_split for task in tasks]
    return np.unique(np.array([_of(split[row]) for split in splits for row in range(len(split))], dtype=np.uint32))


def save_fingerprints(known: Fingerprints, file: Path) -> None:
    """Write fingerprints in NumPy's format."""
    with file.open("wb") as stream:
        np.save(stream, known, allow_pickle=False)


def load_fingerprints(file: Path) -> Fingerprints:
    """Read what `save_fingerprints` wrote.

    Raises:
        ValueError: The file holds something else.
    """
    known: Fingerprints = np.load(file, mmap_mode="r", allow_pickle=False)  # mapped: it cannot claim more than it has
    if known.dtype != np.uint32 or known.ndim != 1:
        raise ValueError("it holds no fingerprints")
    return np.array(known)


def find_known_rows(known: Fingerprints, evaluated: Iterable[PlannedTask], source: str) -> tuple[Overlap, ...]:
    """Look for what is evaluated among fingerprints; scored rows and rows of support sets are counted apart.

    Args:
        known: Of all that was seen.
        evaluated: Tasks with their trials.
        source: What the seen rows are called in messages.

    Returns:
        One entry per evaluated task that has rows in common with what was seen.
    """
    overlaps = []
    for planned in evaluated:
        support = dict.fromkeys(example for trial in planned.trials for example in trial.support)
        rows, support_rows = (_known(known, examples) for examples in (planned.scored, support))
        overlaps.append(
            Overlap(
                task=planned.name,
                rows={str(_KIND): len(rows)} if rows else {},
                total=len(planned.scored),
                sources=(source,),
                lineage=(),
                examples=tuple(" | ".join(texts_of(example)) for example in rows[:3]),
                support={str(_KIND): len(support_rows)} if support_rows else {},
                support_total=len(support),
            )
        )
    return tuple(overlap for overlap in overlaps if overlap.rows or overlap.support)


def _known(known: Fingerprints, examples: Iterable[Example]) -> list[Example]:
    listed = list(examples)
    seen = np.isin(np.array([_of(example) for example in listed], dtype=np.uint32), known)
    return [example for example, is_known in zip(listed, seen, strict=True) if is_known]


def _of(example: Example) -> int:
    sides = sorted(" ".join(split_units(text)) for text in texts_of(example))
    return int.from_bytes(blake2b("\n".join(sides).encode(), digest_size=_BYTES).digest(), "little")
