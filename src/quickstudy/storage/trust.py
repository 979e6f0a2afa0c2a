"""Trust: a folder from a stranger is looked through before anything in it is opened.

    a link to a place outside of the folder     refused: what it names would be read, or overwritten
    a pipe, a socket, a device                  refused: it would be waited for, or has no end
    a name with `..`, or an absolute one        refused where a file of the folder names files (`manifest.json`)

The files of a snapshot in the cache of the Hugging Face Hub are links to its folder `blobs`. These are allowed.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from quickstudy.errors import RunError


def check_folder(folder: Path, what: str) -> None:
    """Refuse a folder that leads outside of itself, or holds what is neither a file nor a folder.

    Args:
        folder: The folder of a run, a model or a comparison.
        what: What it is called in messages.

    Raises:
        RunError: With the place in the folder.
    """
    allowed = [folder.resolve()]
    if folder.absolute().parent.name == "snapshots":
        allowed.append(folder.absolute().parent.parent.resolve() / "blobs")
    for place in _entries(folder):
        if place.is_symlink():
            target = place.resolve()
            if not any(target.is_relative_to(root) for root in allowed):
                raise _unsafe(f"this link leads outside of the {what}", place)
        if place.exists() and not (place.is_file() or place.is_dir()):
            raise _unsafe(f"in this {what} there is something that is neither a file nor a folder", place)


def is_inside(name: str) -> bool:
    r"""Whether the name of a file stays within its folder, on every system.

    >>> is_inside("encoder/config.json"), is_inside("../config.json"), is_inside("/etc/passwd"), is_inside("C:\\x")
    (True, False, False, False)
    """
    paths = PurePosixPath(name), PureWindowsPath(name)
    return not any(path.anchor or ".." in path.parts for path in paths) and "\0" not in name


def _entries(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder, followlinks=False):
        yield from (Path(place, name) for name in (*folders, *files))


def _unsafe(what: str, place: Path) -> RunError:
    return RunError(
        what, where=str(place), fix="Remove it if you trust the rest of the folder, or do not use the folder."
    )
