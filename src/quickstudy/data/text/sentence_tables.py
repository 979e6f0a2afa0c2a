"""Sentence tables: how two sentences belong together, and whether a text is in its order.

    blocks of a document    (s_0, s_1), (s_2, s_3), …             half of them, drawn at random, are A, the others B

    next-sentence           yes: A's (first, second)              no: (first, second of another B of the document)
    same-document           yes: (first, second of another A)     no: (first, second of a B of another document)
    sentence-order          as written: A                         exchanged: B
    shuffled-spans          as written: half of the sentences     two spans exchanged: the other half

Next sentences are those of BERT (Devlin et al. 2019, arXiv:1810.04805) with negatives from the same document, and the
order of sentences is that of ALBERT (Lan et al. 2020, arXiv:1909.11942). Each sentence is in one row of a table.
"""

from collections.abc import Iterator

import numpy as np

from quickstudy.data.text.table import Ints, Table
from quickstudy.seeding import rng


def pair_tables(numbers: Ints, documents: Ints) -> Iterator[Table]:
    """Yield the tables of next sentences and of same documents.

    Args:
        numbers: (S,) numbers of sentences in the store, ascending.
        documents: (S,) the document of each.
    """
    blocks, block_documents, is_a = _blocks(numbers, documents)
    a, b = np.flatnonzero(is_a), np.flatnonzero(~is_a)
    within = _crossed(blocks, b, _next_in_document(block_documents[b]))
    yield _table("next-sentence", "pair", ("next", "not next"), blocks[a], within, "Does the second sentence follow?")
    same = _crossed(blocks, a, _next_in_document(block_documents[a]))
    mixed = b[rng(0, "documents").permutation(len(b))]
    partner = np.roll(np.arange(len(mixed)), -1)
    partner[block_documents[mixed] == block_documents[mixed[partner]]] = -1
    other = _crossed(blocks, mixed, partner)
    yield _table(
        "same-document", "pair", ("same", "different"), same, other, "Are the two sentences from the same document?"
    )


def order_tables(numbers: Ints, documents: Ints) -> Iterator[Table]:
    """Yield the tables of the order of sentences and of spans; see `pair_tables`."""
    blocks, _, is_a = _blocks(numbers, documents)
    names = ("as written", "exchanged")
    yield _table("sentence-order", "order", names, blocks[is_a], blocks[~is_a], "Is the first sentence first?")
    written = rng(0, "spans").random(len(numbers)) < 0.5
    rows = numbers[:, None]
    yield _table("shuffled-spans", "spans", names, rows[written], rows[~written], "Are the words in their order?")


def _blocks(numbers: Ints, documents: Ints) -> tuple[Ints, Ints, "np.ndarray[tuple[int], np.dtype[np.bool_]]"]:
    """Return blocks of two sentences that follow each other, (B, 2), the document of each, and which ones are A."""
    begins = np.flatnonzero(np.r_[True, documents[1:] != documents[:-1]])
    place = np.arange(len(numbers)) - np.repeat(begins, np.diff(np.r_[begins, len(numbers)]))
    first = np.flatnonzero(place[:-1] % 2 == 0)
    follows = (documents[first] == documents[first + 1]) & (numbers[first + 1] == numbers[first] + 1)
    first = first[follows]
    is_a = rng(0, "blocks").random(len(first)) < 0.5
    return np.stack([numbers[first], numbers[first + 1]], axis=1), documents[first], is_a


def _next_in_document(documents: Ints) -> Ints:
    """Return for each entry the position of the next one of its document, after the last one its first; -1 if alone."""
    partner = np.arange(1, len(documents) + 1)
    if not len(documents):
        return partner
    begins = np.flatnonzero(np.r_[True, documents[1:] != documents[:-1]])
    ends = np.r_[begins[1:], len(documents)] - 1
    partner[ends] = np.where(begins == ends, -1, begins)
    return partner


def _crossed(blocks: Ints, chosen: Ints, partner: Ints) -> Ints:
    """Return the first sentence of each chosen block with the second sentence of its partner."""
    has = partner >= 0
    return np.stack([blocks[chosen[has], 0], blocks[chosen[partner[has]], 1]], axis=1)


def _table(name: str, form: str, names: tuple[str, str], yes: Ints, no: Ints, question: str) -> Table:
    labels = np.repeat(np.arange(2), [len(yes), len(no)])
    return Table(name, form, names, np.concatenate([yes, no]), labels, question)  # type: ignore[arg-type]
