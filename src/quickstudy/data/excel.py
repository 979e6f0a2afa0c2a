"""Excel: rows of the first sheet of an .xlsx file that is not hidden, read one by one with openpyxl (extra `excel`)."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from quickstudy.data.delimited import refuse_twice
from quickstudy.data.source import Row, open_anywhere
from quickstudy.errors import DataError

MOST_ROWS = 2**20 - 1  # rows that a sheet can hold below its header

# What a formula gives that has no value, e.g. a look-up that finds nothing: neither a text nor a label.
_ERRORS = frozenset(("#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A"))
_RETURN = "_x000D_"  # how a carriage return stands in the file; openpyxl leaves it so

_log = logging.getLogger(__name__)


def load_openpyxl(path: Path) -> Any:
    """Return the library.

    Raises:
        DataError: It is not installed; the message names the extra.
    """
    try:
        library = import_module("openpyxl")
    except ImportError:
        raise DataError(
            "Excel files need the package openpyxl, which is not installed",
            where=str(path),
            fix="Install it with: pip install 'quickstudy[excel]'; or save the sheet as CSV UTF-8.",
        ) from None
    # It warns of what it passes over: styles, drop-down lists, charts. None of that is data.
    warnings.filterwarnings("ignore", module=r"openpyxl\.")
    return library


def read_excel(path: Path) -> Iterator[Row]:
    """Yield the rows of the first sheet that is shown, below its first row that is not empty.

    Empty rows are passed over. Formulas count as the values that Excel saved with them, errors as empty cells.

    Raises:
        DataError: openpyxl is not installed, the file is no .xlsx file, or two columns have the same name.
    """
    library = load_openpyxl(path)
    with open_anywhere(path) as file:
        try:
            yield from _read_first_sheet(library, file, path)
        except (DataError, OSError):
            raise
        except Exception as error:  # a damaged file fails in many ways: in the archive, its XML, and what that says
            fix = "Open it in Excel and save it again as .xlsx, without a password."
            raise DataError(f"not a readable Excel file ({error})", where=str(path), fix=fix) from None


def _read_first_sheet(library: Any, file: IO[bytes], path: Path) -> Iterator[Row]:
    book = library.load_workbook(file, read_only=True, data_only=True)
    try:
        sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"] or book.worksheets
        if len(sheets) > 1:
            _log.info("%s: the first of %d sheets is read, %r", path.name, len(sheets), sheets[0].title)
        for sheet in sheets[:1]:
            sheet.reset_dimensions()  # some programs write a size that is wrong
            yield from _rows(sheet.iter_rows(values_only=True), path)
    finally:
        book.close()


def _rows(lines: Iterator[Sequence[object]], path: Path) -> Iterator[Row]:
    header: list[str] = []
    for number, cells in enumerate(lines, 1):
        values = [_value(cell) for cell in cells]
        while values and values[-1] is None:
            values.pop()
        if not values:
            continue
        where = f"{path}:{number}"
        if not header:
            header = ["" if name is None else str(name).strip() for name in values]
            refuse_twice(header, path)
        elif len(values) > len(header):
            what = f"{len(values)} cells where the header has {len(header)}"
            yield where, DataError(what, where=where, fix="Give each column a name, or empty the cells.")
        else:
            yield where, dict(zip(header, values + [None] * (len(header) - len(values)), strict=True))


def _value(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    return None if cell in _ERRORS else cell.replace(_RETURN, "\r")
