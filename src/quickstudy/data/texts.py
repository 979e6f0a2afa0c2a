"""Texts: a data file without labels, as examples to predict."""

from collections.abc import Iterator
from pathlib import Path

from quickstudy.data.columns import AUTO, Columns
from quickstudy.data.table import CheckedRow, read_checked_rows
from quickstudy.tasks.split import Example


def read_texts(path: Path, text: str = AUTO, pair: str | None = AUTO, *, skip_bad_rows: bool = False) -> list[Example]:
    """Read the texts of a data file; a label column is not needed.

    Raises:
        DataError: The file cannot be read, a column is missing, or texts are empty; with `file:line`.
    """
    rows = read_checked_rows(path, Columns(text, pair), labelled=False, skip_bad_rows=skip_bad_rows)
    return [Example(row.text, row.text_pair) for row in rows]


def read_rows_to_label(path: Path, columns: Columns, *, skip_bad_rows: bool = False) -> Iterator[CheckedRow]:
    """Yield the rows of a data file with all their columns.

    Args:
        path: The file.
        columns: Which columns hold the texts.
        skip_bad_rows: Leave out rows that cannot be used.

    Raises:
        DataError: As `read_texts`; rows that cannot be used are named after the last row.
    """
    return read_checked_rows(path, columns, labelled=False, every_column=True, skip_bad_rows=skip_bad_rows)
