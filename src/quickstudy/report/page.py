"""Page: one self-contained HTML file of a run; headline, table with intervals, plots, settings.

Everything is in the file (plots as inline SVG, no scripts, no fonts from elsewhere), so it opens offline, prints, and can be
mailed. It follows the reader's light or dark setting and fits a phone.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

from markupsafe import Markup

from quickstudy.errors import RunError
from quickstudy.layout import RunFiles
from quickstudy.report.html import environment, inline
from quickstudy.report.plots import plot_shots, plot_training
from quickstudy.report.table import overlap_lines, result_table
from quickstudy.storage import write_text


def write_report(folder: Path) -> Path:
    """Write `report.html` (and the plots) from the files of a run folder, and return its path.

    Raises:
        RunError: Not a run folder, or a damaged one.
    """
    run, files = read_run(folder), RunFiles(folder)
    plots: dict[str, Markup] = {}
    if run["metrics"]:
        plot_training(run["metrics"], files.plots / "training.svg", keep=run["recipe"]["outer"]["keep"])
        plots["training"] = inline(
            files.plots / "training.svg", "Meta-loss and meta-validation score over the outer steps"
        )
    results = run["results"]
    if results:
        plot_shots(results["summary"], files.plots / "shots.svg")
        plots["shots"] = inline(files.plots / "shots.svg", "Score of each learner over shots, a panel per task")
    page = environment().get_template("page.html.jinja")
    table = result_table(results) if results else None
    overlap = overlap_lines(results) if results else []
    write_text(files.report, page.render(**run, plots=plots, table=table, overlap=overlap))
    return files.report


def read_run(folder: Path) -> dict[str, Any]:
    """Return the recipe, metrics and results of a run folder, as plain values.

    Raises:
        RunError: Not a run folder, or a damaged one.
    """
    files = RunFiles(folder)
    files.check_exist()
    log, results = files.metrics, files.results
    try:
        text = files.config.read_text(encoding="utf-8")
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
        return {
            "name": folder.resolve().name,
            "recipe": tomllib.loads(text),
            "recipe_text": text,
            # A line without its end was cut off when the run was killed.
            "metrics": [json.loads(line) for line in lines if line.endswith("\n")],
            "results": json.loads(results.read_text(encoding="utf-8")) if results.exists() else None,
        }
    except ValueError as error:  # the errors of TOML, of JSON and of UTF-8
        raise RunError(
            f"{files.config.name}, {log.name} or {results.name} is damaged ({error})",
            where=str(folder),
            fix=f"Copy the run again; without {results.name}: evaluate again.",
        ) from error
