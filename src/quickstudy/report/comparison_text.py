"""Comparison text: a comparison as Markdown, for a README or an issue, and as CSV, for other programs."""

import csv
import io
from statistics import fmean

from quickstudy.report.comparison_file import Comparison
from quickstudy.report.comparison_pairs import headline
from quickstudy.report.comparison_table import (
    Table,
    costs_table,
    means_table,
    pairs_table,
    provenance_tables,
    tasks_table,
)
from quickstudy.report.table import score_name

_OTHERS = ("accuracy", "f1", "mcc", "log_loss", "ece")


def markdown_text(comparison: Comparison) -> str:
    """Return headline, means, tasks, pairs, costs and provenance as Markdown."""
    pairs = [pairs_table(comparison, k) for k in reversed(comparison.shots)]
    tables = [means_table(comparison), tasks_table(comparison)]
    tables += [table for table in pairs if table.lines] + [costs_table(comparison), *provenance_tables(comparison)]
    parts = ["# Comparison", *map(_plain, headline(comparison)), f"Scores are {score_name(comparison.results)}."]
    for table in tables:
        parts += [f"## {_plain(table.caption)}", _table(table)]
    return "\n\n".join(parts) + "\n"


def csv_text(comparison: Comparison) -> str:
    """Return a line per task, number of shots and learner.

    `mean`, `low` and `high` (95 %, over draws) are of the task's main metric; other metrics are means over draws. What a task
    does not have is empty.
    """
    stream = io.StringIO()
    lines = csv.writer(stream, lineterminator="\n")
    lines.writerow(["task", "shots", "learner", "metric", "mean", "low", "high", "draws", *_OTHERS])
    for row in comparison.summary:
        key = row["task"], row["shots"], row["learner"]
        draws = comparison.cells[key]
        values = [[draw[name] for draw in draws if draw.get(name) is not None] for name in _OTHERS]
        main = draws[0]["main"]
        metric = comparison.tasks[row["task"]]["metric"] if main == "metric" else main
        found = [row["mean"], row["low"], row["high"], row["n"], *(fmean(of) if of else None for of in values)]
        lines.writerow([*key, metric, *found])
    return stream.getvalue()


def _table(table: Table) -> str:
    lines = [table.head, ["---"] * len(table.head)]
    lines += [[f"**{_plain(cell.text)}**" if cell.best else _plain(cell.text) for cell in line] for line in table.lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in [list(map(_plain, lines[0])), *lines[1:]])


def _plain(text: str) -> str:
    """Text that is neither markup nor the end of a cell."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{letter}" if letter in "\\`*_[]|" else letter for letter in text)
