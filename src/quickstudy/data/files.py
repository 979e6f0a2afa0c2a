"""Files: the user's own data as tasks; one file, a folder with splits, published draws, or a folder of those.

few.csv                                    a task with one split, `train`
rte/train.jsonl, rte/validation.jsonl      a task with splits, named by the folder
airline/eval.jsonl, airline/train_0_4.jsonl …   fixed draws: train_<draw>_<K>, scored on eval (the LEOPARD layout)
corpora/a.csv, corpora/b/train.csv …       a collection: each file and each folder in it is a task
"""

import re
from collections.abc import Mapping
from pathlib import Path

from quickstudy.data.reading import SUFFIXES
from quickstudy.data.table import ArrowSplit, Columns, encode_labels, label_values, read_table
from quickstudy.errors import DataError
from quickstudy.tasks.split import Split
from quickstudy.tasks.task import Kind, Task

_SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
}
_SPLIT_NAMES["eval"] = "test"
_DRAW = re.compile(r"train_(\d+)_(\d+)")


def load_path(
    path: Path, columns: Columns = Columns(), kind: Kind = "classification", *, name: str | None = None
) -> list[Task]:
    """Load a file, a task folder or a collection.

    Args:
        path: File or folder.
        columns: Which columns hold text, second text and label.
        kind: Labels are classes or numbers.
        name: Name of the task, or prefix of the tasks' names; the file's or folder's own name by default.

    Raises:
        DataError: Nothing there to read, or a bad row; with `file:line`.
    """
    name = name or path.stem
    if path.is_file():
        return [load_files(name, {"train": path}, columns, kind)]
    if not path.is_dir():
        raise DataError("there is no such file or folder", where=str(path), fix="Check the path.")
    files = sorted(f for f in path.iterdir() if f.suffix.lower() in SUFFIXES)
    splits = {_SPLIT_NAMES[f.stem]: f for f in files if f.stem in _SPLIT_NAMES}
    draws = {(int(m[2]), int(m[1])): f for f in files if (m := _DRAW.fullmatch(f.stem))}
    if splits:
        return [load_files(name, splits, columns, kind, draws)]
    parts = [*files, *sorted(f for f in path.iterdir() if f.is_dir())]
    found = [task for part in parts for task in load_path(part, columns, kind, name=f"{name}/{part.stem}")]
    if not found and not name.count("/"):
        raise DataError(
            "the folder holds no data files", where=str(path), fix=f"Put {', '.join(SUFFIXES)} files in it."
        )
    return found


def load_files(
    name: str,
    files: Mapping[str, Path],
    columns: Columns,
    kind: Kind,
    draws: Mapping[tuple[int, int], Path] | None = None,
) -> Task:
    """Make one task of a file per split and, optionally, a file per fixed draw; labels are shared by all of them."""
    everything: dict[str | tuple[int, int], Path] = dict(files) | dict(draws or {})
    tables = {key: read_table(path, columns, kind) for key, path in everything.items()}
    values = label_values(list(tables.values())) if kind == "classification" else []
    if kind == "classification" and len(values) < 2:
        raise DataError(
            f"every row has the label {values[0]!r}",
            where=str(next(iter(everything.values()))),
            fix="A classifier needs examples of at least two labels.",
        )
    pairs = {"text_pair" in table.column_names for table in tables.values()}
    if len(pairs) > 1:
        raise DataError(
            f"some files of task {name!r} have a second text and some do not",
            where=str(next(iter(everything.values())).parent),
            fix="Give all of them the same columns.",
        )
    pair = pairs.pop()
    kept = Columns("text", "text_pair" if pair else None, "label")

    def split(key: str | tuple[int, int]) -> Split:
        table = tables[key]
        if kind == "regression":
            return ArrowSplit(table, kept, table.data.column("label").to_numpy())
        return ArrowSplit(table, kept, encode_labels(table, values, str(everything[key])))

    return Task(
        name=name,
        splits={key: split(key) for key in files},
        label_names=tuple(values),
        kind=kind,
        pair=pair,
        metric="pearson_spearman" if kind == "regression" else "accuracy",
        fixed_draws={key: split(key) for key in draws or {}},
    )
