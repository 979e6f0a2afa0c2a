"""Lock: one process at a time works in a folder or writes a file; what is left is told from what is being written.

    with locked(folder):          # `folder/.lock` says who works here
        train()

The operating system holds these locks, and gives them up when their process ends, however it ends. So no lock is ever
left behind, even by a process that was killed. Where a system or a disk has no such locks (Windows, some network
disks), nothing is locked, and nothing that looks unfinished is removed.
"""

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from quickstudy.errors import RunError

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Keep other processes from working in a folder, or from writing a file.

    Args:
        place: A run folder or the folder of a comparison, which must exist; or a file that is to be written.

    Raises:
        RunError: Another process is at work there; the message says which.
    """
    file = place / LOCK if place.is_dir() else place.with_name(f".{place.name}{LOCK}")
    handle = _lock_file(file, place)
    try:
        os.ftruncate(handle, 0)
        who = {"process": os.getpid(), "host": socket.gethostname(), "since": datetime.now().isoformat(" ", "seconds")}
        with suppress(OSError):  # on a full disk nobody can read who it is; what cannot be written after it is said
            os.write(handle, json.dumps(who).encode())
        yield
    finally:
        file.unlink(missing_ok=True)  # before it is given up: who opens it now gets the lock of a file that is gone
        os.close(handle)


def _lock_file(file: Path, place: Path) -> int:
    """Return the open file, locked, that stands for a place."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        if claim(handle) is False:
            os.close(handle)
            raise _busy(file, place)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), file.stat()):
                return handle
        os.close(handle)  # its holder ended meanwhile and removed it


def claim(handle: int) -> bool | None:
    """Lock an open file or folder: True if that worked, False if another process has it, None if there are no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a disk without locks
        return None
    return True


@contextmanager
def making(folder: Path) -> Iterator[None]:
    """Keep `removing` away from a folder, while a temporary folder is made in it and claimed."""
    with _opened(folder) as handle:
        if sys.platform != "win32" and handle is not None:
            with suppress(OSError):  # a disk without locks
                fcntl.flock(handle, fcntl.LOCK_SH)
        yield


@contextmanager
def removing(folder: Path) -> Iterator[bool]:
    """Give whether temporary folders in a folder may be looked through now: no process is just making one."""
    with _opened(folder) as handle:
        yield handle is not None and claim(handle) is True


@contextmanager
def _opened(folder: Path) -> Iterator[int | None]:
    """Give an open folder; None where folders cannot be opened (Windows), or if it is not there."""
    handle = None
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        if handle is not None:
            os.close(handle)


def is_abandoned(folder: Path) -> bool:
    """Whether the process that made a temporary folder has ended without removing it."""
    with _opened(folder) as handle:
        return handle is not None and claim(handle) is True


def _busy(file: Path, place: Path) -> RunError:
    try:
        who = json.loads(file.read_text(encoding="utf-8"))
        name = f"process {int(who['process'])} on {who['host']}, since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has only just begun
        name = "another process"
    return RunError(
        f"this {'folder' if place.is_dir() else 'file'} is in use by {name}",
        where=str(place),
        fix="Wait until it has ended, or choose another --out.",
    )
