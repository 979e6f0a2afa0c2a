"""Grams: runs of units as 64-bit hashes, computed for many texts at once, and a table that finds equal ones.

    h(u_0 .. u_{L-1}) = sum_k hash(u_k) c^(k+1)  mod 2^64

Two different runs have the same hash with probability 2^-64 or so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Ints = NDArray[np.int64]

_FACTOR = 0x9E3779B97F4A7C15  # odd
_BLOCK = 1_000_000  # equal grams that are held in memory at a time


class FlatTexts:
    """Texts as hashes of their units, one text after another.

    Args:
        texts: Their units.

    Attributes:
        units: Hashes of all units.
        starts: Where each text begins in them.
        sizes: Units of each text.
    """

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        sizes = np.array([len(text) for text in texts], dtype=np.int64)
        hashes = np.fromiter((hash(unit) for text in texts for unit in text), dtype=np.int64, count=int(sizes.sum()))
        self._set(hashes.view(np.uint64), sizes)

    def _set(self, units: Hashes, sizes: Ints) -> None:
        self.units, self.sizes = units, sizes
        self.starts: Ints = np.cumsum(sizes) - sizes

    def without_repeats(self) -> "FlatTexts":
        """Return the texts without units that equal the one before them: "no no no" becomes "no"."""
        kept = np.ones(len(self.units), dtype=bool)
        kept[1:] = self.units[1:] != self.units[:-1]
        kept[self.starts[self.sizes > 0]] = True
        ends = np.concatenate([[0], np.cumsum(kept)])
        texts = FlatTexts(())
        texts._set(self.units[kept], ends[self.starts + self.sizes] - ends[self.starts])
        return texts

    def of(self, text: int) -> list[int]:
        """Return the hashes of the units of a text."""
        start = self.starts[text]
        return self.units[start : start + self.sizes[text]].tolist()  # type: ignore[no-any-return]

    def signatures(self) -> Hashes:
        """Return 64 bits for each text; an edit changes two of them at most."""
        bits = np.left_shift(np.uint64(1), self.units >> np.uint64(58))
        signatures = np.zeros(len(self.sizes), dtype=np.uint64)
        filled = self.sizes > 0
        if filled.any():
            signatures[filled] = np.bitwise_or.reduceat(bits, self.starts[filled])
        return signatures


@dataclass(frozen=True, slots=True)
class Grams:
    """Runs of units: their hashes, the texts they are from, and their positions in these."""

    hashes: Hashes
    texts: Ints
    positions: Ints

    def __getitem__(self, chosen: Ints | NDArray[np.bool_]) -> "Grams":
        return Grams(self.hashes[chosen], self.texts[chosen], self.positions[chosen])


def all_grams(texts: FlatTexts, length: int, chosen: NDArray[np.bool_]) -> Grams:
    """Return all runs of `length` units in the chosen texts."""
    sizes = np.where(chosen, np.maximum(texts.sizes - length + 1, 0), 0)
    numbers = np.repeat(np.arange(len(sizes)), sizes)
    positions = np.arange(len(numbers)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return Grams(_hash(texts, length, texts.starts[numbers] + positions), numbers, positions)


def some_grams(texts: FlatTexts, lengths: Ints, numbers: Ints, positions: Ints) -> Grams:
    """Return runs of given lengths at given positions of texts."""
    hashes = np.zeros(len(numbers), dtype=np.uint64)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        hashes[rows] = _hash(texts, int(length), texts.starts[numbers[rows]] + positions[rows])
    return Grams(hashes, numbers, positions)


class GramTable:
    """Grams in which equal ones can be looked up."""

    def __init__(self, grams: Grams) -> None:
        self._grams = grams[np.argsort(grams.hashes, kind="stable")]
        bits = min(27, max(10, int(16 * len(grams.hashes)).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._filter = np.zeros(2**bits, dtype=bool)  # most grams are in no table; this tells so quickly
        self._filter[self._grams.hashes >> self._shift] = True

    def equal(self, grams: Grams) -> Iterator[tuple[Grams, Grams]]:
        """Yield equal grams, side by side: those that are asked for, and those of the table."""
        asked = grams[self._filter[grams.hashes >> self._shift]]
        low = np.searchsorted(self._grams.hashes, asked.hashes, side="left")
        counts = np.searchsorted(self._grams.hashes, asked.hashes, side="right") - low
        ends = np.cumsum(counts)
        first = 0
        while first < len(counts):
            done = ends[first] - counts[first]
            last = max(first + 1, int(np.searchsorted(ends, done + _BLOCK, side="right")))
            repeats = counts[first:last]
            rows = np.repeat(np.arange(first, last), repeats)
            offsets = np.arange(len(rows)) - np.repeat(ends[first:last] - repeats - done, repeats)
            if len(rows):
                yield asked[rows], self._grams[low[rows] + offsets]
            first = last


def _hash(texts: FlatTexts, length: int, places: Ints) -> Hashes:
    total = np.zeros(len(places), dtype=np.uint64)
    factor = 1
    for offset in range(length):
        factor = factor * _FACTOR % 2**64
        total += texts.units[places + offset] * np.uint64(factor)
    return total
