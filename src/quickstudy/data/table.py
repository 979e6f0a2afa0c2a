"""Table: a data file, checked row by row and kept as an Arrow file that is mapped into memory.

The checked rows are written to the cache folder once for each content of a file and each choice of columns. After that
the Arrow file is mapped into memory, so a million rows take the memory of their labels (8 bytes each) and nothing else.
The name in the cache is a hash of the file's bytes: a changed file is read again, an unchanged file is not. Behind it
stands the hash of the Arrow file itself, so that a damaged one is noticed and written again.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from quickstudy.data.bad_rows import BadRows
from quickstudy.data.cache import find_cache_folder
from quickstudy.data.columns import AUTO, Columns, choose_columns, say_choice
from quickstudy.data.reading import read_column_names, read_rows
from quickstudy.data.source import explain_os_errors, find_format
from quickstudy.errors import DataError, RunError, did_you_mean
from quickstudy.storage.files import remove_abandoned, scratch_folder
from quickstudy.storage.manifest import hash_file
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Kind

_FORMAT = 6  # raise it when the layout of the cache changes, or when other rows are refused
_ARROW, _DIGITS = ".arrow", 32  # the suffix of files of the cache, and digits of the hash in their names
_BATCH = 1_000  # rows written at a time
_MISSING = ("NAType", "NaTType")  # the types that pandas has for missing values
_WHOLE = re.compile(r"-?[0-9]{1,18}")


class CheckedRow(NamedTuple):
    """A row of a data file whose texts are texts.

    Attributes:
        where: `file:line`.
        values: What its columns hold, unchecked.
        text: The text.
        text_pair: The second text of a pair.
        label: The name of its label, or a number; None if labels are not asked for.
    """

    where: str
    values: Mapping[str, object]
    text: str
    text_pair: str | None
    label: str | float | None


class MappedTable:
    """The rows of an Arrow file, mapped into memory. It is pickled as the name of its file.

    `datasets.Dataset` does the same, but its import, with that of pandas, takes about as long as an adaptation.

    Args:
        file: What `pyarrow.ipc.new_stream` wrote.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        with pa.ipc.open_stream(pa.memory_map(str(file))) as stream:
            self._table = stream.read_all()

    def __reduce__(self) -> tuple[type["MappedTable"], tuple[Path]]:
        return MappedTable, (self._file,)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        return {name: self._table.column(name)[index].as_py() for name in self.column_names}

    @property
    def column_names(self) -> list[str]:
        """The names of the columns."""
        return list(self._table.column_names)

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column, (B,)."""
        return self._table.column(name)


class _Rows(Protocol):
    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


class ArrowSplit:
    """Rows of a `MappedTable` or of a `datasets.Dataset` as `Example`s; a row is read when it is asked for.

    Args:
        rows: The rows.
        columns: The columns of the texts; `text_pair` is None for single texts.
        labels: (B,) label positions (int64) or scores (float64).
    """

    def __init__(self, rows: _Rows, columns: Columns, labels: NDArray[np.int64] | NDArray[np.float64]) -> None:
        self._rows, self._columns, self.labels = rows, columns, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> Example:
        row = self._rows[index]
        pair = self._columns.text_pair
        return Example(row[self._columns.text], row[pair] if pair else None, self.labels[index].item())


def read_table(path: Path, columns: Columns, kind: Kind, *, skip_bad_rows: bool = False) -> MappedTable:
    """Read and check a data file.

    Args:
        path: A data file; see `data.reading`.
        columns: Which columns to take.
        kind: Labels are kept as strings (classification) or as float64 (regression).
        skip_bad_rows: Leave out rows that cannot be used, and say how many they are.

    Returns:
        A table with the columns `text`, `text_pair` (only for pairs) and `label`.

    Raises:
        DataError: The file cannot be read, a column is missing, a text is empty, a label is missing or no number; with
            `file:line`.
    """
    key = sha256(f"{_FORMAT}|{columns}|{kind}|{find_format(path)}|{skip_bad_rows}|".encode())
    with explain_os_errors(path):
        key.update(bytes.fromhex(hash_file(path)))
    find_columns(path, columns, kind, labelled=True)  # said also if the checked rows are there already
    folder = find_cache_folder()
    what, fix = "the cache folder cannot be used", "Set QUICKSTUDY_CACHE to a folder that can be written, with room."
    with explain_os_errors(folder, what, fix):
        # Rows that are left out are counted every time.
        target = None if skip_bad_rows else _find_whole(folder, key.hexdigest())
        if target is None:
            folder.mkdir(parents=True, exist_ok=True)
            rows = read_checked_rows(path, columns, kind, labelled=True, skip_bad_rows=skip_bad_rows)
            try:
                target = _write_arrow(rows, kind, folder, key.hexdigest())
            except RunError as error:
                raise DataError(f"{what}: {error.what}", where=str(folder), fix=fix) from error
        return MappedTable(target)


def _find_whole(folder: Path, key: str) -> Path | None:
    """Return the Arrow file of checked rows; None if it is not there, or damaged."""
    remove_abandoned(folder, key)  # of a process that was killed after another one had finished
    for file in folder.glob(f"{key}-*{_ARROW}"):
        if file.name == _cache_name(key, file):
            return file
        file.unlink()
    return None


def _cache_name(key: str, file: Path) -> str:
    return f"{key}-{hash_file(file)[:_DIGITS]}{_ARROW}"


def make_split(table: MappedTable, values: Sequence[str], path: Path) -> ArrowSplit:
    """Return a table of `read_table` as a split.

    Args:
        table: The checked rows.
        values: The label at each position; empty for regression, where the labels are the scores.
        path: The file that the table was read from.

    Raises:
        DataError: A label is not among the values; with `file:line`.
    """
    columns = Columns("text", "text_pair" if "text_pair" in table.column_names else None, "label")
    labels = _positions(table, values, path) if values else _numbers(table.column("label"))
    return ArrowSplit(table, columns, labels)


def _positions(table: MappedTable, values: Sequence[str], path: Path) -> NDArray[np.int64]:
    column = table.column("label")
    positions = pc.index_in(column, value_set=_array(values, column.type))
    if positions.null_count:
        row = positions.is_null().to_pylist().index(True)
        label = column[row].as_py()
        where, _ = next(islice(read_rows(path), row, None))  # the cache keeps no line numbers
        raise DataError(f"label {label!r} is not among the known labels", where=where, fix=did_you_mean(label, values))
    return np.asarray(_numbers(positions), dtype=np.int64)


def list_labels(tables: Sequence[MappedTable]) -> list[str]:
    """Return the different labels of tables, in the order of `sort_labels`."""
    return sort_labels({value for table in tables for value in pc.unique(table.column("label")).to_pylist()})


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Return the different labels, sorted by number if all are whole numbers, else by name.

    >>> sort_labels({"10", "9", "-1"}), sort_labels({"10", "9", "n/a"})
    (['-1', '9', '10'], ['10', '9', 'n/a'])
    """
    different = set(labels)
    numeric = all(_WHOLE.fullmatch(label) for label in different)
    return sorted(different, key=lambda label: (int(label), label)) if numeric else sorted(different)


