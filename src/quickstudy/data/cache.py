"""Cache: the folder where checked tables, corpora and new encoders are kept, and how a folder in it is made once."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from quickstudy.data.source import explain_os_errors
from quickstudy.errors import DataError, QuickstudyError
from quickstudy.storage.files import new_folder, remove_abandoned
from quickstudy.storage.manifest import is_whole, write_manifest

_log = logging.getLogger(__name__)


def find_cache_folder() -> Path:
    """Return the folder of the cache.

    It is $QUICKSTUDY_CACHE, else $XDG_CACHE_HOME/quickstudy, else ~/.cache/quickstudy. An empty variable is as none.

    Raises:
        DataError: None of the two is set, and the user has no home folder.
    """
    if folder := os.environ.get("QUICKSTUDY_CACHE"):
        return Path(folder)
    if above := os.environ.get("XDG_CACHE_HOME"):
        return Path(above) / "quickstudy"
    try:
        return Path.home() / ".cache" / "quickstudy"
    except RuntimeError:  # in a container, a user whom the system does not know
        fix = "Set QUICKSTUDY_CACHE to a folder that can be written."
        raise DataError("there is no home folder for the cache", fix=fix) from None


def make_once(name: str, write: Callable[[Path], None]) -> Path:
    """Return a folder in the cache, which is made if it is not there, or damaged.

    The SHA-256 of its files is kept with them and looked at whenever the folder is asked for.

    Args:
        name: Its name, which follows from what is in it.
        write: Writes its files into a new folder, which appears in the cache when it is whole.

    Raises:
        QuickstudyError: The cache cannot be used, or what `write` raises.
    """
    folder = find_cache_folder() / name
    with _usable_cache(folder.parent):
        if folder.exists():
            remove_abandoned(folder.parent, name)  # of a process that was killed after another one had finished
            if is_whole(folder):
                return folder
            _log.warning("%s: a file in the cache is missing or was changed; all of it is made again", folder)
            with suppress(FileNotFoundError):  # another process saw it too
                shutil.rmtree(folder)
    try:
        with _usable_cache(folder.parent), new_folder(folder) as new:
            write(new)
            write_manifest(new, sorted(file.name for file in new.iterdir()))
    except QuickstudyError:
        if not (folder.exists() and is_whole(folder)):  # another process was ready first
            raise
    return folder


@contextmanager
def _usable_cache(folder: Path) -> Iterator[None]:
    """Turn an error of the operating system in the cache folder into a `DataError` that says what to do."""
    fix = "Set QUICKSTUDY_CACHE to a folder that can be written, on a disk with room."
    with explain_os_errors(folder, "the cache folder cannot be used", fix):
        yield
