"""Pretraining: from a checked recipe to a finished run, in one process or in several (step 3).

All processes build the same objects. Nothing is written until all of them are ready, and only the main process writes.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from shlex import quote
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType

from quickstudy.build import Built, build
from quickstudy.config import SCRATCH, Recipe, describe_differences
from quickstudy.data.reference import (
    names_commit,
    with_commit,
    with_whole_paths,
    with_whole_source,
    without_revision,
)
from quickstudy.errors import RecipeError, RunError
from quickstudy.models.bundled import NAME as MINILM
from quickstudy.processes import gather, is_main
from quickstudy.report.run.card import write_card
from quickstudy.report.run.facts import read_run
from quickstudy.report.run.page import write_report
from quickstudy.runs import Run
from quickstudy.storage.lock import locked
from quickstudy.storage.revision import find_commit, is_commit
from quickstudy.training.budget import Budget
from quickstudy.training.checkpoint import read_state
from quickstudy.training.explain import Explanation, explain
from quickstudy.training.leftovers import is_worthless, tidy
from quickstudy.training.outer import LAST, train
from quickstudy.training.record import StepRecord, append_record, check_log, cut_log

OnStep = Callable[[StepRecord], None]


def start_run(recipe: Recipe, folder: Path, on_step: OnStep, *, budget: Budget | None = None) -> Run:
    """Meta-train a recipe into a new run folder.

    A run that ended before its first checkpoint holds nothing of worth: its folder is taken for the new one.

    Args:
        recipe: The settings.
        folder: The run folder to make.
        on_step: Called with the record of every outer step, in the main process.
        budget: How much the outer loop may spend; by default its `outer_steps`.

    Raises:
        QuickstudyError: The recipe, the data or the folder cannot be used.
    """
    begun_before = folder.exists()
    if begun_before and not is_worthless(folder):
        raise RunError("this folder exists already", where=str(folder), fix="Choose another --out, or --resume it.")
    recipe = _pinned(recipe)
    built, accelerator = _prepare(recipe, folder)
    if begun_before and is_main():
        with locked(folder):
            shutil.rmtree(folder)
    tasks = [task.name for task in built.sampler.tasks]
    whole = _with_whole_paths(recipe)  # the run can then be evaluated from any folder
    run = Run.create(folder, whole, tasks, built.validation_tasks) if is_main() else Run(folder, whole)
    with _alone(run):
        return _meta_train(run, built, accelerator, on_step, budget)


def resume_run(run: Run, asked: Recipe, on_step: OnStep) -> Run:
    """Go on with a run from its last checkpoint.

    Args:
        run: The run.
        asked: The recipe that the user gives; it must be that of the run.
        on_step: Called with the record of every outer step, in the main process.

    Raises:
        RecipeError: The recipe is another one.
        QuickstudyError: The run or its data cannot be used.
    """
    _refuse_other_recipe(run, asked)
    with _alone(run):
        run.check_recipe()
        read_run(run.folder)  # what the pages could not show is to be known before anything is trained
        built, accelerator = _prepare(run.recipe, run.folder)
        if is_main():
            tidy(run.files)
            state = read_state(run.files.checkpoints / LAST)
            check_log(run.files.metrics, state.step if state else 0)
            cut_log(run.files.metrics, state.step if state else -1)
        return _meta_train(run, built, accelerator, on_step)


def explain_recipe(recipe: Recipe) -> Explanation:
    """Estimate what an outer step of a recipe takes, and compute one to compare; see `training.explain`."""
    built = build(recipe)
    return explain(built.learner, built.sampler, built.outer, _make_accelerator(recipe, Path()), built.language)


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    """Keep other trainings out of the run folder; the main process does that for all."""
    with locked(run.folder) if is_main() else nullcontext():
        yield


def _with_whole_paths(recipe: Recipe) -> Recipe:
    """Return a recipe that names the same data and encoder from any folder."""
    encoder, tasks = recipe.encoder, recipe.tasks
    name = (
        str(Path(encoder.name).absolute()) if Path(encoder.name).is_dir() and encoder.name != MINILM else encoder.name
    )
    references = {key: [with_whole_paths(each) for each in getattr(tasks, key)] for key in ("train", "validation")}
    changes: dict[str, Any] = {"tasks": tasks.model_copy(update=references)}
    new, language = encoder.from_scratch, recipe.language
    if new:
        new = new.model_copy(update={"text": with_whole_source(new.text)})
    if language and language.text:
        changes["language"] = language.model_copy(update={"text": with_whole_source(language.text)})
    changes["encoder"] = encoder.model_copy(update={"name": name, "from_scratch": new})
    return recipe.model_copy(update=changes)


def _pinned(recipe: Recipe) -> Recipe:
    """Return a recipe that names the commits of its encoder and its data sets, as far as they are from the Hub.

    They are those that the main process finds: a branch may have a new commit from one process to the next.
    """
    encoder, tasks = recipe.encoder, recipe.tasks
    if encoder.name not in (MINILM, SCRATCH) and not Path(encoder.name).is_dir():
        commit = find_commit(encoder.name, encoder.revision, "model")
        encoder = encoder.model_copy(update={"revision": commit or encoder.revision})
    references = {key: [with_commit(each) for each in getattr(tasks, key)] for key in ("train", "validation")}
    encoder, references = gather((encoder, references))[0]
    return recipe.model_copy(update={"encoder": encoder, "tasks": tasks.model_copy(update=references)})


def _with_commits_of(run: Recipe, asked: Recipe) -> Recipe:
    """Return the recipe that was asked for with the commits of the run, where it does not ask for another commit.

    A branch or a tag may have moved since the run began; the run goes on with what it began with.
    """
    encoder = asked.encoder
    if encoder.name == run.encoder.name and not is_commit(encoder.revision):
        encoder = encoder.model_copy(update={"revision": run.encoder.revision})
    references = {}
    for key in ("train", "validation"):
        begun = {without_revision(each): each for each in getattr(run.tasks, key)}
        references[key] = [
            each if names_commit(each) else begun.get(without_revision(each), each)
            for each in getattr(asked.tasks, key)
        ]
    return asked.model_copy(update={"encoder": encoder, "tasks": asked.tasks.model_copy(update=references)})


def _refuse_other_recipe(run: Run, asked: Recipe) -> None:
    # Runs of earlier versions keep paths as they were written.
    before = _with_whole_paths(run.recipe)
    differences = describe_differences(before, _with_commits_of(before, _with_whole_paths(asked)))
    if differences:
        raise RecipeError(
            f"a resumed run keeps its settings, and this one has others ({'; '.join(differences)})",
            where=str(run.files.config),
            fix=f"Resume it as it is with: quickstudy pretrain --resume {quote(str(run.folder))}\n"
            "  Or start a new run with another --out.",
        )


def _prepare(recipe: Recipe, folder: Path) -> tuple[Built, Accelerator]:
    """Build what the recipe describes, and wait until all processes have done so."""
    built = build(recipe)
    accelerator = _make_accelerator(recipe, folder)
    gather(None)  # all are ready: from here on there is something to write
    return built, accelerator


def _meta_train(run: Run, built: Built, accelerator: Accelerator, on_step: OnStep, budget: Budget | None = None) -> Run:
    """Train, and let the main process write the encoder and the pages."""
    if run.recipe.outer.trackers:
        config = {"recipe": run.recipe.name, "method": run.recipe.method.name}
        accelerator.init_trackers("quickstudy", config=config)
    learner = train(
        built.learner,
        built.sampler,
        built.outer,
        accelerator=accelerator,
        folder=run.files.checkpoints,
        on_step=_recorder(run, accelerator, on_step),
        validate=built.validate,
        budget=budget,
        language=built.language,
    )
    if is_main():
        for tracker in accelerator.trackers:  # not end_training(): it would leave the group of processes
            tracker.finish()
        run.save(learner)
        write_card(run.folder)
        write_report(run.folder)
    return run


def _recorder(run: Run, accelerator: Accelerator, on_step: OnStep) -> OnStep:
    """Return what the main process does with the record of a step: log it, show it, and tell the trackers."""

    def record_step(record: StepRecord) -> None:
        if not is_main():
            return
        append_record(run.files.metrics, record)
        on_step(record)
        values = {
            "loss": record.loss,
            "accuracy": record.accuracy,
            "validation": record.validation,
            "mlm_loss": record.mlm_loss,
            "perplexity": record.perplexity,
        }
        if record.mlm_loss is not None:
            del values["loss"], values["accuracy"]
        accelerator.log({key: value for key, value in values.items() if value is not None}, step=record.step)

    return record_step


def _make_accelerator(recipe: Recipe, folder: Path) -> Accelerator:
    """Return accelerate's object for device, precision and trackers.

    Raises:
        RecipeError: A tracker is not installed, or the machine does not have the precision.
    """
    trackers = recipe.outer.trackers
    missing = set(trackers) - {str(name) for name in get_available_trackers()}
    if missing:  # accelerate would go on without them
        raise RecipeError(
            f"the tracker {sorted(missing)[0]!r} is not there",
            where=recipe.place("outer.trackers"),
            fix=f"Install its package, or leave it out. There can be: {', '.join(map(str, LoggerType))}.",
        )
    try:
        return Accelerator(
            mixed_precision=recipe.outer.mixed_precision, log_with=trackers or None, project_dir=str(folder)
        )
    except ValueError as error:  # an unknown tracker, or a precision that the machine does not have
        key = "outer.trackers" if trackers else "outer.mixed_precision"
        raise RecipeError(f"this cannot be set up: {error}", where=recipe.place(key)) from error
