"""Texts: a data file without labels, as examples to predict."""

from pathlib import Path

from quickstudy.data.table import Columns, read_checked_rows
from quickstudy.tasks.split import Example


def read_texts(path: Path, text: str = "text", pair: str | None = "auto") -> list[Example]:
    """Read the texts of a data file; a label column is not needed.

    Raises:
        DataError: The file cannot be read, a column is missing, or a text is empty; with `file:line`.
    """
    return [Example(text, pair) for _, _, text, pair in read_checked_rows(path, Columns(text, pair), labelled=False)]
