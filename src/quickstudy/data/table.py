"""Table: a data file, checked row by row and kept as an Arrow file that is mapped into memory.

The checked rows are written to the cache folder once for each content of a file and each choice of columns. After that
`datasets` maps the Arrow file into memory, so a million rows take the memory of their labels (8 bytes each) and
nothing else. The name in the cache is a hash of the file's bytes: a changed file is read again, an unchanged file is
not.
"""

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from quickstudy.data.reading import explain_os_errors, read_rows
from quickstudy.errors import DataError, did_you_mean
from quickstudy.storage.manifest import hash_file
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Kind

_FORMAT = 2  # raise it when the layout of the cache changes, or when other rows are refused
_BATCH = 1_000  # rows written at a time
_MISSING = ("NAType", "NaTType")  # the types that pandas has for missing values
_WHOLE = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns that hold the text, the second text of pairs and the label.

    `text_pair="auto"` takes a column called `text_pair` if the file has one. None, or "none", takes no second text.
    """

    text: str = "text"
    text_pair: str | None = "auto"
    label: str = "label"

    def __post_init__(self) -> None:
        if self.text_pair == "none":
            object.__setattr__(self, "text_pair", None)


class ArrowSplit:
    """Rows of a `datasets.Dataset` as `Example`s; a row is read from disk when it is asked for.

    Args:
        dataset: The rows.
        columns: The columns of the texts; `text_pair` is None for single texts.
        labels: (B,) label positions (int64) or scores (float64).
    """

    def __init__(
        self, dataset: datasets.Dataset, columns: Columns, labels: NDArray[np.int64] | NDArray[np.float64]
    ) -> None:
        self._dataset, self._columns, self.labels = dataset, columns, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> Example:
        row = self._dataset[index]
        pair = self._columns.text_pair
        return Example(row[self._columns.text], row[pair] if pair else None, self.labels[index].item())


def find_cache_folder() -> Path:
    """Return the folder of checked tables.

    It is $QUICKSTUDY_CACHE, else $XDG_CACHE_HOME/quickstudy, else ~/.cache/quickstudy.
    """
    if "QUICKSTUDY_CACHE" in os.environ:
        return Path(os.environ["QUICKSTUDY_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "quickstudy"


def read_table(path: Path, columns: Columns, kind: Kind) -> datasets.Dataset:
    """Read and check a data file.

    Args:
        path: CSV, TSV, JSONL or Parquet.
        columns: Which columns to take.
        kind: Labels are kept as strings (classification) or as float64 (regression).

    Returns:
        A memory-mapped data set with the columns `text`, `text_pair` (only for pairs) and `label`.

    Raises:
        DataError: The file cannot be read, a column is missing, a text is empty, a label is missing or no number; with
            `file:line`.
    """
    key = sha256(f"{_FORMAT}|{columns}|{kind}|{path.suffix.lower()}|".encode())
    with explain_os_errors(path):
        key.update(bytes.fromhex(hash_file(path)))
    target = find_cache_folder() / f"{key.hexdigest()}.arrow"
    fix = "Set QUICKSTUDY_CACHE to a folder that can be written, on a disk with room."
    with explain_os_errors(target.parent, "the cache folder cannot be used", fix):
        if not target.exists():
            _write_arrow(_labelled(path, columns, kind), kind, target)
        return datasets.Dataset.from_file(str(target))


def make_split(table: datasets.Dataset, values: Sequence[str], path: Path) -> ArrowSplit:
    """Return a table of `read_table` as a split.

    Args:
        table: The checked rows.
        values: The label at each position; empty for regression, where the labels are the scores.
        path: The file that the table was read from.

    Raises:
        DataError: A label is not among the values; with `file:line`.
    """
    columns = Columns(text_pair="text_pair" if "text_pair" in table.column_names else None)
    labels = _positions(table, values, path) if values else table.data.column("label").to_numpy()
    return ArrowSplit(table, columns, labels)


def _positions(table: datasets.Dataset, values: Sequence[str], path: Path) -> NDArray[np.int64]:
    column = table.data.column("label")
    positions = pc.index_in(column, value_set=pa.array(values, type=column.type))
    if positions.null_count:
        row = positions.is_null().to_pylist().index(True)
        label = column[row].as_py()
        where, _ = next(islice(read_rows(path), row, None))  # the cache keeps no line numbers
        raise DataError(f"label {label!r} is not among the known labels", where=where, fix=did_you_mean(label, values))
    return np.asarray(positions.to_numpy(), dtype=np.int64)


def list_labels(tables: Sequence[datasets.Dataset]) -> list[str]:
    """Return the different labels of tables, in the order of `sort_labels`."""
    return sort_labels({value for table in tables for value in pc.unique(table.data.column("label")).to_pylist()})


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Return the different labels, sorted by number if all are whole numbers, else by name.

    >>> sort_labels({"10", "9", "-1"}), sort_labels({"10", "9", "n/a"})
    (['-1', '9', '10'], ['10', '9', 'n/a'])
    """
    different = set(labels)
    numeric = all(_WHOLE.fullmatch(label) for label in different)
    return sorted(different, key=lambda label: (int(label), label)) if numeric else sorted(different)


