"""Text index: which of the evaluated texts a trained text equals, quotes, or differs from in a few words.

The evaluated texts are indexed and the trained ones read past them, so memory follows from what is evaluated. Equal
texts and texts with the same words are looked up by hash, quotations by the hashes of all runs of thirteen words. A
word that is said again and again counts once in a run: "@user @user @user" begins many tweets.

For texts that differ in up to d words: d words can damage only d of d + 1 segments, so the segment that is left is
looked up. Whoever shares a segment, at about the same place, is compared in full (edit distance on words).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from quickstudy.evaluation.leakage.edits import within_edits
from quickstudy.evaluation.leakage.grams import FlatTexts, Grams, GramTable, Ints, all_grams, some_grams
from quickstudy.evaluation.leakage.units import split_units, units_per_word

QUOTED_WORDS = 13
WORDS_PER_EDIT = 8  # of near copies; texts of fewer words that differ in one are often other texts
MOST_NEAR_WORDS = 100  # of longer near copies, thirteen words in a row are left nearly always


class Likeness(IntEnum):
    """How like a trained text is, the strictest first."""

    EXACT = 0
    NORMALISED = 1
    QUOTED = 2
    NEAR = 3
    NONE = 4


class TextIndex:
    """The evaluated texts, each once.

    Args:
        texts: The texts, without repetition.

    Attributes:
        words: About how many words each text has.
        likeness: The strictest likeness of each text to any text that was read past it.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        units = [split_units(text) for text in texts]
        self._exact = {text: number for number, text in enumerate(texts)}
        self._normalised: defaultdict[int, list[int]] = defaultdict(list)
        for number, each in enumerate(units):
            if each:
                self._normalised[hash(each)].append(number)
        self._flat, self._per_word = FlatTexts(units), _per_word(units)
        self._signatures = self._flat.signatures()
        self.words: Ints = self._flat.sizes // self._per_word
        self.likeness: NDArray[np.int64] = np.full(len(texts), Likeness.NONE, dtype=np.int64)
        quotable = self._flat.without_repeats()
        self._quotable = {
            spread: GramTable(all_grams(quotable, QUOTED_WORDS * spread, self._per_word == spread))
            for spread in np.unique(self._per_word).tolist()
        }
        self._edits = _allowed_edits(self._flat.sizes, self._per_word)
        segments, lengths = _segments(self._flat, self._edits)
        self._segments, self._lengths = GramTable(segments), np.unique(lengths).tolist()

    def read(self, texts: Sequence[str]) -> dict[int, dict[int, Likeness]]:
        """Compare trained texts with those of the index.

        Quotations and near copies are looked for only where nothing as strict was found before.

        Args:
            texts: The trained texts, without repetition.

        Returns:
            For trained texts, the texts of the index that are like them, and how.
        """
        units = [split_units(text) for text in texts]
        alike: dict[int, dict[int, Likeness]] = {}
        for text, number, likeness in self._compare(texts, units):
            known = alike.setdefault(text, {})
            known[number] = min(likeness, known.get(number, Likeness.NONE))
            self.likeness[number] = min(likeness, self.likeness[number])
        return alike

    def _compare(self, texts: Sequence[str], units: Sequence[tuple[str, ...]]) -> Iterator[tuple[int, int, Likeness]]:
        for place, (text, each) in enumerate(zip(texts, units, strict=True)):
            if (exact := self._exact.get(text)) is not None:
                yield place, exact, Likeness.EXACT
            for number in self._normalised.get(hash(each), ()) if each else ():
                if number != exact:
                    yield place, number, Likeness.NORMALISED
        flat, per_word = FlatTexts(units), _per_word(units)
        quotable = flat.without_repeats()
        for spread, table in self._quotable.items():
            yield from self._quoted(table, all_grams(quotable, QUOTED_WORDS * spread, per_word == spread))
        yield from self._near(flat)

    def _quoted(self, table: GramTable, grams: Grams) -> Iterator[tuple[int, int, Likeness]]:
        for trained, indexed in table.equal(grams):
            numbers, first = np.unique(indexed.texts, return_index=True)
            new = self.likeness[numbers] > Likeness.QUOTED
            for place, number in zip(trained.texts[first[new]].tolist(), numbers[new].tolist(), strict=True):
                yield place, number, Likeness.QUOTED

    def _near(self, flat: FlatTexts) -> Iterator[tuple[int, int, Likeness]]:
        signatures = flat.signatures()
        short = flat.sizes <= MOST_NEAR_WORDS * 2 + MOST_NEAR_WORDS // 4
        for length in self._lengths:
            for trained, indexed in self._segments.equal(all_grams(flat, length, short)):
                most = self._edits[indexed.texts]
                likely = self.likeness[indexed.texts] > Likeness.NEAR
                likely &= abs(flat.sizes[trained.texts] - self._flat.sizes[indexed.texts]) <= most
                likely &= abs(trained.positions - indexed.positions) <= most
                changed = signatures[trained.texts] ^ self._signatures[indexed.texts]
                likely &= np.bitwise_count(changed) <= 2 * most
                for place, number in set(
                    zip(trained.texts[likely].tolist(), indexed.texts[likely].tolist(), strict=True)
                ):
                    if self.likeness[number] > Likeness.NEAR and within_edits(
                        flat.of(place), self._flat.of(number), int(self._edits[number])
                    ):
                        yield place, number, Likeness.NEAR


def _per_word(units: Sequence[tuple[str, ...]]) -> Ints:
    return np.array([units_per_word(each) for each in units], dtype=np.int64)


def _allowed_edits(sizes: Ints, per_word: Ints) -> Ints:
    """Return in how many units a near copy may differ; 0 where none is looked for."""
    words = sizes // per_word
    return np.where((words >= WORDS_PER_EDIT) & (words <= MOST_NEAR_WORDS), sizes // WORDS_PER_EDIT, 0)


def _segments(texts: FlatTexts, edits: Ints) -> tuple[Grams, Ints]:
    """Return one segment more than there may be edits of each text, and the segments' lengths."""
    counts = np.where(edits > 0, edits + 1, 0)
    numbers = np.repeat(np.arange(len(counts)), counts)
    places = np.arange(len(numbers)) - np.repeat(np.cumsum(counts) - counts, counts)
    lengths = texts.sizes[numbers] // counts[numbers]
    return some_grams(texts, lengths, numbers, places * texts.sizes[numbers] // counts[numbers]), lengths
