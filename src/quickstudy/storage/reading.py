"""Reading: a file that may be damaged, or be from a stranger, as text, JSON or TOML, or one error that says why not.

    {"step": 3, "loss": 0.52, "seal": "9f86d081884c7d65"}      a sealed object: changed figures do not match the seal

A seal is a part of the SHA-256 of the other values. It finds damage, by a disk or by a slip of the hand; it is no
signature, because whoever changes a file on purpose can seal it again. Objects of versions that wrote no seal are read
unchecked.
"""

import json
import math
import re
import tomllib
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

MOST_BYTES = 2**30  # of a text file that quickstudy wrote: results of a thousand cells take a twentieth of it
_SEAL = "seal"
_SEAL_DIGITS = 16


class UnreadableError(ValueError):
    """A file that cannot be read; the text says why, and goes into the message of who wanted it.

    Args:
        why: What is wrong with it.
        line: The line on which that is; None if it is not known.
    """

    def __init__(self, why: str, line: int | None = None) -> None:
        super().__init__(why)
        self.line = line


def read_text(file: Path, *, most: int = MOST_BYTES) -> str:
    """Return the content of a UTF-8 file.

    Raises:
        UnreadableError: It is not there, no ordinary file, larger than `most` bytes, or not UTF-8.
    """
    return decode(read_bytes(file, most=most))


def read_bytes(file: Path, *, most: int = MOST_BYTES) -> bytes:
    """Return the content of a file; see `read_text`."""
    try:
        if not file.is_file():  # a pipe would be waited for, a device has no end
            raise UnreadableError("there is no such file" if not file.exists() else "it is no ordinary file")
        if (size := file.stat().st_size) > most:
            raise UnreadableError(f"it has {size:,} bytes, and {most:,} are the most")
        return file.read_bytes()
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        if isinstance(error, UnreadableError):
            raise
        raise UnreadableError(getattr(error, "strerror", None) or str(error)) from error


def decode(content: bytes) -> str:
    """Return bytes as text; raises `UnreadableError` if they are not UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UnreadableError(f"it is not UTF-8 text (byte 0x{content[error.start]:02x})", line) from error


def read_json(file: Path) -> Any:
    """Return what a JSON file holds; see `read_text` and `parse_json`."""
    return parse_json(read_text(file))


def parse_json(text: str) -> Any:
    """Return what a JSON text holds. NaN and infinity are no JSON; numbers too large for a float are refused with them.

    Raises:
        UnreadableError: It is no JSON, or nested too deep.
    """
    try:
        return json.loads(text, parse_constant=_refuse_number, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise UnreadableError(f"it is not JSON: {error.msg}, column {error.colno}", error.lineno) from error
    except RecursionError as error:
        raise UnreadableError("it is nested too deep") from error
    except ValueError as error:
        raise UnreadableError(str(error)) from error


def read_toml(file: Path) -> dict[str, Any]:
    """Return what a TOML file holds; see `read_text` and `parse_toml`."""
    return parse_toml(read_text(file))


def parse_toml(text: str) -> dict[str, Any]:
    """Return what a TOML text holds.

    Raises:
        UnreadableError: It is no TOML, or nested too deep.
    """
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise UnreadableError("lists or tables are nested too deep") from error
    except ValueError as error:  # the errors of TOML, and an impossible date
        named = re.search(r"line (\d+)", str(error))
        # An error without a number is at the end of the file.
        raise UnreadableError(str(error), int(named[1]) if named else len(text.splitlines())) from error


def seal(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with its seal.

    >>> seal({"step": 3})
    {'step': 3, 'seal': 'f2c76473acac2fa2'}
    """
    plain = json.loads(json.dumps(values))  # as it will be read: keys that are numbers become texts
    return {**values, _SEAL: _seal_of(plain)}


def unseal(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object without its seal.

    Raises:
        UnreadableError: It was changed after it was sealed.
    """
    plain = {key: value for key, value in values.items() if key != _SEAL}
    if _SEAL in values and values[_SEAL] != _seal_of(plain):
        raise UnreadableError("it was changed after it was written")
    return plain


def _seal_of(values: Mapping[str, Any]) -> str:
    content = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(content.encode()).hexdigest()[:_SEAL_DIGITS]


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse_number(digits)


def _refuse_number(word: str) -> NoReturn:
    raise UnreadableError(f"{word[:20]} is no finite number")
