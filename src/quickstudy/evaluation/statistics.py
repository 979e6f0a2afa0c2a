"""Statistics: mean, standard deviation and a 95 % interval over draws.

    mean ± t_{0.975, D-1} · sd / sqrt(D)

Student's interval for the mean over D independent draws of the support set. It speaks of these tasks and other draws, not of
other tasks. One draw has no interval.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import t


def summarize(values: Sequence[float]) -> dict[str, float]:
    """Return mean, sd, low, high and n of some draws.

    >>> {key: round(value, 3) for key, value in summarize([0.5, 0.6, 0.7]).items()}
    {'mean': 0.6, 'sd': 0.1, 'low': 0.352, 'high': 0.848, 'n': 3}
    """
    array = np.asarray(values, dtype=np.float64)
    n, mean = len(array), float(array.mean())
    if n < 2:
        return {"mean": mean, "sd": float("nan"), "low": float("nan"), "high": float("nan"), "n": n}
    sd = float(array.std(ddof=1))
    half = float(t.ppf(0.975, n - 1)) * sd / n**0.5
    return {"mean": mean, "sd": sd, "low": mean - half, "high": mean + half, "n": n}
