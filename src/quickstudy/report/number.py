"""Number: figures as text, for pages and tables; what was not measured is a dash.

>>> points(0.0312), p_value(0.0004), seconds(0.00004), interval({"mean": 0.5, "low": 0.41, "high": 0.6})
('+3.1', '< 0.001', '< 0.001', '50.0 (41.0 to 60.0)')
>>> points(None), count(None), count(22713216)
('–', '–', '22,713,216')
"""

from collections.abc import Mapping
from typing import Any

NONE = "–"


def points(value: float | None) -> str:
    """Return a difference of fractions in percentage points, with its sign."""
    return NONE if value is None else f"{100 * value:+.1f}".replace("-", "−")


def share(value: float | None) -> str:
    """Return a fraction in percent."""
    return NONE if value is None else f"{100 * value:.1f}"


def interval(row: Mapping[str, Any]) -> str:
    """Return `mean (low to high)` in percent; the mean alone where there is no interval."""
    if row["low"] is None:
        return share(row["mean"])
    return f"{share(row['mean'])} ({share(row['low'])} to {share(row['high'])})"


def digits(value: float | None) -> str:
    """Return a figure that is no share to three digits after the point."""
    return NONE if value is None else f"{value:.3f}"


def p_value(value: float | None) -> str:
    """Return a p value to three digits."""
    return "< 0.001" if value is not None and value < 0.001 else digits(value)


def seconds(value: float | None) -> str:
    """Return seconds to about three digits."""
    if value is None:
        return NONE
    if value < 0.001:
        return "< 0.001"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def count(value: float | None) -> str:
    """Return a whole number with its thousands set apart."""
    return NONE if value is None else f"{value:,.0f}"


def shots_text(shots: str) -> str:
    """Return a number of shots in words.

    >>> shots_text("16"), shots_text("1"), shots_text("all")
    ('16 shots', '1 shot', 'full training data')
    """
    if shots == "all":
        return "full training data"
    return f"{shots} shot" if shots == "1" else f"{shots} shots"
