"""Files: the results of a comparison read from its folder, and the figures of every draw written as JSONL and Parquet.

Figures hold nothing that differs from run to run: the same comparison gives the same bytes.
"""

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from quickstudy.errors import RunError
from quickstudy.evaluation.results import Results
from quickstudy.evaluation.results_file import figure_rows, read_results
from quickstudy.report.view import View, best_first
from quickstudy.storage.files import new_file, write_text
from quickstudy.storage.layout import RESULTS
from quickstudy.storage.trust import check_folder

_RENEW = "Give the same `quickstudy compare` again: cells that are computed already are used."


def read_comparison(folder: Path) -> View:
    """Read the results of a comparison.

    Raises:
        RunError: There are none, they are damaged, of another format, or hold no figures.
    """
    file = folder / RESULTS
    if not file.is_file():
        fix = "Make one with: quickstudy compare ... --out FOLDER"
        raise RunError("this folder holds no comparison", where=str(folder), fix=fix)
    check_folder(folder, "comparison")
    results = read_results(file, _RENEW)
    if not any(table.learners for table in results.tables):
        raise RunError("the comparison holds no figures", where=str(file), fix="Use other --shots or tasks.")
    return best_first(results)


def write_figures(folder: Path, results: Results) -> None:
    """Write the figures of every draw, with what they follow from in the metadata of the Parquet file."""
    rows = figure_rows(results.draws)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    write_text(folder / "results.jsonl", "".join(lines))
    versions = results.versions
    source = {
        "quickstudy": versions.quickstudy,
        "torch": versions.torch,
        "transformers": versions.transformers,
        "protocol": asdict(results.protocol),
        "fingerprints": {name: learner.fingerprint for name, learner in results.learners.items()},
        "trials": {name: task.trials for name, task in results.tasks.items()},
    }
    table = pa.Table.from_pylist([row | {"shots": None if row["shots"] == "all" else row["shots"]} for row in rows])
    table = table.replace_schema_metadata({"quickstudy": json.dumps(source)})
    with new_file(folder / "results.parquet") as file:
        pq.write_table(table, file)
