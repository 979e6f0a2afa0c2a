"""Plots: loss and meta-validation over the outer steps, scores over shots; as SVG files.

Every panel is a drawing of its own, so that a page can put them side by side on a screen and one below the other on a
phone, where their letters are still read. Names that come from data are drawn as they are, never as formulas.

matplotlib draws. Nothing of its global state is used, so plots can be made from any thread. A learner is told by
colour, marker and line together (`style`), since six colours that everyone can tell apart do not reach for all
methods of a comparison.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle

from quickstudy.evaluation.record import Shots
from quickstudy.evaluation.results import Curve
from quickstudy.report.view import Score
from quickstudy.storage.files import new_file
from quickstudy.visible import visible

# Okabe and Ito's palette: told apart by colour-blind readers, readable on white and on dark cards alike.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")

SMALL, WIDE = (3.4, 2.4), (4.0, 3.0)  # inches

_NOT_DRAWN = dict.fromkeys(range(0x2400, 0x2422), 0xFFFD)  # signs of control characters, which the font lacks
_LONGEST = 26  # characters of a name beside a drawing
_MOST_BANDS = 10  # learners; more bands over one another are a grey fog
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (5, 2),
    (1, 1.2),
    (6, 2, 1, 2),
    (3, 1, 1, 1, 1, 1),
    (8, 3),
    (2, 1),
)


class Style(TypedDict):
    """Colour, marker and line, as matplotlib takes them."""

    color: str
    marker: str
    linestyle: tuple[int, tuple[float, ...]]


def style(index: int) -> Style:
    """Return colour, marker and line of the learner at a position; the first 42 differ.

    >>> style(0)["marker"], style(0)["color"] == style(6)["color"], style(6)["marker"]
    ('o', True, 's')
    """
    turn = index // len(COLORS) % len(_MARKERS)
    return {"color": COLORS[index % len(COLORS)], "marker": _MARKERS[turn], "linestyle": (0, _DASHES[turn])}


def symbol(index: int) -> Markup:
    """Return the small drawing of a learner's line and marker that stands in a legend."""
    look = style(index)
    marker = MarkerStyle(look["marker"])
    (outline,) = marker.get_path().transformed(marker.get_transform()).to_polygons()
    points = " ".join(f"{16 + 8 * x:.1f},{7 - 8 * y:.1f}" for x, y in np.asarray(outline, dtype=float))
    dashes = " ".join(f"{2 * length:g}" for length in look["linestyle"][1])
    return Markup(
        '<svg class="symbol" viewBox="0 0 32 14" aria-hidden="true">'
        '<path d="M0 7H32" fill="none" stroke="{0}" stroke-width="2" stroke-dasharray="{1}"/>'
        '<polygon points="{2}" fill="{0}"/></svg>'
    ).format(look["color"], dashes, points)


def plot_training(curve: Curve, target: Path, *, keep: str | None = None) -> None:
    """Draw the meta-loss (dots, and a running mean) and, below it, the meta-validation score of a run if it has one.

    Args:
        curve: The meta-training.
        target: The SVG file.
        keep: Which state was kept, `best` or the last; a star marks it. None: not known.
    """
    checks = [(step, 100 * score) for step, score in curve.validation if score is not None]
    panels = 2 if checks else 1
    figure = Figure(figsize=(3.6, 2.1 * panels), layout="constrained")
    axes = figure.subplots(panels, 1, squeeze=False)[:, 0]
    steps = [(step, loss) for step, loss in zip(curve.step, curve.loss, strict=True) if loss is not None]
    x, y = [step for step, _ in steps], [loss for _, loss in steps]
    axes[0].plot(x, y, ".", color=COLORS[0], alpha=0.25, markersize=3)
    axes[0].plot(x, _running_mean(y), color=COLORS[0], label="running mean")
    finish(axes[0], "outer step", "meta-loss (query)", legend=True)
    if checks:
        axes[1].plot([step for step, _ in checks], [score for _, score in checks], "o-", color=COLORS[2])
        if keep is not None:
            kept = max(checks, key=lambda check: check[1]) if keep == "best" else checks[-1]
            axes[1].plot(*kept, "*", color=COLORS[4], markersize=13, label="kept")
        finish(axes[1], "outer step", "meta-validation score (%)", legend=True)
    save(figure, target)


