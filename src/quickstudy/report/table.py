"""Table: lines of cells; pages, model cards, Markdown and the terminal show the same tables.

A cell holds its text and the number behind it, by which a page sorts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from quickstudy.evaluation.record import Evidence, Shots
from quickstudy.evaluation.results import Results
from quickstudy.report.number import NONE, interval, p_value, plus_minus, points, seconds, shots_text
from quickstudy.report.view import Score, View


class Cell(NamedTuple):
    """What stands in a place of a table.

    Attributes:
        text: As shown.
        value: What a column is sorted by; None where there is nothing, or for text.
        best: The best of its line or column.
    """

    text: str
    value: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table: its title, the names of its columns, and its lines."""

    caption: str
    head: tuple[str, ...]
    lines: list[list[Cell]]


def means_table(view: View) -> Table:
    """Return the mean over tasks of each learner, a column per number of shots."""
    columns = {shots: view.means(shots) for shots in view.shots}
    tasks = {shots: max(mean.n for mean in means.values()) for shots, means in columns.items()}

    def cell(learner: str, shots: Shots) -> Cell:
        mean = columns[shots].get(learner)
        if mean is None:
            return Cell(NONE)
        fewer = f", {mean.n} of {tasks[shots]} tasks" if mean.n < tasks[shots] else ""
        best = mean.mean == max(other.mean for other in columns[shots].values())
        return Cell(interval(mean) + fewer, mean.mean, best)

    lines = [[Cell(name), *(cell(name, shots) for shots in columns)] for name in view.learners]
    heads = (f"{shots_text(shots)} ({n} task{'s' * (n > 1)})" for shots, n in tasks.items())
    return Table("Mean over tasks, in %, with the 95 % interval over tasks", ("learner", *heads), lines)


def tasks_table(view: View, minus: tuple[str, str] | None = None) -> Table:
    """Return the mean over draws, a line per task and number of shots, a column per learner.

    Args:
        view: The results.
        minus: Two learners whose paired difference is the last column.
    """
    places: dict[tuple[str, Shots], dict[str, Score]] = {}
    for score in view.task_scores:
        places.setdefault((str(score.task), score.shots), {})[score.learner] = score
    lines = []
    for (task, shots), scores in sorted(places.items(), key=lambda place: place[0][0]):
        best = max(score.mean for score in scores.values())
        line = [Cell(task), Cell(str(shots), None if shots == "all" else shots)]
        line += [_score_cell(scores.get(name), best) for name in view.learners]
        lines.append(line + ([_difference_cell(view, task, shots, *minus)] if minus else []))
    caption = "Score per task, in %: mean over draws ± half of the 95 % interval over draws"
    difference = (f"{minus[0]} − {minus[1]}",) if minus else ()
    return Table(caption, ("task", "shots", *view.learners, *difference), lines)


def ranks_table(view: View, shots: Shots) -> Table:
    """Return the learners by average rank at a number of shots, with mean and seconds to adapt."""
    ranks, means = view.results.table(shots).ranks, view.means(shots)
    lines = []
    for name in sorted(means, key=lambda name: ranks[name]):
        time = means[name].costs.seconds_adapt
        cells = Cell(plus_minus(means[name]), means[name].mean), Cell(f"{ranks[name]:.2f}", ranks[name])
        lines.append([Cell(name), *cells, Cell(seconds(time), time)])
    return Table(shots_text(shots).capitalize(), ("learner", "mean", "average rank", "s to adapt"), lines)


def pairs_table(view: View, shots: Shots) -> Table:
    """Return all paired differences at a number of shots, with their intervals and p values."""
    lines = []
    for pair in view.results.table(shots).pairs:
        line = [Cell(pair.a), Cell(pair.b), Cell(points(pair.mean), pair.mean)]
        line += [*_evidence_cells(pair.these_tasks), *_evidence_cells(pair.other_tasks)]
        lines.append(line)
    head = ("learner", "minus", "points", "these tasks: 95 %", "p", "p, Holm")
    more = ("other tasks too: 95 %", "p", "p, Holm")
    return Table(f"Paired differences at {shots_text(shots)}", head + more, lines)


def score_name(results: Results) -> str:
    """Return what the figures of a table are."""
    if any(draw.shots == "all" for draw in results.draws):
        return "each task's own metric in %"
    mixed = any(draw.kind == "regression" for draw in results.draws)
    return "accuracy in %" + (" (regression: mean of Pearson and Spearman)" if mixed else "")


def _score_cell(score: Score | None, best: float) -> Cell:
    return Cell(NONE) if score is None else Cell(plus_minus(score), score.mean, score.mean == best)


def _difference_cell(view: View, task: str, shots: Shots, a: str, b: str) -> Cell:
    difference = view.difference(task, shots, a, b)
    return Cell(NONE) if difference is None else Cell(plus_minus(difference), difference.mean)


def _evidence_cells(evidence: Evidence) -> Sequence[Cell]:
    between = NONE if evidence.low is None else f"{points(evidence.low)} to {points(evidence.high)}"
    return Cell(between), *(Cell(p_value(p), p) for p in (evidence.p, evidence.p_holm))
