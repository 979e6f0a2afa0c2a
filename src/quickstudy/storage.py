"""Storage: files and folders that appear whole, under their final name, or not at all."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from quickstudy.errors import RunError


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `target` when the block ends, and vanishes when it fails.

    Raises:
        RunError: `target` exists already, or cannot be made.
    """
    refuse_existing(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise RunError(
            f"the folder cannot be made ({error.strerror})", where=str(target), fix="Choose another --out."
        ) from error
    try:
        yield part
        part.chmod(0o755)  # mkdtemp makes folders that only their owner can read
        part.replace(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def refuse_existing(target: Path) -> None:
    """Raise `RunError` if there is something at `target`: nothing of the user's is ever overwritten."""
    if target.exists():
        raise RunError("this exists already", where=str(target), fix="Choose another name with --out, or remove it.")


def write_text(target: Path, text: str) -> None:
    """Write a text file in one step: readers see the old content or the new, never half of it."""
    part = target.with_name(f".{target.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(target)


def write_json(target: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write JSON in one step, on one line without an indent; NaN becomes null, as JSON has none."""
    write_text(target, json.dumps(finite(value), indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """Return a value with null instead of NaN, ready for JSON, which has no NaN.

    >>> finite({"mean": 0.5, "sd": float("nan")})
    {'mean': 0.5, 'sd': None}
    """
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and value != value else value
