"""Source: the bytes of a data file, plain or packed with gzip, and its text, line by line.

Text is UTF-8, with or without a byte order mark, or UTF-16 with one. Any other encoding would have to be guessed, and a
wrong guess changes the texts without a word.
"""

import codecs
import gzip
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, cast

from quickstudy.errors import DataError

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xlsx")

Row = tuple[str, dict[str, object] | DataError]  # ("file:line", {column: value}), or what is wrong with the row

_PACKED = ".gz"
_MARKS_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def find_format(path: Path) -> str | None:
    """Return the suffix that says the format of a data file; None for other files.

    >>> find_format(Path("few.CSV")), find_format(Path("few.csv.gz")), find_format(Path("notes.txt"))
    ('.csv', '.csv', None)
    """
    suffix = Path(path.stem).suffix if is_packed(path) else path.suffix
    return suffix.lower() if suffix.lower() in SUFFIXES else None


def is_packed(path: Path) -> bool:
    """Return whether the name says that a file is packed with gzip."""
    return path.suffix.lower() == _PACKED


def base_name(path: Path) -> str:
    """Return the name of a data file without what says its format.

    >>> base_name(Path("data/few.csv.gz")), base_name(Path("v1.2.jsonl"))
    ('few', 'v1.2')
    """
    return Path(path.stem).stem if is_packed(path) else path.stem


@contextmanager
def explain_os_errors(
    path: Path, what: str = "it cannot be read", fix: str = "Check the path and its permissions."
) -> Iterator[None]:
    """Turn an error of the operating system into a `DataError`."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{what} ({error.strerror or error})", where=str(error.filename or path), fix=fix) from None


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Give the bytes of a file, unpacked.

    Raises:
        DataError: It cannot be read, or it is no whole gzip file although its name says so.
    """
    with explain_os_errors(path):
        try:
            with path.open("rb") as file:
                yield cast(IO[bytes], gzip.GzipFile(fileobj=file)) if is_packed(path) else file
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"not a whole gzip file ({error})", where=str(path), fix="Copy it again.") from None


@contextmanager
def open_anywhere(path: Path) -> Iterator[IO[bytes]]:
    """Give the bytes of a file for a reader that jumps to and fro; a packed file is unpacked to the disk for that."""
    with open_bytes(path) as file:
        if not is_packed(path):
            yield file
            return
        with TemporaryFile() as unpacked:
            shutil.copyfileobj(file, unpacked)
            unpacked.seek(0)
            yield unpacked


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, each with its line feed; no other character ends a line.

    Raises:
        DataError: The file cannot be read, or its bytes are no text in UTF-8, or in UTF-16 with a byte order mark.
    """
    with open_bytes(path) as file:
        start = file.read(2)
        file.seek(0)
        yield from _utf16_lines(file, path) if start in _MARKS_UTF16 else _utf8_lines(file, path)


def _utf8_lines(file: IO[bytes], path: Path) -> Iterator[str]:
    for number, raw in enumerate(file, 1):
        if number == 1:
            if b"\0" in raw:
                raise DataError(
                    "the file is UTF-16, not UTF-8, and has no byte order mark",
                    where=f"{path}:1",
                    fix=f"Save it as UTF-8, e.g. iconv -f UTF-16 -t UTF-8 {path.name} > utf8{path.suffix}",
                )
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        try:
            yield raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"not valid UTF-8 (byte 0x{raw[error.start]:02x} at position {error.start + 1} of the line)",
                where=f"{path}:{number}",
                fix="Save it as UTF-8 (in Excel: CSV UTF-8), e.g. "
                f"iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8{path.suffix}",
            ) from None


def _utf16_lines(file: IO[bytes], path: Path) -> Iterator[str]:
    rest = ""
    try:
        for text in codecs.iterdecode(iter(lambda: file.read(2**16), b""), "utf-16"):
            *lines, rest = (rest + text).split("\n")
            yield from (f"{line}\n" for line in lines)
        if rest:
            yield rest
    except UnicodeError as error:
        raise DataError(f"not valid UTF-16 ({error})", where=str(path), fix="Save it as UTF-8.") from None
