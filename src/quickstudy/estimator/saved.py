"""Saved: what `classifier.json` says beside a model: the labels with their types, and the settings of the classifier.

    {"classes": {"dtype": "<i8", "labels": [0, 1]}, "steps": 0, "label_descriptions": [[1, "a fee"]],
     "class_weight": "balanced"}

Descriptions and weights name a label by its position.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy.errors import RunError
from quickstudy.estimator.labels import Classes, plain_label
from quickstudy.models.adapted import AdaptedModel
from quickstudy.storage.reading import read_json

FILE = "classifier.json"

ByLabel = Mapping[Any, Any] | str | None


def to_settings(classes: Classes, label_descriptions: ByLabel, class_weight: ByLabel, steps: int) -> dict[str, object]:
    """Return the content of the file.

    Raises:
        RunError: A label is of a type that JSON does not have.
    """
    given = {"label_descriptions": label_descriptions, "class_weight": class_weight}
    by_label = {key: _by_position(classes, value) for key, value in given.items()}
    return {"classes": classes.to_json(), "steps": int(steps)} | by_label


def read_settings(folder: Path, model: AdaptedModel) -> tuple[Classes, dict[str, Any]]:
    """Return the labels of a model and the settings of the classifier.

    A folder without the file is a model that `quickstudy adapt` wrote: its labels are texts.

    Raises:
        RunError: The file is damaged.
    """
    file = folder / FILE
    if not file.is_file():
        return Classes(np.array(model.label_names)), {}
    try:
        values = read_json(file)
        classes = Classes.from_json(values.pop("classes"))
        if classes.names != model.label_names:
            raise ValueError("its labels are not those of the model")
        by_label = {key: _by_label(classes, values[key]) for key in ("label_descriptions", "class_weight")}
        return classes, by_label | {"steps": int(values.get("steps", 0))}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        fix = "Copy the folder again, or fit again."
        raise RunError(f"the labels cannot be read ({error})", where=str(file), fix=fix) from error


def _by_position(classes: Classes, values: ByLabel) -> object:
    if not isinstance(values, Mapping):
        return values
    by_name = classes.by_name(values)
    named = [(position, by_name[name]) for position, name in enumerate(classes.names) if name in by_name]
    return [[position, plain_label(value)] for position, value in named]  # JSON has no numbers of NumPy


def _by_label(classes: Classes, values: Any) -> ByLabel:
    if not isinstance(values, list):
        return values  # type: ignore[no-any-return]
    return {classes.values[position]: value for position, value in values}
