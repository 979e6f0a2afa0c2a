"""The verb `adapt`: turn a run and labelled texts into a model of one task."""

from pathlib import Path
from typing import Annotated, Any

import typer

from quickstudy.cli.options import Json, PairColumn, TextColumn, print_json
from quickstudy.errors import DataError


def adapt(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    data: Annotated[str, typer.Option(help="Labelled texts: CSV, TSV, JSONL, Parquet, or a task reference.")],
    out: Annotated[Path, typer.Option(help="New model folder.")],
    text_column: TextColumn = "text",
    pair_column: PairColumn = "auto",
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
        print_json({"model": str(out), "labels": list(model.label_names), "seconds": round(seconds, 3)})
    else:
        print(f"{out}: predicts {labels} ({model.method}, {seconds:.1f} s)")


def _reference(data: str, options: dict[str, str], regression: bool) -> str:
    """Add the column options to a path or task reference that has none of its own."""
    from urllib.parse import urlencode

    chosen = {key: value for key, value in options.items() if value != ("auto" if key == "pair" else key)}
    if regression:
        chosen["kind"] = "regression"
    return f"{data}{'&' if '?' in data else '?'}{urlencode(chosen)}" if chosen else data
