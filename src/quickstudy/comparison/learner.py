"""Learner: what can be compared, as it is named on the command line.

runs/first          a run: its meta-trained learner
recipe.toml         a recipe: its method on its untouched encoder
protonet            a method with its default settings, on the encoder of the comparison
label-names         the reference that needs no labelled example, on the same encoder
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from quickstudy.api import check_overlap
from quickstudy.build import build_learner
from quickstudy.config import Recipe, load_recipe
from quickstudy.errors import RecipeError, did_you_mean
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import METHODS, make
from quickstudy.methods.label_names import LabelNames
from quickstudy.models.bundled import resolve
from quickstudy.models.encoder import Encoder
from quickstudy.runs import Run
from quickstudy.tasks.task import Task

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
        return (Path(self.spec) / "config.toml").is_file()

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

    def load(self) -> MetaLearner:
        """Return the learner itself."""
        return _load(self)

    def describe(self) -> dict[str, Any]:
        """Return method, settings, encoder, and what meta-training it took, as plain values without local paths."""
        recipe = self.recipe()
        encoder = Path(recipe.encoder.name if recipe else self.encoder)
        records = Run.open(self.spec).metrics() if self.is_run else []
        steps = [record for record in records if record["loss"] is not None]
        return {
            "method": recipe.method.name if recipe else self.spec,
            "settings": recipe.method.settings if recipe else {},
            "encoder": encoder.name if encoder.is_dir() else str(encoder),
            "trained": self.is_run,
            "weights": self.fingerprint(),
            "curve": _curve(records) if steps else None,
            "costs": {
                "outer_steps": steps[-1]["step"] if steps else None,
                "train_seconds": steps[-1]["seconds"] if steps else None,
                "train_peak_mib": steps[-1].get("peak_mib") if steps else None,  # runs of 0.1.0 have none
            },
        }

    def fingerprint(self) -> str:
        """Return a hash of all that the learner's predictions follow from."""
        recipe = self.recipe()
        if self.is_run:
            folder = Path(self.spec)
            files = [*sorted((folder / "encoder").glob("*")), folder / "meta_learner.safetensors"]
        else:
            source = Path(resolve(recipe.encoder.name if recipe else self.encoder))
            files = sorted(source.glob("*")) if source.is_dir() else []
        method: list[Any] = [self.spec]
        if recipe:
            method = [recipe.method.name, recipe.method.settings, recipe.encoder.model_dump()]
        return hash_of([method, [_file_hash(file) for file in files if file.is_file()]])

    def overlap(self, tasks: Sequence[Task], seed: int, *, allow: bool) -> list[dict[str, Any]] | None:
        """Return what of the scored texts was meta-trained on; None if that could not be looked up.

        Raises:
            DataError: There is such overlap, and it is not allowed.
        """
        return check_overlap(Run.open(self.spec), tasks, seed, allow=allow) if self.is_run else []


def hash_of(value: Any) -> str:
    """Return the hash of plain values."""
    return sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=1)  # the jobs of a learner follow one another
def _load(learner: LearnerSpec) -> MetaLearner:
    if learner.is_run:
        return Run.open(learner.spec).learner()
    if recipe := learner.recipe():
        return build_learner(recipe)
    encoder = _load_encoder(learner.encoder)
    return LabelNames(encoder) if learner.spec == _ZERO else make(learner.spec, encoder)


@lru_cache(maxsize=1)
def _load_encoder(name: str) -> Encoder:
    return Encoder.load(name)


@lru_cache
def _file_hash(file: Path) -> str:
    with file.open("rb") as stream:
        return f"{file.name}:{file_digest(stream, 'sha256').hexdigest()}"


def _curve(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    steps = [record for record in records if record["loss"] is not None]
    kept = steps[:: -(-len(steps) // _POINTS)]
    return {
        "step": [record["step"] for record in kept],
        "loss": [record["loss"] for record in kept],
        "validation": [[r["step"], r["validation"]] for r in records if r["validation"] is not None],
    }
