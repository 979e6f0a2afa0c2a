"""Run: the folder that a meta-training leaves behind, and the learner in it.

config.toml                  the resolved recipe
tasks.json                   names of the meta-train tasks
metrics.jsonl                one line per outer step
checkpoints/                 last and best (safetensors and JSON, hashed)
encoder/                     a plain Hugging Face folder
meta_learner.safetensors     what the method learned beside the encoder
results.json, report.html, plots/, README.md
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from quickstudy.build import build_learner
from quickstudy.config import Recipe, dump_recipe, load_recipe
from quickstudy.errors import RunError
from quickstudy.methods.base import MetaLearner
from quickstudy.models.encoder import Encoder
from quickstudy.storage import refuse_existing, write_json, write_text
from quickstudy.training.outer import StepRecord

_TASKS = "tasks.json"
_LEARNED = "meta_learner.safetensors"


class Run:
    """A run folder.

    Args:
        folder: Where it is.
        recipe: What it was made from.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe

    @classmethod
    def create(cls, folder: Path, recipe: Recipe, tasks: Sequence[str]) -> "Run":
        """Make a new run folder.

        Args:
            folder: Where.
            recipe: What it is made from.
            tasks: Names of the meta-train tasks; data may have moved when the run is evaluated.

        Raises:
            RunError: It exists, or cannot be made.
        """
        refuse_existing(folder)
        try:
            (folder / "checkpoints").mkdir(parents=True)
        except OSError as error:
            raise RunError(
                f"the folder cannot be made ({error.strerror})", where=str(folder), fix="Choose another --out."
            ) from error
        write_json(folder / _TASKS, {"meta_train": list(tasks)})
        write_text(folder / "config.toml", dump_recipe(recipe))
        return cls(folder, recipe)

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Open a run folder.

        Raises:
            RunError: There is none.
        """
        path = Path(folder)
        if not (path / "config.toml").is_file():
            raise RunError("this is not a run folder", where=str(path), fix="Make one with: quickstudy pretrain")
        return cls(path, load_recipe(path / "config.toml"))

    @property
    def finished(self) -> bool:
        """Whether the meta-training came to its end."""
        return (self.folder / _LEARNED).is_file()

    def check_finished(self) -> None:
        """Raise `RunError` unless the meta-training came to its end."""
        if not self.finished:
            raise RunError(
                "this run is not finished", where=str(self.folder), fix="Go on with: quickstudy pretrain --resume"
            )

    def meta_train_tasks(self) -> set[str]:
        """Return the names of the tasks that the run was meta-trained on."""
        file = self.folder / _TASKS
        return set(json.loads(file.read_text(encoding="utf-8"))["meta_train"]) if file.is_file() else set()

    def log(self, record: StepRecord) -> None:
        """Append one step to `metrics.jsonl`."""
        line = {key: None if value != value else value for key, value in asdict(record).items()}
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def cut_log(self, step: int) -> None:
        """Drop the lines after a step: a resumed run writes them again."""
        file = self.folder / "metrics.jsonl"
        if file.is_file():
            kept = [line for line in file.read_text(encoding="utf-8").splitlines() if _step(line) <= step]
            write_text(file, "".join(line + "\n" for line in kept))

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of `metrics.jsonl`."""
        file = self.folder / "metrics.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]  # the last may be cut off by a kill

    def save(self, learner: MetaLearner) -> None:
        """Write the trained encoder and what was learned beside it."""
        learner.encoder.save(self.folder / "encoder")
        # A method that learns nothing beside the encoder still gets its file: it says that the run is finished.
        save_file(_beside(learner) or {"nothing": torch.zeros(0)}, self.folder / _LEARNED)

    def learner(self) -> MetaLearner:
        """Return the meta-trained learner.

        Raises:
            RunError: The run is not finished, or its files are broken.
        """
        self.check_finished()
        learner = build_learner(self.recipe, Encoder.load(str(self.folder / "encoder")))
        try:
            saved = load_file(self.folder / _LEARNED)
            with torch.no_grad():
                for name, value in _beside(learner).items():
                    value.copy_(saved[name])
        except (SafetensorError, KeyError, RuntimeError) as error:
            raise RunError(
                f"what the method learned cannot be read ({error})",
                where=str(self.folder / _LEARNED),
                fix="Copy the run again, or train again.",
            ) from error
        return learner


def _beside(learner: MetaLearner) -> dict[str, Tensor]:
    """What the method learned beside the encoder, by name; sharing memory with the learner."""
    return {name: p.detach() for name, p in learner.named_parameters() if not name.startswith("encoder.")}


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):  # a line that was cut off when the run was killed
        return 1 << 62
