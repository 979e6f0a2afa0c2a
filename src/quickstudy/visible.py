"""Visible: text from data as it may be shown; nothing in it steers a terminal or hides what is written."""

# C0 (without tab and line feed) and DEL have signs of their own. C1, and the embeddings, overrides and isolates of the
# Unicode bidirectional algorithm, have none.
_SIGNS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
_SIGNS |= dict.fromkeys([*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD)


def visible(text: str) -> str:
    r"""Return text with a sign in place of each control character.

    >>> visible("late\x1b[31m fee\x9b")
    'late␛[31m fee�'
    """
    return text.translate(_SIGNS)
