"""Comparison plots: scores over shots, average ranks, cost against quality, reliability; small ones, a panel each.

Every panel is a drawing of its own, so that a page can put them side by side on a screen and one below the other on a phone,
where their letters are still read. Names that come from data are drawn as they are, never as formulas.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from quickstudy.report.comparison_pairs import groups
from quickstudy.report.plots import draw_lines, finish, plot_training, save, style

_SMALL = (3.4, 2.4)
_WIDE = (4.0, 3.0)
_LONGEST = 26  # characters of a name beside a drawing


def plot_scores(
    summary: Sequence[dict[str, Any]],
    learners: Sequence[str],
    shots: Sequence[str],
    target: Path,
    *,
    wide: bool = False,
) -> None:
    """Draw the scores of one task over shots with 95 % bands; with one number of shots, a line per learner.

    Args:
        summary: Of that task: `learner`, `shots`, `mean`, and `low` and `high` or None.
        learners: In the order of their styles.
        shots: All that there are, few first.
        target: The SVG file.
        wide: Larger.
    """
    width, height = _WIDE if wide else _SMALL
    if len(shots) > 1:
        figure = Figure(figsize=(width, height), layout="constrained")
        draw_lines(figure.subplots(), summary, learners, shots)
        save(figure, target)
        return
    rows = {row["learner"]: row for row in summary}
    figure = Figure(figsize=(width, 0.8 + 0.2 * len(learners)), layout="constrained")
    panel = figure.subplots()
    for place, learner in enumerate(learners):
        if row := rows.get(learner):
            ends = (
                None
                if row["low"] is None
                else [[100 * (row["mean"] - row["low"])], [100 * (row["high"] - row["mean"])]]
            )
            panel.errorbar(100 * row["mean"], place, xerr=ends, markersize=5, **style(place))
    panel.set_yticks(range(len(learners)), [_short(name) for name in learners], parse_math=False)
    panel.set_ylim(len(learners) - 0.5, -0.5)
    finish(panel, "score (%)", "")
    save(figure, target)


def plot_ranks(ranks: Mapping[str, float], difference: float, learners: Sequence[str], target: Path) -> None:
    """Draw the average ranks, best on top; upright bars join learners that differ by less than the critical difference.

    Args:
        ranks: Average rank of each learner, 1 is best.
        difference: The critical difference.
        learners: In the order of their styles.
        target: The SVG file.
    """
    names = sorted(ranks, key=lambda name: ranks[name])
    bars = groups(ranks, difference)
    figure = Figure(figsize=(_WIDE[0], 1.2 + 0.22 * len(names)), layout="constrained")
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
    panel.set_yticks(range(len(names)), [_short(name) for name in names], parse_math=False)
    panel.set_ylim(len(names) - 0.5, -1.9)
    panel.set_xlim(0.7, max(right + step * (len(bars) + 1), 1 + difference + 0.1))
    panel.set_xticks(range(1, len(names) + 1, 1 + len(names) // 12))
    finish(panel, "average rank (1 is best)", "")
    save(figure, target)


def plot_costs(points: Sequence[dict[str, Any]], target: Path) -> None:
    """Draw the mean score against the seconds to adapt; names stand where nothing is both faster and better, if there is room.

    Args:
        points: `learner`, `index` (of its style), `seconds`, `mean`.
        target: The SVG file.
    """
    figure = Figure(figsize=_WIDE, layout="constrained")
    panel = figure.subplots()
    for one in points:
        panel.plot(one["seconds"], 100 * one["mean"], markersize=7, **style(one["index"]))
    unbeaten = [one for one in points if not any(_beats(other, one) for other in points)]
    means = [one["mean"] for one in points]
    line = 0.05 * (max(means) - min(means))  # the height of a name
    last = math.inf
    for one in sorted(unbeaten, key=lambda one: -one["mean"]):
        if last - one["mean"] < line:
            continue
        last = one["mean"]
        # Above and to the left of an unbeaten one there is no other.
        panel.annotate(
            _short(one["learner"]),
            (one["seconds"], 100 * one["mean"]),
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
    # Room for the longest of these names, at the share of the width that a letter takes.
    low, high = panel.get_xlim()
    room = 0.018 * max(len(_short(one["learner"])) for one in unbeaten)
    panel.set_xlim(low * (low / high) ** (room / (1 - room)), high)
    finish(panel, "seconds to adapt (logarithmic)", "mean score (%)")
    save(figure, target)


def plot_reliability(bins: Sequence[tuple[float, float, float]], index: int, target: Path) -> None:
    """Draw accuracy over confidence; on the diagonal, probabilities are what they say. Bars: how many predictions are so sure.

    Args:
        bins: Mean confidence, accuracy, share of all predictions; from 0 to 1.
        index: Of the learner's style.
        target: The SVG file.
    """
    figure = Figure(figsize=_SMALL, layout="constrained")
    panel = figure.subplots()
    sure, right, shares = zip(*bins, strict=True)
    panel.bar([100 * x for x in sure], [100 * part for part in shares], width=5, color="#888888", alpha=0.35)
    panel.plot([0, 100], [0, 100], color="black", linewidth=0.8, linestyle=(0, (3, 3)))
    own = style(index) | {"linestyle": "-"}
    panel.plot([100 * x for x in sure], [100 * y for y in right], markersize=4, linewidth=1.3, **own)
    panel.set_xlim(0, 101)
    panel.set_ylim(0, 101)
    finish(panel, "confidence (%)", "accuracy (%)")
    save(figure, target)


def plot_curve(curve: Mapping[str, Any], target: Path) -> None:
    """Draw the meta-training of a learner: meta-loss, and the meta-validation score below."""
    steps = [
        {"step": s, "loss": loss, "validation": None} for s, loss in zip(curve["step"], curve["loss"], strict=True)
    ]
    checks = [{"step": step, "loss": None, "validation": value} for step, value in curve.get("validation") or []]
    plot_training([*steps, *checks], target, keep=None, stacked=True)


def _beats(other: Mapping[str, float], one: Mapping[str, float]) -> bool:
    """Whether another learner is at least as fast and as good, and one of both more so."""
    as_good = other["seconds"] <= one["seconds"] and other["mean"] >= one["mean"]
    return as_good and (other["seconds"], other["mean"]) != (one["seconds"], one["mean"])


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
