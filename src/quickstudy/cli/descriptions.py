"""Descriptions: a file that says what labels mean, as `adapt --label-descriptions` reads it.

refund = "The customer wants money back."        TOML, in a file whose name ends with .toml
{"refund": "The customer wants money back."}     JSON, in any other file
"""

from pathlib import Path

from quickstudy.errors import DataError
from quickstudy.storage.reading import UnreadableError, parse_json, parse_toml, read_text

_FIX = 'Write one line per label: name = "what it means" (.toml), or {"name": "what it means"} (.json).'


def read_descriptions(file: Path) -> dict[str, str]:
    """Return the descriptions in a file, by label name.

    Raises:
        DataError: The file cannot be read, or it does not hold one text for each name.
    """
    values = _parse(file)
    if not isinstance(values, dict):
        raise DataError("descriptions are not given by label name", where=str(file), fix=_FIX)
    for name, text in values.items():
        if not isinstance(text, str):
            raise DataError(f"the description of {name!r} is no text", where=str(file), fix=_FIX)
    return values


def _parse(file: Path) -> object:
    try:
        text = read_text(file)
    except UnreadableError as error:
        raise DataError(f"the descriptions cannot be read ({error})", where=str(file), fix="Check the path.") from None
    kind, parse = ("TOML", parse_toml) if file.suffix == ".toml" else ("JSON", parse_json)
    try:
        return parse(text)
    except UnreadableError as error:
        place = f"{file}:{error.line}" if error.line else str(file)
        raise DataError(f"this is not {kind} ({error})", where=place, fix=_FIX) from None
