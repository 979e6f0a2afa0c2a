"""Constant: numbers that are one number, or would be without rounding; they have no correlation with anything.

A weighted mean of equal scores is that score, up to its last digits, and these correlate with the truth by chance.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_DIGITS = 16  # times the distance from 1 to the next number of the type: rounding in a sum of hundreds stays below it


def is_constant(values: NDArray[Any]) -> bool:
    """Return whether all values, (B,), are the same up to rounding in their own precision.

    >>> is_constant(np.float32([3.7, 3.7000003])), is_constant(np.array([3.7, 3.7000003]))
    (True, False)
    """
    eps = np.finfo(values.dtype).eps if np.issubdtype(values.dtype, np.floating) else 0
    return bool(np.ptp(values) <= _DIGITS * eps * np.abs(values).max())
