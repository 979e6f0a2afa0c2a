"""Learner: what can be compared, as it is named on the command line.

runs/first          a run: its meta-trained learner
prior               the run that comes with the package
recipe.toml         a recipe: its method on its untouched encoder
protonet            a method with its default settings, on the encoder of the comparison
label-names         the reference that needs no labelled example, on the same encoder

A learner can be named with how it reads label names, if it reads them, and with gradient steps on the support set that
it takes before it makes its head (see `methods.support_steps`). A path that exists as such is taken as it is.

runs/first:no-names        the same learner, without label names
runs/first:opaque-names    the same learner, with codes in place of label names: a control
runs/first:30-steps        the same learner, after 30 gradient steps on the support set
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import file_digest
from pathlib import Path

from quickstudy.build import build_encoder, build_learner, encoder_source
from quickstudy.config import Recipe, load_recipe
from quickstudy.errors import DataError, RecipeError, did_you_mean
from quickstudy.evaluation.hashing import hash_of
from quickstudy.evaluation.results import Learner, Training
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.by_evidence import COSTS, TRIED
from quickstudy.methods.catalog import METHODS, make
from quickstudy.methods.catalog.baseline_family import label_names
from quickstudy.methods.setting import describe_parameters
from quickstudy.methods.support_steps import after_steps
from quickstudy.models.bundled import public_name, resolve
from quickstudy.models.encoder import Encoder
from quickstudy.report.curve import curve_of
from quickstudy.runs import Run
from quickstudy.storage.layout import RunFiles, find_run_folder
from quickstudy.tasks.label_text import NameReading
from quickstudy.training.record import StepRecord

_ZERO = "label-names"
_READINGS: Mapping[str, NameReading] = {"no-names": "none", "opaque-names": "opaque"}
_STEPS = re.compile(r"([1-9]\d*)-steps")
_WITHOUT_EFFECT = {
    "names: Literal['none', 'gated'] = 'none'",
    "calibration: Literal['none', 'leave-one-out'] = 'none'",
}
_POINTS = 200  # of a meta-training curve


@dataclass(frozen=True, slots=True)
class LearnerSpec:
    """Where a learner comes from: small values, which another process can be given.

    Attributes:
        name: What the learner is called in tables.
        run: Folder of the run that meta-trained it; None for an untouched encoder.
        recipe: Recipe file that says its encoder, and its method unless `method` does.
        method: A method with its default settings.
        encoder: Encoder of a method without a recipe.
        names: What it gets of the label names, if it reads them: `true`, `none`, or `opaque` codes.
        steps: Gradient steps on the support set before it makes its head.
    """

    name: str
    run: Path | None = None
    recipe: Path | None = None
    method: str | None = None
    encoder: str = "minilm"
    names: NameReading = "true"
    steps: int = 0

    @property
    def reads_names(self) -> bool:
        """Whether the learner reads label names."""
        if self.method:
            return self.method == _ZERO
        return bool(self._recipe().method.settings.get("names", "none") != "none")

    @property
    def encoder_key(self) -> str:
        """What learners have in common that can share one encoder in memory."""
        if self.run:
            return str(self.run)
        if self.recipe is None:
            return f"encoder {self.encoder}"
        return f"{encoder_source(self._recipe())} {self._recipe().encoder.model_dump_json()}"

    def load_encoder(self) -> Encoder:
        """Return the untouched encoder."""
        return Encoder.load(self.encoder) if self.recipe is None else build_encoder(self._recipe())

    def on(self, encoder: Encoder) -> MetaLearner:
        """Return the learner that is not meta-trained, on its untouched encoder, which others may share."""
        if self.method is None:
            return build_learner(self._recipe(), encoder)
        return label_names(encoder) if self.method == _ZERO else make(self.method, encoder)

    def describe(self, *, encoder_only: bool = False) -> Learner:
        """Return what the learner is and what its meta-training took, without local paths.

        Args:
            encoder_only: Whether only the encoder counts; see `fingerprint`.

        Raises:
            RunError: A run that is not finished.
        """
        if self.run:
            Run.open(self.run).check_finished()
        recipe = self._recipe() if self.recipe else None
        return Learner(
            method=self.method or self._recipe().method.name,
            settings=(recipe.method.settings if recipe and not self.method else {}) | self._steps(),
            encoder=public_name(recipe.encoder.name if recipe else self.encoder),
            trained=self.run is not None,
            fingerprint=self.fingerprint(encoder_only=encoder_only),
            training=_training(Run.open(self.run).metrics()) if self.run else None,
        )

    def fingerprint(self, *, encoder_only: bool = False) -> str:
        """Return a hash of all that the learner's predictions follow from.

        Args:
            encoder_only: Hash only the encoder and how it reads texts. Full fine-tuning depends on nothing else.
        """
        recipe = self._recipe() if self.recipe else None
        encoder = _encoder_hashes(self.run, self._encoder_source(recipe), recipe.encoder.revision if recipe else None)
        reading = recipe.encoder.model_dump(exclude={"name", "revision", "from_scratch"}) if recipe else {}
        if encoder_only:
            return hash_of([encoder, reading])
        method = self.method or self._recipe().method.name
        settings = recipe.method.settings if recipe and not self.method else {}
        learned = RunFiles(self.run).learned if self.run else None
        learned_hash = _file_hash(learned, learned.stat().st_mtime_ns) if learned and learned.is_file() else None
        names = [self.names] if self.names != "true" or method == _ZERO else []
        # What an untouched method starts with at random; left out at 0, so that cells hold that are there already.
        seed = [f"seed {recipe.seed}"] if recipe and recipe.seed and not (self.run or self.method) else []
        compact = self.run is not None and RunFiles(self.run).delta.is_file()
        chooses = compact and settings.get("calibration") == "leave-one-out" and not self.steps
        choice = [f"by evidence {TRIED} {COSTS}"] if chooses else []
        hashed = [encoder, reading, method, settings, _defaults(method), learned_hash]
        hashed += [*names, *self._steps(), *seed, *choice]
        return hash_of(hashed)

    def _steps(self) -> dict[str, int]:
        return {f"{self.steps} steps": self.steps} if self.steps else {}

    def _encoder_source(self, recipe: Recipe | None) -> str:
        """Return where the untouched encoder is; of a run, only its name."""
        if recipe is None:
            return self.encoder
        return recipe.encoder.name if self.run else encoder_source(recipe)

    def _recipe(self) -> Recipe:
        assert self.recipe is not None  # who asks knows that there is one
        return load_recipe(self.recipe)


def named_learner(text: str, encoder: str) -> LearnerSpec:
    """Return the learner that a run folder, a recipe file or the name of a method stands for.

    Args:
        text: One of the three, with `:no-names`, `:opaque-names` or `:30-steps` behind it if that is wanted.
        encoder: Encoder of a method.

    Raises:
        RecipeError: It is none of them, or it reads no label names.
    """
    base, _, ending = text.rpartition(":")
    if ending in _READINGS and not Path(text).exists():
        return reading_names(named_learner(base, encoder), ending)
    if (counted := _STEPS.fullmatch(ending)) and not Path(text).exists():
        spec = named_learner(base, encoder)
        return replace(spec, name=f"{spec.name}, {counted[1]} steps", steps=int(counted[1]))
    path = find_run_folder(text)
    if RunFiles(path).exist:
        return trained_learner(path, Path(text).resolve().name)
    if text.endswith(".toml"):
        return LearnerSpec(f"{load_recipe(path).name}, untouched", recipe=path)
    if text not in (*METHODS, _ZERO):
        fix = did_you_mean(text, (*METHODS, _ZERO))
        raise RecipeError(f"{text!r} is neither a run folder, a recipe file nor a method", fix=fix)
    return LearnerSpec(text, method=text, encoder=encoder)


def reading_names(spec: LearnerSpec, ending: str) -> LearnerSpec:
    """Return a learner that reads label names in another way.

    Args:
        spec: The learner.
        ending: `no-names` or `opaque-names`.

    Raises:
        RecipeError: It reads no label names.
    """
    if not spec.reads_names:
        raise RecipeError(
            f"{spec.name!r} reads no label names, so that {ending} changes nothing",
            fix=f'Leave out :{ending}, or meta-train a method with names = "gated".',
        )
    return replace(spec, name=f"{spec.name}, {ending.replace('-', ' ')}", names=_READINGS[ending])


def trained_learner(run: Path, name: str) -> LearnerSpec:
    """Return the meta-trained learner of a run."""
    return LearnerSpec(name, run=run, recipe=RunFiles(run).config)


def evaluated_learners(run: Path, trained: str, untouched: str, probe: str) -> tuple[LearnerSpec, ...]:
    """Return a run and what it is compared with: its method, and a linear probe, both on its encoder before the run.

    A run that reads label names is also compared with itself without names, and with opaque names.
    """
    recipe, learner = RunFiles(run).config, trained_learner(run, trained)
    controls = [reading_names(learner, ending) for ending in _READINGS if learner.reads_names]
    baselines = LearnerSpec(untouched, recipe=recipe), LearnerSpec(probe, recipe=recipe, method="linear-probe")
    return learner, *baselines, *controls


def refuse_twice(specs: Sequence[LearnerSpec], *, encoder_only: bool) -> None:
    """Refuse learners that could not be told apart.

    Args:
        specs: The learners.
        encoder_only: Whether only their encoders count.

    Raises:
        DataError: There is none, two have one name, or two are the same.
    """
    if not specs:
        raise DataError("there is no learner to compare", fix="Give at least one.")
    names = [spec.name for spec in specs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"two learners are called {twice!r}", fix="Give each once; rename a run's folder or a recipe.")
    encoders: dict[str, str] = {}
    for spec in specs if encoder_only else ():
        other = encoders.setdefault(spec.fingerprint(encoder_only=True), spec.name)
        if other != spec.name:
            raise DataError(
                f"{other!r} and {spec.name!r} have the same encoder, which is all that full fine-tuning takes of them",
                fix="Give one of them.",
            )


def load_learners(specs: Iterable[LearnerSpec]) -> dict[str, MetaLearner]:
    """Return learners by name; those of one run share an encoder, and so do those that can share an untouched one."""
    encoders: dict[str, Encoder] = {}
    trained: dict[Path, MetaLearner] = {}
    learners = {}
    for spec in specs:
        if spec.run:
            if spec.run not in trained:
                trained[spec.run] = Run.open(spec.run).learner()
            learner = trained[spec.run]
        else:
            if spec.encoder_key not in encoders:
                encoders[spec.encoder_key] = spec.load_encoder()
            learner = spec.on(encoders[spec.encoder_key])
        learners[spec.name] = after_steps(learner, spec.steps)
    return learners


def _encoder_hashes(run: Path | None, encoder: str, revision: str | None) -> list[str]:
    """Return a hash for each file of an encoder; of one on the Hub its name, and its revision if there is one."""
    if run and RunFiles(run).delta.is_file():
        return [
            *_encoder_hashes(None, encoder, revision),
            _file_hash(RunFiles(run).delta, RunFiles(run).delta.stat().st_mtime_ns),
        ]
    source = RunFiles(run).encoder if run else Path(resolve(encoder))
    files = [file for file in sorted(source.glob("*")) if file.is_file()] if source.is_dir() else []
    return [_file_hash(file, file.stat().st_mtime_ns) for file in files] or [str(source), *filter(None, [revision])]


@lru_cache
def _file_hash(file: Path, _written: int) -> str:
    with file.open("rb") as stream:
        return f"{file.name}:{file_digest(stream, 'sha256').hexdigest()}"


def _defaults(method: str) -> list[str]:
    """Return a method's settings as they are by default: figures follow from those too.

    A default that changes no figure is left out, so that cells hold that were computed before it was a setting.
    """
    return [line for line in describe_parameters(METHODS.get(method, label_names)) if line not in _WITHOUT_EFFECT]


def _training(records: Sequence[StepRecord]) -> Training | None:
    """Return what a run's log says of its meta-training; None if it says nothing."""
    steps = [record for record in records if record.step]
    if not steps:
        return None
    last = steps[-1]
    return Training(last.step, last.seconds, last.peak_mib, curve_of(records, most=_POINTS))
