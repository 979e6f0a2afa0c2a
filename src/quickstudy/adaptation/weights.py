"""Weights: how often each labelled row counts, from `sample_weight` and `class_weight`.

w_i = s_i · c_{y_i}          balanced:  c_n = Σ_i s_i / (N · Σ_{i: y_i = n} s_i)
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quickstudy.errors import DataError, did_you_mean


def row_weights(
    positions: NDArray[np.int64],
    names: tuple[str, ...],
    class_weight: Mapping[str, float] | str | None,
    sample_weight: Any,
) -> list[float] | None:
    """Return the weight of each row; None if each counts once, as with `balanced` and classes of equal size.

    Args:
        positions: (B,) positions of the labels.
        names: The N labels.
        class_weight: `balanced`, or weights by label name (1 for a label that is not named), or None.
        sample_weight: (B,) weights of rows, or None.

    Raises:
        DataError: The weights are of another shape, or no weights.

    >>> row_weights(np.array([0, 0, 0, 1]), ("no", "yes"), "balanced", None)
    [0.6666666666666666, 0.6666666666666666, 0.6666666666666666, 2.0]
    """
    if class_weight is None and sample_weight is None:
        return None
    weights = np.ones(len(positions)) if sample_weight is None else _sample_weights(sample_weight, len(positions))
    if class_weight == "balanced":
        if not weights.any() or not (weights >= 0).all():
            return weights.tolist()  # type: ignore[no-any-return]  # who encodes the rows says what is wrong with them
        totals = np.bincount(positions, weights, minlength=len(names))
        present = totals > 0
        if sample_weight is None and len(set(totals[present])) == 1:
            return None
        factors = weights.sum() / (present.sum() * np.where(present, totals, 1.0))
    elif isinstance(class_weight, Mapping):
        factors = _factors({str(label): weight for label, weight in class_weight.items()}, names)
    elif class_weight is None:
        factors = np.ones(len(names))
    else:
        raise DataError(f"class_weight = {class_weight!r}", fix='Give None, "balanced", or {label: weight}.')
    return (weights * factors[positions]).tolist()  # type: ignore[no-any-return]


def _factors(class_weight: Mapping[str, float], names: tuple[str, ...]) -> NDArray[np.float64]:
    """Return the weight of each label, (N,)."""
    unknown = [label for label in class_weight if label not in names]
    if unknown and not class_weight.keys() >= set(names):  # as scikit-learn: further labels are for other data
        what = f"class_weight names {unknown[0]!r}, which is no label, and not all of the labels"
        raise DataError(what, fix=did_you_mean(unknown[0], names))
    return np.array([class_weight.get(name, 1.0) for name in names], dtype=np.float64)


def _sample_weights(values: Any, count: int) -> NDArray[np.float64]:
    try:
        weights = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError("sample_weight holds no numbers", fix="Give one number per text.") from None
    if weights.ndim == 0:
        weights = np.full(count, float(weights))
    if weights.shape != (count,):
        raise DataError(f"{count} texts but sample_weight of shape {weights.shape}", fix="Give one number per text.")
    return weights
