"""Units: what texts are compared by, words, and single characters in scripts that write no space between words.

    split_units("Café, open!")  = ("café", "open")
    split_units("猫は寝た。")      = ("猫", "は", "寝", "た")

Case, accents' encoding, punctuation and spaces do not count (NFKC, case folding). A vowel sign or another mark stays
with the letter before it. A word of Chinese or Japanese has about two characters. So lengths that are given in words
are doubled for texts in such scripts (`units_per_word`).
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

# The Unicode blocks of the scripts without spaces: Han and kana, Thai, Lao, Burmese, Khmer.
_UNSPACED = (
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
    "\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff"
)
_LAST_MARK = 0xFFFF  # marks beyond it belong to scripts that hardly anyone writes today
_WORD = re.compile(r"\w+")
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")


def split_units(text: str) -> tuple[str, ...]:
    """Return the units of a text.

    >>> split_units("Late  AGAIN!"), split_units("東京は雨")
    (('late', 'again'), ('東', '京', 'は', '雨'))
    """
    if text.isascii():
        return tuple(_WORD.findall(text.lower()))
    folded = unicodedata.normalize("NFKC", text).casefold()
    unit, special = _patterns()
    return tuple((unit if special.search(folded) else _WORD).findall(folded))


def units_per_word(units: Iterable[str]) -> int:
    """Return how many units make about one word: 2 where most are characters of scripts without spaces.

    >>> units_per_word(("open", "late")), units_per_word(("東", "京"))
    (1, 2)
    """
    unspaced = [not unit.isascii() and _IS_UNSPACED.match(unit) is not None for unit in units]
    return 2 if 2 * sum(unspaced) > len(unspaced) else 1


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the pattern of a unit with its marks, and that of the characters that make it more than a word."""
    marks = "".join(chr(code) for code in range(_LAST_MARK + 1) if unicodedata.category(chr(code)) in ("Mn", "Mc"))
    word, character = rf"(?:[^\W{_UNSPACED}]+[{marks}]*)+", rf"(?=\w)[{_UNSPACED}][{marks}]*"
    return re.compile(f"{word}|{character}"), re.compile(f"[{_UNSPACED}{marks}]")
