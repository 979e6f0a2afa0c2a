"""The verb `predict`: label texts with an adapted model."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.cli.options import Json, PairColumn, TextColumn, print_json
from quickstudy.cli.prediction import Prediction
from quickstudy.errors import DataError, RecipeError

if TYPE_CHECKING:
    from quickstudy.export.onnx_model import OnnxModel
    from quickstudy.models.adapted import AdaptedModel
    from quickstudy.tasks.split import Example


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
    from quickstudy.tasks.split import Example

    examples = (
        read_texts(data, text_column, pair_column)
        if data
        else [Example(text, second) for text, second in zip_longest(texts or (), pair or ())]
    )
    predictions = _predict(_load(model, precision), examples)
    if as_json:
        print_json([prediction.to_json() for prediction in predictions])
    else:
        print_predictions(predictions)


def _load(folder: Path, precision: str) -> "AdaptedModel | OnnxModel":
    from quickstudy.export.onnx_model import OnnxModel, is_exported
    from quickstudy.models.adapted import AdaptedModel

    if not is_exported(folder):
        return AdaptedModel.load(folder, precision=precision)
    if precision != "fp32":
        fix = "Leave out --precision, or predict with the model that it was exported from."
        raise RecipeError("an exported model has the precision it was exported in", where=str(folder), fix=fix)
    return OnnxModel.load(folder)


def _predict(model: "AdaptedModel | OnnxModel", examples: "Sequence[Example]") -> list[Prediction]:
    if model.kind == "regression":
        values: list[str] | list[float] = model.predict(examples)
        return [Prediction(example.text, values[i]) for i, example in enumerate(examples)]
    predictions = []
    for example, chances in zip(examples, model.predict_proba(examples), strict=True):
        label = model.label_names[int(chances.argmax())]
        rounded = [round(chance, 6) for chance in chances.tolist()]
        predictions.append(Prediction(example.text, label, dict(zip(model.label_names, rounded, strict=True))))
    return predictions