def plot_scores(
    scores: Sequence[Score], learners: Sequence[str], shots: Sequence[Shots], target: Path, *, wide: bool = False
) -> None:
    """Draw the scores of one task over shots; with one number of shots, a line per learner.

    95 % intervals are bands, which are left out if there are too many learners, and bars at one number of shots.

    Args:
        scores: Of that task, or means over tasks.
        learners: In the order of their styles.
        shots: All that there are, few first.
        target: The SVG file.
        wide: Larger.
    """
    width, height = WIDE if wide else SMALL
    if len(shots) > 1:
        figure = Figure(figsize=(width, height), layout="constrained")
        _draw_lines(figure.subplots(), scores, learners, shots)
    else:
        figure = Figure(figsize=(width, 0.8 + 0.2 * len(learners)), layout="constrained")
        _draw_points(figure.subplots(), scores, learners)
    save(figure, target)


def short(name: str) -> str:
    """Return a name that has room beside a drawing, without control characters, which no SVG file may hold."""
    name = visible(name).translate(_NOT_DRAWN)
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def finish(panel: Axes, x: str, y: str, *, legend: bool = False) -> None:
    """Give a panel its axis names and the look that all have."""
    panel.set_xlabel(x, fontsize=8)
    panel.set_ylabel(y, fontsize=8)
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25, linewidth=0.6)
    if legend and panel.get_legend_handles_labels()[0]:
        panel.legend(frameon=False, fontsize=8)


def save(figure: Figure, target: Path) -> None:
    """Write a figure as SVG that says nothing of when and with what it was made."""
    target.parent.mkdir(exist_ok=True)
    with new_file(target) as file:
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))


def _draw_lines(panel: Axes, scores: Sequence[Score], learners: Sequence[str], shots: Sequence[Shots]) -> None:
    """Draw scores over shots; the numbers of shots stand evenly, as they mostly double."""
    for index, learner in enumerate(learners):
        of_learner = [score for score in scores if score.learner == learner]
        x, y = [shots.index(score.shots) for score in of_learner], [100 * score.mean for score in of_learner]
        panel.plot(x, y, label=learner, markersize=4, linewidth=1.3, **style(index))
        low = [100 * score.low for score in of_learner if score.low is not None]
        high = [100 * score.high for score in of_learner if score.high is not None]
        if len(learners) <= _MOST_BANDS and len(low) == len(high) == len(x):
            # Many bands over one another would hide the lines.
            alpha = min(0.18, 0.6 / len(learners))
            panel.fill_between(x, low, high, color=style(index)["color"], alpha=alpha, linewidth=0)
    panel.set_xticks(range(len(shots)), [str(k) for k in shots])
    panel.set_ylim(_possible(panel.get_ylim(), scores))
    finish(panel, "shots per class", "score (%)")


def _draw_points(panel: Axes, scores: Sequence[Score], learners: Sequence[str]) -> None:
    """Draw the scores at one number of shots, a line per learner."""
    by_learner = {score.learner: score for score in scores}
    for place, learner in enumerate(learners):
        if score := by_learner.get(learner):
            ends = None
            if score.low is not None and score.high is not None:
                ends = [[100 * (score.mean - score.low)], [100 * (score.high - score.mean)]]
            panel.errorbar(100 * score.mean, place, xerr=ends, markersize=5, **style(place))
    panel.set_yticks(range(len(learners)), [short(name) for name in learners], parse_math=False)
    panel.set_ylim(len(learners) - 0.5, -0.5)
    panel.set_xlim(_possible(panel.get_xlim(), scores))
    finish(panel, "score (%)", "")


def _possible(limits: tuple[float, float], scores: Sequence[Score]) -> tuple[float, float]:
    """Return the ends of an axis, cut to possible scores. Intervals of few draws reach far beyond 0 and 100."""
    least = min((100 * score.mean for score in scores), default=0.0)
    return max(limits[0], min(0.0, least) - 3), min(limits[1], 103.0)


def _running_mean(values: Sequence[float], weight: float = 0.95) -> list[float]:
    """Exponential mean with the start's bias taken out."""
    means, total, norm = [], 0.0, 0.0
    for value in values:
        total, norm = weight * total + (1 - weight) * value, weight * norm + (1 - weight)
        means.append(total / norm)
    return means
