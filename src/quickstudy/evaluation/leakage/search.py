"""Search: the rows that are evaluated, and what was seen of each of them while trained rows are read past."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from quickstudy.evaluation.leakage.kind import OverlapKind
from quickstudy.evaluation.leakage.text_index import QUOTED_WORDS, Likeness, TextIndex
from quickstudy.tasks.split import Example, Split

FEWEST_WORDS = 4  # of a text of a pair that counts: "Why not?" is a text of many pairs by chance

_CHUNK = 1_000_000  # characters of trained texts that are read at a time
_KINDS: Mapping[Likeness, OverlapKind] = {
    Likeness.EXACT: "exact",
    Likeness.NORMALISED: "normalised",
    Likeness.QUOTED: "13-gram",
    Likeness.NEAR: "near",
}
_STRICTNESS = ("exact", "normalised", "swapped", "13-gram", "near")  # of pairs that are like trained pairs

Pair = tuple[int, int]


class Search:
    """A search for rows.

    Args:
        examples: The rows.
    """

    def __init__(self, examples: Iterable[Example]) -> None:
        numbers: dict[str, int] = {}
        partners: defaultdict[int, set[int]] = defaultdict(set)
        for example in examples:
            sides = [numbers.setdefault(text, len(numbers)) for text in texts_of(example)]
            if len(sides) > 1:
                partners[sides[0]].add(sides[1])
        self._numbers, self._partners, self._index = numbers, dict(partners), TextIndex(list(numbers))
        self._texts: dict[int, tuple[Likeness, int]] = {}
        self._pairs: dict[Pair, tuple[OverlapKind, int]] = {}

    def read(self, split: Split, source: int) -> None:
        """Read trained rows.

        Args:
            split: The rows.
            source: Number of their task, which `kind` returns.
        """
        for texts, pairs in _chunks(split):
            alike = self._index.read(texts)
            sides = {side for pair in pairs for side in pair}
            for text, likenesses in alike.items():
                self._read_text(likenesses, source, fewest_words=FEWEST_WORDS if text in sides else 0)
            for first, second in pairs:
                if first in alike and second in alike:
                    self._read_pair(alike[first], alike[second], source, swapped=False)
                    self._read_pair(alike[second], alike[first], source, swapped=True)

    def kind(self, example: Example) -> tuple[OverlapKind, int] | None:
        """Return how a row was seen, and the task that it was seen in; None if it was not."""
        numbers = [self._numbers[text] for text in texts_of(example)]
        return self._kind_of_text(*numbers) if len(numbers) == 1 else self._kind_of_pair(numbers[0], numbers[1])

    def _read_text(self, alike: Mapping[int, Likeness], source: int, *, fewest_words: int) -> None:
        """Note the evaluated texts that are like a trained text."""
        for number, likeness in alike.items():
            before = self._texts.get(number, (Likeness.NONE, 0))[0]
            if likeness < before and self._index.words[number] >= fewest_words:
                self._texts[number] = likeness, source

    def _read_pair(
        self, first: Mapping[int, Likeness], second: Mapping[int, Likeness], source: int, *, swapped: bool
    ) -> None:
        """Note the evaluated pairs that are like a trained pair, whose texts are like these texts."""
        for number, likeness in first.items():
            for partner in self._partners.get(number, set()) & second.keys():
                kind: OverlapKind = "swapped" if swapped else _KINDS[max(likeness, second[partner])]
                before = self._pairs.get((number, partner))
                if before is None or _STRICTNESS.index(kind) < _STRICTNESS.index(before[0]):
                    self._pairs[number, partner] = kind, source

    def _kind_of_text(self, number: int) -> tuple[OverlapKind, int] | None:
        if number not in self._texts:
            return None
        likeness, source = self._texts[number]
        return _KINDS[likeness], source

    def _kind_of_pair(self, first: int, second: int) -> tuple[OverlapKind, int] | None:
        words = self._index.words
        if pair := self._pairs.get((first, second)):
            return pair
        known = [n for n in (first, second) if n in self._texts and words[n] >= FEWEST_WORDS]
        if not known:
            return None
        likeness, source = min(self._texts[number] for number in known)
        if len(known) == 2:
            return "recombined", source
        quoted = likeness == Likeness.QUOTED or (likeness < Likeness.QUOTED and words[known[0]] >= QUOTED_WORDS)
        return ("13-gram" if quoted else "one side"), source


def texts_of(example: Example) -> tuple[str, ...]:
    """Return the one or two texts of a row."""
    return (example.text,) if example.text_pair is None else (example.text, example.text_pair)


def _chunks(split: Split) -> Iterator[tuple[list[str], set[Pair]]]:
    """Yield the texts of a split in chunks, each text of a chunk once, with the pairs that they make."""
    numbers: dict[str, int] = {}
    pairs: set[Pair] = set()
    size = 0
    for row in range(len(split)):
        texts = texts_of(split[row])
        size += sum(len(text) for text in texts if text not in numbers)
        places = [numbers.setdefault(text, len(numbers)) for text in texts]
        if len(places) == 2:
            pairs.add((places[0], places[1]))
        if size > _CHUNK:
            yield list(numbers), pairs
            numbers, pairs, size = {}, set(), 0
    yield list(numbers), pairs
