"""The three-line face of quickstudy.

run = quickstudy.pretrain("recipes/protonet_samples.toml", out="runs/first")
model = quickstudy.adapt("runs/first", texts=["late fee again", ...], labels=["fees", ...])
model.predict(["I was charged twice"])
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstudy.adaptation.few import adapt_task
from quickstudy.build import build
from quickstudy.config import Recipe, check_recipe, load_recipe
from quickstudy.data.reference import load_tasks
from quickstudy.data.table import parse_label
from quickstudy.errors import DataError, RecipeError, RunError
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.bundled import public_name
from quickstudy.processes import gather, is_main, together
from quickstudy.runs import Run
from quickstudy.storage import write_json
from quickstudy.tasks.split import ListSplit
from quickstudy.tasks.task import Task
from quickstudy.tasks.text import Text, parse_texts, refuse_table
from quickstudy.training.checkpoint import load_checkpoint
from quickstudy.training.outer import StepRecord, train
from quickstudy.versions import versions

if TYPE_CHECKING:
    from accelerate import Accelerator

    from quickstudy.adaptation.full import FullSettings
    from quickstudy.evaluation.evaluate import Row
    from quickstudy.training.explain import Explanation

# The Trainer, matplotlib and scipy's statistics are imported by the functions that need them: `adapt` should start fast.

__all__ = ["adapt", "evaluate", "explain", "finetune", "load_model", "load_tasks", "pretrain"]

AFTER, BEFORE, PROBE = "meta-trained", "untouched", "linear probe"


def pretrain(
    recipe: str | Path | Recipe | Mapping[str, Any],
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    on_step: Callable[[StepRecord], None] = lambda _: None,
) -> Run:
    """Meta-pretrain an encoder; launched as several processes, with all of them (docs/scaling.md).

    Args:
        recipe: A recipe file, or its settings.
        out: New run folder; `runs/<name of the recipe>` by default.
        overrides: `section.key=value` settings on top of a recipe file.
        resume: Go on with the run in `out`.
        on_step: Told of every outer step, in the main process.

    Returns:
        The finished run.

    Raises:
        QuickstudyError: Anything wrong with the recipe, the data or the folder; before anything is written.
        ProcessError: What went wrong in another process.
    """
    with together():
        return _pretrain(recipe, out, overrides, resume, on_step)


def explain(recipe: str | Path | Recipe | Mapping[str, Any], *, overrides: Sequence[str] = ()) -> "Explanation":
    """Reckon what an outer step of a recipe costs, and take one to compare; nothing is trained or written.

    Args:
        recipe: A recipe file, or its settings.
        overrides: `section.key=value` settings on top of a recipe file.

    Raises:
        QuickstudyError: Anything wrong with the recipe or the data.
    """
    from quickstudy.training.explain import explain as explain_step

    recipe = _recipe(recipe, overrides)
    built = build(recipe)
    return explain_step(built.learner, built.sampler, built.outer, _accelerator(recipe, Path()))


def _recipe(recipe: str | Path | Recipe | Mapping[str, Any], overrides: Sequence[str]) -> Recipe:
    if isinstance(recipe, Mapping):
        recipe = check_recipe(recipe)
    if isinstance(recipe, Recipe):
        if overrides:
            raise RecipeError("overrides go with a recipe file", fix="Change the recipe's settings themselves.")
        return recipe
    return load_recipe(recipe, overrides)


def _pretrain(
    recipe: str | Path | Recipe | Mapping[str, Any],
    out: str | Path | None,
    overrides: Sequence[str],
    resume: bool,
    on_step: Callable[[StepRecord], None],
) -> Run:
    recipe = _recipe(recipe, overrides)
    folder = Path(out) if out else Path("runs") / recipe.name
    if resume:
        run = Run.open(folder)
        recipe = run.recipe
    elif folder.exists():
        raise RunError("this folder exists already", where=str(folder), fix="Choose another --out, or --resume it.")
    built = build(recipe)
    accelerator = _accelerator(recipe, folder)
    gather(None)  # all are ready: from here on there is something to write
    if not resume:
        run = (
            Run.create(folder, recipe, [task.name for task in built.sampler.tasks])
            if is_main()
            else Run(folder, recipe)
        )
    elif is_main():
        state = load_checkpoint(folder / "checkpoints" / "last", built.learner)
        run.cut_log(state.step if state else -1)
    if recipe.outer.trackers:
        accelerator.init_trackers("quickstudy", config={"recipe": recipe.name, "method": recipe.method.name})

    def record_step(record: StepRecord) -> None:
        if not is_main():
            return
        run.log(record)
        on_step(record)
        values = {"loss": record.loss, "accuracy": record.accuracy, "validation": record.validation}
        accelerator.log({key: value for key, value in values.items() if value is not None}, step=record.step)

    learner = train(
        built.learner,
        built.sampler,
        built.outer,
        accelerator=accelerator,
        folder=folder / "checkpoints",
        on_step=record_step,
        validate=built.validate,
    )
    if is_main():
        for tracker in accelerator.trackers:  # not end_training(): it would leave the group of processes
            tracker.finish()
        run.save(learner)
        _write_pages(run.folder)
    return run


def _accelerator(recipe: Recipe, folder: Path) -> "Accelerator":
    from accelerate import Accelerator
    from accelerate.tracking import get_available_trackers
    from accelerate.utils import LoggerType

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


def adapt(
    run: str | Path | Run,
    data: str | Path | Task | None = None,
    *,
    texts: Iterable[Text] | None = None,
    labels: Iterable[str | int] | None = None,
) -> AdaptedModel:
    """Turn a meta-learned encoder into a classifier of one task from a few labels.

    Args:
        run: A finished run, or its folder.
        data: A data file or folder, a task reference, or a task.
        texts: Instead of `data`: texts, or (text, second text) tuples for pairs.
        labels: Their labels.

    Raises:
        QuickstudyError: No such run, unusable data, or fewer than two labels.

    Returns:
        A model with `predict`, `predict_proba` and `save`.
    """
    opened = run if isinstance(run, Run) else Run.open(run)
    task = _task(data, texts, labels)
    return adapt_task(opened.learner(), task)


def finetune(
    run: str | Path | Run, data: str | Path | Task, *, settings: "FullSettings | None" = None, **options: Any
) -> AdaptedModel:
    """Fine-tune the whole meta-learned encoder on a large train set.

    Args:
        run: A finished run, or its folder.
        data: A data file or folder, a task reference, or a task.
        settings: Epochs, rate, batch size, seed; or give them as keywords.
        options: Fields of `FullSettings`, or `callbacks` for `transformers.Trainer`.
    """
    from quickstudy.adaptation.full import FullSettings, finetune_task

    callbacks = options.pop("callbacks", ())
    opened = run if isinstance(run, Run) else Run.open(run)
    learner = opened.learner()
    return finetune_task(learner.encoder, _task(data), settings or FullSettings(**options), callbacks=callbacks)


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
    on_row: Callable[["Row"], None] = lambda _: None,
) -> dict[str, Any]:
    """Evaluate a run on held-out tasks, beside two baselines on identical draws.

    The baselines are the same method on the untouched encoder, and a linear probe on the untouched encoder.

    Args:
        run: A finished run, or its folder; `results.json` and the report are written there.
        tasks: Task references, or tasks.
        shots: Labelled examples per class (K).
        draws: Support sets per K.
        seed: Which.
        limit: Score a fixed random sample of so many test rows; None for all.
        overwrite: Replace the results that the run has.
        allow_overlap: Go on although scored texts were meta-trained on; the report says so.
        on_row: Told of every finished draw.

    Returns:
        The content of `results.json`.

    Raises:
        QuickstudyError: No such run, unusable tasks, impossible numbers, there are results already, or scored texts were
            meta-trained on.
    """
    from quickstudy.evaluation.evaluate import evaluate_learners, summarize_rows
    from quickstudy.evaluation.protocol import Protocol, plan, scored
    from quickstudy.methods.linear_probe import LinearProbe

    protocol = Protocol(shots=tuple(shots), draws=draws, seed=seed, limit=limit)
    opened = run if isinstance(run, Run) else Run.open(run)
    if (opened.folder / "results.json").exists() and not overwrite:
        raise RunError(
            "this run has results already",
            where=str(opened.folder / "results.json"),
            fix="Move them away, or replace them with --overwrite.",
        )
    loaded = _tasks(tasks)
    untouched = opened.untouched()
    learners = {AFTER: opened.learner(), BEFORE: untouched, PROBE: LinearProbe(untouched.encoder)}
    plans = plan(protocol, loaded)
    overlap = opened.overlap([scored(task, plans[task.name]) for task in loaded], allow=allow_overlap)
    rows = evaluate_learners(learners, loaded, protocol, on_row=on_row)
    trained_on = opened.meta_train_tasks() & {task.name for task in loaded}
    results = {
        **versions(),
        "method": opened.recipe.method.name,
        "encoder": public_name(opened.recipe.encoder.name),
        "shots": list(shots),
        "draws": draws,
        "seed": seed,
        "limit": limit,
        "seen_in_meta_training": sorted(trained_on),
        "overlap": overlap,
        "summary": summarize_rows(rows, reference=AFTER),
        "rows": rows,
    }
    write_json(opened.folder / "results.json", results)
    _write_pages(opened.folder)
    return results


def load_model(folder: str | Path, *, precision: str = "fp32") -> AdaptedModel:
    """Read a model that `AdaptedModel.save` or `quickstudy adapt` wrote; in `bf16` it predicts faster, see there."""
    return AdaptedModel.load(folder, precision=precision)


def _write_pages(folder: Path) -> None:
    from quickstudy.report.card import write_card
    from quickstudy.report.page import write_report

    write_card(folder)
    write_report(folder)


def _tasks(tasks: str | Path | Task | Iterable[str | Path | Task]) -> list[Task]:
    if isinstance(tasks, str | Path | Task):
        tasks = [tasks]
    loaded = [task for item in tasks for task in ([item] if isinstance(item, Task) else load_tasks(str(item)))]
    if not loaded:
        raise DataError("there is no task to evaluate on", fix="Give at least one.")
    return loaded


def _task(
    data: str | Path | Task | None, texts: Iterable[Text] | None = None, labels: Iterable[str | int] | None = None
) -> Task:
    if data is not None and (texts is not None or labels is not None):
        raise DataError("both data and texts are given", fix="Give one of the two.")
    if isinstance(data, Task):
        return data
    if data is not None:
        found = load_tasks(str(data))
        if len(found) != 1:
            raise DataError(f"{str(data)!r} holds {len(found)} tasks", fix="Name one of them.")
        return found[0]
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
