"""Record: a small JSON file as a frozen dataclass; every field is checked when it is read.

Fields may be text, a whole number, a truth value, a list of texts (`tuple[str, ...]`) or one of several words
(`Literal`).
"""

from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from quickstudy.storage.files import write_json
from quickstudy.storage.reading import read_json

Record = TypeVar("Record")


def write_record(file: Path, record: Any) -> None:
    """Write a dataclass as a JSON file."""
    write_json(file, asdict(record))


def read_record(file: Path, kind: type[Record]) -> Record:
    """Read a JSON file as a dataclass.

    Args:
        file: The JSON file.
        kind: The dataclass; fields with a default value may be missing from the file.

    Raises:
        ValueError: The file is missing or no JSON object, or a field is missing, unknown or of another type.
    """
    try:
        values = read_json(file)
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file.name} holds no JSON object")
    types = get_type_hints(kind)
    if unknown := sorted(set(values) - set(types)):
        raise ValueError(f"{file.name} has the unknown field {unknown[0]!r}")
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in values:
            values[field.name] = _check(file, field.name, values[field.name], types[field.name])
        elif field.default is MISSING:
            raise ValueError(f"{file.name} lacks the field {field.name!r}")
    return kind(**values)


def _check(file: Path, name: str, value: object, kind: Any) -> object:
    """Return a value of the JSON file as the field's type; a list becomes a tuple."""
    if get_origin(kind) is Literal:
        fits = value in get_args(kind)
    elif get_origin(kind) is tuple:
        fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
        value = tuple(value) if isinstance(value, list) else value
    else:
        fits = type(value) is kind
    if not fits:
        raise ValueError(f"{file.name} has {value!r} for {name!r}")
    return value