def read_checked_rows(
    path: Path,
    columns: Columns,
    kind: Kind = "classification",
    *,
    labelled: bool,
    every_column: bool = False,
    skip_bad_rows: bool = False,
) -> Iterator[CheckedRow]:
    """Yield each row of a data file whose texts, and label if there must be one, can be used.

    Args:
        path: A data file; see `data.reading`.
        columns: Which columns to take.
        kind: What labels are.
        labelled: Whether there must be a label.
        every_column: Read all columns, and not only those that are needed.
        skip_bad_rows: Leave out rows that cannot be used, and say how many they are.

    Raises:
        DataError: The file cannot be read or a column is missing; or, after the last row, some rows cannot be used.
    """
    chosen = find_columns(path, columns, kind, labelled=labelled)
    late_pair = columns.text_pair == AUTO and not chosen.text_pair
    needed = list(filter(None, (chosen.text, chosen.text_pair, chosen.label if labelled else None)))
    bad, good = BadRows(path, skip=skip_bad_rows), 0
    for where, row in read_rows(path, None if every_column else needed):
        try:
            if isinstance(row, DataError):
                raise row
            if late_pair and row.get("text_pair") is not None:
                raise _late_pair(path, where)
            second = _text(row, chosen.text_pair, where) if chosen.text_pair else None
            text = _text(row, chosen.text, where)
            label = parse_label(row.get(chosen.label), chosen.label, kind, where) if labelled else None
        except DataError as error:
            bad.add(error)
        else:
            good += 1
            yield CheckedRow(where, row, text, second, label)
    bad.finish(good)


def find_columns(path: Path, columns: Columns, kind: Kind = "classification", *, labelled: bool) -> Columns:
    """Return the columns of a file to take, and say which they are if they have other names than usual.

    Args:
        path: The file.
        columns: What the user asks for.
        kind: Whether labels are classes or numbers.
        labelled: Whether there must be a label.

    Raises:
        DataError: The file cannot be read, a column is missing, or several could be meant.
    """
    names = read_column_names(path)
    chosen = choose_columns(names, columns, path.name, kind, labelled=labelled)
    needed = {"text": chosen.text, "pair": chosen.text_pair, "label": chosen.label if labelled else None}
    _check_columns(names, needed, path)
    say_choice(columns, chosen, path.name, labelled=labelled)
    return chosen


