"""Plots: loss and meta-validation over the outer steps, accuracy over shots; as SVG files.

matplotlib draws. Nothing of its global state is used, so plots can be made from any thread.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by colour-blind readers, readable on white and on dark cards alike.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")


def plot_training(metrics: Sequence[dict[str, Any]], target: Path, *, keep: str = "best") -> None:
    """Draw the meta-loss (dots, and a running mean) and the meta-validation score of a run; a star marks what was kept."""
    steps = [m for m in metrics if m["loss"] is not None]
    checks = [m for m in metrics if m["validation"] is not None]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    x, y = [m["step"] for m in steps], [m["loss"] for m in steps]
    left.plot(x, y, ".", color=COLORS[0], alpha=0.25, markersize=3)
    left.plot(x, _running_mean(y), color=COLORS[0], label="running mean")
    _finish(left, "outer step", "meta-loss (query)")
    if checks:
        kept = max(checks, key=lambda m: float(m["validation"])) if keep == "best" else checks[-1]
        right.plot([m["step"] for m in checks], [100 * m["validation"] for m in checks], "o-", color=COLORS[2])
        right.plot(kept["step"], 100 * kept["validation"], "*", color=COLORS[4], markersize=13, label="kept")
    else:
        right.text(0.5, 0.5, "no meta-validation tasks", ha="center", transform=right.transAxes)
    _finish(right, "outer step", "meta-validation score (%)")
    _save(figure, target)


def plot_shots(summary: Sequence[dict[str, Any]], target: Path) -> None:
    """Draw the score over shots of each learner with 95 % bands, one panel per task, the average first."""
    tasks = sorted({row["task"] for row in summary}, key=lambda task: (task != "average", task))
    learners = list(dict.fromkeys(row["learner"] for row in summary))
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.6 * rows + 0.3), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, task in zip(panels, tasks, strict=False):
        for color, learner in zip(COLORS, learners, strict=False):
            own = [row for row in summary if row["task"] == task and row["learner"] == learner]
            x, y = [row["shots"] for row in own], [100 * row["mean"] for row in own]
            panel.plot(x, y, "o-", color=color, label=learner, markersize=4)
            if all(row["low"] is not None for row in own):
                low, high = [100 * row["low"] for row in own], [100 * row["high"] for row in own]
                panel.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
        panel.set_title(task, fontsize=9, fontweight="bold" if task == "average" else "normal")
        panel.set_xticks(sorted({row["shots"] for row in summary}))
        _finish(panel, "shots per class", "score (%)", legend=False)
    for panel in panels[len(tasks) :]:
        panel.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(learners), frameon=False, fontsize=9)
    _save(figure, target)


def _running_mean(values: Sequence[float], weight: float = 0.95) -> list[float]:
    """Exponential mean with the start's bias taken out."""
    found, total, norm = [], 0.0, 0.0
    for value in values:
        total, norm = weight * total + (1 - weight) * value, weight * norm + (1 - weight)
        found.append(total / norm)
    return found


def _finish(panel: Axes, x: str, y: str, *, legend: bool = True) -> None:
    panel.set_xlabel(x, fontsize=8)
    panel.set_ylabel(y, fontsize=8)
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25, linewidth=0.6)
    if legend and panel.get_legend_handles_labels()[0]:
        panel.legend(frameon=False, fontsize=8)


def _save(figure: Figure, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, metadata={"Date": None})
