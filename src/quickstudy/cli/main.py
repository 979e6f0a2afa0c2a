"""Command line: the five steps as verbs. Heavy imports wait until a verb needs them.

Exit codes: 0 done, 2 something wrong with the input (one message, no traceback), 130 interrupted (Typer's).
"""

import json
import os
import sys
import traceback
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import typer

from quickstudy.errors import DataError, QuickstudyError, RecipeError

# Read by the libraries below when they are first imported: quiet on the terminal, nothing that phones home.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

app = typer.Typer(
    name="quickstudy",
    help="Meta-pretrain a language encoder so that it learns new text classes from a handful of labels.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_PROTOCOLS = "standard (published draws, else few-shot), few-shot, fixed-draws, episodic, full, or a draws.json."

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main() -> None:
    """Run the command line; the entry point."""
    try:
        app()
    except QuickstudyError as error:
        _say(str(error), error)
        sys.exit(2)
    except OSError as error:  # a full disk, a missing permission
        place = f"{error.filename}: " if error.filename else ""
        _say(f"{place}{error.strerror or error}\n  Check space and permissions.", error)
        sys.exit(2)


def _say(message: str, error: Exception) -> None:
    """Print an error: by the main process, and by one that has lost it; show where a mistake of our own happened."""
    from quickstudy.processes import ContactError, ProcessError, is_main, leave

    lost = isinstance(error, ContactError)
    ours = isinstance(error, ProcessError) and not lost and error.__cause__
    if ours and not isinstance(ours, QuickstudyError | OSError):
        traceback.print_exception(ours)
    if lost or is_main():
        print(f"error: {message}", file=sys.stderr)
    if not lost:
        leave()


def _version(wanted: bool) -> None:
    if wanted:
        from quickstudy._version import __version__

        print(f"quickstudy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Nothing to do: the verbs are below."""


@app.command()
def tasks(
    references: Annotated[
        list[str] | None,
        typer.Argument(help="samples, glue, glue:rte, hub:ID, a file or a folder. Default: the bundled samples."),
    ] = None,
    show: Annotated[int, typer.Option(help="Show so many example texts per label.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """List tasks: rows, labels, kind; --show N prints examples."""
    from quickstudy.cli.tables import print_tasks, task_summary
    from quickstudy.data.reference import load_tasks

    found = load_tasks(references or ["samples"])
    if as_json:
        _print_json([task_summary(task, show) for task in found])
    else:
        print_tasks(found, show)


@app.command()
def pretrain(
    recipe: Annotated[Path, typer.Argument(help="Recipe file (TOML).")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: outer.outer_steps=200. May be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New run folder. Default: runs/<name of the recipe>.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in --out.")] = False,
    explain: Annotated[
        bool, typer.Option(help="Only say what an outer step costs: reckoned, and measured on one. Trains nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Meta-pretrain an encoder over many tasks (step 3)."""
    if explain:
        _explain(recipe, settings or (), out or resume, as_json)
        return
    from quickstudy.cli.progress import TrainingProgress
    from quickstudy.config import load_recipe
    from quickstudy.processes import is_main, leave, together

    with together():
        if resume and settings:
            raise RecipeError(
                "a resumed run keeps its settings",
                where=f"--set {settings[0]}",
                fix="Leave out --set, or start a new run.",
            )
        checked = load_recipe(recipe, settings or ())
    target = out or Path("runs") / checked.name
    with TrainingProgress(checked.outer.outer_steps, quiet=as_json or not is_main()) as progress:
        from quickstudy import api

        run = api.pretrain(checked, target, resume=resume, on_step=progress.step)
    leave()
    if not is_main():
        return
    if as_json:
        _print_json({"run": str(run.folder), "steps": run.metrics()[-1]["step"], "best": progress.best})
    else:
        print(f"encoder and report: {run.folder}")


def _explain(recipe: Path, settings: Sequence[str], runs: object, as_json: bool) -> None:
    if runs:
        raise RecipeError(
            "--explain trains nothing", where="--explain", fix="Leave out --out and --resume, or leave out --explain."
        )
    from dataclasses import asdict

    from quickstudy import api
    from quickstudy.cli.tables import print_explanation

    found = api.explain(recipe, overrides=settings)
    if as_json:
        _print_json(asdict(found))
    else:
        print_explanation(found)


@app.command()
def adapt(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    data: Annotated[str, typer.Option(help="Labelled texts: CSV, TSV, JSONL, Parquet, or a task reference.")],
    out: Annotated[Path, typer.Option(help="New model folder.")],
    text_column: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    pair_column: Annotated[str, typer.Option(help="Column of the second text; auto: text_pair if there.")] = "auto",
    label_column: Annotated[str, typer.Option(help="Column of the label.")] = "label",
    regression: Annotated[bool, typer.Option(help="Labels are numbers.")] = False,
    full: Annotated[bool, typer.Option(help="Fine-tune all parameters on a large train set.")] = False,
    epochs: Annotated[float | None, typer.Option(help="With --full: passes over the data (3).", min=0.01)] = None,
    lr: Annotated[float | None, typer.Option(help="With --full: peak rate (5e-5).", min=0.0)] = None,
    batch_size: Annotated[int | None, typer.Option(help="With --full: examples per update (32).", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="With --full: order of the data (0).")] = None,
    as_json: Json = False,
) -> None:
    """Turn a run into a classifier of your task from a few labels (step 4)."""
    import time

    from quickstudy.storage import refuse_existing

    refuse_existing(out)
    given = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "seed": seed}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if chosen and not full:
        option = next(iter(chosen)).replace("_", "-")
        raise DataError(f"--{option} is for full fine-tuning", fix=f"Add --full, or leave out --{option}.")
    from quickstudy import api

    options = {"text": text_column, "pair": pair_column, "label": label_column}
    reference = _reference(data, options, regression)
    tick = time.perf_counter()
    if full:
        from quickstudy.cli.progress import FinetuneProgress

        with FinetuneProgress(quiet=as_json) as progress:
            model = api.finetune(run, reference, callbacks=[progress.callback()], **chosen)
    else:
        model = api.adapt(run, reference)
    seconds = time.perf_counter() - tick
    model.save(out)
    labels = ", ".join(model.label_names) or "a number"
    if as_json:
        _print_json({"model": str(out), "labels": list(model.label_names), "seconds": round(seconds, 3)})
    else:
        print(f"{out}: predicts {labels} ({model.method}, {seconds:.1f} s)")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Model folder, or one that export wrote.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to label.")] = None,
    pair: Annotated[list[str] | None, typer.Option(help="Second text of each text, for pair models.")] = None,
    data: Annotated[Path | None, typer.Option(help="File with the texts; labels are not needed.")] = None,
    text_column: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    pair_column: Annotated[str, typer.Option(help="Column of the second text; auto: text_pair if there.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, or bf16: faster where the processor has it.")] = "fp32",
    as_json: Json = False,
) -> None:
    """Label texts with an adapted model; probabilities beside (step 4)."""
    if (data is None) == (not texts):
        raise DataError("give texts or --data, one of the two", fix='quickstudy predict model/ "a text"')
    if pair and len(pair) != len(texts or ()):
        raise DataError(f"{len(texts or ())} texts but {len(pair)} --pair", fix="Give one --pair per text.")
    from quickstudy.cli.tables import print_predictions
    from quickstudy.data.texts import read_texts
    from quickstudy.export.onnx_model import OnnxModel, is_exported
    from quickstudy.models.adapted import AdaptedModel
    from quickstudy.tasks.split import Example

    examples = (
        read_texts(data, text_column, pair_column)
        if data
        else [Example(text, second) for text, second in zip_longest(texts or (), pair or ())]
    )
    loaded: AdaptedModel | OnnxModel
    if is_exported(model):
        if precision != "fp32":
            fix = "Leave out --precision, or predict with the model that it was exported from."
            raise RecipeError("an exported model has the precision it was exported in", where=str(model), fix=fix)
        loaded = OnnxModel.load(model)
    else:
        loaded = AdaptedModel.load(model, precision=precision)
    rows: list[dict[str, Any]]
    if loaded.kind == "regression":
        rows = [{"text": e.text, "value": v} for e, v in zip(examples, loaded.predict(examples), strict=True)]
    else:
        probabilities = loaded.predict_proba(examples)
        rows = [
            {
                "text": example.text,
                "label": loaded.label_names[int(p.argmax())],
                "probabilities": dict(zip(loaded.label_names, [round(v, 6) for v in p.tolist()], strict=True)),
            }
            for example, p in zip(examples, probabilities, strict=True)
        ]
    if as_json:
        _print_json(rows)
    else:
        print_predictions(rows)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    out: Annotated[Path, typer.Option(help="New folder.")],
    int8: Annotated[bool, typer.Option("--int8", help="Weights of 8 bits: smaller, and not quite the same.")] = False,
    as_json: Json = False,
) -> None:
    """Write an adapted model as an ONNX graph from token ids to probabilities (extra onnx)."""
    from quickstudy.storage import refuse_existing

    refuse_existing(out)
    from quickstudy.export.onnx_file import export_onnx
    from quickstudy.models.adapted import AdaptedModel

    export_onnx(AdaptedModel.load(model), out, int8=int8)
    size = (out / "model.onnx").stat().st_size
    if as_json:
        _print_json({"model": str(out), "int8": int8, "bytes": size})
    else:
        print(f"{out}: {size / 2**20:.1f} MiB{', int8' if int8 else ''}; label texts with: quickstudy predict {out}")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    tasks: Annotated[list[str], typer.Option(help="Held-out tasks (references). May be repeated.")],
    shots: Annotated[str, typer.Option(help="Labelled examples per class, several values.")] = "4,8,16",
    draws: Annotated[int, typer.Option(help="Support sets per number of shots.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Which support sets.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Score a fixed sample of so many test rows.", min=1)] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the results that the run has.")] = False,
    allow_overlap: Annotated[bool, typer.Option(help="Score texts although they were meta-trained on.")] = False,
    as_json: Json = False,
) -> None:
    """Measure a run on held-out tasks, beside two baselines on identical draws (step 5)."""
    counts = _shots(shots)
    from quickstudy import api
    from quickstudy.cli.progress import RowProgress
    from quickstudy.cli.tables import print_results

    with RowProgress(quiet=as_json) as progress:
        results = api.evaluate(
            run,
            tasks,
            shots=counts,
            draws=draws,
            seed=seed,
            limit=limit,
            overwrite=overwrite,
            allow_overlap=allow_overlap,
            on_row=progress.row,
        )
    if as_json:
        _print_json(results)
    else:
        print_results(results)
        print(f"results and report: {run / 'results.json'}, {run / 'report.html'}")


@app.command()
def compare(
    learners: Annotated[list[str], typer.Argument(help="Run folders, recipe files (untouched) or names of methods.")],
    tasks: Annotated[list[str], typer.Option(help="Held-out tasks (references). May be repeated.")],
    out: Annotated[Path, typer.Option(help="Folder of the comparison; one that is there goes on.")],
    protocol: Annotated[str, typer.Option(help=_PROTOCOLS)] = "standard",
    shots: Annotated[str | None, typer.Option(help="Labelled examples per class (4,8,16).")] = None,
    draws: Annotated[int | None, typer.Option(help="Support sets per K; episodes, or seeds (10).", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="Which support sets (0).")] = None,
    limit: Annotated[int | None, typer.Option(help="Score a fixed sample of so many test rows.", min=1)] = None,
    n_way: Annotated[int | None, typer.Option(help="episodic: classes of an episode (5).", min=2)] = None,
    n_query: Annotated[int | None, typer.Option(help="episodic: scored examples per class (15).", min=1)] = None,
    encoder: Annotated[str, typer.Option(help="Encoder of learners that are named by their method.")] = "minilm",
    workers: Annotated[int, typer.Option(help="Processes side by side.", min=1)] = 1,
    ray: Annotated[
        str | None, typer.Option(help="Compute on the Ray cluster at this address; local: start one.")
    ] = None,
    allow_overlap: Annotated[bool, typer.Option(help="Score texts although they were meta-trained on.")] = False,
    texts: Annotated[bool, typer.Option(help="Show support sets and wrong predictions in the report.")] = True,
    as_json: Json = False,
) -> None:
    """Compare runs and methods on held-out tasks; what is finished is never computed again (step 5)."""
    counts = tuple(_shots(shots)) if shots else None
    from quickstudy.cli.progress import CellProgress
    from quickstudy.cli.tables import print_comparison
    from quickstudy.comparison.compare import compare as run_comparison
    from quickstudy.evaluation.protocol import Protocol, load_protocol
    from quickstudy.report.comparison_file import read_comparison
    from quickstudy.report.comparison_pairs import headline

    given = {"shots": counts, "draws": draws, "seed": seed, "limit": limit, "n_way": n_way, "n_query": n_query}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    saved = protocol.endswith(".json")
    if saved and chosen:
        option = next(iter(chosen)).replace("_", "-")
        raise DataError(f"saved draws are taken as they are, without --{option}", where=protocol, fix="Leave it out.")
    with CellProgress(quiet=as_json) as progress:
        results = run_comparison(
            learners,
            tasks,
            out,
            protocol=load_protocol(protocol) if saved else Protocol(**{"name": protocol, **chosen}),
            encoder=encoder,
            workers=workers,
            ray=ray,
            allow_overlap=allow_overlap,
            texts=texts,
            on_cell=progress.cell,
        )
    if as_json:
        _print_json(results)
    else:
        print_comparison(results, headline(read_comparison(out)))
        print(f"report: {out / 'report.html'}, figures of every draw: {out / 'results.parquet'}")


@app.command()
def recommend(
    comparison: Annotated[
        Path, typer.Argument(help="Folder that compare wrote; with --tasks, one to write or go on with.")
    ],
    tasks: Annotated[list[str] | None, typer.Option(help="Your tasks: compare on them first. May be repeated.")] = None,
    learner: Annotated[
        list[str] | None,
        typer.Option(help="With --tasks: runs, recipes or methods to choose from, beside the baselines."),
    ] = None,
    shots: Annotated[int | None, typer.Option(help="Labelled examples per class that you will have.", min=1)] = None,
    most_seconds: Annotated[float | None, typer.Option(help="Seconds that adapting to a task may take.", min=0)] = None,
    most_mib: Annotated[float | None, typer.Option(help="Memory that there is, in MiB.", min=0)] = None,
    encoder: Annotated[str, typer.Option(help="With --tasks: encoder of the baselines.")] = "minilm",
    allow_overlap: Annotated[bool, typer.Option(help="With --tasks: score what was meta-trained on.")] = False,
    no_gpu: Annotated[bool, typer.Option(help="Only learners whose costs were measured without a GPU.")] = False,
    as_json: Json = False,
) -> None:
    """Say which learner to take, and whether the evidence decides: from a comparison, or for your tasks (step 5)."""
    from quickstudy.evaluation.recommend import Limits
    from quickstudy.evaluation.recommend import recommend as choose

    if tasks:
        from quickstudy.cli.progress import CellProgress
        from quickstudy.comparison.compare import compare_for

        with CellProgress(quiet=as_json) as progress:
            results = compare_for(
                tasks,
                comparison,
                learner or (),
                shots=shots,
                encoder=encoder,
                allow_overlap=allow_overlap,
                on_cell=progress.cell,
            )
    else:
        results = _results_of(comparison)
    try:
        found = choose(results, Limits(shots, most_seconds, most_mib, no_gpu))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError("these are no results of a comparison", where=str(comparison), fix="Compare again.") from error
    if as_json:
        _print_json(found)
    else:
        print(f"{found['learner']}\n  {found['why']}")


def _results_of(comparison: Path) -> Any:
    file = comparison / "results.json"
    if not file.is_file():
        raise DataError("there are no results here", where=str(comparison), fix="Make them with: quickstudy compare")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError("these are no results of a comparison", where=str(file), fix="Compare again.") from error


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Folder of a run or of a comparison.")]) -> None:
    """Write the page of a run or of a comparison again from its files."""
    from quickstudy.report.comparison import write_comparison
    from quickstudy.report.page import write_report

    print(write_comparison(folder) if (folder / "cells").is_dir() else write_report(folder))


def _shots(text: str) -> list[int]:
    try:
        values = sorted({int(part) for part in text.split(",")})
    except ValueError:
        values = []
    if not values or values[0] < 1:
        raise DataError(f"--shots {text!r} is not a list of whole numbers above 0", fix="Write it like 4,8,16.")
    return values


def _reference(data: str, options: dict[str, str], regression: bool) -> str:
    """Add the column options to a path or task reference that has none of its own."""
    from urllib.parse import urlencode

    chosen = {key: value for key, value in options.items() if value != ("auto" if key == "pair" else key)}
    if regression:
        chosen["kind"] = "regression"
    return f"{data}{'&' if '?' in data else '?'}{urlencode(chosen)}" if chosen else data


def _print_json(value: Any) -> None:
    from quickstudy.storage import finite

    print(json.dumps(finite(value), ensure_ascii=False, indent=2, allow_nan=False))


if __name__ == "__main__":
    main()
