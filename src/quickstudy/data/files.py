"""Files: the user's own data as tasks; one file, a folder with splits, published draws, or a folder of those.

few.csv                                    a task with one split, `train`
rte/train.jsonl, rte/validation.jsonl      a task with splits, named by the folder
airline/eval.jsonl, airline/train_0_4.jsonl …   fixed draws: train_<draw>_<K>, scored on eval (the LEOPARD layout)
corpora/a.csv, corpora/b/train.csv …       a collection: each file and each folder in it is a task

Splits may be called train, validation (valid, val, dev) and test (eval). What would have to be guessed is refused: a folder
that is half a task and half a collection, two files of one split. Files and folders whose names start with a dot are passed over.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from quickstudy.data.reading import SUFFIXES, os_errors
from quickstudy.data.table import Columns, label_values, read_table, table_split
from quickstudy.errors import DataError
from quickstudy.tasks.split import SPLIT_NAMES
from quickstudy.tasks.task import Kind, Task

Part = str | tuple[int, int]  # a split's name, or (K, draw) of a fixed draw
Key = TypeVar("Key")

_DRAW = re.compile(r"train_(\d+)_(\d+)")


def load_path(path: Path, columns: Columns = Columns(), kind: Kind = "classification") -> list[Task]:
    """Load a file, a task folder or a collection; tasks are named by their file or folder.

    Args:
        path: File or folder.
        columns: Which columns hold text, second text and label.
        kind: Labels are classes or numbers.

    Raises:
        DataError: Nothing there to read, a folder that can be read in two ways, or a bad row; with `file:line`.
    """
    with os_errors(path):
        if not path.exists():
            raise DataError("there is no such file or folder", where=str(path), fix="Check the path.")
        name = _name(path if path.name.strip(".") else path.resolve())  # "." and ".." are no names
        found = _load(path, name, columns, kind)
    if not found:
        raise DataError(
            "the folder holds no data files", where=str(path), fix=f"Put {', '.join(SUFFIXES)} files in it."
        )
    return found


def load_files(name: str, files: Mapping[Part, Path], columns: Columns, kind: Kind) -> Task:
    """Make one task of a file per split and, possibly, a file per fixed draw; labels are shared by all of them."""
    tables = {part: read_table(path, columns, kind) for part, path in files.items()}
    some = next(iter(files.values()))
    values = label_values(list(tables.values())) if kind == "classification" else []
    if len(values) == 1:
        raise DataError(
            f"every row has the label {values[0]!r}",
            where=str(some),
            fix="A classifier needs examples of at least two labels.",
        )
    pairs = {"text_pair" in table.column_names for table in tables.values()}
    if len(pairs) > 1:
        raise DataError(
            f"some files of task {name!r} have a second text and some do not",
            where=str(some.parent),
            fix="Give all of them the same columns.",
        )
    splits = {part: table_split(table, values, files[part]) for part, table in tables.items()}
    return Task(
        name=name,
        splits={part: rows for part, rows in splits.items() if isinstance(part, str)},
        label_names=tuple(values),
        kind=kind,
        pair=pairs.pop(),
        fixed_draws={part: rows for part, rows in splits.items() if not isinstance(part, str)},
    )


def one_each(files: Iterable[tuple[Key, Path]]) -> dict[Key, Path]:
    """Return files by what they stand for; two that stand for the same are refused, as either would be a guess."""
    found: dict[Key, Path] = {}
    for key, file in files:
        if key in found:
            raise DataError(
                f"{found[key].name} and {file.name} stand for the same task or split",
                where=str(file.parent),
                fix="Rename or remove one of them.",
            )
        found[key] = file
    return found


def data_files(folder: Path) -> list[Path]:
    """Return the data files of a folder, by name; hidden ones are not data (`._a.csv` is what macOS leaves behind)."""
    return sorted(f for f in _visible(folder) if f.suffix.lower() in SUFFIXES and f.is_file())


def _load(path: Path, name: str, columns: Columns, kind: Kind) -> list[Task]:
    if path.is_file():
        return [load_files(name, {"train": path}, columns, kind)]
    files, folders = data_files(path), sorted(f for f in _visible(path) if f.is_dir() and _holds_data(f))
    parts = [(part, file) for file in files if (part := _part(file))]
    if parts:
        _check_parts(path, dict(parts), [*(f for f in files if not _part(f)), *folders])
        return [load_files(name, one_each(parts), columns, kind)]
    tasks = one_each((_name(f), f) for f in (*files, *folders))
    return [task for last, f in tasks.items() for task in _load(f, f"{name}/{last}", columns, kind)]


def _part(file: Path) -> Part | None:
    """Return what a file of a task folder holds, None where its name says neither split nor draw."""
    stem = file.stem.lower()
    drawn = _DRAW.fullmatch(stem)
    return (int(drawn[2]), int(drawn[1])) if drawn else SPLIT_NAMES.get(stem)


def _check_parts(folder: Path, parts: Mapping[Part, Path], others: list[Path]) -> None:
    names = ", ".join(file.name for part, file in parts.items() if isinstance(part, str)) or "draws"
    if others:
        raise DataError(
            f"the splits of one task ({names}) lie beside other data ({', '.join(f.name for f in others)})",
            where=str(folder),
            fix="Give each task with splits a folder of its own, and rename the file if it is a task by itself.",
        )
    drawn = any(not isinstance(part, str) for part in parts)
    if drawn and not {"test", "validation"} & set(parts):
        raise DataError(
            "there are draws (train_<draw>_<K>) and no file to score on", where=str(folder), fix="Add eval."
        )
    if not drawn and "train" not in parts:
        raise DataError(
            f"there is {names} and no train file",
            where=str(folder),
            fix="Add a train file; or name the file itself, whose rows are then a task.",
        )


def _name(path: Path) -> str:
    """A folder's whole name (`v1.2` has no suffix), a file's without its suffix."""
    return path.name if path.is_dir() else path.stem


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _holds_data(folder: Path) -> bool:
    return bool(data_files(folder)) or any(_holds_data(path) for path in _visible(folder) if path.is_dir())
