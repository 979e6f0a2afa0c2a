"""Label text: what a method may read of each label of a task.

    text of a label = its description if there is one, else its name in words

    true       the texts as they are
    none       nothing may be read
    opaque     each text is replaced by a code that says nothing ("B", "label 7"); a control

A method that gains as much from opaque texts as from true ones does not gain it from what the texts say.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from quickstudy.errors import RecipeError, did_you_mean
from quickstudy.seeding import rng

NameReading = Literal["true", "none", "opaque"]

NAME_READINGS: tuple[NameReading, ...] = get_args(NameReading)
_CODES = ("{letter}", "{number}", "label {number}", "class {letter}", "group {number}")
_LETTERS = 26


def name_in_words(name: str) -> str:
    """Return a label name as words: "_" and "-" become spaces, and camelCase is split.

    >>> name_in_words("card_arrival"), name_in_words("sci-fi"), name_in_words("FoodOrDrink"), name_in_words("-")
    ('card arrival', 'sci fi', 'Food Or Drink', '-')
    """
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"[_-]", " ", name)).split()
    return " ".join(words) or name


def label_texts(names: Sequence[str], descriptions: Mapping[str, str]) -> tuple[str, ...]:
    """Return the text of each label.

    Args:
        names: The names of the labels.
        descriptions: By label name; a label without a description has its name in words.
    """
    return tuple(descriptions.get(name) or name_in_words(name) for name in names)


def read_texts(texts: Sequence[str], reading: NameReading, draw: int = 0) -> tuple[str, ...]:
    """Return what may be read of some label texts.

    Args:
        texts: The text of each label.
        reading: `true`, `none` or `opaque`.
        draw: Which codes stand for opaque texts.

    Raises:
        RecipeError: There is no such reading.

    >>> read_texts(["good", "bad"], "true"), read_texts(["good", "bad"], "none")
    (('good', 'bad'), ())
    """
    if reading not in NAME_READINGS:
        raise RecipeError(f"label names cannot be read as {reading!r}", fix=did_you_mean(str(reading), NAME_READINGS))
    if reading == "opaque":
        return draw_codes(len(texts), rng(draw, "opaque", *texts))
    return tuple(texts) if reading == "true" else ()


def draw_codes(count: int, random: np.random.Generator) -> tuple[str, ...]:
    """Return different codes that say nothing. No code always stands at the same position.

    >>> from quickstudy.seeding import rng
    >>> draw_codes(3, rng(0, "codes", 1)), draw_codes(3, rng(0, "codes", 2))
    (('class E', 'class I', 'class T'), ('label 6', 'label 11', 'label 17'))
    """
    form = _CODES[random.integers(len(_CODES))]
    numbers = random.choice(max(_LETTERS, 2 * count), size=count, replace=False)
    return tuple(form.format(number=number + 1, letter=_letters(int(number))) for number in numbers)


def _letters(number: int) -> str:
    """Return A to Z, then AA to ZZ, and so on."""
    higher, last = divmod(number, _LETTERS)
    return (_letters(higher - 1) if higher else "") + chr(ord("A") + last)