def read_checked_rows(
    path: Path, columns: Columns, *, labelled: bool
) -> Iterator[tuple[str, Mapping[str, object], str, str | None]]:
    """Yield (`file:line`, row, text, second text) of each row of a data file.

    Args:
        path: CSV, TSV, JSONL or Parquet.
        columns: Which columns to take.
        labelled: Whether there must be a label column.

    Raises:
        DataError: The file cannot be read, a column is missing, or a text is empty; with `file:line`.
    """
    pair = columns.text_pair
    wanted = (columns.text, columns.label, "text_pair" if pair == "auto" else pair or "")
    for number, (where, row) in enumerate(read_rows(path, wanted)):
        if number == 0:
            if pair == "auto":
                pair = "text_pair" if "text_pair" in row else None
            _check_columns(row, (columns.text, pair, columns.label if labelled else None), path)
        if columns.text_pair == "auto" and not pair and row.get("text_pair") is not None:
            raise DataError(
                "there is a 'text_pair' here and none in the first row",
                where=where,
                fix=f"Give all rows a second text, or pass over it: {path.name}?pair=none "
                "(adapt and predict: --pair-column none)",
            )
        yield where, row, _text(row, columns.text, where), _text(row, pair, where) if pair else None


def _check_columns(row: Mapping[str, object], needed: Iterable[str | None], path: Path) -> None:
    for name in filter(None, needed):
        if name not in row:
            raise DataError(
                f"there is no column {name!r}; the columns are: {', '.join(map(str, row)) or 'none'}",
                where=f"{path}:1",
                fix=f"{did_you_mean(name, map(str, row))} Rename the column, or name yours: "
                f"{path.name}?text=...&pair=...&label=... "
                "(adapt and predict: --text-column, --pair-column; adapt: --label-column)",
            )


def _text(row: Mapping[str, object], column: str, where: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise DataError(f"{column!r} is {value!r}, not a text", where=where, fix="Put a text in it or delete the row.")
    if not value.strip():
        raise DataError(f"the text in {column!r} is empty", where=where, fix="Fill it in or delete the row.")
    return value


def _labelled(path: Path, columns: Columns, kind: Kind) -> Iterator[tuple[str, str | None, str | float]]:
    for where, row, text, second in read_checked_rows(path, columns, labelled=True):
        yield text, second, parse_label(row.get(columns.label), columns.label, kind, where)


def parse_label(value: object, column: str, kind: Kind, where: str) -> str | float:
    """Return the name of a label, or its number for regression.

    Args:
        value: What a file or a caller gives.
        column: What the label's column is called in messages.
        kind: Classification or regression.
        where: The place, for messages.

    Raises:
        DataError: The label is missing, a list, or no number.
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
    if isinstance(value, dict | list):
        raise DataError(f"{column!r} is {value!r}, not a label", where=where, fix="Give one label as text or number.")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _write_arrow(rows: Iterator[tuple[str, str | None, str | float]], kind: Kind, target: Path) -> None:
    """Write the rows to `target`, which appears whole or not at all."""
    first = next(rows)
    fields = [("text", pa.large_string())]
    if first[1] is not None:
        fields.append(("text_pair", pa.large_string()))
    fields.append(("label", pa.float64() if kind == "regression" else pa.string()))
    schema = pa.schema(fields)
    target.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as file:
        unfinished = Path(file.name)
    try:
        with pa.OSFile(str(unfinished), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            batch = [first]
            for row in rows:
                batch.append(row)
                if len(batch) == _BATCH:
                    writer.write_batch(_record_batch(batch, schema))
                    batch = []
            if batch:
                writer.write_batch(_record_batch(batch, schema))
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _record_batch(rows: Sequence[Sequence[str | float | None]], schema: pa.Schema) -> pa.RecordBatch:
    columns = [c for c in zip(*rows, strict=True) if c[0] is not None]
    return pa.record_batch([pa.array(c, type=f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
