"""Text: the texts that a caller gives from Python, checked one by one and made into examples.

    "a text"        ("a text", "its second text")        Example("a text")

Adapting and predicting read texts with the same function, so a mistake gets the same message, which names its
position.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from quickstudy.errors import DataError
from quickstudy.tasks.split import Example

Text = str | tuple[str, str] | Example


@runtime_checkable
class _Table(Protocol):
    """What the data frames of pandas and polars and the tables of pyarrow have in common."""

    @property
    def columns(self) -> Iterable[object]: ...


def parse_texts(texts: Iterable[Text]) -> list[Example]:
    """Return texts as examples, without labels.

    Args:
        texts: Texts, (text, second text) pairs, or examples, in a list, a column of a table or an array of NumPy. A
            single text or example stands for a list that holds nothing else.

    Raises:
        DataError: They are a table or cannot be gone through, or one of them is no text or empty; with its position.

    >>> parse_texts([("a claim", "its evidence")])
    [Example(text='a claim', text_pair='its evidence', label=None)]
    """
    if isinstance(texts, np.ndarray):
        texts = texts.tolist()
    if isinstance(texts, str | Example):
        texts = [texts]
    refuse_table(texts, "texts")
    return [_parse(text, f"texts[{i}]") for i, text in enumerate(texts)]


def refuse_table(values: object, name: str) -> None:
    """Raise `DataError` if values are a table, whose items are names of columns, or are nothing to go through.

    Args:
        values: What the caller gave.
        name: What it is called in the message, e.g. `texts`.
    """
    if isinstance(values, Mapping | _Table):
        columns = values if isinstance(values, Mapping) else values.columns
        names = ", ".join(column for column in columns if isinstance(column, str))
        raise DataError(
            f"{name} is a table, not one column of it; its columns are: {names or 'without names'}",
            fix="Give the column, e.g. table['label']."
            if name == "labels"
            else "Give the column, e.g. table['text']; for pairs list(zip(table['text'], table['text_pair'])).",
        )
    if not isinstance(values, Iterable):
        raise DataError(f"{name} is {values!r}", fix='Give a list, e.g. ["a text", "another text"].')


def _parse(text: object, place: str) -> Example:
    if isinstance(text, Example):
        text = (text.text,) if text.text_pair is None else (text.text, text.text_pair)
    texts = list(text) if isinstance(text, tuple | list | np.ndarray) else [text]
    checked = [item for item in texts if isinstance(item, str)]
    if len(checked) != len(texts) or len(texts) not in (1, 2):
        raise DataError(f"{text!r} is not a text", where=place, fix="Give a text, or (text, second text) for a pair.")
    if not all(item.strip() for item in checked):
        raise DataError("this text is empty", where=place, fix="Leave it out.")
    if not all(map(_has_code, checked)):
        fix = "Decode it as UTF-8, or delete what was cut in half."
        raise DataError("half of a surrogate pair, or a byte that is no text in UTF-8", where=place, fix=fix)
    first, second = str(checked[0]), str(checked[1]) if len(checked) == 2 else None  # NumPy's texts become plain ones
    return Example(first, second)


def _has_code(text: str) -> bool:
    """Whether a text can be written down; Python holds half characters too, which no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
