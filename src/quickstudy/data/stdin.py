"""Stdin: what is piped in, as a file that can be read more than once: `-` on the command line, or a named pipe."""

import gzip
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from quickstudy.data.json_rows import has_rows_as_lines
from quickstudy.data.source import explain_os_errors
from quickstudy.errors import DataError, QuickstudyError

_STDIN, _OPEN_FILES = ("-", "/dev/stdin"), ("/dev/fd/", "/proc/self/fd/")
_GZIP = b"\x1f\x8b"
_MARKS = {b"PAR1": ".parquet", b"PK\x03\x04": ".xlsx"}  # with which binary files begin


def is_piped(name: str | Path) -> bool:
    """Whether a name stands for something that can be read only once: standard input, or a pipe.

    >>> is_piped("-"), is_piped("/dev/stdin"), is_piped("few.csv")
    (True, True, False)
    """
    with suppress(OSError, ValueError):
        return str(name) in _STDIN or str(name).startswith(_OPEN_FILES) or Path(name).is_fifo()
    return False


@contextmanager
def piped_input(name: str | Path) -> Iterator[Path]:
    """Give the path of a temporary copy of what is piped in, whose suffix says the format that it has.

    Messages name it as standard input, or as the pipe.

    Args:
        name: What `is_piped` says yes to.

    Raises:
        DataError: Nothing was piped in.
    """
    standard = str(name) in _STDIN
    if standard and (sys.stdin is None or sys.stdin.isatty()):
        raise DataError(f"{name} reads what is piped in, and nothing is", fix="Pipe a file in: quickstudy ... - < FILE")
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "stdin"
        with copy.open("wb") as file, _source(None if standard else Path(name)) as source:
            shutil.copyfileobj(source, file)
        path = copy.rename(copy.with_name(f"stdin{_suffix(copy)}"))
        try:
            yield path
        except QuickstudyError as error:
            what, where, fix = (
                text and text.replace(str(path), "standard input" if standard else str(name)) for text in _words(error)
            )
            raise type(error)(what or "", where=where, fix=fix) from error


@contextmanager
def _source(pipe: Path | None) -> Iterator[IO[bytes]]:
    if pipe is None:
        yield sys.stdin.buffer
        return
    with explain_os_errors(pipe), pipe.open("rb") as file:
        yield file


def _words(error: QuickstudyError) -> tuple[str | None, ...]:
    return error.what, error.where, error.fix


def _suffix(file: Path) -> str:
    """Return the suffix of a file by how it begins."""
    with file.open("rb") as source:
        packed = source.read(2) == _GZIP
    try:
        with gzip.open(file, "rb") if packed else file.open("rb") as source:
            line = source.readline(2**20)
    except (OSError, EOFError):
        return ".csv.gz"  # the reader says what is wrong with it
    return f"{_suffix_of(line)}{'.gz' if packed else ''}"


def _suffix_of(line: bytes) -> str:
    """Return the suffix of a file by its first line.

    >>> _suffix_of(b'{"text": "a"}'), _suffix_of(b'['), _suffix_of(b"text,label")
    ('.jsonl', '.json', '.csv')
    """
    for mark, suffix in _MARKS.items():
        if line.startswith(mark):
            return suffix
    text = line.removeprefix(b"\xef\xbb\xbf").strip()
    if text.startswith((b"{", b"[")):
        return ".jsonl" if has_rows_as_lines(text.decode("utf-8", "replace")) else ".json"
    return ".csv"
