"""Delimited: rows of CSV and TSV files, whose delimiter is seen from the first lines.

A delimiter is possible if the header has it outside of quotes. Of several, the one that gives the most rows as many
fields as the header is taken. A header without any of them is the name of the only column, and each line is a text.
"""

import csv
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

from quickstudy.data.source import Row, read_lines
from quickstudy.errors import DataError

_DELIMITERS = (",", ";", "\t", "|")
_NONE = "\x1f"  # the ASCII unit separator, which is in no text: of a single column nothing is cut off
_SAMPLE = 50  # lines that are looked at for the delimiter
_FIELD = 2**24  # characters; Python's limit of 2^17 is too low for long reports


def read_delimited(path: Path, usual: str) -> Iterator[Row]:
    """Yield the rows of a file with a header line.

    Args:
        path: The file.
        usual: The delimiter that its suffix stands for.

    Raises:
        DataError: It is no text, two columns have one name, or a quote is not closed.
    """
    csv.field_size_limit(max(_FIELD, csv.field_size_limit()))
    lines = read_lines(path)
    sample = list(islice(lines, _SAMPLE))
    delimiter = find_delimiter(sample, usual)
    reader = csv.reader(chain(sample, lines), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        refuse_twice(header, path)
        start = reader.line_num + 1
        for values in reader:
            where, start = f"{path}:{start}", reader.line_num + 1
            if not values:
                continue
            if len(values) == len(header):
                yield where, dict(zip(header, values, strict=True))
            else:
                yield where, _wrong_size(len(values), len(header), delimiter, where)
    except csv.Error as error:
        raise DataError(
            f"broken CSV ({error})",
            where=f"{path}:{reader.line_num}",
            fix='Write quotes inside a quoted field twice (""), and close every quoted field.',
        ) from None


def find_delimiter(lines: Sequence[str], usual: str) -> str:
    """Return the delimiter of a file, given its first lines.

    >>> find_delimiter(["text;label", "well, hello;a"], ","), find_delimiter(["text|label", "a|x"], ",")
    (';', '|')
    """
    fitting = {}
    for delimiter in (usual, *_DELIMITERS):
        sizes = _sizes(lines, delimiter)
        if sizes and sizes[0] > 1:
            fitting[delimiter] = sum(size == sizes[0] for size in sizes)
    return max(fitting, key=fitting.__getitem__, default=_NONE)


def refuse_twice(names: Collection[str], path: Path) -> None:
    """Refuse two columns with the same name; columns without a name are never read."""
    seen: set[str] = set()
    for name in filter(None, names):
        if name in seen:
            raise DataError(f"two columns are called {name!r}", where=f"{path}:1", fix="Rename or remove one of them.")
        seen.add(name)


def _sizes(lines: Sequence[str], delimiter: str) -> list[int]:
    """Return how many fields each row has; what is broken is told when the file is read."""
    sizes: list[int] = []
    with suppress(csv.Error):
        sizes.extend(len(values) for values in csv.reader(lines, delimiter=delimiter))
    return sizes


def _wrong_size(size: int, expected: int, delimiter: str, where: str) -> DataError:
    fields = "1 field" if size == 1 else f"{size} fields"
    return DataError(
        f"{fields} where the header has {expected}",
        where=where,
        fix=f'Put texts that contain {delimiter!r}, quotes or line breaks in "double quotes".',
    )
