"""Plots of a comparison: average ranks, cost against quality, reliability; small ones, a panel each."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from quickstudy.report.comparison.figures import Bin, CostPoint
from quickstudy.report.comparison.pairs import groups
from quickstudy.report.plots import SMALL, WIDE, finish, save, short, style


def plot_ranks(ranks: Mapping[str, float], difference: float, learners: Sequence[str], target: Path) -> None:
    """Draw the average ranks, best on top. Upright bars join learners whose ranks are not told apart.

    Args:
        ranks: Average rank of each learner, 1 is best.
        difference: The critical difference.
        learners: In the order of their styles.
        target: The SVG file.
    """
    names = sorted(ranks, key=lambda name: ranks[name])
    bars = groups(ranks, difference)
    figure = Figure(figsize=(WIDE[0], 1.2 + 0.22 * len(names)), layout="constrained")
    panel = figure.subplots()
    for place, name in enumerate(names):
        panel.plot(ranks[name], place, markersize=6, **style(learners.index(name)))
    # Bars stand in a column of their own, right of all ranks.
    right = max(len(names), max(ranks.values())) + 0.3
    step = 0.035 * len(names)
    for index, (first, last) in enumerate(bars):
        x = right + step * (index + 1)
        panel.plot([x, x], [first - 0.25, last + 0.25], color="black", linewidth=3, solid_capstyle="butt")
    panel.errorbar(1 + difference / 2, -1.2, xerr=difference / 2, color="black", capsize=3, linewidth=1)
    panel.set_title(f"critical difference {difference:.2f}", fontsize=8, loc="left")
    panel.set_yticks(range(len(names)), [short(name) for name in names], parse_math=False)
    panel.set_ylim(len(names) - 0.5, -1.9)
    panel.set_xlim(0.7, max(right + step * (len(bars) + 1), 1 + difference + 0.1))
    panel.set_xticks(range(1, len(names) + 1, 1 + len(names) // 12))
    finish(panel, "average rank (1 is best)", "")
    save(figure, target)


def plot_costs(points: Sequence[CostPoint], target: Path) -> None:
    """Draw the mean score against the seconds to adapt.

    A name stands beside a learner if no other is both faster and better, and if there is room.

    Args:
        points: A point per learner.
        target: The SVG file.
    """
    figure = Figure(figsize=WIDE, layout="constrained")
    panel = figure.subplots()
    for point in points:
        panel.plot(point.seconds, 100 * point.mean, markersize=7, **style(point.index))
    unbeaten = [point for point in points if not any(_beats(other, point) for other in points)]
    means = [point.mean for point in points]
    line = 0.05 * (max(means) - min(means))  # the height of a name
    last = math.inf
    for point in sorted(unbeaten, key=lambda point: -point.mean):
        if last - point.mean < line:
            continue
        last = point.mean
        # Above and to the left of an unbeaten one there is no other.
        panel.annotate(
            short(point.learner),
            (point.seconds, 100 * point.mean),
            xytext=(-5, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            parse_math=False,
        )
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter("")
    panel.margins(x=0.1, y=0.12)
    # Room for the longest of these names, at the fraction of the width that a letter takes.
    low, high = panel.get_xlim()
    room = 0.018 * max(len(short(point.learner)) for point in unbeaten)
    panel.set_xlim(low * (low / high) ** (room / (1 - room)), high)
    finish(panel, "seconds to adapt (logarithmic)", "mean score (%)")
    save(figure, target)


def plot_reliability(bins: Sequence[Bin], index: int, target: Path) -> None:
    """Draw accuracy over confidence. On the diagonal, probabilities are what they say.

    Bars say how many predictions are so sure.

    Args:
        bins: Predictions by how sure the learner was.
        index: Of the learner's style.
        target: The SVG file.
    """
    figure = Figure(figsize=SMALL, layout="constrained")
    panel = figure.subplots()
    x = [100 * each.confidence for each in bins]
    panel.bar(x, [100 * each.fraction for each in bins], width=5, color="#888888", alpha=0.35)
    panel.plot([0, 100], [0, 100], color="black", linewidth=0.8, linestyle=(0, (3, 3)))
    look = style(index)
    y = [100 * each.accuracy for each in bins]
    panel.plot(x, y, markersize=4, linewidth=1.3, linestyle="-", color=look["color"], marker=look["marker"])
    panel.set_xlim(0, 101)
    panel.set_ylim(0, 101)
    finish(panel, "confidence (%)", "accuracy (%)")
    save(figure, target)


def _beats(other: CostPoint, point: CostPoint) -> bool:
    """Whether another learner is at least as fast and as good, and one of both more so."""
    as_good = other.seconds <= point.seconds and other.mean >= point.mean
    return as_good and (other.seconds, other.mean) != (point.seconds, point.mean)
