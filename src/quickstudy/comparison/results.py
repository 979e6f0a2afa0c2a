"""Results: what a comparison leaves beside its cells.

Figures, `results.jsonl` and `results.parquet`, hold nothing that differs from run to run: the same comparison gives the same
bytes. What does, costs and the date, is in `results.json`, which has all that the report shows.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from quickstudy.comparison.cell import trials_hash
from quickstudy.evaluation.evaluate import COSTS, Row
from quickstudy.evaluation.protocol import Protocol, Trial
from quickstudy.evaluation.statistics import Values, average_ranks, compare_all, over_tasks
from quickstudy.storage import finite, new_file, write_text
from quickstudy.tasks.split import readable
from quickstudy.tasks.task import Task
from quickstudy.versions import versions

_SIZES = ("parameters", "adapted_parameters", "bytes_saved")


def provenance(
    protocol: Protocol,
    described: Mapping[str, dict[str, Any]],
    tasks: Sequence[Task],
    plans: Mapping[str, Sequence[Trial]],
    *,
    texts: bool,
) -> dict[str, Any]:
    """Return all that the figures follow from."""
    episodic = protocol.name == "episodic"
    return {
        **versions(),
        "protocol": {
            **{key: getattr(protocol, key) for key in ("name", "version", "draws", "seed", "limit")},
            "shots": list(protocol.shots),
            "n_way": protocol.n_way if episodic else None,
            "n_query": protocol.n_query if episodic else None,
        },
        "learners": {name: about if texts else _without_texts(about) for name, about in described.items()},
        "tasks": {task.name: _describe_task(task, plans[task.name], texts=texts) for task in tasks},
    }


def _without_texts(learner: dict[str, Any]) -> dict[str, Any]:
    overlap = learner["overlap"]
    return learner | {"overlap": overlap and [one | {"examples": []} for one in overlap]}


def _describe_task(task: Task, planned: Sequence[Trial], *, texts: bool) -> dict[str, Any]:
    first = {trial.shots: trial for trial in reversed(planned) if trial.shots != "all"}
    return {
        "domain": task.domain,
        "kind": task.kind,
        "label_names": list(task.label_names),
        "metric": task.metric,
        "n_test": len(planned[0].tests) if planned else 0,
        "data": trials_hash(planned),
        "supports": {
            str(k): [readable(example, trial.label_names) for example in trial.support]
            for k, trial in sorted(first.items())
            if texts
        },
    }


def write_figures(folder: Path, rows: Sequence[Row], source: Mapping[str, Any]) -> None:
    """Write the figures of every draw as JSONL and Parquet, with what they follow from in the Parquet schema's metadata."""
    left_out = (*COSTS, "device", "threads", "wrong")
    keys = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in left_out]
    figures = [{key: row.get(key) for key in keys} for row in rows]  # what a task does not have is null
    write_text(folder / "results.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in figures))
    follows = {
        **{key: source[key] for key in ("quickstudy", "torch", "transformers", "protocol")},
        "weights": {name: learner["weights"] for name, learner in source["learners"].items()},
        "data": {name: task["data"] for name, task in source["tasks"].items()},
    }
    table = pa.Table.from_pylist([row | {"shots": None if row["shots"] == "all" else row["shots"]} for row in figures])
    table = table.replace_schema_metadata({"quickstudy": json.dumps(follows)})
    with new_file(folder / "results.parquet") as file:
        pq.write_table(table, file)


def results_of(rows: Sequence[Row], source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `results.json`: where figures are from, learners with their costs, and statistics by shots."""
    shots = source["protocol"]["shots"]
    summaries = {str(k): _summary([row for row in rows if row["shots"] == k]) for k in shots}
    learners = {}
    for name, learner in source["learners"].items():
        most = next((k for k in reversed(shots) if summaries[str(k)]["learners"]), None)
        own = [row for row in rows if row["learner"] == name and row["shots"] == most]
        measured = {key: _median(own, key) for key in (*_SIZES, *COSTS)}
        where = sorted({f"{row['device']}, {row['threads']} thread{'s' * (row['threads'] > 1)}" for row in own})
        costs = {**learner["costs"], "device": " and ".join(where) or None, **measured}
        learners[name] = {**learner, "costs": costs}
    found: dict[str, Any] = finite({**source, "learners": learners, "by_shots": summaries, "rows": list(rows)})
    return found


def _summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Return what one number of shots shows: means over tasks with intervals, costs, paired differences, ranks."""
    scores: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        scores.setdefault(row["learner"], {}).setdefault(row["task"], []).append(row[row["main"]])
    if not scores:
        return {"learners": [], "pairs": [], "ranks": {}, "critical_difference": None}
    typed: dict[str, Values] = dict(scores)
    ranks, difference = average_ranks(typed)
    learners = [
        {
            "learner": name,
            **{key: value for key, value in over_tasks(of).items() if key != "above"},
            **{key: _median([row for row in rows if row["learner"] == name], key) for key in COSTS},
        }
        for name, of in typed.items()
    ]
    return {"learners": learners, "pairs": compare_all(typed), "ranks": ranks, "critical_difference": difference}


def _median(rows: Sequence[Row], key: str) -> float | None:
    known = [row[key] for row in rows if row.get(key) is not None]
    return median(known) if known else None
