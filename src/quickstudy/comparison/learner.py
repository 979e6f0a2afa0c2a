"""Learner: what can be compared, as it is named on the command line.

runs/first          a run: its meta-trained learner
recipe.toml         a recipe: its method on its untouched encoder
protonet            a method with its default settings, on the encoder of the comparison
label-names         the reference that needs no labelled example, on the same encoder
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from quickstudy.build import build_learner
from quickstudy.config import Recipe, load_recipe
from quickstudy.errors import RecipeError, did_you_mean
from quickstudy.layout import RunFiles
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import METHODS, make
from quickstudy.methods.catalog.baseline_family import label_names
from quickstudy.methods.setting import describe_parameters
from quickstudy.models.bundled import public_name, resolve
from quickstudy.models.encoder import Encoder
from quickstudy.runs import Run
from quickstudy.tasks.task import Task
from quickstudy.training.record import StepRecord

_ZERO = "label-names"
_POINTS = 200  # of a meta-training curve


@dataclass(frozen=True, slots=True)
class LearnerSpec:
    """A learner that is compared.

    Attributes:
        spec: Run folder, recipe file or name of a method.
        encoder: Encoder for a method.
    """

    spec: str
    encoder: str

    @property
    def is_run(self) -> bool:
        """Whether it is a run folder."""
        return RunFiles(Path(self.spec)).exist

    def recipe(self) -> Recipe | None:
        """Return the recipe of a run or of a recipe file.

        Raises:
            RecipeError: There is neither, nor a method of this name.
        """
        if self.is_run:
            return Run.open(self.spec).recipe
        if self.spec.endswith(".toml"):
            return load_recipe(self.spec)
        if self.spec not in (*METHODS, _ZERO):
            fix = did_you_mean(self.spec, (*METHODS, _ZERO))
            raise RecipeError(f"{self.spec!r} is neither a run folder, a recipe file nor a method", fix=fix)
        return None

    def name(self) -> str:
        """Return what it is called in tables."""
        recipe = self.recipe()
        if recipe is None:
            return self.spec
        return Path(self.spec).resolve().name if self.is_run else f"{recipe.name}, untouched"

    def load(self, encoder: Encoder | None = None) -> MetaLearner:
        """Return the learner itself.

        Args:
            encoder: For a method by its name: the encoder, which such learners share.
        """
        if self.is_run:
            return Run.open(self.spec).learner()
        if recipe := self.recipe():
            return build_learner(recipe)
        encoder = encoder or Encoder.load(self.encoder)
        return label_names(encoder) if self.spec == _ZERO else make(self.spec, encoder)

    def describe(self, *, encoder_only: bool = False) -> dict[str, Any]:
        """Return method, settings, encoder, and what meta-training it took, as plain values without local paths.

        Args:
            encoder_only: Whether only the encoder counts; see `fingerprint`.

        Raises:
            RunError: A run that is not finished.
        """
        if self.is_run:
            Run.open(self.spec).check_finished()
        recipe = self.recipe()
        records = Run.open(self.spec).metrics() if self.is_run else []
        steps = [record for record in records if record.step]
        return {
            "method": recipe.method.name if recipe else self.spec,
            "settings": recipe.method.settings if recipe else {},
            "encoder": public_name(recipe.encoder.name if recipe else self.encoder),
            "trained": self.is_run,
            "weights": self.fingerprint(encoder_only=encoder_only),
            "curve": _curve(records) if steps else None,
            "costs": {
                "outer_steps": steps[-1].step if steps else None,
                "train_seconds": steps[-1].seconds if steps else None,
                "train_peak_mib": steps[-1].peak_mib if steps else None,
            },
        }

    def fingerprint(self, *, encoder_only: bool = False) -> str:
        """Return a hash of all that the learner's predictions follow from.

        Args:
            encoder_only: Only of the encoder, which is all that counts where everything is fine-tuned.
        """
        recipe = self.recipe()
        source = (
            RunFiles(Path(self.spec)).encoder
            if self.is_run
            else Path(resolve(recipe.encoder.name if recipe else self.encoder))
        )
        files = sorted(source.glob("*")) if source.is_dir() else []
        encoder = [_file_hash(file, file.stat().st_mtime_ns) for file in files if file.is_file()] or [str(source)]
        settings = recipe.encoder.model_dump(exclude={"name"}) if recipe else {}
        if encoder_only:
            return hash_of([encoder, settings])
        name, own = (recipe.method.name, recipe.method.settings) if recipe else (self.spec, {})
        beside = RunFiles(Path(self.spec)).learned
        learned = _file_hash(beside, beside.stat().st_mtime_ns) if self.is_run and beside.is_file() else None
        return hash_of([encoder, settings, name, own, _defaults(name), learned])

    def overlap(self, tasks: Sequence[Task], *, allow: bool) -> dict[str, Any]:
        """Return the `overlap` of scored texts with what was meta-trained on (None if that could not be looked up), and the tasks
        that were `seen` in meta-training themselves.

        Args:
            tasks: What is scored, as their test splits.
            allow: Go on although there is overlap.

        Raises:
            DataError: There is overlap, and it is not allowed.
        """
        if not self.is_run:
            return {"overlap": [], "seen": []}
        run = Run.open(self.spec)
        seen = run.meta_train_tasks() & {task.name for task in tasks}
        overlaps = run.overlap(tasks, allow=allow)
        found = None if overlaps is None else [{**asdict(overlap), "share": overlap.share} for overlap in overlaps]
        return {"overlap": found, "seen": sorted(seen)}


def hash_of(value: Any) -> str:
    """Return the hash of plain values."""
    return sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def _defaults(method: str) -> list[str]:
    """Return a method's settings as they are by default: figures follow from those too."""
    return describe_parameters(METHODS.get(method, label_names))


@lru_cache
def _file_hash(file: Path, _written: int) -> str:
    with file.open("rb") as stream:
        return f"{file.name}:{file_digest(stream, 'sha256').hexdigest()}"


def _curve(records: Sequence[StepRecord]) -> dict[str, Any]:
    steps = [record for record in records if record.step]
    kept = steps[:: -(-len(steps) // _POINTS)]
    return {
        "step": [record.step for record in kept],
        "loss": [record.loss for record in kept],
        "validation": [[record.step, record.validation] for record in records if record.validation is not None],
    }
