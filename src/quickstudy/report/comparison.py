"""Comparison: one self-contained HTML page of a comparison, the same in Markdown, and its figures as CSV.

All of it follows from results.json. The page opens offline, prints, fits a phone and can be read without scripts; a short one of
its own sorts tables, shows one matrix of many, and looks up single predictions.
"""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from quickstudy.report.comparison_figures import confusions, diagrams, episodes
from quickstudy.report.comparison_file import Comparison, read_comparison
from quickstudy.report.comparison_pairs import differences, headline
from quickstudy.report.comparison_plots import plot_costs, plot_curve, plot_ranks, plot_reliability, plot_scores
from quickstudy.report.comparison_table import (
    calibration_table,
    classes_table,
    costs_table,
    means_table,
    pairs_table,
    provenance_tables,
    tasks_table,
)
from quickstudy.report.comparison_text import csv_text, markdown_text
from quickstudy.report.html import environment, inline
from quickstudy.report.number import shots_text
from quickstudy.report.plots import symbol
from quickstudy.report.table import overlap_lines, score_name
from quickstudy.storage import write_text

Drawing = dict[str, Any]

_CARDS = 6


def write_comparison(folder: Path) -> Path:
    """Write `report.html`, `report.md`, `report.csv` and the plots of a comparison, and return the page's path.

    Args:
        folder: Of the comparison; its `results.json` is all that is read.

    Raises:
        RunError: There are no results, they are damaged, of another format, or hold no figures.
    """
    comparison = read_comparison(folder)
    texts = {"report.md": markdown_text(comparison), "report.csv": csv_text(comparison)}
    texts["report.html"] = _page(comparison, folder / "plots")
    for name, text in texts.items():
        write_text(folder / name, text)
    return folder / "report.html"


def _page(comparison: Comparison, plots: Path) -> str:
    template = environment().get_template("comparison.html.jinja")
    largest = [row for row in comparison.averages if row["shots"] == comparison.largest]
    classes = confusions(comparison)
    reliable = diagrams(comparison)
    return template.render(
        comparison=comparison,
        protocol=comparison.results["protocol"],
        score=score_name(comparison.results),
        headline=headline(comparison),
        best=sorted(largest, key=lambda row: -row["mean"])[:_CARDS],
        symbols={name: symbol(index) for index, name in enumerate(comparison.learners)},
        means=means_table(comparison),
        tasks=tasks_table(comparison),
        pairs={k: pairs_table(comparison, k) for k in comparison.shots},
        matrices={k: [differences(comparison, k, here=here) for here in (True, False)] for k in comparison.shots},
        costs=costs_table(comparison),
        confusions=[one for one in classes if one["learners"]],
        classes=[_classes(one) for one in classes if one["classes"]],
        calibration=calibration_table(reliable),
        episodes=episodes(comparison),
        overlap={name: _overlap(comparison, name) for name in comparison.learners},
        provenance=provenance_tables(comparison),
        plots={
            "scores": _score_plots(comparison, plots),
            "ranks": _rank_plots(comparison, plots),
            "costs": _cost_plot(comparison, plots),
            "curves": _curve_plots(comparison, plots),
            "reliability": _reliability_plots(reliable, plots),
        },
    )


def _classes(confusion: dict[str, Any]) -> dict[str, Any]:
    title = f"Precision / recall / F1 per label of {confusion['task']} at {shots_text(confusion['shots'])}, in %"
    return confusion | {"table": classes_table(title, confusion["labels"], confusion["classes"])}


def _overlap(comparison: Comparison, name: str) -> list[str]:
    """What to say of scored texts that a learner was meta-trained on."""
    learner = comparison.results["learners"][name]
    if not learner["trained"]:
        return ["not meta-trained, so no scored text can have been"]
    seen = [f"meta-trained on, not held out: {', '.join(learner['seen'])}"] if learner.get("seen") else []
    return seen + overlap_lines(learner) or ["no scored text was meta-trained on"]


def _score_plots(comparison: Comparison, plots: Path) -> list[Drawing]:
    """The mean over tasks first, then each task; a single one stands for itself, with its interval over draws."""
    panels = [(task, [row for row in comparison.summary if row["task"] == task]) for task in comparison.tasks]
    panels = [(task, rows) for task, rows in panels if rows]
    if len(panels) > 1:
        panels.insert(0, ("Mean over tasks", comparison.averages))
    found = []
    for index, (title, rows) in enumerate(panels):
        file = plots / f"scores-{index}.svg"
        shots = [k for k in comparison.shots if any(row["shots"] == k for row in rows)]
        plot_scores(rows, comparison.learners, shots, file, wide=index == 0)
        found.append({"title": title, "svg": inline(file, f"{title}: score by shots")})
    return found


def _rank_plots(comparison: Comparison, plots: Path) -> list[Drawing]:
    """The largest number of shots first; none where ranks cannot be told."""
    found = []
    for shots in reversed(comparison.shots):
        of = comparison.results["by_shots"][shots]
        if len(of["ranks"]) < 2 or of["critical_difference"] is None:
            continue
        file = plots / f"ranks-{shots}.svg"
        plot_ranks(of["ranks"], of["critical_difference"], comparison.learners, file)
        ranks = ", ".join(f"{name} {rank:.2f}" for name, rank in sorted(of["ranks"].items(), key=lambda one: one[1]))
        found.append(
            {"title": shots_text(shots), "svg": inline(file, f"Average ranks at {shots_text(shots)}: {ranks}")}
        )
    return found


def _cost_plot(comparison: Comparison, plots: Path) -> Markup | None:
    rows = {row["learner"]: row for row in comparison.averages if row["shots"] == comparison.largest}
    points = [
        {
            "learner": name,
            "index": index,
            "seconds": comparison.costs(name)["seconds_adapt"],
            "mean": rows[name]["mean"],
        }
        for index, name in enumerate(comparison.learners)
        if name in rows and comparison.costs(name).get("seconds_adapt")
    ]
    if not points:
        return None
    plot_costs(points, plots / "costs.svg")
    return inline(plots / "costs.svg", "Mean score over seconds to adapt; the figures are in the table below")


def _curve_plots(comparison: Comparison, plots: Path) -> list[Drawing]:
    found = []
    for index, name in enumerate(comparison.learners):
        if curve := comparison.results["learners"][name]["curve"]:
            plot_curve(curve, plots / f"curve-{index}.svg")
            label = f"Meta-loss and meta-validation score of {name} over the outer steps"
            found.append({"title": name, "svg": inline(plots / f"curve-{index}.svg", label)})
    return found


def _reliability_plots(reliable: list[dict[str, Any]], plots: Path) -> list[Drawing]:
    found = []
    for one in reliable:
        file = plots / f"reliability-{one['index']}.svg"
        plot_reliability(one["bins"], one["index"], file)
        label = f"Accuracy over confidence of {one['learner']}; expected calibration error {one['ece']:.3f}"
        found.append({"title": f"{one['learner']}: ECE {one['ece']:.3f}", "svg": inline(file, label)})
    return found
