"""Text: a comparison as Markdown, for a README or an issue, and as CSV, for other programs."""

import csv
import io
from collections.abc import Sequence
from statistics import fmean

from quickstudy.evaluation.record import Draw
from quickstudy.report.comparison.tables import costs_table, provenance_tables
from quickstudy.report.headline import headline
from quickstudy.report.markdown import markdown_table, plain_text
from quickstudy.report.table import means_table, pairs_table, score_name, tasks_table
from quickstudy.report.view import View

_SCORES, _CALIBRATION = ("accuracy", "f1", "mcc"), ("log_loss", "ece")


def markdown_text(view: View) -> str:
    """Return headline, means, tasks, pairs, costs and provenance as Markdown."""
    pairs = [pairs_table(view, shots) for shots in reversed(view.shots)]
    tables = [means_table(view), tasks_table(view)]
    tables += [table for table in pairs if table.lines] + [costs_table(view), *provenance_tables(view)]
    blocks = ["# Comparison", *map(plain_text, headline(view)), f"Scores are {score_name(view.results)}."]
    for table in tables:
        blocks += [f"## {plain_text(table.caption)}", markdown_table(table)]
    return "\n\n".join(blocks) + "\n"


def csv_text(view: View) -> str:
    """Return a line per task, number of shots and learner.

    `mean`, `low` and `high` (95 %, over draws) are of the task's main metric; other metrics are means over draws.
    What a task does not have is empty.
    """
    stream = io.StringIO()
    lines = csv.writer(stream, lineterminator="\n")
    lines.writerow(["task", "shots", "learner", "metric", "mean", "low", "high", "draws", *_SCORES, *_CALIBRATION])
    for score in view.task_scores:
        task = str(score.task)
        draws = view.cells[task, score.shots, score.learner]
        main = draws[0].main
        metric = view.results.tasks[task].metric if main == "metric" else main
        values = [score.mean, score.low, score.high, score.n, *_other_means(draws)]
        lines.writerow([task, score.shots, score.learner, metric, *values])
    return stream.getvalue()


def _other_means(draws: Sequence[Draw]) -> list[float | None]:
    scores = [[draw.scores[name] for draw in draws if name in draw.scores] for name in _SCORES]
    calibrations = [draw.calibration for draw in draws if draw.calibration]
    scores += [[getattr(calibration, name) for calibration in calibrations] for name in _CALIBRATION]
    return [fmean(values) if values else None for values in scores]
