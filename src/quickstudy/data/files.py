"""Files: the user's own data as tasks; a file, a folder with splits, published draws, or a folder of those.

few.csv                                    a task with one split, `train`
rte/train.jsonl, rte/validation.jsonl      a task with splits, named after the folder
airline/eval.jsonl, airline/train_0_4.jsonl …   fixed draws: train_<draw>_<K>, scored on eval (the LEOPARD layout)
corpora/a.csv, corpora/b/train.csv …       a collection: each file and each folder in it is a task

Splits may be called train, validation (valid, val, dev) and test (eval). A folder that can be read in two ways is
refused: one that is half a task and half a collection, or one with two files for the same split. Names that start with
a dot or with ~$ (an open Excel file) are skipped. In a folder a .json file is data only if its name is that of a split
or a draw, because many folders have other .json files.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from quickstudy.data.columns import Columns
from quickstudy.data.source import SUFFIXES, base_name, explain_os_errors, find_format
from quickstudy.data.table import list_labels, make_split, read_table
from quickstudy.errors import DataError
from quickstudy.tasks.split import SPLIT_NAMES
from quickstudy.tasks.task import Kind, Task

Role = str | tuple[int, int]  # what a file of a task holds: a split, by its name, or (K, draw) of a fixed draw
Key = TypeVar("Key")

_DRAW = re.compile(r"train_(\d+)_(\d+)")


def load_path(
    path: Path, columns: Columns = Columns(), kind: Kind = "classification", *, skip_bad_rows: bool = False
) -> list[Task]:
    """Load a file, a task folder or a collection; tasks are named by their file or folder.

    Args:
        path: File or folder.
        columns: Which columns hold text, second text and label.
        kind: Labels are classes or numbers.
        skip_bad_rows: Leave out rows that cannot be used, and say how many they are.

    Raises:
        DataError: There is nothing to read, the folder can be read in two ways, or a row is bad; with `file:line`.
    """
    with explain_os_errors(path):
        if not path.exists():
            raise DataError("there is no such file or folder", where=str(path), fix="Check the path.")
        name = _name(path if path.name.strip(".") else path.resolve())  # "." and ".." are no names
        tasks = _load(path, name, columns, kind, skip_bad_rows)
    if not tasks:
        raise DataError(
            "the folder holds no data files", where=str(path), fix=f"Put {', '.join(SUFFIXES)} files in it."
        )
    return tasks


def load_files(
    name: str, files: Mapping[Role, Path], columns: Columns, kind: Kind, *, skip_bad_rows: bool = False
) -> Task:
    """Make one task of a file for each split and, where there are any, a file for each fixed draw.

    All files share the labels: a label that occurs in one of them counts for all.
    """
    tables = {role: read_table(path, columns, kind, skip_bad_rows=skip_bad_rows) for role, path in files.items()}
    first_file = next(iter(files.values()))
    values = list_labels(list(tables.values())) if kind == "classification" else []
    if len(values) == 1:
        raise DataError(
            f"every row has the label {values[0]!r}",
            where=str(first_file),
            fix="A classifier needs examples of at least two labels.",
        )
    pairs = {"text_pair" in table.column_names for table in tables.values()}
    if len(pairs) > 1:
        raise DataError(
            f"some files of task {name!r} have a second text and some do not",
            where=str(first_file.parent),
            fix="Give all of them the same columns.",
        )
    splits = {role: make_split(table, values, files[role]) for role, table in tables.items()}
    return Task(
        name=name,
        splits={role: rows for role, rows in splits.items() if isinstance(role, str)},
        label_names=tuple(values),
        kind=kind,
        pair=pairs.pop(),
        fixed_draws={role: rows for role, rows in splits.items() if not isinstance(role, str)},
    )


def index_files(files: Iterable[tuple[Key, Path]]) -> dict[Key, Path]:
    """Return files by what they stand for.

    Raises:
        DataError: Two files stand for the same; taking either of them would be a guess.
    """
    files_by_key: dict[Key, Path] = {}
    for key, file in files:
        if key in files_by_key:
            raise DataError(
                f"{files_by_key[key].name} and {file.name} stand for the same task or split",
                where=str(file.parent),
                fix="Rename or remove one of them.",
            )
        files_by_key[key] = file
    return files_by_key


def list_data_files(folder: Path) -> list[Path]:
    """Return the data files of a folder, by name; hidden files are no data (macOS leaves `._a.csv` behind)."""
    return sorted(f for f in _visible(folder) if _is_data(f) and f.is_file())


def _is_data(file: Path) -> bool:
    """Return whether a file in a folder is data by its name."""
    suffix = find_format(file)
    return suffix is not None and (suffix != ".json" or _role(file) is not None)


def _load(path: Path, name: str, columns: Columns, kind: Kind, skip_bad_rows: bool) -> list[Task]:
    if path.is_file():
        return [load_files(name, {"train": path}, columns, kind, skip_bad_rows=skip_bad_rows)]
    files, folders = list_data_files(path), sorted(f for f in _visible(path) if f.is_dir() and _holds_data(f))
    files_of_task = [(role, file) for file in files if (role := _role(file))]
    if files_of_task:
        _check_roles(path, dict(files_of_task), [*(f for f in files if not _role(f)), *folders])
        return [load_files(name, index_files(files_of_task), columns, kind, skip_bad_rows=skip_bad_rows)]
    tasks = index_files((_name(f), f) for f in (*files, *folders))
    return [task for last, f in tasks.items() for task in _load(f, f"{name}/{last}", columns, kind, skip_bad_rows)]


def _role(file: Path) -> Role | None:
    """Return what a file of a task folder holds; None if its name is neither that of a split nor that of a draw."""
    stem = base_name(file).lower()
    drawn = _DRAW.fullmatch(stem)
    return (int(drawn[2]), int(drawn[1])) if drawn else SPLIT_NAMES.get(stem)


def _check_roles(folder: Path, files: Mapping[Role, Path], others: list[Path]) -> None:
    names = ", ".join(file.name for role, file in files.items() if isinstance(role, str)) or "draws"
    if others:
        raise DataError(
            f"the splits of one task ({names}) lie beside other data ({', '.join(f.name for f in others)})",
            where=str(folder),
            fix="Give each task with splits a folder of its own, and rename the file if it is a task by itself.",
        )
    drawn = any(not isinstance(role, str) for role in files)
    if drawn and not {"test", "validation"} & set(files):
        raise DataError(
            "there are draws (train_<draw>_<K>) and no file to score on",
            where=str(folder),
            fix="Add eval.jsonl (or .csv ...), whose rows are then scored.",
        )
    if not drawn and "train" not in files:
        raise DataError(
            f"there is {names} and no train file",
            where=str(folder),
            fix="Add a train file; or name the file itself, whose rows are then a task.",
        )


def _name(path: Path) -> str:
    """Return the whole name of a folder (`v1.2` has no suffix), or the name of a file without its suffix."""
    return path.name if path.is_dir() else base_name(path)


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith((".", "~$"))]


def _holds_data(folder: Path) -> bool:
    return bool(list_data_files(folder)) or any(_holds_data(path) for path in _visible(folder) if path.is_dir())
