"""Samples: small tasks written by hand for this project, so that a machine without the Hub has real tasks too.

`samples/index.toml` holds, for each task, its meta split (meta-train, meta-validation or meta-test), its domain, and
the question that a label answers. A meta-train task has all its rows in `train`. Of any other task, half of the rows
of each label are in `train` and half in `test`. docs/samples.md says what the samples are good for, and what not.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path

from quickstudy.data.columns import Columns
from quickstudy.data.files import load_files
from quickstudy.errors import DataError, did_you_mean
from quickstudy.tasks.split import Split, hold_out
from quickstudy.tasks.task import Task

META_SPLITS = ("meta-train", "meta-validation", "meta-test")
SAMPLE_FOLDER = Path(str(files("quickstudy.data"))) / "samples"


@dataclass(frozen=True, slots=True)
class SampleEntry:
    """What the index says of a bundled task.

    Attributes:
        meta_split: meta-train, meta-validation or meta-test.
        domain: general, finance or medicine.
        description: The question that a label answers.
    """

    meta_split: str
    domain: str
    description: str


@cache
def read_sample_index() -> dict[str, SampleEntry]:
    """Return the index of the bundled tasks, by name."""
    with (SAMPLE_FOLDER / "index.toml").open("rb") as file:
        return {name: SampleEntry(**entry) for name, entry in tomllib.load(file).items()}


def load_samples(chosen: Sequence[str] = ()) -> list[Task]:
    """Load bundled tasks by name or by meta split; all of them when nothing is chosen.

    Raises:
        DataError: Neither a task nor a meta split has that name.
    """
    index = read_sample_index()
    for name in chosen:
        if name not in index and name not in META_SPLITS:
            raise DataError(f"there is no bundled task {name!r}", fix=did_you_mean(name, [*index, *META_SPLITS]))
    wanted = [name for name, entry in index.items() if not chosen or name in chosen or entry.meta_split in chosen]
    return [_load(name, index[name]) for name in wanted]


def _load(name: str, entry: SampleEntry) -> Task:
    whole = load_files(name, {"train": SAMPLE_FOLDER / f"{name}.jsonl"}, Columns(), "classification")
    splits: dict[str, Split] = dict(whole.splits)
    if entry.meta_split != "meta-train":
        splits["train"], splits["test"] = hold_out(whole.train_split, 0.5, seed=0)
    return replace(whole, name=f"samples:{name}", splits=splits, description=entry.description, domain=entry.domain)
