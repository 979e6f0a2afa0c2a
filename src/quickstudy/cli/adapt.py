"""The verb `adapt`: turn a run and labelled texts into a model of one task."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from quickstudy.cli.descriptions import read_descriptions
from quickstudy.cli.options import Json, PairColumn, TextColumn, print_json
from quickstudy.errors import DataError
from quickstudy.settings import FullSettings

if TYPE_CHECKING:
    from quickstudy.models.adapted import AdaptedModel

Descriptions = Annotated[Path | None, typer.Option(help="TOML or JSON: what labels mean, if the run reads names.")]
Names = Annotated[
    Literal["true", "none", "opaque"] | None, typer.Option(help="What the run gets of label names, if it reads them.")
]

_FULL = FullSettings()


def adapt(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    data: Annotated[str, typer.Option(help="Labelled texts: CSV, TSV, JSONL, Parquet, or a task reference.")],
    out: Annotated[Path, typer.Option(help="New model folder.")],
    text_column: TextColumn = "text",
    pair_column: PairColumn = "auto",
    label_column: Annotated[str, typer.Option(help="Column of the label.")] = "label",
    regression: Annotated[bool, typer.Option(help="Labels are numbers.")] = False,
    label_descriptions: Descriptions = None,
    names: Names = None,
    full: Annotated[bool, typer.Option(help="Fine-tune all parameters on a large train set.")] = False,
    epochs: Annotated[
        float | None, typer.Option(help=f"With --full: passes over the data ({_FULL.epochs:g}).", min=0.01)
    ] = None,
    lr: Annotated[float | None, typer.Option(help=f"With --full: peak rate ({_FULL.lr:g}).", min=0.0)] = None,
    batch_size: Annotated[
        int | None, typer.Option(help=f"With --full: examples per update ({_FULL.batch_size}).", min=1)
    ] = None,
    seed: Annotated[int | None, typer.Option(help=f"With --full: order of the data ({_FULL.seed}).")] = None,
    as_json: Json = False,
) -> None:
    """Turn a run into a classifier of your task from a few labels (step 4)."""
    import time

    from quickstudy.storage.files import refuse_existing

    refuse_existing(out)
    given = {"epochs": epochs, "lr": lr, "batch-size": batch_size, "seed": seed}
    option = next((name for name, value in given.items() if value is not None), None)
    if option and not full:
        raise DataError(f"--{option} is for full fine-tuning", fix=f"Add --full, or leave out --{option}.")
    settings = FullSettings(
        epochs=_FULL.epochs if epochs is None else epochs,
        lr=_FULL.lr if lr is None else lr,
        batch_size=_FULL.batch_size if batch_size is None else batch_size,
        seed=_FULL.seed if seed is None else seed,
    )
    columns = {"text": text_column, "pair": pair_column, "label": label_column}
    reference = _reference(data, columns, regression)
    described = read_descriptions(label_descriptions) if label_descriptions else None
    if full and (names or described):
        raise DataError("full fine-tuning reads no label names", fix="Leave out --full, or --names and descriptions.")
    from quickstudy import api  # before the clock starts, which is to show the time of adapting

    began = time.perf_counter()
    if full:
        model = _finetune(run, reference, settings, quiet=as_json)
    else:
        model = api.adapt(run, reference, label_descriptions=described, names=names or "true")
    seconds = time.perf_counter() - began
    model.save(out)
    labels = ", ".join(model.label_names) or "a number"
    if as_json:
        learned = asdict(model.learned) if model.learned else None
        answer = {"model": str(out), "labels": list(model.label_names), "seconds": round(seconds, 3)}
        print_json(answer | {"learned": learned})
    else:
        print(f"{out}: predicts {labels} ({model.method}, {seconds:.1f} s)")
        for line in model.learned.lines() if model.learned else ():
            print(f"  {line}")


def _finetune(run: Path, reference: str, settings: FullSettings, *, quiet: bool) -> "AdaptedModel":
    """Fine-tune everything, with a progress bar."""
    from quickstudy import api
    from quickstudy.cli.progress import FinetuneProgress

    with FinetuneProgress(quiet=quiet) as progress:
        return api.finetune(run, reference, settings=settings, callbacks=[progress.callback()])


def _reference(data: str, columns: dict[str, str], regression: bool) -> str:
    """Add the names of columns that are not the usual ones to a path or task reference."""
    from urllib.parse import urlencode

    chosen = {key: name for key, name in columns.items() if name != ("auto" if key == "pair" else key)}
    if regression:
        chosen["kind"] = "regression"
    return f"{data}{'&' if '?' in data else '?'}{urlencode(chosen)}" if chosen else data
