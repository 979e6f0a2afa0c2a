"""Texts to predict: a data file without labels."""

from pathlib import Path

from quickstudy.data.reading import read_rows
from quickstudy.data.table import Columns, checked_text, resolve_columns
from quickstudy.tasks.split import Example


def read_texts(path: Path, text: str = "text", pair: str | None = "auto") -> list[Example]:
    """Read the texts of a data file; a label column is not needed.

    Raises:
        DataError: Unreadable file, missing column or empty text; with `file:line`.
    """
    examples = []
    columns: Columns | None = None
    for where, row in read_rows(path):
        columns = columns or resolve_columns(Columns(text, pair, None), row, f"{path}:1")
        second = checked_text(row, columns.text_pair, where) if columns.text_pair else None
        examples.append(Example(checked_text(row, columns.text, where), second))
    return examples
