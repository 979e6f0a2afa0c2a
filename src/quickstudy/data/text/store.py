"""Store: the sentences of a corpus on the disk, each read when it is asked for.

    sentences.txt     the sentences, one after another, in UTF-8
    starts.bin        (S + 1,) int64, where each sentence starts, in bytes
    documents.bin     (D + 1,) int64, the number of the first sentence of each document
    sides.bin         (D,) uint8, the side of each document: meta-train, meta-validation or meta-test
    keys.bin          (D,) uint64, a hash of each document, by which documents are sampled

It is made in one pass, with some megabytes of memory, and takes as much space as the text. The hash of the text that
a group of documents begins with decides on which side all of them are. So copies of a document are on the same side,
and a file that grows keeps its sides. Texts are read by position and not mapped into memory, so that a process does
not grow with what it reads.
"""

import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from quickstudy.data.text.documents import Document
from quickstudy.data.text.sentences import split_sentences
from quickstudy.errors import DataError

Side = Literal["meta-train", "meta-validation", "meta-test"]
SIDES: tuple[Side, ...] = get_args(Side)

SHARES = (0.9, 0.95)  # up to the first share a group is on the first side, up to the second on the second one
_BUFFER = 2**20
_FILES = {"starts": np.int64, "documents": np.int64, "sides": np.uint8, "keys": np.uint64}


class TextStore:
    """The sentences of a corpus.

    Args:
        folder: What `write_store` wrote.

    Attributes:
        documents: (D + 1,) number of the first sentence of each document.
        sides: (D,) position of each document's side in `SIDES`.
        keys: (D,) hash of each document.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._starts: NDArray[np.int64] = _mapped(folder, "starts")
        self.documents: NDArray[np.int64] = _mapped(folder, "documents")
        self.sides: NDArray[np.uint8] = _mapped(folder, "sides")
        self.keys: NDArray[np.uint64] = _mapped(folder, "keys")
        self._file = os.open(folder / "sentences.txt", os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        """Number of sentences S."""
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> str:
        return self.read(index, index + 1)[0]

    def read(self, start: int, stop: int) -> list[str]:
        """Return the sentences from `start` to before `stop`."""
        places = self._starts[start : stop + 1].tolist()
        raw = os.pread(self._file, places[-1] - places[0], places[0])
        return [raw[first - places[0] : last - places[0]].decode() for first, last in pairwise(places)]

    def document_of(self, index: int) -> int:
        """Return the number of the document that a sentence is in."""
        return int(np.searchsorted(self.documents, index, side="right")) - 1


def side_of(group: str, shares: Sequence[float] = SHARES) -> int:
    """Return the position in `SIDES` of the side that a group of documents is on.

    >>> [side_of(f"document {i}", (0.3, 0.6)) for i in range(6)]
    [2, 2, 0, 2, 2, 2]
    """
    return int(np.searchsorted(shares, _hash(f"side of {group}") / 2.0**64, side="right"))


def write_store(documents: Iterable[Document], folder: Path, source: str, shares: Sequence[float] = SHARES) -> None:
    """Write the sentences of documents to a folder that is there and empty.

    Args:
        documents: The documents; those without a sentence of a usual length are left out.
        folder: Where.
        source: Where they are from, for messages.
        shares: Of the sides; see `SHARES`.

    Raises:
        DataError: There is no sentence.
    """
    size, count = 0, 0
    with ExitStack() as stack:
        text = stack.enter_context((folder / "sentences.txt").open("wb", buffering=_BUFFER))
        names = {name: stack.enter_context((folder / f"{name}.bin").open("wb", buffering=_BUFFER)) for name in _FILES}
        for document in documents:
            sentences = [sentence.encode("utf-8", "replace") for sentence in split_sentences(document.text)]
            if not sentences:
                continue
            starts = []
            for sentence in sentences:
                starts.append(size)
                size += len(sentence)
            text.writelines(sentences)
            row = {"starts": starts, "documents": [count], "sides": [side_of(document.group, shares)]}
            for name, values in {**row, "keys": [_hash(document.text)]}.items():
                names[name].write(np.array(values, dtype=_FILES[name]).tobytes())
            count += len(sentences)
        names["starts"].write(np.int64(size).tobytes())
        names["documents"].write(np.int64(count).tobytes())
    if not count:
        raise DataError(
            "there is no sentence of four words or more",
            where=source,
            fix="Give plain text in a language that writes spaces between words.",
        )


def sample_documents(store: TextStore, sentences: int) -> Iterator[int]:
    """Yield the numbers of documents that together have about so many sentences, in order; of a small corpus, all.

    Which documents they are follows from their texts: copies of a document are all there or all not.
    """
    fraction = sentences / len(store)
    for start in range(0, len(store.keys), _BUFFER):
        keys = store.keys[start : start + _BUFFER]
        chosen = np.flatnonzero(keys.astype(np.float64) < fraction * 2.0**64) if fraction < 1 else np.arange(len(keys))
        yield from (start + chosen).tolist()


def _mapped(folder: Path, name: str) -> NDArray[Any]:
    return np.memmap(folder / f"{name}.bin", dtype=_FILES[name], mode="r").view(np.ndarray)


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little")
