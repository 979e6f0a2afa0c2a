"""Drawing: plots as parts of a page, each with its title."""

from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from quickstudy.evaluation.results import Curve
from quickstudy.report.html import inline
from quickstudy.report.plots import plot_scores, plot_training
from quickstudy.report.view import View


class Drawing(NamedTuple):
    """A drawing on a page."""

    title: str
    svg: Markup


def draw_scores(view: View, plots: Path) -> list[Drawing]:
    """Return scores by shots: the mean over tasks first, then each task; a single one stands for itself.

    Args:
        view: The results.
        plots: Folder of the SVG files.
    """
    panels = [(task, [score for score in view.task_scores if score.task == task]) for task in view.results.tasks]
    panels = [(task, scores) for task, scores in panels if scores]
    if len(panels) > 1:
        panels.insert(0, ("Mean over tasks", view.averages))
    drawings = []
    for index, (title, scores) in enumerate(panels):
        file = plots / f"scores-{index}.svg"
        shots = [k for k in view.shots if any(score.shots == k for score in scores)]
        plot_scores(scores, view.learners, shots, file, wide=index == 0)
        drawings.append(Drawing(title, inline(file, f"{title}: score by shots")))
    return drawings


def draw_curve(curve: Curve, file: Path, learner: str = "", *, keep: str | None = None) -> Markup:
    """Return the drawing of a meta-training, of a learner if there are several; see `plot_training`."""
    plot_training(curve, file, keep=keep)
    what = "Meta-loss and meta-validation score" if curve.validation else "Meta-loss"
    return inline(file, f"{what}{f' of {learner}' if learner else ''} over the outer steps")
