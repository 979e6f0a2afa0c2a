"""Sentences: a document as sentences, and a sentence as words.

A sentence ends at `.`, `!` or `?` (with quotes and brackets behind it) before white space and a capital letter, a
digit or a quote, and at the end of a line that ends with such a mark. Scripts without spaces between words are not cut
into words, so texts in them give no word tasks.
"""

import re
from collections.abc import Iterator

MASK = "[MASK]"  # what stands for a word that is asked for; BERT and its relatives read it as one token

FEWEST_WORDS, MOST_WORDS = 4, 80  # of a sentence; a longer one is cut into pieces

WORD = r"(?<!\w)[^\W\d_]{2,}(?!\w)"
NAME = r"(?<=[a-z,;] )[A-Z][a-z]+[^\W\d_]*(?!\w)"  # a capitalised word that does not begin a sentence
NUMBER = r"(?<![\w.,])\d+(?:[.,]\d+)*(?!\w)"

_END = re.compile(r"(?<=[.!?])[\"')\]”’]*\s+(?=[\"'(\[“‘]*[^\Wa-z_])")
_ABBREVIATION = re.compile(r"(?<!\w)(?:[A-Z]|e\.g|i\.e|etc|vs|cf|Mr|Mrs|Ms|Dr|St|No|Fig|Prof|Inc|Ltd|Co)\.$")
_SPACE = re.compile(r"\s+")
_WORD, _NUMBER = re.compile(WORD), re.compile(NUMBER)


def split_sentences(text: str) -> Iterator[str]:
    r"""Yield the sentences of a document of four words or more, with single spaces; long ones are cut.

    >>> list(split_sentences("The fee was late again. Dr. Smith\n paid it on 3 May. Why?"))
    ['The fee was late again.', 'Dr. Smith paid it on 3 May.']
    """
    start, clean = 0, _SPACE.sub(" ", text).strip()
    for end in _END.finditer(clean):
        if not _ABBREVIATION.search(clean, max(start, end.start() - 8), end.start()):
            yield from _usual(clean[start : end.end()].strip())
            start = end.end()
    yield from _usual(clean[start:])


def _usual(sentence: str) -> Iterator[str]:
    """Yield a sentence; a long one in pieces, a short one not at all."""
    words = sentence.split(" ")
    for start in range(0, len(words), MOST_WORDS):
        if len(piece := words[start : start + MOST_WORDS]) >= FEWEST_WORDS:
            yield " ".join(piece)


def mask_word(sentence: str, word: str) -> str:
    """Return a sentence with a mask in place of a word or a number, wherever it occurs, whatever its case.

    >>> mask_word("The fees of the fee.", "the"), mask_word("It cost 3.5 or 3.", "3")
    ('[MASK] fees of [MASK] fee.', 'It cost 3.5 or [MASK].')
    """
    wanted = word.lower()
    pattern = _NUMBER if word[0].isdigit() else _WORD
    return pattern.sub(lambda match: MASK if match[0].lower() == wanted else match[0], sentence)


def has_word(text: str, word: str) -> bool:
    """Return whether a word or a number occurs in a text, whatever its case.

    >>> has_word("The fees", "the"), has_word("The fees", "fee")
    (True, False)
    """
    return mask_word(text, word) != text
