"""Page: one self-contained HTML page of a comparison, the same in Markdown, and its scores as CSV.

All of it follows from results.json. The page opens offline, prints, fits a phone and can be read without scripts. A
short script of its own sorts tables, shows one matrix of many, and looks up single predictions.
"""

from dataclasses import asdict
from pathlib import Path

from markupsafe import Markup

from quickstudy.evaluation.results import Learner, Results
from quickstudy.evaluation.results_file import write_results
from quickstudy.report.comparison.episodes import episodes
from quickstudy.report.comparison.figures import Diagram, TaskLabels, cost_points, diagrams, task_labels
from quickstudy.report.comparison.files import read_comparison, write_figures
from quickstudy.report.comparison.pairs import differences
from quickstudy.report.comparison.plots import plot_costs, plot_ranks, plot_reliability
from quickstudy.report.comparison.tables import calibration_table, costs_table, labels_table, provenance_tables
from quickstudy.report.comparison.text import csv_text, markdown_text
from quickstudy.report.drawing import Drawing, draw_curve, draw_scores
from quickstudy.report.headline import headline
from quickstudy.report.html import environment, inline
from quickstudy.report.number import digits, shots_text
from quickstudy.report.overlap import overlap_notes
from quickstudy.report.plots import symbol
from quickstudy.report.table import Table, means_table, pairs_table, score_name, tasks_table
from quickstudy.report.view import View
from quickstudy.storage.files import write_text
from quickstudy.storage.layout import PLOTS, REPORT, RESULTS
from quickstudy.visible import visible

_CARDS = 6


def write_comparison(folder: Path, results: Results) -> None:
    """Write the results of a comparison, its figures and its report."""
    write_figures(folder, results)
    write_results(folder / RESULTS, results)
    write_pages(folder)


def write_pages(folder: Path) -> Path:
    """Write `report.html`, `report.md`, `report.csv` and the plots of a comparison, and return the page's path.

    Args:
        folder: Of the comparison; its `results.json` is all that is read.

    Raises:
        RunError: There are no results, they are damaged, of another format, or hold no figures.
    """
    view = read_comparison(folder)
    texts = {"report.md": markdown_text(view), "report.csv": csv_text(view)}
    texts[REPORT] = _page(view, folder / PLOTS)
    for name, text in texts.items():
        write_text(folder / name, visible(text))
    return folder / REPORT


def _page(view: View, plots: Path) -> str:
    by_task, reliable, shown = task_labels(view), diagrams(view), episodes(view)
    return (
        environment()
        .get_template("comparison/page.html.jinja")
        .render(
            view=view,
            protocol=view.results.protocol,
            score=score_name(view.results),
            headline=headline(view),
            best=sorted(view.means(view.largest).values(), key=lambda mean: -mean.mean)[:_CARDS],
            symbols={name: symbol(index) for index, name in enumerate(view.learners)},
            means=means_table(view),
            tasks=tasks_table(view),
            pairs={k: pairs_table(view, k) for k in view.shots},
            matrices={k: [differences(view, k, these_tasks=these) for these in (True, False)] for k in view.shots},
            rows_counted=all(pair.counts_rows for k in view.shots for pair in view.results.table(k).pairs),
            costs=costs_table(view),
            labels=by_task,
            label_tables={task.task: _labels_table(task) for task in by_task},
            calibration=calibration_table(reliable),
            episodes=shown,
            episode_data=asdict(shown) if shown else None,
            overlap={name: _overlap(view.results.learners[name]) for name in view.learners},
            provenance=provenance_tables(view),
            scores_drawn=draw_scores(view, plots),
            ranks_drawn=_draw_ranks(view, plots),
            costs_drawn=_draw_costs(view, plots),
            curves_drawn=_draw_curves(view, plots),
            reliability_drawn=[_draw_reliability(diagram, plots) for diagram in reliable],
        )
    )


def _labels_table(task: TaskLabels) -> Table:
    title = f"Precision / recall / F1 per label of {task.task} at {shots_text(task.shots)}, in %"
    return labels_table(title, task.labels, task.scores)


def _overlap(learner: Learner) -> list[str]:
    if not learner.trained:
        return ["not meta-trained, so no scored text can have been"]
    return overlap_notes(learner) or ["no scored text was meta-trained on"]


def _draw_ranks(view: View, plots: Path) -> list[Drawing]:
    """The largest number of shots first; none where ranks cannot be told."""
    drawings = []
    for shots in reversed(view.shots):
        table, file = view.results.table(shots), plots / f"ranks-{shots}.svg"
        if table.critical_difference is None:
            continue
        plot_ranks(table.ranks, table.critical_difference, view.learners, file)
        ranks = ", ".join(f"{name} {rank:.2f}" for name, rank in sorted(table.ranks.items(), key=lambda item: item[1]))
        label = f"Average ranks at {shots_text(shots)}: {ranks}"
        drawings.append(Drawing(shots_text(shots), inline(file, label)))
    return drawings


def _draw_costs(view: View, plots: Path) -> Markup | None:
    points = cost_points(view)
    if not points:
        return None
    plot_costs(points, plots / "costs.svg")
    return inline(plots / "costs.svg", "Mean score over seconds to adapt; the figures are in the table below")


def _draw_curves(view: View, plots: Path) -> list[Drawing]:
    drawings = []
    for index, name in enumerate(view.learners):
        training = view.results.learners[name].training
        if training and training.curve:
            svg = draw_curve(training.curve, plots / f"curve-{index}.svg", name)
            drawings.append(Drawing(name, svg))
    return drawings


def _draw_reliability(diagram: Diagram, plots: Path) -> Drawing:
    file, error = plots / f"reliability-{diagram.index}.svg", digits(diagram.ece)
    plot_reliability(diagram.bins, diagram.index, file)
    label = f"Accuracy over confidence of {diagram.learner}; expected calibration error {error}"
    return Drawing(f"{diagram.learner}: ECE {error}", inline(file, label))
