"""Texts to predict: a data file without labels."""

from pathlib import Path

from quickstudy.data.table import Columns, checked_rows
from quickstudy.tasks.split import Example


def read_texts(path: Path, text: str = "text", pair: str | None = "auto") -> list[Example]:
    """Read the texts of a data file; a label column is not needed.

    Raises:
        DataError: Unreadable file, missing column or empty text; with `file:line`.
    """
    return [Example(text, pair) for _, _, text, pair in checked_rows(path, Columns(text, pair), labelled=False)]
