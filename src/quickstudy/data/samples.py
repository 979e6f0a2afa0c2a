"""Samples: small tasks written by hand for this project, so that a machine without the Hub has something real to do.

`samples/index.toml` holds, for each task, its part of the fixed meta-train / meta-validation / meta-test split, its domain and
what is decided. A meta-train task has all its rows in `train`; of the others half, stratified by label, are `train`, half `test`.
What they are for, and what not: docs/samples.md.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from quickstudy.data.files import load_files
from quickstudy.data.table import Columns
from quickstudy.errors import DataError, did_you_mean
from quickstudy.tasks.split import Split, hold_out
from quickstudy.tasks.task import Task

PARTS = ("meta-train", "meta-validation", "meta-test")


def sample_folder() -> Path:
    """Return the folder of the bundled JSONL files."""
    return Path(str(files("quickstudy.data"))) / "samples"


@cache
def sample_index() -> dict[str, dict[str, Any]]:
    """Return the index: name → {part, domain, description}."""
    with (sample_folder() / "index.toml").open("rb") as file:
        return tomllib.load(file)


def load_samples(chosen: Sequence[str] = ()) -> list[Task]:
    """Load bundled tasks by name or by part of the split; all of them when nothing is chosen.

    Raises:
        DataError: Neither a task nor a part has that name.
    """
    index = sample_index()
    for name in chosen:
        if name not in index and name not in PARTS:
            raise DataError(f"there is no bundled task {name!r}", fix=did_you_mean(name, [*index, *PARTS]))
    wanted = [name for name, entry in index.items() if not chosen or name in chosen or entry["part"] in chosen]
    return [_load(name, index[name]) for name in wanted]


def _load(name: str, entry: dict[str, Any]) -> Task:
    file = sample_folder() / f"{name}.jsonl"
    whole = load_files(name, {"train": file}, Columns(), "classification")
    splits: dict[str, Split] = dict(whole.splits)
    if entry["part"] != "meta-train":
        splits["train"], splits["test"] = hold_out(whole.train_split, 0.5, seed=0)
    return replace(
        whole, name=f"samples:{name}", splits=splits, description=entry["description"], domain=entry["domain"]
    )
