"""Number: figures as text, for pages and tables; what was not measured is a dash.

>>> points(0.0312), p_value(0.0004), seconds(0.00004), percent(0.756)
('+3.1', '< 0.001', '< 0.001', '75.6')
>>> points(None), count(None), count(22713216)
('–', '–', '22,713,216')
"""

from typing import Protocol

from quickstudy.evaluation.record import Shots

NONE = "–"


class Estimate(Protocol):
    """A mean with the ends of its interval, as several records have them."""

    @property
    def mean(self) -> float: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


def points(value: float | None) -> str:
    """Return a difference of fractions in percentage points, with its sign."""
    return NONE if value is None else f"{100 * value:+.1f}".replace("-", "−")


def percent(value: float | None) -> str:
    """Return a fraction in percent."""
    return NONE if value is None else f"{100 * value:.1f}"


def has_telling_interval(estimate: Estimate) -> bool:
    """Return whether there is an interval, and it is narrower than the 100 points from all wrong to all right.

    Two draws or two tasks that differ give one that reaches far beyond: it says that they are too few, and no more.
    """
    return estimate.low is not None and estimate.high is not None and estimate.high - estimate.low < 1


def interval(estimate: Estimate) -> str:
    """Return `mean (low to high)` in percent; the mean alone where there is no interval.

    >>> from quickstudy.evaluation.record import DrawsMean
    >>> interval(DrawsMean(0.5, 0.1, 0.41, 0.6, 3)), interval(DrawsMean(0.5, None, None, None, 1))
    ('50.0 (41.0 to 60.0)', '50.0')
    >>> interval(DrawsMean(0.5, 0.2, -1.1, 2.1, 2))
    '50.0 (too few for an interval)'
    """
    if not has_telling_interval(estimate):
        return f"{percent(estimate.mean)}{_too_few(estimate)}"
    return f"{percent(estimate.mean)} ({percent(estimate.low)} to {percent(estimate.high)})"


def plus_minus(estimate: Estimate) -> str:
    """Return `mean ± half of the interval` in percent; the mean alone where there is no interval.

    >>> from quickstudy.evaluation.record import DrawsMean
    >>> plus_minus(DrawsMean(0.5, 0.1, 0.45, 0.55, 3)), plus_minus(DrawsMean(0.5, None, None, None, 1))
    ('50.0 ± 5.0', '50.0')
    >>> plus_minus(DrawsMean(0.5, 0.2, -1.1, 2.1, 2))
    '50.0 (too few for an interval)'
    """
    if estimate.high is None or not has_telling_interval(estimate):
        return f"{percent(estimate.mean)}{_too_few(estimate)}"
    return f"{percent(estimate.mean)} ± {percent(estimate.high - estimate.mean)}"


def _too_few(estimate: Estimate) -> str:
    """Return what stands in place of an interval that is too wide to tell anything."""
    return "" if estimate.low is None else " (too few for an interval)"


def digits(value: float | None) -> str:
    """Return a figure that is no fraction of something to three digits after the point."""
    return NONE if value is None else f"{value:.3f}"


def p_value(value: float | None) -> str:
    """Return a p value to three digits."""
    return "< 0.001" if value is not None and value < 0.001 else digits(value)


def p_text(value: float | None) -> str:
    """Return a p value as it stands after the letter p.

    >>> p_text(0.2), p_text(0.0001), p_text(None)
    ('= 0.200', '< 0.001', 'not known')
    """
    if value is None:
        return "not known"
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"


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


def counted(number: int, noun: str) -> str:
    """Return a number of things in words.

    >>> counted(1, "draw"), counted(2000, "draw")
    ('1 draw', '2,000 draws')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shots_text(shots: Shots) -> str:
    """Return a number of shots in words.

    >>> shots_text(16), shots_text(1), shots_text("all")
    ('16 shots', '1 shot', 'full training data')
    """
    if shots == "all":
        return "full training data"
    return f"{shots} shot" if shots == 1 else f"{shots} shots"
