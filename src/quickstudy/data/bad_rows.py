"""Bad rows: the rows of a file that cannot be used, all of them named at once, or left out and counted."""

import logging
from pathlib import Path

from quickstudy.errors import DataError

_NAMED = 20  # of more, only the number is said
_HINT = "--skip-bad-rows leaves such rows out (in a task reference: ?bad=skip)."

_log = logging.getLogger(__name__)


class BadRows:
    """Collects what is wrong with the rows of a file.

    Args:
        path: The file.
        skip: Leave bad rows out instead of refusing the file.
    """

    def __init__(self, path: Path, *, skip: bool = False) -> None:
        self._path, self._skip = path, skip
        self.count = 0
        self._first: list[DataError] = []

    def add(self, error: DataError) -> None:
        """Count a bad row."""
        self.count += 1
        if len(self._first) < _NAMED:
            self._first.append(error)

    def finish(self, good: int) -> None:
        """Say how many rows were left out, after the last row.

        Args:
            good: How many rows can be used.

        Raises:
            DataError: There are bad rows, and they are not to be skipped or there is no good one.
        """
        if not self.count:
            return
        if self._skip and good:
            left_out = "1 bad row is" if self.count == 1 else f"{self.count:,} bad rows are"
            _log.warning("%s: %s left out, and %s kept", self._path.name, left_out, f"{good:,}")
            _log.info("  the first: %s", self._line(self._first[0]))
            return
        raise self._refusal()

    def _refusal(self) -> DataError:
        first = self._first[0]
        if self.count == 1:
            return DataError(first.what, where=first.where, fix=f"{first.fix} {_HINT}")
        lines = [self._line(error) for error in self._first]
        if self.count > len(lines):
            lines.append(f"and {self.count - len(lines):,} more")
        return DataError(
            f"{self.count:,} rows cannot be used",
            where=str(self._path),
            fix="\n  ".join([*lines, f"Mend them. {_HINT}"]),
        )

    def _line(self, error: DataError) -> str:
        """Return what is wrong with a row, with the file's name in place of its path."""
        place = (error.where or "").removeprefix(str(self._path))
        return f"{self._path.name}{place}: {error.what}"
