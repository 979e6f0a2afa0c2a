"""The verb `export`: write an adapted model as an ONNX graph, or as a standard classifier of transformers."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from quickstudy.cli.options import Json, print_json
from quickstudy.errors import RecipeError


def export(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    out: Annotated[Path, typer.Option(help="New folder.")],
    to: Annotated[
        Literal["onnx", "transformers"],
        typer.Option(help="onnx (extra onnx), or a folder for transformers' text-classification pipeline."),
    ] = "onnx",
    int8: Annotated[bool, typer.Option("--int8", help="Weights of 8 bits: smaller, and not quite the same.")] = False,
    as_json: Json = False,
) -> None:
    """Write an adapted model as an ONNX graph from token ids to probabilities, or for transformers."""
    from quickstudy.storage.files import refuse_existing

    refuse_existing(out)
    if to == "transformers":
        if int8:
            raise RecipeError("--int8 is for ONNX", fix="Leave out --int8, or --to transformers.")
        _export_transformers(model, out, as_json=as_json)
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


def _export_transformers(model: Path, out: Path, *, as_json: bool) -> None:
    from quickstudy.export.transformers_folder import export_transformers
    from quickstudy.models.adapted import AdaptedModel

    parity = export_transformers(AdaptedModel.load(model), out)
    if as_json:
        print_json({"model": str(out), "largest_difference": parity.difference})
    else:
        print(f"{out}: a sequence classifier of transformers; its logits differ by {parity.difference:.1g} at most")
