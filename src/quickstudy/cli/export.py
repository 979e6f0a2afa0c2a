"""The verb `export`: write an adapted model as an ONNX graph."""

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.options import Json, print_json


def export(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    out: Annotated[Path, typer.Option(help="New folder.")],
    int8: Annotated[bool, typer.Option("--int8", help="Weights of 8 bits: smaller, and not quite the same.")] = False,
    as_json: Json = False,
) -> None:
    """Write an adapted model as an ONNX graph from token ids to probabilities (extra onnx)."""
    from quickstudy.storage.files import refuse_existing

    refuse_existing(out)
    from quickstudy.export.onnx_file import export_onnx
    from quickstudy.export.onnx_model import MODEL
    from quickstudy.models.adapted import AdaptedModel

    export_onnx(AdaptedModel.load(model), out, int8=int8)
    size = (out / MODEL).stat().st_size
    if as_json:
        print_json({"model": str(out), "int8": int8, "bytes": size})
    else:
        print(f"{out}: {size / 2**20:.1f} MiB{', int8' if int8 else ''}; label texts with: quickstudy predict {out}")
