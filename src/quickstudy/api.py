"""The three-line face of quickstudy.

run = quickstudy.pretrain("recipes/protonet_samples.toml", out="runs/first")
model = quickstudy.adapt("runs/first", texts=["late fee again", ...], labels=["fees", ...])
model.predict(["I was charged twice"])
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstudy.adaptation.few import adapt_task
from quickstudy.build import build
from quickstudy.config import Recipe, check_recipe, load_recipe
from quickstudy.data.reference import load_tasks
from quickstudy.data.table import parse_label
from quickstudy.errors import DataError, RecipeError, RunError
from quickstudy.models.adapted import AdaptedModel, Text
from quickstudy.processes import gather, is_main, together
from quickstudy.runs import Run
from quickstudy.tasks.split import Example, ListSplit
from quickstudy.tasks.task import Task
from quickstudy.training.checkpoint import load_checkpoint
from quickstudy.training.outer import StepRecord, train

if TYPE_CHECKING:
    from accelerate import Accelerator

    from quickstudy.adaptation.full import FullSettings
    from quickstudy.evaluation.record import Draw
    from quickstudy.evaluation.results import Results
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
    on_draw: "Callable[[Draw], None]" = lambda _: None,
) -> "Results":
    """Evaluate a run on held-out tasks: compare it with two baselines on identical draws.

    The baselines are the same method and a linear probe, both on the encoder as it was before the run.

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
        QuickstudyError: No such run, unusable tasks, impossible numbers, there are results already, or scored texts were
            meta-trained on.
    """
    from quickstudy.comparison.collect import results_of
    from quickstudy.comparison.learner import baselines, load_learners, trained_learner
    from quickstudy.comparison.overlap import with_overlap
    from quickstudy.comparison.plan import load_all
    from quickstudy.evaluation.evaluate import evaluate_learners
    from quickstudy.evaluation.plan import plan_tasks
    from quickstudy.evaluation.protocol import Protocol
    from quickstudy.evaluation.results_file import RESULTS, write_results

    protocol = Protocol(shots=tuple(shots), draws=draws, seed=seed, limit=limit)
    folder = (run if isinstance(run, Run) else Run.open(run)).folder
    if (folder / RESULTS).exists() and not overwrite:
        raise RunError(
            "this run has results already",
            where=str(folder / RESULTS),
            fix="Move them away, or replace them with --overwrite.",
        )
    planned = plan_tasks(protocol, load_all(tasks))
    specs = trained_learner(folder, AFTER), *baselines(folder, BEFORE, PROBE)
    described = with_overlap({spec.name: spec.describe() for spec in specs}, specs, planned, allow=allow_overlap)
    scored = evaluate_learners(load_learners(specs), planned, on_draw=on_draw)
    results = results_of(protocol, described, planned, scored, texts=False)
    write_results(folder / RESULTS, results)
    _write_pages(folder)
    return results


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
        found = load_tasks(str(data))
        if len(found) != 1:
            raise DataError(f"{str(data)!r} holds {len(found)} tasks", fix="Name one of them.")
        return found[0]
    if texts is None or labels is None:
        raise DataError("there is nothing to adapt to", fix="Give data=..., or texts=... and labels=...")
    if isinstance(texts, str):
        raise DataError("texts is a single text", fix='Give a list: texts=["..."].')
    listed, given = list(texts), list(labels)
    if len(listed) != len(given):
        raise DataError(f"{len(listed)} texts but {len(given)} labels", fix="Give one label per text.")
    names = [str(parse_label(y, "labels", "classification", f"labels[{i}]")) for i, y in enumerate(given)]
    label_names = tuple(sorted(set(names)))
    examples = [_labelled(t, label_names.index(name), i) for i, (t, name) in enumerate(zip(listed, names, strict=True))]
    pairs = [example.text_pair is not None for example in examples]
    if len(set(pairs)) > 1:
        raise DataError(
            "single texts and pairs are mixed",
            where=f"texts[{pairs.index(not pairs[0])}]",
            fix="Give a second text everywhere or nowhere.",
        )
    return Task("texts", {"train": ListSplit(examples)}, label_names, pair=any(pairs))


def _labelled(text: Text, label: int, place: int) -> Example:
    parts = (text.text, text.text_pair) if isinstance(text, Example) else (text,) if isinstance(text, str) else text
    known = isinstance(parts, tuple | list) and len(parts) in (1, 2)
    if not known or not isinstance(parts[0], str) or not isinstance(parts[-1], str | None):
        raise DataError(
            f"{text!r} is not a text", where=f"texts[{place}]", fix="Give a text, or (text, second text) for a pair."
        )
    first, second = parts[0], parts[1] if len(parts) == 2 else None
    if not first.strip() or (second is not None and not second.strip()):
        raise DataError("this text is empty", where=f"texts[{place}]", fix="Leave it out.")
    return Example(first, second, label)
