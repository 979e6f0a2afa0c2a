"""Run: the folder that a meta-training leaves behind, and the learner in it.

The names of the files in it are in `quickstudy.storage.layout`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from shlex import quote

import torch
from safetensors.torch import load_file
from torch import Tensor

from quickstudy.build import build_encoder, build_learner
from quickstudy.config import EncoderConfig, MethodConfig, Recipe, TasksConfig, dump_recipe, load_recipe
from quickstudy.data.reference import load_tasks
from quickstudy.errors import QuickstudyError, RunError
from quickstudy.evaluation.leakage.fingerprint import (
    Fingerprints,
    load_fingerprints,
    save_fingerprints,
    take_fingerprints,
)
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.by_evidence import by_evidence
from quickstudy.methods.catalog import settings_of
from quickstudy.methods.start import read_start
from quickstudy.models.delta import Delta
from quickstudy.models.encoder import Encoder
from quickstudy.models.weights import copy_weights
from quickstudy.storage.files import count_bytes, new_folder, replaced_folder, save_tensors, write_json, write_text
from quickstudy.storage.layout import PRIOR, PRIOR_FOLDER, RunFiles, find_run_folder
from quickstudy.storage.manifest import check_files, check_manifest, write_manifest
from quickstudy.storage.reading import read_json
from quickstudy.storage.trust import check_folder
from quickstudy.training.kept import KeptStep, find_kept
from quickstudy.training.record import StepRecord, read_log

_COPY_AGAIN = "Copy the run again, or train again."


class Run:
    """A run folder.

    Args:
        folder: Where it is.
        recipe: What it was made from.

    Attributes:
        files: The paths of its files.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe
        self.files = RunFiles(folder)

    @classmethod
    def create(cls, folder: Path, recipe: Recipe, tasks: Sequence[str], validation: Sequence[str] = ()) -> "Run":
        """Make a new run folder.

        Args:
            folder: Where.
            recipe: What it is made from.
            tasks: Names of the meta-train tasks; the data may have moved when the run is evaluated.
            validation: Names of the meta-validation tasks.

        Raises:
            RunError: It exists, or cannot be made, or the disk is full.
        """
        with new_folder(folder) as new:
            files = RunFiles(new)
            files.checkpoints.mkdir()
            _write_tasks(files, tasks, validation)
            write_text(files.config, dump_recipe(recipe))
            write_manifest(new, [files.config.name, files.tasks.name])
        return cls(folder, recipe)

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Open a run folder; `prior` is the run that comes with the package.

        Raises:
            RunError: There is none.
        """
        files = RunFiles(find_run_folder(folder))
        files.check_exist()
        check_folder(files.folder, "run folder")
        return cls(files.folder, load_recipe(files.config))

    @property
    def name(self) -> str:
        """What the run is called: by its folder, or `prior`."""
        return PRIOR if self.folder == PRIOR_FOLDER else self.folder.name

    @property
    def finished(self) -> bool:
        """Whether the meta-training came to its end."""
        return self.files.learned.is_file()

    def check_finished(self) -> None:
        """Raise `RunError` unless the meta-training came to its end."""
        if not self.finished:
            raise RunError(
                "this run is not finished",
                where=str(self.folder),
                fix=f"Go on with: quickstudy pretrain --resume {quote(str(self.folder))}",
            )

    def check_recipe(self) -> None:
        """Raise `RunError` if the recipe, or the names of the tasks, are not as they were when the run began."""
        check_files(self.folder, [self.files.config.name, self.files.tasks.name], "run folder", _COPY_AGAIN)

    def meta_train_tasks(self) -> set[str]:
        """Return the names of the tasks that the run was meta-trained on.

        Raises:
            RunError: The file with the names is damaged.
        """
        return self._task_names()[0]

    def meta_validation_tasks(self) -> set[str]:
        """Return the names of the tasks on which the checkpoint was chosen; none for a run that does not name them.

        Raises:
            RunError: The file with the names is damaged.
        """
        return self._task_names()[1]

    def _task_names(self) -> tuple[set[str], set[str]]:
        file = self.files.tasks
        try:
            names = read_json(file) if file.exists() else {"meta_train": []}
            train, validation = names["meta_train"], names.get("meta_validation", [])
            if not all(isinstance(name, str) for name in (*train, *validation)):
                raise ValueError("a name is no text")
            return set(train), set(validation)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"it is damaged ({error})", where=str(file), fix=_COPY_AGAIN) from error

    def metrics(self) -> list[StepRecord]:
        """Return the records of all outer steps so far.

        Raises:
            RunError: The log is damaged.
        """
        return read_log(self.files.metrics)

    @property
    def kept(self) -> KeptStep | None:
        """The outer step whose meta-parameters the run ends with; None if nothing is logged."""
        return find_kept(self.metrics(), self.recipe.outer.keep)

    def save(self, learner: MetaLearner) -> None:
        """Write the trained encoder and what was learned beside it, then the manifest of the finished run.

        Raises:
            RunError: A weight is NaN or infinity, or the files cannot be written; the run is then not finished.
        """
        size = count_bytes(dict(learner.encoder.model.named_parameters()))
        with replaced_folder(self.files.encoder, size=size) as new:
            learner.encoder.save(new)
        _save_learned(learner, self.files.learned)
        files = (self.files.config, self.files.tasks, self.files.learned, self.files.encoder)
        log = [self.files.metrics.name] if self.files.metrics.exists() else []
        write_manifest(self.folder, [file.name for file in files if file.exists()], records=log)

    def learner(self) -> MetaLearner:
        """Return the meta-trained learner. That of a compact run may choose its settings (see `methods.by_evidence`).

        Raises:
            RunError: The run is not finished, or one of its files is missing or damaged.
        """
        self.check_finished()
        check_manifest(self.folder, "run folder", _COPY_AGAIN)
        try:
            learned = load_file(self.files.learned)
            if not learned:
                raise ValueError("it holds nothing")
            encoder, untouched = self._encoders()
            learner = build_learner(_as_trained(self.recipe, learned), encoder)
            # multi-task also learned the heads of its meta-train tasks, which a new learner has no use for
            copy_weights(learned, _beside(learner))
            learner = by_evidence(learner, untouched) if untouched else learner
        except QuickstudyError:
            raise
        except Exception as error:  # a damaged file fails in many ways
            raise RunError(
                f"what the method learned cannot be read ({error})", where=str(self.files.learned), fix=_COPY_AGAIN
            ) from error
        return learner

    def fingerprints(self) -> Fingerprints:
        """Return the fingerprints of what a compact run was meta-trained on.

        Raises:
            RunError: There are none, or they are damaged.
        """
        check_files(self.folder, [self.files.seen.name], "run folder", _COPY_AGAIN)
        try:
            return load_fingerprints(self.files.seen)
        except (OSError, ValueError) as error:
            raise RunError(f"it is damaged ({error})", where=str(self.files.seen), fix=_COPY_AGAIN) from error

    def _encoders(self) -> tuple[Encoder, Encoder | None]:
        """Return the trained encoder; beside it the untouched one, if the run is kept as a change of that."""
        if not self.files.delta.is_file():
            return Encoder.restore(self.files.encoder), None
        untouched = build_encoder(self.recipe)
        trained = untouched.copy()
        Delta.load(self.files.delta).add_to(trained)
        return trained, untouched

    def compact(
        self,
        folder: Path,
        rank: int,
        *,
        base: str | None = None,
        strength: float = 1.0,
        average: Sequence["Run"] = (),
    ) -> "Run":
        """Write the run in a small form: its encoder as a change of the untouched one, cut to a rank (`models.delta`).

        The small form can do what the run can do, as long as the untouched encoder can be loaded. As that is at hand,
        a small run with a calibrated `r2d2` head also chooses its settings for each task (`methods.by_evidence`). There
        are no checkpoints, log, results or pages.

        Args:
            folder: The run folder to make.
            rank: Rank of the change of a matrix, 1 or more.
            strength: Factor of the change; less than 1 mixes the trained encoder with the untouched one.
            base: The untouched encoder. By default the recipe's; a run on the encoder of another run needs to name it.
            average: Other runs of the same method on the same encoder, e.g. with other seeds or other episodes. The
                mean of what all of them learned is written, weight by weight (Wortsman et al. 2022, arXiv:2203.05482).

        Raises:
            RunError: The run is not finished or is compact already, a run to average with began elsewhere, or the
                folder exists.
            DataError: The tasks that it was trained on cannot be read; their fingerprints go into the folder.
        """
        runs = (self, *average)
        if small := next((run for run in runs if run.files.delta.is_file()), None):
            fix = "Average the runs that it was made from." if average else "Copy its folder."
            raise RunError("this run is compact already", where=str(small.folder), fix=fix)
        learner = self._averaged(average, base)
        train = sorted(set().union(*(run.meta_train_tasks() for run in runs)))
        validation = sorted(set().union(*(run.meta_validation_tasks() for run in runs)))
        tasks = TasksConfig(train=train, validation=validation)
        changes = {"encoder": _on(self.recipe.encoder, base), "tasks": tasks}  # no paths of this machine
        recipe = hide_text_places(self.recipe.model_copy(update=changes))
        delta = Delta.between(build_encoder(recipe), learner.encoder, rank, strength)
        references = (name for run in runs for name in (*run.recipe.tasks.train, *run.recipe.tasks.validation))
        seen = take_fingerprints(load_tasks(list(dict.fromkeys(references))))
        with new_folder(folder) as new:
            files = RunFiles(new)
            save_fingerprints(seen, files.seen)
            delta.save(files.delta)
            write_text(files.config, dump_recipe(recipe))
            _write_tasks(files, train, validation)
            _save_learned(learner, files.learned)
            listed = (files.delta, files.seen, files.config, files.tasks, files.learned)
            write_manifest(new, [file.name for file in listed])
        return Run(folder, recipe)

    def _averaged(self, others: Sequence["Run"], base: str | None) -> MetaLearner:
        """Return the learner of this run, or the mean of it and those of other runs."""
        learner, recipes = self.learner(), [self.recipe]
        for other in others:
            self._check_same_start(other, base, learner.encoder)
            if other.recipe in recipes:
                raise RunError(
                    "two runs have the same recipe and seed, and would count as one run twice",
                    where=str(other.folder),
                    fix="Give each run once.",
                )
            recipes.append(other.recipe)
        learned = [dict(each.named_parameters()) for each in (learner, *(other.learner() for other in others))]
        with torch.no_grad():
            for name, weight in learned[0].items():
                first, *rest = (each[name] for each in learned)
                if not all(torch.equal(first, other) for other in rest):  # else rounding would seem to be a change
                    weight.copy_(torch.stack([first, *rest]).mean(0))
        return learner

    def _check_same_start(self, other: "Run", base: str | None, encoder: Encoder) -> None:
        """Raise `RunError` if another run has another method or encoder, or began with other weights, made at random.

        The mean of two networks says something only if both began as the same one.
        """
        mine, theirs = (_on(run.recipe.encoder, base) for run in (self, other))
        if (theirs, other.recipe.method) != (mine, self.recipe.method):
            raise RunError(
                "this run has another method or encoder, so the mean of both means nothing",
                where=str(other.folder),
                fix="Average runs of one method on one encoder. Runs on the encoder of another run need --base.",
            )
        starts = [_beside(build_learner(run.recipe, encoder)) for run in (self, other)]
        different = ["encoder"] if mine.from_scratch and self.recipe.seed != other.recipe.seed else []
        different += [name for name in starts[0] if not torch.equal(starts[0][name], starts[1][name])]
        if different:
            raise RunError(
                f"this run began with other random weights ({different[0]}), so the mean of both means nothing",
                where=str(other.folder),
                fix="Average runs of methods that begin with no random weights, e.g. protonet or r2d2.",
            )


def hide_text_places(recipe: Recipe) -> Recipe:
    """Return a recipe that names its text without labels, if it has some, without the folder that the text is in."""
    new, language = recipe.encoder.from_scratch, recipe.language
    if new:
        new = new.model_copy(update={"text": _without_folder(new.text)})
    if language and language.text:
        language = language.model_copy(update={"text": _without_folder(language.text)})
    encoder = recipe.encoder.model_copy(update={"from_scratch": new})
    return recipe.model_copy(update={"encoder": encoder, "language": language})


def _without_folder(text: str) -> str:
    """Return the reference to a corpus without the folder that it is in; a data set of the Hub keeps its id."""
    source, repository = text.partition("?")[0], text.partition("?")[0].removeprefix("hub:")
    return text if source != repository and not Path(repository).exists() else Path(text).name


def _as_trained(recipe: Recipe, learned: Iterable[str]) -> Recipe:
    """Return the recipe with the start of the head that it had when it was trained.

    Before MAML and its relatives learned the head's start, their recipes said nothing of it, and it was zero (or that
    of the prototypes). The names of what such a run learned show that.
    """
    method, start = recipe.method, read_start(learned)
    setting = settings_of(method.name).get("start")
    if setting is None or start not in setting.words or "start" in method.settings:
        return recipe
    trained = MethodConfig.model_validate({"name": method.name, **method.settings, "start": start})
    return recipe.model_copy(update={"method": trained})


def _write_tasks(files: RunFiles, train: Sequence[str], validation: Sequence[str]) -> None:
    write_json(files.tasks, {"meta_train": list(train), "meta_validation": list(validation)})


def _on(encoder: EncoderConfig, base: str | None) -> EncoderConfig:
    return encoder if base is None else encoder.model_copy(update={"name": base, "revision": None})


def _beside(learner: MetaLearner) -> dict[str, Tensor]:
    """Return what the method learned beside the encoder, by name; the tensors share memory with the learner."""
    return {name: p.detach() for name, p in learner.named_parameters() if not name.startswith("encoder.")}


def _save_learned(learner: MetaLearner, file: Path) -> None:
    """Write what the method learned beside the encoder; the file is there in any case, because it ends the run."""
    save_tensors(_beside(learner) or {"nothing": torch.zeros(0)}, file)
