"""Plots: loss and meta-validation over the outer steps, scores over shots; as SVG files.

matplotlib draws. Nothing of its global state is used, so plots can be made from any thread. A learner is told by colour, marker
and line together (`style`), since six colours that everyone can tell apart do not reach for all methods of a comparison.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle

from quickstudy.storage import new_file

# Okabe and Ito's palette: told apart by colour-blind readers, readable on white and on dark cards alike.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")

_MARKERS = ("o", "s", "^", "D", "v")
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1, 1.2), (6, 2, 1, 2), (3, 1, 1, 1, 1, 1))


def style(index: int) -> dict[str, Any]:
    """Return colour, marker and line of the learner at a position; the first 30 differ.

    >>> style(0)["marker"], style(0)["color"] == style(6)["color"], style(6)["marker"]
    ('o', True, 's')
    """
    turn = index // len(COLORS) % len(_MARKERS)
    return {"color": COLORS[index % len(COLORS)], "marker": _MARKERS[turn], "linestyle": (0, _DASHES[turn])}


def symbol(index: int) -> Markup:
    """Return the small drawing of a learner's line and marker that stands in a legend."""
    own = style(index)
    marker = MarkerStyle(own["marker"])
    (outline,) = marker.get_path().transformed(marker.get_transform()).to_polygons()
    points = " ".join(f"{16 + 8 * x:.1f},{7 - 8 * y:.1f}" for x, y in np.asarray(outline, dtype=float))
    dashes = " ".join(f"{2 * length:g}" for length in own["linestyle"][1])
    return Markup(
        '<svg class="symbol" viewBox="0 0 32 14" aria-hidden="true">'
        '<path d="M0 7H32" fill="none" stroke="{0}" stroke-width="2" stroke-dasharray="{1}"/>'
        '<polygon points="{2}" fill="{0}"/></svg>'
    ).format(own["color"], dashes, points)


def plot_training(
    metrics: Sequence[dict[str, Any]], target: Path, *, keep: str | None = "best", stacked: bool = False
) -> None:
    """Draw the meta-loss (dots, and a running mean) and the meta-validation score of a run.

    Args:
        metrics: A line per step: `step`, `loss`, `validation`; what was not measured is None.
        target: The SVG file.
        keep: Which state was kept, `best` or the last; a star marks it. None: not known.
        stacked: One above the other, for a narrow place, and not side by side.
    """
    steps = [m for m in metrics if m["loss"] is not None]
    checks = [m for m in metrics if m["validation"] is not None]
    figure = Figure(figsize=(3.6, 4.2) if stacked else (9, 3.2), layout="constrained")
    left, right = figure.subplots(2, 1) if stacked else figure.subplots(1, 2)
    x, y = [m["step"] for m in steps], [m["loss"] for m in steps]
    left.plot(x, y, ".", color=COLORS[0], alpha=0.25, markersize=3)
    left.plot(x, _running_mean(y), color=COLORS[0], label="running mean")
    finish(left, "outer step", "meta-loss (query)", legend=True)
    if checks:
        right.plot([m["step"] for m in checks], [100 * m["validation"] for m in checks], "o-", color=COLORS[2])
    else:
        right.text(0.5, 0.5, "no meta-validation tasks", ha="center", transform=right.transAxes)
    if checks and keep is not None:
        kept = max(checks, key=lambda m: float(m["validation"])) if keep == "best" else checks[-1]
        right.plot(kept["step"], 100 * kept["validation"], "*", color=COLORS[4], markersize=13, label="kept")
    finish(right, "outer step", "meta-validation score (%)", legend=True)
    save(figure, target)


def plot_shots(summary: Sequence[dict[str, Any]], target: Path) -> None:
    """Draw the score over shots of each learner with 95 % bands, one panel per task, the average first."""
    tasks = sorted({row["task"] for row in summary}, key=lambda task: (task != "average", task))
    learners = list(dict.fromkeys(row["learner"] for row in summary))
    shots = sorted({row["shots"] for row in summary})
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.6 * rows + 0.3), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, task in zip(panels, tasks, strict=False):
        draw_lines(panel, [row for row in summary if row["task"] == task], learners, shots)
        panel.set_title(task, fontsize=9, fontweight="bold" if task == "average" else "normal", parse_math=False)
    for panel in panels[len(tasks) :]:
        panel.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(learners), frameon=False, fontsize=9)
    save(figure, target)


def draw_lines(
    panel: Axes, summary: Sequence[dict[str, Any]], learners: Sequence[str], shots: Sequence[int | str]
) -> None:
    """Draw the score over shots of one task with 95 % bands; the numbers of shots stand evenly, as they mostly double.

    Args:
        panel: Where.
        summary: Of that task: `learner`, `shots`, `mean`, and `low` and `high` or None.
        learners: In the order of their styles.
        shots: All that there are, few first.
    """
    for index, learner in enumerate(learners):
        own = [row for row in summary if row["learner"] == learner]
        x, y = [shots.index(row["shots"]) for row in own], [100 * row["mean"] for row in own]
        panel.plot(x, y, label=learner, markersize=4, linewidth=1.3, **style(index))
        if all(row["low"] is not None for row in own):
            low, high = [100 * row["low"] for row in own], [100 * row["high"] for row in own]
            # Many bands over one another would hide the lines.
            alpha = min(0.18, 0.6 / len(learners))
            panel.fill_between(x, low, high, color=style(index)["color"], alpha=alpha, linewidth=0)
    panel.set_xticks(range(len(shots)), [str(k) for k in shots])
    finish(panel, "shots per class", "score (%)")


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


def _running_mean(values: Sequence[float], weight: float = 0.95) -> list[float]:
    """Exponential mean with the start's bias taken out."""
    found, total, norm = [], 0.0, 0.0
    for value in values:
        total, norm = weight * total + (1 - weight) * value, weight * norm + (1 - weight)
        found.append(total / norm)
    return found
