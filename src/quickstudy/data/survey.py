"""Survey: what is in a file of texts to label, looked at before anything is written."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from quickstudy.data.columns import Columns
from quickstudy.data.source import find_format, open_anywhere
from quickstudy.data.table import find_columns
from quickstudy.data.texts import read_rows_to_label

_INT64, _EXACT = 2**63, 2**53  # whole numbers above the first are in no column, above the second in none of floats


@dataclass(frozen=True, slots=True)
class Survey:
    """What is in a file.

    Attributes:
        rows: How many rows can be used.
        schema: Names and types of all columns; columns of mixed values are text.
        columns: Which of them hold the texts.
    """

    rows: int
    schema: pa.Schema
    columns: Columns


def survey_rows(path: Path, columns: Columns, *, skip_bad_rows: bool = False) -> Survey:
    """Go through a file once; it is not kept in memory.

    Raises:
        DataError: The file cannot be read, a column is missing, or rows cannot be used; all of them are named.
    """
    chosen, rows = find_columns(path, columns, labelled=False), 0
    types: dict[str, set[type]] = {}
    for row in read_rows_to_label(path, columns, skip_bad_rows=skip_bad_rows):
        rows += 1
        for name, value in row.values.items():
            if name or value not in (None, ""):  # a column without a name counts only if there is something in it
                types.setdefault(name, set()).add(_type_of(value))
    if find_format(path) == ".parquet":
        with open_anywhere(path) as file:
            return Survey(rows, pq.read_schema(file).remove_metadata(), chosen)
    return Survey(rows, pa.schema([(name, _arrow_type(kinds)) for name, kinds in types.items()]), chosen)


class _Long(int):
    """A whole number that a column of floats does not hold."""


def _type_of(value: object) -> type:
    """Return the type of a value; text for a number that no column of numbers holds."""
    if not isinstance(value, int) or abs(value) <= _EXACT:
        return type(value)
    return _Long if -_INT64 <= value < _INT64 else str


def _arrow_type(kinds: Iterable[type]) -> pa.DataType:
    """Return the type of a column that can hold all its values.

    >>> _arrow_type({int, float, type(None)}), _arrow_type({int, str})
    (DataType(double), DataType(string))
    >>> _arrow_type({_type_of(2**60), int}), _arrow_type({_type_of(2**60), float})
    (DataType(int64), DataType(string))
    """
    held = set(kinds) - {type(None)}
    for types, arrow in (({bool}, pa.bool_()), ({int, _Long}, pa.int64()), ({int, float}, pa.float64())):
        if held and held <= types:
            return arrow
    return pa.string()
