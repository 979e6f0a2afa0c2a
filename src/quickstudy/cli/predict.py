"""The verb `predict`: label texts with an adapted model."""

from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import typer

from quickstudy.cli.options import Json, PairColumn, TextColumn, print_json
from quickstudy.errors import DataError, RecipeError


def predict(
    model: Annotated[Path, typer.Argument(help="Model folder, or one that export wrote.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to label.")] = None,
    pair: Annotated[list[str] | None, typer.Option(help="Second text of each text, for pair models.")] = None,
    data: Annotated[Path | None, typer.Option(help="File with the texts; labels are not needed.")] = None,
    text_column: TextColumn = "text",
    pair_column: PairColumn = "auto",
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
        print_json(rows)
    else:
        print_predictions(rows)
