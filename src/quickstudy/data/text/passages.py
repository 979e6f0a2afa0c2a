"""Passages: running text of a corpus, drawn at random, for masked-language modelling and for tokenizers."""

from collections.abc import Callable, Iterator

import numpy as np

from quickstudy.data.text.store import SIDES, Side, TextStore, sample_documents
from quickstudy.errors import DataError

_SENTENCES = 32  # of a passage, at most
_TRIES = 1000


class Passages:
    """Passages from the documents of a side of a corpus.

    Args:
        store: The corpus.
        side: Which documents.

    Raises:
        DataError: No document is on that side.
    """

    def __init__(self, store: TextStore, side: Side) -> None:
        self._store, self._side = store, SIDES.index(side)
        if not (store.sides == self._side).any():
            raise DataError(
                f"the text has no document on the side {side!r}",
                fix="Give more documents: text of several hundred, with a blank line between them or a row for each.",
            )

    def draw(self, random: np.random.Generator, characters: int) -> str:
        """Return a passage that begins at a random sentence and has about so many characters.

        It goes on into the documents that follow until enough is read or a document of another side begins.
        """
        first, document = self._draw_sentence(random)
        sentences: list[str] = []
        last = min(first + _SENTENCES, self._end(document))
        for sentence in self._store.read(first, last):
            sentences.append(sentence)
            characters -= len(sentence) + 1
            if characters <= 0:
                break
        return " ".join(sentences)

    def sample(self, sentences: int) -> "Sample":
        """Return the sentences of the side among documents that, of all sides, have about so many; see `Sample`."""
        return Sample(lambda: self._sample(sentences))

    def _sample(self, sentences: int) -> Iterator[str]:
        for document in sample_documents(self._store, sentences):
            if self._store.sides[document] == self._side:
                first, last = self._store.documents[document : document + 2].tolist()
                yield from self._store.read(first, last)

    def _draw_sentence(self, random: np.random.Generator) -> tuple[int, int]:
        """Return a sentence of the side, and its document."""
        for _ in range(_TRIES):
            first = int(random.integers(len(self._store)))
            document = self._store.document_of(first)
            if self._store.sides[document] == self._side:
                return first, document
        document = int(np.argmax(self._store.sides == self._side))  # hardly any text is on this side
        return int(self._store.documents[document]), document

    def _end(self, document: int) -> int:
        """Return where the documents end that follow a document, and are on the same side."""
        sides = self._store.sides[document : document + _SENTENCES]
        others = np.flatnonzero(sides != self._side)
        return int(self._store.documents[document + (int(others[0]) if len(others) else len(sides))])


class Sample:
    """Sentences that can be gone through several times, each time read anew.

    Args:
        begin: Begins to read them.
    """

    def __init__(self, begin: Callable[[], Iterator[str]]) -> None:
        self._begin = begin

    def __iter__(self) -> Iterator[str]:
        return self._begin()
