"""JSON file: read as a record, or refused in one sentence that names the file and the key at fault.

The classes of the records say what must be there; pydantic checks it. A file that was cut off, that another program
wrote, or that an editor damaged is never half read.
"""

import json
from collections.abc import Collection, Hashable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from quickstudy.errors import RunError
from quickstudy.storage import reading
from quickstudy.storage.reading import UnreadableError

Record = TypeVar("Record")


def read_json(file: Path, fix: str) -> Any:
    """Return what a JSON file holds.

    Args:
        file: The file.
        fix: What to do about a damaged one.

    Raises:
        RunError: It cannot be read, or is no JSON.
    """
    try:
        return reading.read_json(file)
    except UnreadableError as error:
        raise RunError(f"the file is damaged ({error})", where=str(file), fix=fix) from error


def as_record(kind: type[Record], value: object, file: Path, fix: str, *, unnamed: Collection[str] = ()) -> Record:
    """Return plain values as a record.

    Args:
        kind: Class of the record.
        value: Plain values, as JSON gives them; keys that the class does not have are passed over.
        file: Where they are from, and
        fix: what to do about a damaged file: for the message.
        unnamed: Fields of the record that are no keys of the file.

    Raises:
        RunError: Something is missing or of another type.
    """
    try:
        adapter: TypeAdapter[Record] = _adapter(cast(Hashable, kind))
        return adapter.validate_python(value)
    except RecursionError as error:
        raise RunError("the file is damaged (it is nested too deep)", where=str(file), fix=fix) from error
    except ValidationError as error:
        fault = _first_fault(error, unnamed)
        raise RunError(f"the file is damaged, or of another format ({fault})", where=str(file), fix=fix) from error


@lru_cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, kind))


def _first_fault(error: ValidationError, unnamed: Collection[str]) -> str:
    first = error.errors()[0]
    place = ".".join(str(key) for key in first["loc"] if key not in unnamed) or "all of it"
    if first["type"] == "missing":
        return f"{place} is missing"
    if first["type"] == "value_error":
        return f"{place}: {first['ctx']['error']}"
    return f"{place} is {json.dumps(first['input'], default=repr)[:40]}"
