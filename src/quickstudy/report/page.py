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
from quickstudy.report.html import environment, inline
from quickstudy.report.plots import plot_shots, plot_training
from quickstudy.report.table import overlap_lines, result_table
from quickstudy.storage import write_text


def write_report(folder: Path) -> Path:
    """Write `report.html` (and the plots) from the files of a run folder, and return its path.

    Raises:
        RunError: Not a run folder, or a damaged one.
    """
    run = read_run(folder)
    plots: dict[str, Markup] = {}
    if run["metrics"]:
        plot_training(run["metrics"], folder / "plots" / "training.svg", keep=run["recipe"]["outer"]["keep"])
        plots["training"] = inline(
            folder / "plots" / "training.svg", "Meta-loss and meta-validation score over the outer steps"
        )
    results = run["results"]
    if results:
        plot_shots(results["summary"], folder / "plots" / "shots.svg")
        plots["shots"] = inline(folder / "plots" / "shots.svg", "Score of each learner over shots, a panel per task")
    page = environment().get_template("page.html.jinja")
    table = result_table(results) if results else None
    overlap = overlap_lines(results) if results else []
    write_text(folder / "report.html", page.render(**run, plots=plots, table=table, overlap=overlap))
    return folder / "report.html"


def read_run(folder: Path) -> dict[str, Any]:
    """Return the recipe, metrics and results of a run folder, as plain values.

    Raises:
        RunError: Not a run folder, or a damaged one.
    """
    if not (folder / "config.toml").is_file():
        raise RunError("this is not a run folder", where=str(folder), fix="Make one with: quickstudy pretrain")
    log, results = folder / "metrics.jsonl", folder / "results.json"
    try:
        text = (folder / "config.toml").read_text(encoding="utf-8")
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
            f"config.toml, metrics.jsonl or results.json is damaged ({error})",
            where=str(folder),
            fix="Copy the run again; without results.json: evaluate again.",
        ) from error
