"""The verb `export`: write an adapted model for other programs, or a run in a small form."""

from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

import typer

from quickstudy.cli.ending import say_next
from quickstudy.cli.options import Json, print_json
from quickstudy.cli.terminal import say
from quickstudy.errors import RecipeError
from quickstudy.importing import quick_imports

_RANK = 32
_OF_RUNS = "compact"
# what each option is for
_FORMS = {"int8": "onnx", **dict.fromkeys(("rank", "base", "strength", "average"), _OF_RUNS)}


def export(
    model: Annotated[Path, typer.Argument(help="Model folder, or run folder.")],
    out: Annotated[Path, typer.Option(help="New folder.")],
    to: Annotated[
        Literal["onnx", "transformers", "compact"] | None,
        typer.Option(
            help="For a model: onnx (the default; extra onnx), or transformers (for its text-classification pipeline). "
            "For a run: compact."
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="With onnx: weights of 8 bits, which are smaller and less exact.")
    ] = False,
    rank: Annotated[
        int | None, typer.Option(help=f"With compact: rank of the change of each matrix; default: {_RANK}.", min=1)
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="With compact: the untouched encoder; default: that of the recipe.")
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(help="With compact: factor of the change; below 1, the untouched encoder is mixed in."),
    ] = None,
    average: Annotated[
        list[Path] | None,
        typer.Option(help="With compact: another run of the same method and encoder; the mean is written. Repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model for other programs (ONNX, transformers), or a run in a small form."""
    from quickstudy.storage.files import refuse_existing
    from quickstudy.storage.layout import RunFiles

    refuse_existing(out)
    is_run = RunFiles(model).exist
    form = to or (_OF_RUNS if is_run else "onnx")
    if (form == _OF_RUNS) != is_run:
        kind, fix = "no run", "Use --to onnx, or --to transformers."
        if is_run:
            first = f"quickstudy adapt {quote(str(model))}"
            kind, fix = "a run", f"Use --to {_OF_RUNS}, or make a model of it first: {first}"
        raise RecipeError(f"this is {kind}, which cannot be written as {form}", where=str(model), fix=fix)
    given = {"rank": rank, "base": base, "strength": strength, "average": average, "int8": int8 or None}
    if wrong := next((name for name in given if given[name] is not None and _FORMS[name] != form), None):
        raise RecipeError(f"--{wrong} is for --to {_FORMS[wrong]}", fix=f"Leave out --{wrong}.")
    if form == _OF_RUNS:
        with quick_imports():
            from quickstudy.runs import Run

        others = [Run.open(other) for other in average or ()]
        factor = 1.0 if strength is None else strength
        small = Run.open(model).compact(out, rank or _RANK, base=base, strength=factor, average=others)
        _say_compact(small.files.delta.stat().st_size, out, as_json=as_json)
    elif form == "transformers":
        _export_transformers(model, out, as_json=as_json)
    else:
        _export_onnx(model, out, int8=int8, as_json=as_json)


def _export_onnx(model: Path, out: Path, *, int8: bool, as_json: bool) -> None:
    with quick_imports():
        from quickstudy.export.onnx_file import export_onnx
        from quickstudy.export.onnx_model import MODEL
        from quickstudy.models.adapted import AdaptedModel

    parity = export_onnx(AdaptedModel.load(model), out, int8=int8)
    size = (out / MODEL).stat().st_size
    if as_json:
        answer = {"model": str(out), "int8": int8, "bytes": size}
        print_json(answer | {"largest_difference": parity.difference})
    else:
        say(f"{out}: {size / 2**20:.1f} MiB{', int8' if int8 else ''}")
        say(f"  its logits differ by {parity.difference:.1g} at most from those of the model")
        say_next(f'quickstudy predict {quote(str(out))} "a text"')


def _export_transformers(model: Path, out: Path, *, as_json: bool) -> None:
    with quick_imports():
        from quickstudy.export.transformers_folder import export_transformers
        from quickstudy.models.adapted import AdaptedModel

    parity = export_transformers(AdaptedModel.load(model), out)
    if as_json:
        print_json({"model": str(out), "largest_difference": parity.difference})
    else:
        say(f"{out}: a sequence classifier of transformers; its logits differ by {parity.difference:.1g} at most")
        say_next(f"""in Python: transformers.pipeline("text-classification", {str(out)!r})""")


def _say_compact(size: int, out: Path, *, as_json: bool) -> None:
    if as_json:
        print_json({"run": str(out), "bytes": size})
    else:
        say(f"{out}: the encoder in {size / 2**20:.1f} MiB; use it like any run")
        say_next(f"quickstudy adapt {quote(str(out))} --data FILE --out model/")
