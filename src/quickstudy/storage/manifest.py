"""Manifest: the SHA-256 of every file that predictions follow from; written with the files, checked when they are read.

    manifest.json    {"sha256": {"adapted.json": "9f86…", "encoder/model.safetensors": "60a9…", …}, "seal": "4a5f…"}

A damaged disk, a cut-off copy or a mixed-up file changes predictions without a word. With a manifest it is an error
that names the file. `records` is a second list, of files that no prediction follows from; they are checked when they
are read, and may be removed. README.md is not in the manifest: a model card may be edited. Folders of versions that
wrote no manifest are read unchecked. Checkpoints keep their hashes in `state.json` and use the same functions.
"""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import file_digest
from pathlib import Path

from quickstudy.errors import RunError
from quickstudy.storage.files import write_json
from quickstudy.storage.reading import read_json, seal, unseal
from quickstudy.storage.trust import is_inside

NAME = "manifest.json"


def hash_file(file: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    with file.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def hash_files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of files in a folder, by name; several files are read at once."""
    names = list(names)
    with ThreadPoolExecutor() as pool:  # hashing releases Python's lock
        return dict(zip(names, pool.map(lambda name: hash_file(folder / name), names), strict=True))


def find_changed(folder: Path, hashes: Mapping[str, str]) -> list[str]:
    """Return the names of the files that are missing, cannot be read or have another SHA-256 than expected."""
    with ThreadPoolExecutor() as pool:
        same = pool.map(lambda name: _has_hash(folder / name, hashes[name]), hashes)
        return [name for name, is_same in zip(hashes, same, strict=True) if not is_same]


def write_manifest(folder: Path, names: Iterable[str], records: Iterable[str] = ()) -> None:
    """Write the manifest of a folder; call it after all other files are written.

    Args:
        folder: The folder of a model or a run.
        names: Files in it, and folders in it whose files all belong to the manifest.
        records: Files that no prediction follows from.
    """
    files = sorted(name for given in names for name in files_below(folder, given))
    lists = {"sha256": hash_files(folder, files), "records": hash_files(folder, records)}
    write_json(folder / NAME, seal({key: hashes for key, hashes in lists.items() if hashes or key == "sha256"}))


def check_manifest(folder: Path, what: str, fix: str) -> None:
    """Compare the files of a folder with its manifest; a folder without a manifest is not checked.

    Args:
        folder: The folder of a model or a run.
        what: What the folder is called in messages.
        fix: How to get the files again.

    Raises:
        RunError: A file is missing, has changed, or was added; or the manifest itself is damaged.
    """
    if not (folder / NAME).is_file():
        return
    hashes = _read_hashes(folder)
    if hashes is None:
        raise _broken(folder, what, f"{NAME} cannot be read", fix)
    _compare(folder, hashes, what, fix)


def is_whole(folder: Path) -> bool:
    """Return whether a folder has a manifest, and all files that it lists are there and unchanged."""
    hashes = _read_hashes(folder)
    return hashes is not None and not find_changed(folder, hashes)


def listed_files(folder: Path) -> list[str]:
    """Return the names of the files that the manifest of a folder lists.

    Raises:
        RunError: There is no manifest that can be read.
    """
    hashes = _read_hashes(folder)
    if hashes is None:
        raise RunError(f"there is no {NAME} that can be read", where=str(folder), fix="Save the model again.")
    return list(hashes)


def check_files(folder: Path, names: Iterable[str], what: str, fix: str) -> None:
    """Compare some files of a folder with its manifest, if that lists them; see `check_manifest`."""
    if not (folder / NAME).exists():
        return
    hashes, records = _read_hashes(folder), _read_hashes(folder, "records")
    if hashes is None or records is None:
        raise _broken(folder, what, f"{NAME} cannot be read", fix)
    listed = hashes | {name: value for name, value in records.items() if (folder / name).exists()}
    if changed := find_changed(folder, {name: listed[name] for name in names if name in listed}):
        raise _broken(folder, what, f"{changed[0]} is missing or was changed after it was saved", fix)


def check_listed(folder: Path, what: str, fix: str) -> None:
    """Compare a folder's files with the manifest of the folder above it, if that lists them; see `check_manifest`."""
    above, start = folder.resolve().parent, f"{folder.resolve().name}/"
    hashes = _read_hashes(above) or {}  # a file of this name may belong to something else
    listed = {name: value for name, value in hashes.items() if name.startswith(start)}
    _compare(above, listed, what, fix)


def _compare(folder: Path, hashes: Mapping[str, str], what: str, fix: str) -> None:
    if changed := find_changed(folder, hashes):
        raise _broken(folder, what, f"{changed[0]} is missing or was changed after it was saved", fix)
    if added := sorted(_added_files(folder, hashes)):
        raise _broken(folder, what, f"{added[0]} was added after it was saved", fix)


def _has_hash(file: Path, expected: str) -> bool:
    try:
        return hash_file(file) == expected
    except (OSError, ValueError):  # it is missing, cannot be read, or its name is no name
        return False


def files_below(folder: Path, name: str) -> Iterator[str]:
    """Yield the names of a file, or of the files in a folder, that predictions may follow from."""
    path = folder / name
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in files:
        if file.is_file() and not _is_note(file):
            yield file.relative_to(folder).as_posix()


def _added_files(folder: Path, hashes: Mapping[str, str]) -> Iterator[str]:
    """Yield the files that are not in the manifest and lie beside files that are, in a folder of the folder."""
    for place in sorted({name.rpartition("/")[0] for name in hashes} - {""}):
        for file in (folder / place).iterdir():
            name = f"{place}/{file.name}"
            if file.is_file() and not _is_note(file) and name not in hashes:
                yield name


def _is_note(file: Path) -> bool:
    """Whether no program reads a file as part of a model: README.md, LICENSE, hidden files of the system."""
    return file.suffix in ("", ".md") or file.name.startswith(".")


def _read_hashes(folder: Path, key: str = "sha256") -> dict[str, str] | None:
    """Return the SHA-256 of each file by the folder's manifest; None if there is no manifest that can be read."""
    try:
        lists = unseal(read_json(folder / NAME))
        hashes = lists[key] if key == "sha256" else lists.get(key, {})
        if not all(is_inside(str(name)) for name in hashes):
            raise ValueError("it names a file outside of the folder")
        return {str(name): str(value) for name, value in hashes.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _broken(folder: Path, what: str, why: str, fix: str) -> RunError:
    unchecked = f"If you changed the files on purpose, delete {NAME}: they are then used unchecked."
    return RunError(f"the {what} is broken: {why}", where=str(folder), fix=f"{fix} {unchecked}")
