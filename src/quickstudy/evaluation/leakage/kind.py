"""Kind: how a row that is evaluated was seen in meta-training, the strictest kind first.

    exact         the same text (of a pair: the same two)
    normalised    the same words, whatever their case, accents' encoding, punctuation and spaces
    swapped       the two texts of a trained pair, the other way round
    13-gram       thirteen words in a row in common: a quotation, a longer or shorter cut of the same document
    near          at most one word in eight changed, left out or put in
    recombined    both texts of a pair are known, each from elsewhere
    one side      one text of a pair is known, and it is shorter than thirteen words
    lineage       both tasks declare a common source, e.g. SST-2 and MR, which are the same film reviews

A text is known if it was trained as a single text or as a text of a pair, in any of these ways. Texts of pairs that
have fewer than four words do not count: "Why not?" is a text of many pairs by chance.

`one side` is reported and never refused. Pairs of different sources can share a target, a stock hypothesis or a short
premise, while what is asked of the pair is new. Thirteen words are what Brown et al. 2020, arXiv:2005.14165, use for
the same purpose: chance repetitions of that length are rare, and set phrases are shorter. In scripts without spaces,
two characters count as one word.
"""

from collections.abc import Mapping
from typing import Literal

OverlapKind = Literal["exact", "normalised", "swapped", "13-gram", "near", "recombined", "one side", "lineage"]
Seen = Literal["meta-trained on", "seen in meta-validation"]

REPORTED: frozenset[OverlapKind] = frozenset({"one side"})

_WORDS: Mapping[str, str] = {
    "exact": "the same text",
    "normalised": "the same words",
    "swapped": "a pair with its texts swapped",
    "13-gram": "thirteen words in a row",
    "near": "a few words changed",
    "recombined": "a new pair of two known texts",
    "one side": "one text of a pair",
}


def describe_kinds(rows: Mapping[str, int]) -> str:
    """Return numbers of rows by kind in words.

    >>> describe_kinds({"near": 3, "exact": 1200})
    '1,200 the same text, 3 a few words changed'
    """
    order = [*_WORDS, *(kind for kind in rows if kind not in _WORDS)]
    return ", ".join(f"{rows[kind]:,} {_WORDS.get(kind, kind)}" for kind in order if rows.get(kind))
