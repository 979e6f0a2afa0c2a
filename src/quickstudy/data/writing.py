"""Writing: rows to a file as they come, so that whatever was written so far can be kept as a whole file.

| suffix | rows are |
|---|---|
| .csv, .tsv | below a header, in UTF-8 |
| .jsonl | an object per line |
| .parquet | of a table; every call of `write` adds a row group |
| .xlsx | of a sheet (extra `excel`) |

The first two may be packed with gzip (`.csv.gz`, `.jsonl.gz`). A writer begins a file, or goes on with one that was
written before; Excel files cannot be gone on with.
"""

import csv
import gzip
import io
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from quickstudy.data.excel import load_openpyxl
from quickstudy.data.source import find_format, is_packed
from quickstudy.errors import DataError
from quickstudy.storage.files import finite

OUT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")
_PACKABLE = (".csv", ".tsv", ".jsonl")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_MOST_CHARACTERS = 32_767  # of a cell in Excel
_EXACT = 10**15  # Excel keeps 15 digits of a number: the ends of longer ones, such as ids, would become zeros

_log = logging.getLogger(__name__)

Values = Mapping[str, object]


class RowWriter(Protocol):
    """Writes rows to a file."""

    def write(self, rows: Sequence[Values]) -> None:
        """Write some rows; if that fails, none of them is in the file when it is closed."""
        ...

    def close(self) -> None:
        """Finish the file. What was written before an error or an interrupt is in it."""
        ...


def find_out_format(path: Path) -> str:
    """Return the suffix that says the format of a file to write.

    Raises:
        DataError: It cannot be written.
    """
    suffix = find_format(path)
    if suffix in OUT_SUFFIXES and (suffix in _PACKABLE or not is_packed(path)):
        return suffix
    fix = f"Choose one of: {', '.join(OUT_SUFFIXES)}; with .gz behind it: {', '.join(_PACKABLE)}."
    raise DataError(f"files of type {path.suffix or 'without a suffix'!r} cannot be written", where=str(path), fix=fix)


def open_writer(file: Path, target: Path, schema: pa.Schema, *, before: Path | None = None) -> RowWriter:
    """Return a writer of rows.

    Args:
        file: The file to write.
        target: Its final name, which says the format.
        schema: Names and types of the columns.
        before: A file that a writer of the same format and columns wrote: go on behind its rows.

    Raises:
        DataError: The format cannot be written, or not be gone on with.
    """
    suffix = find_out_format(target)
    if suffix == ".parquet":
        return _ParquetWriter(file, schema, before)
    if suffix == ".xlsx":
        if before:
            fix = "Write to .csv or .jsonl, which can be resumed, or start again with --overwrite."
            raise DataError("an Excel file cannot be resumed", where=str(target), fix=fix)
        return _ExcelWriter(file, target, schema.names)
    return _TextWriter(file, schema.names, _DELIMITERS.get(suffix), packed=is_packed(target), before=before)


class _TextWriter:
    """CSV, TSV and JSON lines. A call writes its rows at once, and what a broken call left is cut off at the end."""

    def __init__(
        self, file: Path, names: Sequence[str], delimiter: str | None, *, packed: bool, before: Path | None
    ) -> None:
        self._path, self._names, self._delimiter, self._packed = file, names, delimiter, packed
        self._file = file.open("wb")
        self._whole = 0  # bytes up to the end of the last call
        if before:
            with before.open("rb") as source:
                while block := source.read(2**20):
                    self._file.write(block)
            self._whole = self._file.tell()
        elif delimiter:
            self._add(self._lines([names]))

    def write(self, rows: Sequence[Values]) -> None:
        if self._delimiter:
            self._add(self._lines([[_as_field(row.get(name)) for name in self._names] for row in rows]))
        else:
            self._add("".join(f"{json.dumps(finite(dict(row)), ensure_ascii=False, default=str)}\n" for row in rows))

    def close(self) -> None:
        with suppress(OSError):  # what a full disk left in the buffer is cut off
            self._file.close()
        os.truncate(self._path, self._whole)

    def _lines(self, rows: Sequence[Sequence[str]]) -> str:
        text = io.StringIO(newline="")
        delimiter = self._delimiter or ","
        plain = csv.writer(text, delimiter=delimiter, lineterminator="\n")
        quoting = csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
        for row in rows:  # Python 3.11 leaves a lone carriage return without quotes, and then cannot read it
            (quoting if any("\r" in field for field in row) else plain).writerow(row)
        return text.getvalue()

    def _add(self, text: str) -> None:
        content = text.encode("utf-8")
        # Several gzip files in a row are one. Without the time, the same rows are the same bytes.
        self._file.write(gzip.compress(content, mtime=0) if self._packed else content)
        self._file.flush()
        self._whole = self._file.tell()


class _ParquetWriter:
    def __init__(self, file: Path, schema: pa.Schema, before: Path | None) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(file, schema)
        if before:
            with pq.ParquetFile(before) as source:
                for group in range(source.num_row_groups):  # the same groups: the same bytes as without a break
                    self._writer.write_table(source.read_row_group(group).cast(schema))

    def write(self, rows: Sequence[Values]) -> None:
        columns = [pa.array([_as_type(row.get(f.name), f.type) for row in rows], f.type) for f in self._schema]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


class _ExcelWriter:
    def __init__(self, file: Path, target: Path, names: Sequence[str]) -> None:
        self._file, self._names = file, names
        self._library = load_openpyxl(target)
        self._book: Any = self._library.Workbook(write_only=True)
        self._sheet = self._book.create_sheet("predictions")
        self._sheet.append([self._cell(name) for name in names])

    def write(self, rows: Sequence[Values]) -> None:
        for row in rows:
            self._sheet.append([self._cell(row.get(name)) for name in self._names])

    def close(self) -> None:
        self._book.save(self._file)

    def _cell(self, value: object) -> object:
        """Return a cell; a text that begins with = is no formula."""
        content = _as_cell(value)
        if not (isinstance(content, str) and content.startswith("=")):
            return content
        cell = self._library.cell.WriteOnlyCell(self._sheet, value=content)
        cell.data_type = "s"
        return cell


def _as_field(value: object) -> str:
    """Return a value as it stands in a CSV file."""
    if value is None:
        return ""
    return value if isinstance(value, str) else _as_text(value)


def _as_text(value: object) -> str:
    if isinstance(value, dict | list | bool):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _as_type(value: object, kind: pa.DataType) -> object:
    """Return a value for an Arrow column: columns of mixed values are text."""
    if value is None or isinstance(value, str) or not pa.types.is_string(kind):
        return value
    return _as_text(value)


def _as_cell(value: object) -> object:
    """Return a value for Excel: no lists, infinity, time zones, control characters, long numbers and texts."""
    if value is None or (isinstance(value, date) and getattr(value, "tzinfo", None) is None):
        return value
    if isinstance(value, int) and abs(value) < _EXACT:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    text = value if isinstance(value, str) else _as_text(value)
    if len(text) > _MOST_CHARACTERS:
        _log.warning("an Excel cell holds %s characters: longer texts are cut in the file", f"{_MOST_CHARACTERS:,}")
    return "".join(c for c in text[:_MOST_CHARACTERS] if c >= " " or c in "\t\n\r")
