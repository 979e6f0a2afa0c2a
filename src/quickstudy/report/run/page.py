"""Page: one self-contained HTML file of a run; headline, tables with intervals, plots, settings.

Everything is in the file (plots as inline SVG, no scripts, no fonts from elsewhere), so it opens offline, prints, and
can be mailed. It follows the reader's light or dark setting and fits a phone. Scores are shown as in the report of a
comparison, with its tables and drawings: the run is compared with the same method and a linear probe on its untouched
encoder.
"""

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from quickstudy.evaluation.record import LearnerMean, Shots
from quickstudy.report.drawing import Drawing, draw_curve, draw_scores
from quickstudy.report.headline import gain_sentences, headline
from quickstudy.report.html import environment
from quickstudy.report.overlap import overlap_notes
from quickstudy.report.plots import symbol
from quickstudy.report.run.facts import RunFacts, read_run
from quickstudy.report.table import Table, means_table, pairs_table, score_name, tasks_table
from quickstudy.report.view import View, in_order
from quickstudy.storage.files import write_text
from quickstudy.storage.layout import RunFiles
from quickstudy.visible import visible


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the page shows of an evaluation; for the template."""

    tasks: int
    score: str
    largest: Shots
    headline: list[str]
    largest_means: list[LearnerMean]
    notes: list[str]
    means: Table
    by_task: Table
    pairs: list[Table]
    symbols: dict[str, Markup]
    drawings: list[Drawing]


def write_report(folder: Path) -> Path:
    """Write `report.html` (and the plots) from the files of a run folder, and return its path.

    Raises:
        RunError: Not a run folder, or a damaged one.
    """
    run, files = read_run(folder), RunFiles(folder)
    page = environment().get_template("run/page.html.jinja")
    text = page.render(
        run=run,
        outer_steps=run.curve.step[-1] if run.curve and run.curve.step else 0,
        evaluation=_evaluation(in_order(run.results), files.plots) if run.results else None,
        training=_training(run, files.plots),
    )
    write_text(files.report, visible(text))
    return files.report


def _evaluation(view: View, plots: Path) -> Evaluation:
    return Evaluation(
        tasks=len(view.results.tasks),
        score=score_name(view.results),
        largest=view.largest,
        headline=headline(view) + gain_sentences(view),
        largest_means=list(view.means(view.largest).values()),
        notes=[note for name in view.learners for note in overlap_notes(view.results.learners[name])],
        means=means_table(view),
        by_task=tasks_table(view, minus=view.gain),
        pairs=[table for table in (pairs_table(view, shots) for shots in reversed(view.shots)) if table.lines],
        symbols={name: symbol(index) for index, name in enumerate(view.learners)},
        drawings=draw_scores(view, plots),
    )


def _training(run: RunFacts, plots: Path) -> Markup | None:
    if run.curve is None:
        return None
    return draw_curve(run.curve, plots / "training.svg", keep=run.recipe.outer.keep)
