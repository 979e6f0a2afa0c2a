"""The three-line face of quickstudy.

run = quickstudy.pretrain("recipes/protonet_samples.toml", out="runs/first")
model = quickstudy.adapt("runs/first", texts=["late fee again", ...], labels=["fees", ...])
model.predict(["I was charged twice"])
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from warnings import warn

import numpy as np

from quickstudy.adaptation.few import learn_task
from quickstudy.adaptation.weights import row_weights
from quickstudy.config import Recipe, check_recipe, load_recipe
from quickstudy.data.reference import load_tasks
from quickstudy.data.table import parse_label
from quickstudy.errors import DataError, NothingLearnedWarning, RecipeError, RunError, did_you_mean
from quickstudy.full_settings import FullSettings
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.support_steps import after_steps
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.encoder import Encoder
from quickstudy.models.tokens import describe_cut
from quickstudy.processes import is_main, together
from quickstudy.runs import Run
from quickstudy.storage.layout import PRIOR, PRIOR_FOLDER, RunFiles, choose_run_folder
from quickstudy.tasks.label_text import NameReading
from quickstudy.tasks.split import ListSplit
from quickstudy.tasks.task import Task
from quickstudy.tasks.text import Text, parse_texts, refuse_table
from quickstudy.training.record import StepRecord

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from quickstudy.evaluation.record import Draw
    from quickstudy.evaluation.results import Results
    from quickstudy.training.explain import Explanation

# The Trainer, matplotlib and scipy are imported by the functions that need them, so that `adapt` starts fast.

__all__ = ["adapt", "evaluate", "explain", "finetune", "load_model", "load_tasks", "pretrain"]

_log = logging.getLogger(__name__)

_AFTER, _BEFORE, _PROBE = "meta-trained", "untouched", "linear probe"


def pretrain(
    recipe: str | Path | Recipe | Mapping[str, Any],
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    on_step: Callable[[StepRecord], None] = lambda _: None,
) -> Run:
    """Meta-pretrain an encoder. Launched as several processes, it uses all of them (docs/scaling.md).

    Args:
        recipe: A recipe file, a run folder (whose recipe is taken), or the settings themselves.
        out: The run folder to make. By default it is the run folder that is given as the recipe, and for other recipes
            `runs/<name of the recipe>`.
        overrides: `section.key=value` settings on top of a recipe file.
        resume: Go on with the run in `out`, from its last checkpoint. The recipe must be that of the run.
        on_step: Called with the record of every outer step, in the main process.

    Returns:
        The finished run. `run.kept` is the outer step whose meta-parameters it ends with.

    Raises:
        QuickstudyError: The recipe, the data or the folder cannot be used; this is checked before anything is written.
        ProcessError: Another process failed.

    Warns:
        NothingLearnedWarning: No outer step was better than the untouched encoder, so that one was kept.
    """
    from quickstudy.pretraining import resume_run, start_run

    with together():
        asked = _recipe(recipe, overrides)
        folder = choose_run_folder(out, recipe if isinstance(recipe, str | Path) else None, asked.name)
        run = resume_run(Run.open(folder), asked, on_step) if resume else start_run(asked, folder, on_step)
    kept = run.kept if is_main() else None
    if kept and kept.warning:
        warn(kept.warning, NothingLearnedWarning, stacklevel=2)
    return run


def explain(recipe: str | Path | Recipe | Mapping[str, Any], *, overrides: Sequence[str] = ()) -> "Explanation":
    """Estimate what an outer step of a recipe costs, and compute one to compare. Nothing is trained or written.

    Args:
        recipe: A recipe file, a run folder (whose recipe is taken), or the settings themselves.
        overrides: `section.key=value` settings on top of a recipe file.

    Raises:
        QuickstudyError: The recipe or the data cannot be used.
    """
    from quickstudy.pretraining import explain_recipe

    return explain_recipe(_recipe(recipe, overrides))


def _recipe(recipe: str | Path | Recipe | Mapping[str, Any], overrides: Sequence[str]) -> Recipe:
    if isinstance(recipe, str | Path):
        return load_recipe(recipe, overrides)
    if overrides:
        raise RecipeError("overrides go with a recipe file", fix="Change the recipe's settings themselves.")
    return recipe if isinstance(recipe, Recipe) else check_recipe(recipe)


def adapt(
    run: str | Path | Run = PRIOR,
    data: str | Path | Task | None = None,
    *,
    texts: Iterable[Text] | None = None,
    labels: Iterable[str | int] | None = None,
    weights: Sequence[float] | None = None,
    class_weight: Literal["balanced"] | Mapping[str, float] | None = "balanced",
    label_descriptions: Mapping[str, str] | None = None,
    names: NameReading = "true",
    steps: int = 0,
) -> AdaptedModel:
    """Turn a meta-learned encoder into a classifier of one task from a few labels.

    Args:
        run: A finished run, or its folder; by default the prior that comes with the package.
        data: A data file or folder, a task reference, or a task.
        texts: Instead of `data`: texts, or (text, second text) tuples for pairs.
        labels: Their labels.
        weights: How often each labelled row counts, 0 or more; None if each counts once.
        class_weight: How often the rows of each class count besides: `balanced` (the rows of each class together count
            as those of any other, if the method can weigh rows), or weights by label, or None.
        label_descriptions: What labels mean, by their name, for a run that reads label names. A label without a
            description has its name.
        names: What a run that reads label names gets of them: `true`, `none`, or `opaque` codes, which are a control.
        steps: Gradient steps on the labelled rows before the head is made. They take about a second each. They help on
            some tasks and harm on others, so measure them on rows that were held out (see docs/classifier.md).

    Raises:
        QuickstudyError: No such run, unusable data, fewer than two labels, or descriptions or weights that cannot be
            used.

    Returns:
        A model with `predict`, `predict_proba` and `save`. Its `learned` says what it was adapted from.
    """
    opened = run if isinstance(run, Run) else Run.open(run)
    task, learner = _task(data, texts, labels), opened.learner()
    if label_descriptions is not None:
        task = _describe(task, label_descriptions, learner)
    if task.kind == "classification" and (class_weight != "balanced" or learner.weighs):
        labels_of_rows = task.train_split.labels.astype(np.int64)
        weights = row_weights(labels_of_rows, task.label_names, class_weight, weights)
    learner = after_steps(learner, steps)
    model, learned = learn_task(learner, task, names, weights=weights, prior=opened.name)
    return replace(model, learned=learned())


def _note_cut(encoder: Encoder, task: Task) -> None:
    """Note how many train texts are longer than the encoder reads."""
    rows = task.train_split
    if cut := encoder.count_cut(rows[i] for i in range(len(rows))):
        _log.warning("%s: %s", task.name, describe_cut(cut, encoder.settings.max_length))


def _describe(task: Task, descriptions: Mapping[str, str], learner: MetaLearner) -> Task:
    """Return a task with descriptions of its labels, for a learner that reads them."""
    if not isinstance(descriptions, Mapping):
        raise DataError("label_descriptions is no mapping", fix='Give {"a label": "what it means"}.')
    if not learner.reads_names:
        raise DataError(
            f"this run ({learner.name}) reads no label names, so that descriptions change nothing",
            fix='Leave them out, or meta-train a run with method.names = "gated".',
        )
    given = {str(label): text for label, text in descriptions.items()}
    return replace(task, label_descriptions={**task.label_descriptions, **given})


def finetune(
    run: str | Path | Run,
    data: str | Path | Task,
    *,
    settings: FullSettings | None = None,
    callbacks: Sequence["TrainerCallback"] = (),
    **options: Any,
) -> AdaptedModel:
    """Fine-tune the whole meta-learned encoder on a large train set.

    Args:
        run: A finished run, or its folder.
        data: A data file or folder, a task reference, or a task.
        settings: Epochs, rate, batch size and seed.
        callbacks: Told of the progress by `transformers.Trainer`.
        options: In place of `settings`: some of its fields, e.g. `epochs=5`.

    Raises:
        RecipeError: An unknown or impossible option, or options beside `settings`.
        QuickstudyError: No such run, or unusable data.
    """
    chosen = _full_settings(settings, options)
    from quickstudy.adaptation.full import finetune_task

    opened = run if isinstance(run, Run) else Run.open(run)
    encoder, task = opened.learner().encoder, _task(data)
    model = finetune_task(encoder, task, chosen, callbacks=callbacks)
    _note_cut(encoder, task)
    return model


def _full_settings(settings: FullSettings | None, options: Mapping[str, Any]) -> FullSettings:
    names = [field.name for field in fields(FullSettings)]
    if unknown := next((name for name in options if name not in names), None):
        raise RecipeError(f"full fine-tuning has no option {unknown!r}", fix=did_you_mean(unknown, names))
    if settings and options:
        given = ", ".join(options)
        raise RecipeError(f"settings are given, and {given} beside them", fix=f"Put {given} into the settings.")
    return settings or replace(FullSettings(), **options)


def evaluate(
    run: str | Path | Run,
    tasks: str | Path | Task | Iterable[str | Path | Task],
    *,
    shots: Sequence[int] = (4, 8, 16),
    draws: int = 10,
    seed: int = 0,
    limit: int | None = None,
    overwrite: bool = False,
    allow_overlap: bool = False,
    on_draw: "Callable[[Draw], None]" = lambda _: None,
) -> "Results":
    """Evaluate a run on held-out tasks: compare it with two baselines on identical draws.

    The baselines are the same method and a linear probe on the untouched encoder, and for a run that reads label names
    the run without them and with opaque ones.

    Args:
        run: A finished run, or its folder; `results.json` and the report are written there.
        tasks: Task references, or tasks.
        shots: Labelled examples per class (K).
        draws: Support sets per K.
        seed: Which support sets, and which test rows.
        limit: Score a fixed random sample of so many test rows; None for all.
        overwrite: Replace the results that the run has.
        allow_overlap: Go on although scored texts were meta-trained on; the report says so.
        on_draw: Told of every finished draw.

    Returns:
        What `results.json` holds.

    Raises:
        QuickstudyError: No such run, unusable tasks, impossible numbers, results that are there, or leaked texts.
    """
    from quickstudy.comparison.collect import results_of
    from quickstudy.comparison.learner import evaluated_learners, load_learners
    from quickstudy.comparison.overlap import with_overlap
    from quickstudy.comparison.plan import load_all
    from quickstudy.evaluation.evaluate import evaluate_learners
    from quickstudy.evaluation.plan import plan_tasks
    from quickstudy.evaluation.protocol import Protocol
    from quickstudy.evaluation.results_file import write_results

    protocol = Protocol(shots=tuple(shots), draws=draws, seed=seed, limit=limit)
    files = (run if isinstance(run, Run) else Run.open(run)).files
    _check_room_for_results(files, overwrite=overwrite)
    planned = plan_tasks(protocol, load_all(tasks))
    specs = evaluated_learners(files.folder, _AFTER, _BEFORE, _PROBE)
    described = with_overlap({spec.name: spec.describe() for spec in specs}, specs, planned, allow=allow_overlap)
    names = {spec.name: spec.names for spec in specs}
    scored = evaluate_learners(load_learners(specs), planned, names=names, on_draw=on_draw)
    results = results_of(protocol, described, planned, scored, texts=False)
    write_results(files.results, results)
    _write_pages(files.folder)
    return results


def _check_room_for_results(files: RunFiles, *, overwrite: bool) -> None:
    if files.folder == PRIOR_FOLDER:
        raise RunError(
            "the prior that comes with quickstudy cannot hold results",
            fix="Compare it: quickstudy compare prior linear-probe --tasks TASKS --out FOLDER",
        )
    if files.results.exists() and not overwrite:
        raise RunError(
            "this run has results already",
            where=str(files.results),
            fix="Move them away, or replace them with --overwrite.",
        )


def load_model(folder: str | Path, *, precision: str = "fp32") -> AdaptedModel:
    """Read a model that `AdaptedModel.save` or `quickstudy adapt` wrote; in `bf16` it predicts faster, see there."""
    return AdaptedModel.load(folder, precision=precision)


def _write_pages(folder: Path) -> None:
    from quickstudy.report.run.card import write_card
    from quickstudy.report.run.page import write_report

    write_card(folder)
    write_report(folder)


def _task(
    data: str | Path | Task | None, texts: Iterable[Text] | None = None, labels: Iterable[str | int] | None = None
) -> Task:
    if data is not None and (texts is not None or labels is not None):
        raise DataError("both data and texts are given", fix="Give one of the two.")
    if isinstance(data, Task):
        return data
    if data is not None:
        tasks = load_tasks(str(data))
        if len(tasks) != 1:
            raise DataError(f"{str(data)!r} holds {len(tasks)} tasks", fix="Name one of them.")
        return tasks[0]
    if texts is None or labels is None:
        raise DataError("there is nothing to adapt to", fix="Give data=..., or texts=... and labels=...")
    if isinstance(texts, str):
        raise DataError("texts is a single text", fix='Give a list: texts=["..."].')
    refuse_table(labels, "labels")
    examples, given = parse_texts(texts), list(labels)
    if len(examples) != len(given):
        raise DataError(f"{len(examples)} texts but {len(given)} labels", fix="Give one label per text.")
    names = [str(parse_label(y, "labels", "classification", f"labels[{i}]")) for i, y in enumerate(given)]
    label_names = tuple(sorted(set(names)))
    labelled = [replace(e, label=label_names.index(name)) for e, name in zip(examples, names, strict=True)]
    pairs = [example.text_pair is not None for example in examples]
    if len(set(pairs)) > 1:
        raise DataError(
            "single texts and pairs are mixed",
            where=f"texts[{pairs.index(not pairs[0])}]",
            fix="Give a second text everywhere or nowhere.",
        )
    return Task("texts", {"train": ListSplit(labelled)}, label_names, pair=any(pairs))
