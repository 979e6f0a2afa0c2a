"""The verb `export`: write an adapted model as an ONNX graph, or a run in a small form."""

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.options import Json, print_json
from quickstudy.errors import RunError

_RANK = 32


def export(
    model: Annotated[Path, typer.Argument(help="Model folder, or run folder.")],
    out: Annotated[Path, typer.Option(help="New folder.")],
    int8: Annotated[bool, typer.Option("--int8", help="Weights of 8 bits: smaller, and not quite the same.")] = False,
    rank: Annotated[
        int | None, typer.Option(help=f"Of a run: rank of the change of a matrix ({_RANK}).", min=1)
    ] = None,
    base: Annotated[str | None, typer.Option(help="Of a run: the untouched encoder (that of the recipe).")] = None,
    as_json: Json = False,
) -> None:
    """Write an adapted model as an ONNX graph from token ids to probabilities (extra onnx).

    A run is written in a small form: what it changed of its untouched encoder, at a low rank.
    """
    from quickstudy.storage.files import refuse_existing
    from quickstudy.storage.layout import RunFiles

    refuse_existing(out)
    is_run = RunFiles(model).exist
    given = {"int8": int8} if is_run else {"rank": rank is not None, "base": base is not None}
    if wrong := next((name for name, is_given in given.items() if is_given), None):
        kind = "an adapted model" if is_run else "a run"
        raise RunError(f"--{wrong} is for {kind}", where=str(model), fix=f"Leave out --{wrong}.")
    if is_run:
        _export_run(model, out, rank or _RANK, base, as_json=as_json)
        return
    from quickstudy.export.onnx_file import export_onnx
    from quickstudy.export.onnx_model import MODEL
    from quickstudy.models.adapted import AdaptedModel

    export_onnx(AdaptedModel.load(model), out, int8=int8)
    size = (out / MODEL).stat().st_size
    if as_json:
        print_json({"model": str(out), "int8": int8, "bytes": size})
    else:
        print(f"{out}: {size / 2**20:.1f} MiB{', int8' if int8 else ''}; label texts with: quickstudy predict {out}")


def _export_run(run: Path, out: Path, rank: int, base: str | None, *, as_json: bool) -> None:
    from quickstudy.runs import Run

    files = Run.open(run).compact(out, rank, base).files
    size = files.delta.stat().st_size
    if as_json:
        print_json({"run": str(out), "rank": rank, "bytes": size})
    else:
        print(f"{out}: the encoder in {size / 2**20:.1f} MiB; use it like any run: quickstudy adapt {out} --data FILE")