def _late_pair(path: Path, where: str) -> DataError:
    return DataError(
        "there is a 'text_pair' here and none in the first row",
        where=where,
        fix=f"Give all rows a second text, or pass over it: {path.name}?pair=none "
        "(adapt and predict: --pair-column none)",
    )


def _check_columns(names: Sequence[str], needed: Mapping[str, str | None], path: Path) -> None:
    """Raise `DataError` unless the columns that are needed, by role, are there."""
    absent = {role: name for role, name in needed.items() if name is not None and name not in names}
    if not absent:
        return
    meant = {role: next(iter(get_close_matches(name, names, n=1)), "...") for role, name in absent.items()}
    options = " ".join(f"--{role}-column '{name}'" for role, name in meant.items())
    reference = "&".join(f"{role}={name}" for role, name in meant.items())
    raise DataError(
        f"there is no column {' and none '.join(map(repr, absent.values()))}; "
        f"the columns are: {', '.join(map(repr, names)) or 'none'}",
        where=f"{path}:1",
        fix=f"Name yours: {options} (adapt, predict), or in a task reference '{path.name}?{reference}'",
    )


def _text(row: Mapping[str, object], column: str, where: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise DataError(f"{column!r} is {value!r}, not a text", where=where, fix="Put a text in it or delete the row.")
    if not value.strip():
        raise DataError(f"the text in {column!r} is empty", where=where, fix="Fill it in or delete the row.")
    return value


def parse_label(value: object, column: str, kind: Kind, where: str) -> str | float:
    """Return the name of a label, or its number for regression.

    Args:
        value: What a file or a caller gives.
        column: What the label's column is called in messages.
        kind: Classification or regression.
        where: The place, for messages.

    Raises:
        DataError: The label is missing, a list, bytes, or no number.
    """
    missing = value is None or type(value).__name__ in _MISSING or (isinstance(value, float) and math.isnan(value))
    if missing or str(value).strip().lower() in {"", "nan"}:
        raise DataError(f"the label in {column!r} is missing (empty or NaN)", where=where, fix="Label the row.")
    if kind == "regression":
        try:
            number = float(value)  # type: ignore[arg-type]  # what is no number is caught
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise DataError(
                f"{column!r} is {value!r}, not a number", where=where, fix="A regression label is a number."
            )
        return number
    if isinstance(value, dict | list | bytes):
        raise DataError(f"{column!r} is {value!r}, not a label", where=where, fix="Give one label as text or number.")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _write_arrow(rows: Iterator[CheckedRow], kind: Kind, folder: Path, key: str) -> Path:
    """Write the rows to a file of the cache, which appears whole or not at all, and return its path."""
    first = next(rows)
    fields = [("text", pa.large_string())]
    if first.text_pair is not None:
        fields.append(("text_pair", pa.large_string()))
    fields.append(("label", pa.float64() if kind == "regression" else pa.string()))
    schema = pa.schema(fields)
    with scratch_folder(folder / key) as scratch:
        unfinished = scratch / key
        with pa.OSFile(str(unfinished), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            batch = [first]
            for row in rows:
                batch.append(row)
                if len(batch) == _BATCH:
                    writer.write_batch(_record_batch(batch, schema))
                    batch = []
            if batch:
                writer.write_batch(_record_batch(batch, schema))
        return unfinished.replace(folder / _cache_name(key, unfinished))


def _record_batch(rows: Sequence[CheckedRow], schema: pa.Schema) -> pa.RecordBatch:
    columns = [_array([getattr(row, field.name) for row in rows], field.type) for field in schema]
    return pa.record_batch(columns, schema=schema)


# `pa.array` and `to_numpy` do what these functions do, but they import pandas.


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return texts or numbers as an array."""
    if pa.types.is_floating(kind):
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.array(values, dtype=np.float64))])
    texts = [value.encode() for value in values]
    starts = np.cumsum([0, *map(len, texts)], dtype=np.int64 if pa.types.is_large_string(kind) else np.int32)
    return pa.Array.from_buffers(kind, len(texts), [None, pa.py_buffer(starts), pa.py_buffer(b"".join(texts))])


def _numbers(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return the numbers of a column in which none is missing."""
    return np.concatenate([np.from_dlpack(chunk) for chunk in column.chunks])
