"""Storage: files and folders that appear whole, under their final name, or not at all.

Everything is written in a temporary folder beside its place and then renamed; the disk has the files of a folder by
then. When a write fails, the temporary folder is removed. When its process is killed, it stays, and the next process
that writes the same removes it (`remove_abandoned`). A full disk gives one error, which says what could not be written,
how much space it needs and how much is left. A disk that reports an error while it is written gives one error too.
"""

import errno
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from glob import escape
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from quickstudy.errors import QuickstudyError, RunError
from quickstudy.storage.lock import claim, is_abandoned, making, removing

if TYPE_CHECKING:  # torch is imported by what needs it: reports are made without it
    from torch import Tensor

# No space on the disk, no space left of the user's share of it, a file above the limit of its size.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
UNFINISHED = ".unfinished"  # how the names of temporary folders end
_NOT_ASKED = {errno.EINVAL, errno.ENOTSUP}  # a disk, such as one in a network, that cannot be asked to keep something
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY}  # there is something of that name


@contextmanager
def new_folder(target: Path, *, size: int | None = None) -> Iterator[Path]:
    """Give a temporary folder that becomes `target` when the block ends, and vanishes when it fails.

    Args:
        target: The folder to make.
        size: How many bytes it will hold, for the message on a full disk; None if that is not known.

    Raises:
        RunError: `target` exists already, or cannot be made, or the disk is full.
    """
    refuse_existing(target)
    with _temporary_folder(target, size) as folder:
        yield folder
        _finish_files(folder)
        try:
            folder.replace(target)
        except OSError as error:
            if error.errno in _TAKEN:  # another process made it meanwhile
                refuse_existing(target)
            raise


@contextmanager
def replaced_folder(target: Path, *, size: int | None = None) -> Iterator[Path]:
    """Give a temporary folder that takes the place of `target` when the block ends; if it fails, `target` stays.

    To take the place needs two renames. A process that is killed between them leaves `target` under another name,
    where `surviving_folder` looks for it.

    Args:
        target: The folder to replace; it need not exist.
        size: How many bytes it will hold, for the message on a full disk; None if that is not known.

    Raises:
        RunError: The folder cannot be made, or the disk is full.
    """
    complete, outdated = _complete(target), _outdated(target)
    with _temporary_folder(target, size) as folder:
        yield folder
        _finish_files(folder)
        shutil.rmtree(complete, ignore_errors=True)
        folder.replace(complete)
    with writing(target, size=size):
        try:
            if target.exists():
                shutil.rmtree(outdated, ignore_errors=True)
                target.replace(outdated)
            complete.replace(target)
        except BaseException:
            if not target.exists() and outdated.exists():
                outdated.replace(target)
            shutil.rmtree(complete, ignore_errors=True)
            raise
    shutil.rmtree(outdated, ignore_errors=True)


def surviving_folder(target: Path, file: str) -> Path | None:
    """Return where the folder that `replaced_folder` wrote last is now; None if there is none.

    Args:
        target: The folder that was to be replaced.
        file: The name of a file in it, by which it is recognised.
    """
    candidates = (target, _complete(target), _outdated(target))
    return next((folder for folder in candidates if (folder / file).is_file()), None)


def settle_folder(target: Path, file: str) -> None:
    """Put the folder that `replaced_folder` wrote last in its place, and remove what a killed process left beside it.

    Args:
        target: The folder that was to be replaced.
        file: The name of a file in it, by which it is recognised.
    """
    last = surviving_folder(target, file)
    if last and last != target:
        shutil.rmtree(target, ignore_errors=True)
        last.replace(target)
    for leftover in (_complete(target), _outdated(target)):
        shutil.rmtree(leftover, ignore_errors=True)


def remove_abandoned(folder: Path, name: str = "*") -> None:
    """Remove the temporary folders of processes that have ended.

    Args:
        folder: Where to look.
        name: Only those that were to become this file or folder; all by default.
    """
    if not any(folder.glob(f".{name}.*{UNFINISHED}")):
        return
    with removing(folder) as allowed:
        for temporary in list(folder.glob(f".{name}.*{UNFINISHED}")) if allowed else ():
            if temporary.is_dir() and not temporary.is_symlink() and is_abandoned(temporary):
                shutil.rmtree(temporary, ignore_errors=True)


def _complete(target: Path) -> Path:
    return target.with_name(f"{target.name}.new")


def _outdated(target: Path) -> Path:
    return target.with_name(f"{target.name}.old")


@contextmanager
def _temporary_folder(target: Path, size: int | None) -> Iterator[Path]:
    with writing(target, size=size), _new_temporary(target) as folder:
        try:
            folder.chmod(0o777 & ~_umask())  # mkdtemp makes folders that only their owner can read
            yield folder
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, QuickstudyError) and error.where and str(folder) in error.where:
                where = error.where.replace(str(folder), str(target))  # the user knows the folder by its final name
                raise type(error)(error.what, where=where, fix=error.fix) from error
            raise


@contextmanager
def _new_temporary(target: Path) -> Iterator[Path]:
    """Give a new temporary folder, and show other processes that it is in use."""
    handle, nested = None, target.parent.name.endswith(UNFINISHED)  # within a folder that is claimed already
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not nested:
            remove_abandoned(target.parent, escape(target.name))
        with nullcontext() if nested else making(target.parent):
            folder = Path(mkdtemp(prefix=f".{target.name}.", suffix=UNFINISHED, dir=target.parent))
            if os.name == "posix":  # Windows opens no folders
                handle = os.open(folder, os.O_RDONLY)
                claim(handle)
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise RunError(
            f"the folder cannot be made ({error.strerror})", where=str(target), fix="Choose another --out."
        ) from error
    try:
        yield folder
    finally:
        if handle is not None:
            os.close(handle)


