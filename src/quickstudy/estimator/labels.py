"""Labels: of any hashable kind, to positions and back, and to JSON with their types.

    [3, 1, 3]           classes [1, 3]  (an array of int64, as NumPy makes it)      positions [1, 0, 1]
    ["b", ("c", 1)]     classes ["b", ("c", 1)]  (an array of objects)              positions [0, 1]

Labels that NumPy has a type for are an array of that type, as in scikit-learn. All others, and mixtures, are an array
of objects, and come back as the objects that were given. Equal labels of different types (1 and True) are refused,
because they would be one class.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from quickstudy.errors import DataError, RunError

_PLAIN: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str}
_MISSING = ("NAType", "NaTType")  # the types that pandas has for missing values


def parse_labels(y: Any) -> NDArray[Any]:
    """Return y as an array of one dimension.

    Raises:
        DataError: A label is missing, cannot be hashed, or is a measured number and no class; or y is no column.
    """
    if y is None:
        raise DataError("fit requires y to be passed, but the target y is None", fix="Give one label per text.")
    if hasattr(y, "to_numpy") or hasattr(y, "__array__"):
        array = _column(np.asarray(y))
    elif isinstance(y, str | Mapping) or not isinstance(y, Iterable):
        raise DataError(f"y is {y!r}, not labels", fix="Give a list, one label per text.")
    else:
        array = _as_array(list(y))
    if array.dtype.kind == "O":
        _check_objects(array)
    return array


def _column(array: NDArray[Any]) -> NDArray[Any]:
    try:
        flat: NDArray[Any] = column_or_1d(array, warn=True)
        if flat.dtype.kind == "f":
            assert_all_finite(flat, input_name="y")
        if flat.dtype.kind in "fc":
            check_classification_targets(flat)
    except ValueError as error:
        raise DataError(str(error), fix="Give one label per text: a column of classes.") from None
    return flat


def _as_array(labels: Sequence[Any]) -> NDArray[Any]:
    kinds = {type(label) for label in labels}
    if len(kinds) == 1 and (kinds <= set(_PLAIN.values()) or issubclass(next(iter(kinds)), np.generic)):
        return _column(np.array(labels))
    return _objects(labels)


def _objects(labels: Sequence[Any]) -> NDArray[Any]:
    array = np.empty(len(labels), dtype=object)
    for i, label in enumerate(labels):  # one by one: NumPy would make a matrix of tuples
        array[i] = label
    return array


def _check_objects(array: NDArray[Any]) -> None:
    first: dict[Any, Any] = {}
    for i, label in enumerate(array):
        if label is None or type(label).__name__ in _MISSING or (isinstance(label, float) and math.isnan(label)):
            raise DataError(
                "Input y contains NaN: the label is missing",
                where=f"y[{i}]",
                fix="Label the row, or drop it from X and y.",
            )
        try:
            known = first.setdefault(label, label)
        except TypeError:
            fix = "Give one label per text, e.g. a text, a number or a tuple."
            raise DataError(f"{label!r} cannot be a label: it cannot be hashed", where=f"y[{i}]", fix=fix) from None
        if _kind(known) != _kind(label):
            what = f"the labels {known!r} and {label!r} are equal, but of different types"
            raise DataError(what, where=f"y[{i}]", fix="Write them in one type, or as texts if they differ.")


@dataclass(frozen=True)
class Classes:
    """The labels of a classifier.

    Attributes:
        values: (N,) the labels, sorted where they can be.
    """

    values: NDArray[Any]

    @classmethod
    def of(cls, y: NDArray[Any], described: Iterable[Any] = ()) -> "Classes":
        """Return the different labels of y, and those that are described and have no example.

        Raises:
            DataError: A described label is of a type that no label of y has.
        """
        present = set(map(plain_label, y))
        extra = [label for label in described if plain_label(label) not in present]
        kinds = {_kind(label) for label in y}
        for label in extra:
            if kinds and _kind(label) not in kinds:
                known = ", ".join(sorted(kinds))
                what = f"label_descriptions describes {label!r} ({_kind(label)}), and the labels are of type {known}"
                raise DataError(what, fix="Write the labels in the type that y has.")
        if y.dtype.kind != "O":
            return cls(np.unique(np.concatenate([y, np.array(extra)]) if extra else y))
        different = list(dict.fromkeys([*y, *extra]))
        try:
            different.sort()
        except TypeError:  # labels of different kinds
            different.sort(key=lambda label: (_kind(label), repr(label)))
        return cls(_objects(different))

    @property
    def names(self) -> tuple[str, ...]:
        """The labels as texts, which differ."""
        plain = [str(label) for label in self.values]
        return tuple(plain) if len(set(plain)) == len(plain) else tuple(map(repr, self.values.tolist()))

    @property
    def say_something(self) -> bool:
        """Whether some labels are words, which a learner may read."""
        return any(isinstance(label, str) for label in self.values)

    def positions(self, y: NDArray[Any]) -> NDArray[np.int64]:
        """Return the position of each label of y."""
        places = {plain_label(label): position for position, label in enumerate(self.values)}
        return np.array([places[plain_label(label)] for label in y], dtype=np.int64)

    def by_name(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        """Return a mapping of labels as one of their names; labels that are no class are left out."""
        names = {plain_label(label): name for label, name in zip(self.values, self.names, strict=True)}
        return {names[plain_label(label)]: value for label, value in values.items() if plain_label(label) in names}

    def weights_by_name(self, weights: Mapping[Any, float]) -> dict[str, float]:
        """Return weights of labels by their names.

        Raises:
            DataError: A label is no class although some class has no weight: it is misspelt, or of another type.
        """
        named = self.by_name(weights)
        if len(named) < min(len(weights), len(self.values)):
            classes = set(map(plain_label, self.values))
            wrong = next(label for label in weights if plain_label(label) not in classes)
            known = ", ".join(map(repr, self.values.tolist()))
            raise DataError(f"class_weight names {wrong!r}, which is no class", fix=f"The classes are: {known}.")
        return named

    def to_json(self) -> dict[str, object]:
        """Return the labels as plain values, with their types.

        Raises:
            RunError: A label is of a type that JSON does not have.
        """
        if self.values.dtype.kind != "O":
            if self.values.dtype.kind not in "biufU":
                raise _cannot_write(self.values[0])
            return {"dtype": self.values.dtype.str, "labels": self.values.tolist()}
        return {"dtype": "object", "labels": [_write(label) for label in self.values]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Classes":
        """Return labels that `to_json` wrote."""
        if values["dtype"] != "object":
            return cls(np.array(values["labels"], dtype=values["dtype"]))
        return cls(_objects([_read(label) for label in values["labels"]]))


def plain_label(label: Any) -> Any:
    """Return a scalar of NumPy as Python's own, which is equal and has the same hash."""
    return label.item() if isinstance(label, np.generic) else label


def _kind(label: Any) -> str:
    return type(plain_label(label)).__name__


def _write(label: Any) -> dict[str, object]:
    if isinstance(label, np.generic) and label.dtype.kind in "biufU":
        return {"type": "numpy", "dtype": label.dtype.str, "value": label.item()}
    if type(label) is tuple:
        return {"type": "tuple", "value": [_write(item) for item in label]}
    if type(label) not in _PLAIN.values():
        raise _cannot_write(label)
    return {"type": type(label).__name__, "value": label}


def _read(value: Mapping[str, Any]) -> Any:
    if value["type"] == "numpy":
        return np.dtype(value["dtype"]).type(value["value"])
    if value["type"] == "tuple":
        return tuple(_read(item) for item in value["value"])
    return _PLAIN[value["type"]](value["value"])


def _cannot_write(label: Any) -> RunError:
    return RunError(
        f"the label {label!r} cannot be saved: JSON has no {type(label).__name__}",
        fix="Use texts, whole numbers, truth values or tuples of them as labels.",
    )
