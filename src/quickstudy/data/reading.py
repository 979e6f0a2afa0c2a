"""Reading: a data file of any format as one stream of rows, each with the place where it stands.

| suffix | rows | a place is |
|---|---|---|
| .csv, .tsv | below a header; comma, semicolon, tab or pipe, as the header shows | the line on which the row starts |
| .jsonl | an object per line | the line |
| .json | a list of objects, or an object of columns | the number of the row, from 1 |
| .parquet | rows of the table | the number of the row, from 1 |
| .xlsx | the first sheet that is shown | the row, as Excel shows it |

All of them may be packed with gzip (`few.csv.gz`). Rows are read one by one, so a file of any size needs little memory;
only .json is held as a whole. A row that is broken is given as the error that names it, so that its reader can name
all of them.
"""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from quickstudy.data.delimited import read_delimited, refuse_twice
from quickstudy.data.excel import read_excel
from quickstudy.data.json_rows import read_json, read_json_lines
from quickstudy.data.source import SUFFIXES, Row, explain_os_errors, find_format, open_anywhere
from quickstudy.errors import DataError

_PARQUET_BATCH = 500  # rows decoded at a time


def read_rows(path: Path, wanted: Collection[str] | None = None) -> Iterator[Row]:
    """Yield (`file:line`, row) for each row of a data file, with a `DataError` in place of a row that is broken.

    Args:
        path: A data file; see the top of this file.
        wanted: The columns that are needed, or None for all. Parquet reads only these, and gives None for the others.

    Raises:
        DataError: There is no such file, its suffix is unknown, its bytes are no text, or it has no rows.
    """
    with explain_os_errors(path):
        if not path.is_file():
            if path.exists() and not path.is_dir():
                fix = "Pipe it into the command, and write - in place of the file."
                raise DataError("this is a pipe or a device, not a file", where=str(path), fix=fix)
            raise DataError("there is no such file", where=str(path), fix="Check the path.")
    readers: dict[str, Callable[[], Iterator[Row]]] = {
        ".csv": lambda: read_delimited(path, ","),
        ".tsv": lambda: read_delimited(path, "\t"),
        ".json": lambda: read_json(path),
        ".jsonl": lambda: read_json_lines(path),
        ".parquet": lambda: _read_parquet(path, wanted),
        ".xlsx": lambda: read_excel(path),
    }
    kind = find_format(path)
    if kind is None:
        raise DataError(
            f"files of type {path.suffix or 'without a suffix'!r} cannot be read",
            where=str(path),
            fix=f"Save it as one of: {', '.join(SUFFIXES)}.",
        )
    empty = True
    for row in readers[kind]():
        empty = False
        yield row
    if empty:
        raise DataError("the file has no rows", where=str(path), fix="Write one labelled text per row.")


def read_column_names(path: Path) -> list[str]:
    """Return the names of the columns, as the first row that is not broken has them.

    Raises:
        DataError: As `read_rows`; or every row is broken, with the first of them.
    """
    first: DataError | None = None
    for _, row in read_rows(path, wanted=()):
        if not isinstance(row, DataError):
            return list(row)
        first = first or row
    assert first is not None  # a file without rows is an error
    raise first


def _read_parquet(path: Path, wanted: Collection[str] | None) -> Iterator[Row]:
    with open_anywhere(path) as source:
        try:
            with pq.ParquetFile(source) as file:
                _check_row_counts(file.metadata)
                names = file.schema_arrow.names
                refuse_twice(names, path)
                chosen = [name for name in names if wanted is None or name in wanted]
                number, unread = 0, dict.fromkeys(names)
                for batch in file.iter_batches(_PARQUET_BATCH, columns=chosen):
                    for row in _decode(batch):
                        number += 1
                        where = f"{path}:{number}"
                        yield where, _not_utf8(row, where) if isinstance(row, UnicodeDecodeError) else unread | row
        except (DataError, OSError):
            raise
        except (
            Exception
        ) as error:  # a damaged file fails in many ways, in pyarrow and in what it makes Python objects of
            raise DataError(f"not a readable Parquet file ({error})", where=str(path), fix="Write it again.") from None


def _check_row_counts(metadata: pq.FileMetaData) -> None:
    """Raise `ValueError` if a damaged file counts its rows wrongly; pyarrow ends the process on a negative number."""
    counts = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    if min(counts, default=0) < 0 or sum(counts) != metadata.num_rows:
        raise ValueError("its parts have other numbers of rows than it states")


def _decode(batch: pa.RecordBatch) -> Iterator[dict[str, object] | UnicodeDecodeError]:
    """Yield the rows of a batch, with an error in place of each row whose text is not UTF-8; Parquet can hold such."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for number in range(batch.num_rows):
            try:
                yield from batch.slice(number, 1).to_pylist()
            except UnicodeDecodeError as error:
                yield error


def _not_utf8(error: UnicodeDecodeError, where: str) -> DataError:
    byte, place = error.object[error.start], error.start + 1
    fix = "Write the file again from texts in UTF-8, or delete the row."
    return DataError(f"a text is not valid UTF-8 (byte 0x{byte:02x} at position {place})", where=where, fix=fix)
