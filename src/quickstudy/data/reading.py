"""Reading: CSV, TSV, JSON lines and Parquet as one stream of rows, each with the place where it stands.

Rows are read one by one, so a file of any size needs little memory, and a bad row is named as `file:line`. Text must
be UTF-8: another encoding would have to be guessed, and a wrong guess changes the texts without a word.
"""

import csv
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from quickstudy.errors import DataError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")

_CSV_FIELD = 2**24  # characters; Python's limit of 2^17 is too low for long reports
_PARQUET_BATCH = 500  # rows decoded at a time

Row = tuple[str, dict[str, object]]  # ("file:line", {column: value}); values are unchecked


def read_rows(path: Path, wanted: Collection[str] | None = None) -> Iterator[Row]:
    """Yield (`file:line`, row) for each row of a data file.

    Args:
        path: CSV, TSV, JSONL or Parquet.
        wanted: The columns that are needed, or None for all. Parquet reads only these, and gives None for the others.

    Raises:
        DataError: There is no such file, its suffix is unknown, it is not UTF-8, a line is broken, or it has no rows.
    """
    with explain_os_errors(path):
        if not path.is_file():
            raise DataError("there is no such file", where=str(path), fix="Check the path.")
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        ".csv": _read_csv,
        ".tsv": _read_csv,
        ".jsonl": _read_jsonl,
        ".parquet": lambda path: _read_parquet(path, wanted),
    }
    if path.suffix.lower() not in readers:
        raise DataError(
            f"files of type {path.suffix or 'without a suffix'!r} cannot be read",
            where=str(path),
            fix=f"Save it as one of: {', '.join(SUFFIXES)}.",
        )
    empty = True
    for row in readers[path.suffix.lower()](path):
        empty = False
        yield row
    if empty:
        raise DataError("the file has no rows", where=str(path), fix="Write one labelled text per row.")


@contextmanager
def explain_os_errors(
    path: Path, what: str = "it cannot be read", fix: str = "Check the path and its permissions."
) -> Iterator[None]:
    """Turn an error of the operating system into a `DataError`."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{what} ({error.strerror or error})", where=str(error.filename or path), fix=fix) from None


def _read_lines(path: Path) -> Iterator[str]:
    with explain_os_errors(path), path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if number == 1:
                if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in raw:
                    raise DataError(
                        "the file is UTF-16, not UTF-8",
                        where=f"{path}:1",
                        fix=f"Save it as UTF-8, e.g. iconv -f UTF-16 -t UTF-8 {path.name} > utf8{path.suffix}",
                    )
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            try:
                yield raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"not valid UTF-8 (byte 0x{raw[error.start]:02x} at position {error.start + 1} of the line)",
                    where=f"{path}:{number}",
                    fix=f"Save it as UTF-8, e.g. iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8{path.suffix}",
                ) from None


def _read_csv(path: Path) -> Iterator[Row]:
    lines = _read_lines(path)
    first = next(lines, "")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ";" if ";" in first and "," not in first else ","
    csv.field_size_limit(max(_CSV_FIELD, csv.field_size_limit()))
    reader = csv.reader(_chain(first, lines), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _refuse_twice(header, path)
        start = reader.line_num + 1
        for values in reader:
            where, start = f"{path}:{start}", reader.line_num + 1
            if not values:
                continue
            if len(values) != len(header):
                raise DataError(
                    f"{len(values)} fields where the header has {len(header)}",
                    where=where,
                    fix=f'Put texts that contain {delimiter!r}, quotes or line breaks in "double quotes".',
                )
            yield where, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise DataError(
            f"broken CSV ({error})",
            where=f"{path}:{reader.line_num}",
            fix='Write quotes inside a quoted field twice (""), and close every quoted field.',
        ) from None


def _refuse_twice(names: Collection[str], path: Path) -> None:
    """Refuse two columns with the same name; columns without a name are never read."""
    seen: set[str] = set()
    for name in filter(None, names):
        if name in seen:
            raise DataError(f"two columns are called {name!r}", where=f"{path}:1", fix="Rename or remove one of them.")
        seen.add(name)


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    if first:
        yield first
    yield from rest


def _read_jsonl(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_read_lines(path), 1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if "\\ud" in line.lower():
                json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise DataError(
                "half of a surrogate pair (\\ud...), which is no character",
                where=where,
                fix="Write the character itself, or delete what was cut in half.",
            ) from None
        except json.JSONDecodeError as error:
            raise DataError(
                f"not valid JSON ({error.msg} at column {error.colno})",
                where=where,
                fix='Each line must be one JSON object, e.g. {"text": "...", "label": "..."}',
            ) from None
        except (ValueError, RecursionError):
            raise DataError(
                "a number of more than 4,300 digits, or lists nested too deep",
                where=where,
                fix="Write it as text in quotes, or leave it out.",
            ) from None
        if not isinstance(row, dict):
            raise DataError(
                f"a JSON {type(row).__name__} where an object is expected",
                where=where,
                fix='Each line must be one JSON object, e.g. {"text": "...", "label": "..."}',
            )
        yield where, row


def _read_parquet(path: Path, wanted: Collection[str] | None) -> Iterator[Row]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _refuse_twice(names, path)
            chosen = [name for name in names if wanted is None or name in wanted]
            number, unread = 0, dict.fromkeys(names)
            for batch in file.iter_batches(_PARQUET_BATCH, columns=chosen):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", unread | row
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"not a readable Parquet file ({error})", where=str(path), fix="Write it again.") from None
