"""The verb `adapt`: turn a run and labelled texts into a model of one task."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from quickstudy.cli.descriptions import read_descriptions
from quickstudy.cli.ending import say_next
from quickstudy.cli.options import Json, PairColumn, SkipBadRows, TextColumn, print_json
from quickstudy.cli.terminal import say
from quickstudy.errors import DataError
from quickstudy.full_settings import FullSettings
from quickstudy.importing import quick_imports
from quickstudy.storage.layout import PRIOR

if TYPE_CHECKING:
    from quickstudy.models.adapted import AdaptedModel

Descriptions = Annotated[Path | None, typer.Option(help="TOML or JSON file that says what each label means.")]
Names = Annotated[
    Literal["true", "none", "opaque"] | None,
    typer.Option(help="Label names, if the run reads them: true (the default), none: not read, opaque: codes instead."),
]

ClassWeight = Annotated[
    Literal["balanced", "none"] | None,
    typer.Option(help="balanced (the default): each label counts alike, however many rows it has; none: each row."),
]
Steps = Annotated[
    int, typer.Option(help="Gradient steps that change the encoder first: slower, better on some tasks only.", min=0)
]

_FULL = FullSettings()


def adapt(
    data: Annotated[str, typer.Option(help="Labelled texts: a data file, - for standard input, or a task reference.")],
    out: Annotated[Path, typer.Option(help="New model folder.")],
    run: Annotated[Path, typer.Argument(help="Run folder; by default the prior that comes with quickstudy.")] = Path(
        PRIOR
    ),
    text_column: TextColumn = "auto",
    pair_column: PairColumn = "auto",
    label_column: Annotated[str, typer.Option(help="Column of the labels; auto takes it if only one fits.")] = "auto",
    skip_bad_rows: SkipBadRows = False,
    regression: Annotated[bool, typer.Option("--regression", help="The labels are numbers to predict.")] = False,
    label_descriptions: Descriptions = None,
    names: Names = None,
    class_weight: ClassWeight = None,
    steps: Steps = 0,
    full: Annotated[bool, typer.Option("--full", help="Fine-tune all parameters on a large train set.")] = False,
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
    """Make a classifier from a few labelled texts (step 4)."""
    from quickstudy.storage.files import refuse_existing

    refuse_existing(out)
    settings = _full_settings({"epochs": epochs, "lr": lr, "batch_size": batch_size, "seed": seed}, full=full)
    choices = {"text": text_column, "pair": pair_column, "label": label_column}
    described = read_descriptions(label_descriptions) if label_descriptions else None
    if full:
        _refuse_with_full(names=bool(names or described), steps=bool(steps), weights=bool(class_weight))
    with quick_imports():
        from quickstudy import api  # before the clock starts, which is to show the time of adapting

    with _labelled_data(data) as place:
        reference = _reference(place, choices, regression, skip_bad_rows)
        began = time.perf_counter()
        if full:
            model = _finetune(run, reference, settings, quiet=as_json)
        else:
            weighting: Literal["balanced"] | None = None if class_weight == "none" else "balanced"
            adapt_run = partial(api.adapt, run, reference, steps=steps, class_weight=weighting)
            model = adapt_run(label_descriptions=described, names=names or "true")
    seconds = time.perf_counter() - began
    model.save(out)
    labels = ", ".join(model.label_names) or "a number"
    if as_json:
        learned = asdict(model.learned) if model.learned else None
        answer = {"model": str(out), "labels": list(model.label_names), "seconds": round(seconds, 3)}
        print_json(answer | {"learned": learned})
    else:
        say(f"{out}: predicts {labels} ({model.method}, {seconds:.1f} s)")
        for line in model.learned.lines() if model.learned else ():
            say(f"  {line}")
        say_next(f'quickstudy predict {quote(str(out))} "a text"')


def _full_settings(options: Mapping[str, Any], *, full: bool) -> FullSettings:
    """Return the settings of full fine-tuning, with the options that are given."""
    given = {name: value for name, value in options.items() if value is not None}
    if given and not full:
        option = next(iter(given)).replace("_", "-")
        raise DataError(f"--{option} is for full fine-tuning", fix=f"Add --full, or leave out --{option}.")
    return replace(_FULL, **given)


def _refuse_with_full(*, names: bool, steps: bool, weights: bool) -> None:
    """Refuse what full fine-tuning does not do."""
    if names or steps:
        fix = "Leave out --full, or --names, --label-descriptions and --steps."
        raise DataError("full fine-tuning reads no label names, and takes its own steps", fix=fix)
    if weights:
        raise DataError("full fine-tuning counts each row once", fix="Leave out --full, or --class-weight.")


@contextmanager
def _labelled_data(data: str) -> Iterator[str]:
    """Give where the data are; of what is piped in, a copy."""
    from quickstudy.data.stdin import is_piped, piped_input

    if is_piped(data):
        with piped_input(data) as file:
            yield str(file)
    else:
        yield data


def _finetune(run: Path, reference: str, settings: FullSettings, *, quiet: bool) -> "AdaptedModel":
    """Fine-tune everything, with a progress bar."""
    from quickstudy import api
    from quickstudy.cli.progress import FinetuneProgress

    with FinetuneProgress(quiet=quiet) as progress:
        return api.finetune(run, reference, settings=settings, callbacks=[progress.callback()])


def _reference(data: str, columns: dict[str, str], regression: bool, skip_bad_rows: bool) -> str:
    """Add what the user chose to a path or task reference."""
    from urllib.parse import urlencode

    chosen = {key: name for key, name in columns.items() if name != "auto"}
    if regression:
        chosen["kind"] = "regression"
    if skip_bad_rows:
        chosen["bad"] = "skip"
    return f"{data}{'&' if '?' in data else '?'}{urlencode(chosen)}" if chosen else data
