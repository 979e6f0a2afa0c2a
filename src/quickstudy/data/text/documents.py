"""Documents: the documents of text files, of tables and of folders of them, one after another.

| file | a document is |
|---|---|
| .txt, .md, .rst | what stands between two blank lines |
| .csv, .tsv, .jsonl, .json, .parquet, .xlsx | the text of a row, with its second text if it has one |

All of them may be packed with gzip. Labels are not read. In a folder, all such files count, those in its folders too;
names that start with a dot are skipped, and so are .json files, as in `data.files`. Where a folder holds several files
of plain text, the documents of a file make a group, because a note or a report is often a file with blank lines in it.
Only a few thousand characters are in memory at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from quickstudy.data.columns import AUTO, Columns
from quickstudy.data.reading import read_rows
from quickstudy.data.source import base_name, explain_os_errors, find_format, is_packed, read_lines
from quickstudy.data.table import find_columns
from quickstudy.errors import DataError

TEXT_SUFFIXES = (".txt", ".md", ".rst")

_LONGEST = 20_000  # characters; a longer document is cut at the end of a line, and its pieces stay in one group


@dataclass(frozen=True, slots=True)
class Document:
    """A document.

    Attributes:
        text: What it says.
        group: Documents of the same group are never on two sides of a split.
    """

    text: str
    group: str


def list_text_files(path: Path) -> list[Path]:
    """Return the file itself, or the files of a folder whose text can be read, by name.

    Raises:
        DataError: There is no such file or folder, it has no such files, or its type is unknown.
    """
    suffixes = (*TEXT_SUFFIXES, ".csv, .tsv, .jsonl, .parquet, .xlsx")
    with explain_os_errors(path):
        if not path.exists():
            raise DataError("there is no such file or folder", where=str(path), fix="Check the path.")
        if path.is_file():
            if not _is_text(path) and find_format(path) is None:
                what = f"files of type {path.suffix or 'without a suffix'!r} cannot be read"
                raise DataError(what, where=str(path), fix=f"Save it as one of: {', '.join(suffixes)}.")
            return [path]
        files = sorted(file for file in path.rglob("*") if _counts(file.relative_to(path)) and file.is_file())
    if not files:
        raise DataError("the folder holds no texts", where=str(path), fix=f"Put files in it: {', '.join(suffixes)}.")
    return files


def read_documents(path: Path, column: str = AUTO) -> Iterator[Document]:
    """Yield the documents of a file or a folder.

    Args:
        path: File or folder.
        column: The column of the texts in tables; by default it is looked for, see `data.columns`.

    Raises:
        DataError: Something cannot be read, or a column is missing; with `file:line`. Rows of tables without a text
            are passed over.
    """
    files = list_text_files(path)
    by_file = sum(_is_text(file) for file in files) > 1
    for file in files:
        yield from _read_plain(file, by_file) if _is_text(file) else _read_table(file, column)


def _read_plain(file: Path, by_file: bool) -> Iterator[Document]:
    group = None
    for block, goes_on in _blocks(file):
        # A group is called after the text that it begins with: a copy under another name belongs to the same group.
        group = group if group is not None and (by_file or goes_on) else block
        yield Document(block, group)


def _blocks(file: Path) -> Iterator[tuple[str, bool]]:
    """Yield what stands between blank lines, and whether it goes on with the block before, which was too long."""
    lines: list[str] = []
    size, goes_on = 0, False
    for line in read_lines(file):
        blank = not line.strip()
        if lines and (blank or size > _LONGEST):
            yield "".join(lines).strip(), goes_on
            lines, size, goes_on = [], 0, not blank
        elif blank:
            goes_on = False
        if not blank:
            lines.append(line)
            size += len(line)
    if lines:
        yield "".join(lines).strip(), goes_on


def _read_table(file: Path, column: str) -> Iterator[Document]:
    chosen = find_columns(file, Columns(column, AUTO if column == AUTO else None), labelled=False)
    names = [name for name in (chosen.text, chosen.text_pair) if name]
    for _, row in read_rows(file, names):
        if isinstance(row, DataError):
            raise row
        texts = [text for name in names if isinstance(text := row.get(name), str) and text.strip()]
        if texts:
            yield Document("\n".join(texts), texts[0])


def _counts(file: Path) -> bool:
    """Return whether a file below a folder is text by its name."""
    if any(name.startswith((".", "~$")) for name in file.parts):
        return False
    return _is_text(file) or find_format(file) not in (None, ".json")


def _is_text(file: Path) -> bool:
    """Return whether a file is plain text by its name.

    >>> _is_text(Path("notes.TXT")), _is_text(Path("notes.txt.gz")), _is_text(Path("notes.csv"))
    (True, True, False)
    """
    name = base_name(file) if is_packed(file) else file.name
    suffix = Path(file.stem).suffix if is_packed(file) else Path(name).suffix
    return suffix.lower() in TEXT_SUFFIXES