def _finish_files(folder: Path) -> None:
    """Make the files of a folder ready to take their place: readable to others, and kept by the disk."""
    for file in folder.rglob("*"):
        if file.is_file():
            _share_file(file)
            _keep_on_disk(file)
        elif file.is_dir():
            _keep_on_disk(file)
    _keep_on_disk(folder)


def _keep_on_disk(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder: a renamed file is whole after a loss of power then."""
    if os.name != "posix":  # Windows opens no folders
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NOT_ASKED:
            raise
    finally:
        os.close(handle)


def _share_file(file: Path) -> None:
    """Give a file the permissions that new files usually have; safetensors lets only the owner read its files."""
    file.chmod(0o666 & ~_umask())


def _umask() -> int:
    """Return the permissions that new files do not get; the system tells it only to who sets it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def refuse_existing(target: Path, fix: str = "Choose another name, or remove it.") -> None:
    """Raise `RunError` if there is something at `target`: nothing of the user's is ever overwritten."""
    if target.exists():
        raise RunError("this exists already", where=str(target), fix=fix)


@contextmanager
def new_file(target: Path, *, size: int | None = None) -> Iterator[Path]:
    """Give the path of a temporary file that becomes `target` when the block ends, and vanishes when it fails.

    Readers of `target` see its old content or the new, never half of it.

    Args:
        target: The file to write; it may exist.
        size: How many bytes it will hold, for the message on a full disk; None if that is not known.

    Raises:
        RunError: The disk is full.
    """
    with scratch_folder(target, size=size) as folder:
        file = folder / target.name
        yield file
        _share_file(file)
        file.replace(target)


@contextmanager
def scratch_folder(target: Path, *, size: int | None = None) -> Iterator[Path]:
    """Give a temporary folder beside `target`, from which files are moved to their places; it is then removed.

    Args:
        target: What is written; it names the folder and stands in messages.
        size: How many bytes it will hold, for the message on a full disk; None if that is not known.

    Raises:
        RunError: The folder cannot be made, or the disk is full.
    """
    with _temporary_folder(target, size) as folder:
        yield folder
        shutil.rmtree(folder, ignore_errors=True)


def write_text(target: Path, text: str) -> None:
    """Write a text file in one step.

    Raises:
        RunError: The disk is full.
    """
    content = text.encode("utf-8")
    with new_file(target, size=len(content)) as file:
        file.write_bytes(content)


def write_json(target: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write JSON in one step, on one line without an indent; NaN becomes null, as JSON has none.

    Raises:
        RunError: The disk is full.
    """
    write_text(target, json.dumps(finite(value), indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def append_line(target: Path, line: str) -> None:
    """Append a line to a text file; if that fails, the file is as long as before.

    Raises:
        RunError: The disk is full.
    """
    content = f"{line}\n".encode()
    before = target.stat().st_size if target.exists() else 0
    with writing(target, size=len(content)):
        try:
            with target.open("ab") as file:
                file.write(content)
        except OSError:
            if target.exists():
                os.truncate(target, before)
            raise


def save_tensors(tensors: "Mapping[str, Tensor]", target: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as a safetensors file, in one step.

    Args:
        tensors: The tensors by their names; no two may share memory.
        target: The file to write.
        metadata: Short texts that go into the file's header.

    Raises:
        RunError: The file cannot be written: the disk is full, or there is another reason.
    """
    from safetensors.torch import save_file

    with new_file(target, size=count_bytes(tensors)) as file:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, file, metadata)


def count_bytes(tensors: "Mapping[str, Tensor]") -> int:
    """Return how many bytes tensors take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


@contextmanager
def writing(target: Path, *, size: int | None = None) -> Iterator[None]:
    """Turn the error of a disk, whichever library raises it in the block, into one that says what could not be written.

    Args:
        target: What is written.
        size: How many bytes that is; None if it is not known.

    Raises:
        RunError: The disk is full, or cannot be written.
    """
    try:
        yield
    except QuickstudyError:
        raise
    except Exception as error:
        number = _system_error(error)
        if number in _FULL:
            raise RunError(
                f"there is no space to write this ({os.strerror(number)}){_needed(target, size)}",
                where=str(target),
                fix="Free some space, or choose another place, and repeat the command.",
            ) from error
        if number is None or isinstance(error, FileNotFoundError):
            raise
        raise RunError(
            f"this cannot be written ({os.strerror(number)})",
            where=str(target),
            fix="Check the disk and the permissions, or choose another place, and repeat the command.",
        ) from error


def _system_error(error: Exception) -> int | None:
    """Return the number of the operating system's error; libraries written in Rust name it in their text only."""
    if isinstance(error, OSError):
        return error.errno
    number = re.search(r"\(os error (\d+)\)", str(error))
    return int(number[1]) if number else None


def _needed(target: Path, size: int | None) -> str:
    if size is None:
        return ""
    return f"; it needs {_amount(size)}, and {_amount(shutil.disk_usage(target.parent).free)} is free"


def _amount(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size / 2**10:,.1f} KiB"


def finite(value: Any) -> Any:
    """Return a value with null instead of NaN and infinity, ready for JSON, which has neither.

    >>> finite({"mean": 0.5, "sd": float("nan"), "most": float("inf")})
    {'mean': 0.5, 'sd': None, 'most': None}
    """
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
