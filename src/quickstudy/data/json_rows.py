"""JSON rows: a file of one object per line, of a list of objects, or of an object that holds columns.

    {"text": "late fee", "label": "fees"}                       .jsonl, and .json if the first line is such an object
    [{"text": "late fee", "label": "fees"}, …]                  .json
    {"text": ["late fee", …], "label": ["fees", …]}             .json, as pandas writes it too

Lines are read one by one. The other two forms have no lines, so such a file is in memory as a whole.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quickstudy.data.source import Row, read_lines
from quickstudy.errors import DataError

_OBJECT = 'Each line must be one JSON object, e.g. {"text": "...", "label": "..."}'
_WHOLE = 'Write a list of objects, e.g. [{"text": "...", "label": "..."}]'


def read_json_lines(path: Path) -> Iterator[Row]:
    """Yield the rows of a file with one object per line; lines without anything are passed over."""
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            where = f"{path}:{number}"
            try:
                yield where, _as_row(_parse(line.rstrip(), where, _OBJECT), where, _OBJECT)
            except DataError as error:
                yield where, error


def read_json(path: Path) -> Iterator[Row]:
    """Yield the rows of a file in any of the three forms.

    Raises:
        DataError: It is not JSON, or in another form.
    """
    if has_rows_as_lines(next(read_lines(path), "")):
        yield from read_json_lines(path)
        return
    text = "".join(read_lines(path))
    values = _parse(text, str(path), _WHOLE) if text.strip() else []
    rows = _rows_of_columns(values, path) if isinstance(values, dict) else values
    if not isinstance(rows, list):
        raise DataError(f"a JSON {type(values).__name__} where rows are expected", where=str(path), fix=_WHOLE)
    for number, row in enumerate(rows, 1):
        where = f"{path}, row {number}"
        try:
            yield where, _as_row(row, where, _WHOLE)
        except DataError as error:
            yield where, error


def has_rows_as_lines(line: str) -> bool:
    """Return whether the first line of a JSON file is a whole row.

    >>> has_rows_as_lines('{"text": "a", "label": 1}'), has_rows_as_lines('{"text": ["a"], "label": [1]}')
    (True, False)
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and not all(isinstance(value, list | dict) for value in row.values())


def _rows_of_columns(columns: Mapping[str, Any], path: Path) -> list[dict[str, object]]:
    """Return the rows of an object of columns; pandas writes a column as an object of its index, in any order."""
    index: list[str] = next((list(c) for c in columns.values() if isinstance(c, dict)), [])
    lists = {
        name: [c[key] for key in index] if isinstance(c, dict) and c.keys() == set(index) else c
        for name, c in columns.items()
    }
    sizes = {name: len(column) for name, column in lists.items() if isinstance(column, list)}
    if len(sizes) < len(lists) or len(set(sizes.values())) > 1:
        raise DataError("an object whose values are no columns of the same length", where=str(path), fix=_WHOLE)
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def _parse(text: str, where: str, fix: str) -> object:
    try:
        value: object = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DataError(
            "half of a surrogate pair (\\ud...), which is no character",
            where=where,
            fix="Write the character itself, or delete what was cut in half.",
        ) from None
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise DataError(f"not valid JSON ({error.msg} at {line}column {error.colno})", where=where, fix=fix) from None
    except (ValueError, RecursionError):
        raise DataError(
            "a number of more than 4,300 digits, or lists nested too deep",
            where=where,
            fix="Write it as text in quotes, or leave it out.",
        ) from None
    return value


def _as_row(value: object, where: str, fix: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise DataError(f"a JSON {type(value).__name__} where an object is expected", where=where, fix=fix)
    return value
