"""Table: the summary of an evaluation as learners (columns) and (task, shots) lines; shared by page, card and terminal."""

from typing import Any


def result_table(results: dict[str, Any]) -> dict[str, Any]:
    """Return the summary as learners (columns) and (task, shots) lines; the average last.

    Each cell is a summary row; the best mean of a line is marked `best`.
    """
    summary = results["summary"]
    learners = list(dict.fromkeys(row["learner"] for row in summary))
    keys = sorted({(row["task"], row["shots"]) for row in summary}, key=lambda key: (key[0] == "average", *key))
    lines = []
    for task, shots in keys:
        cells = {row["learner"]: row for row in summary if (row["task"], row["shots"]) == (task, shots)}
        best = max(cells, key=lambda name: cells[name]["mean"])
        lines.append({"task": task, "shots": shots, "cells": cells, "best": best})
    return {"learners": learners, "lines": lines}


def percent(row: dict[str, Any]) -> str:
    """Return `mean ± half-width` in percent.

    >>> percent({"mean": 0.5, "low": 0.45, "high": 0.55}), percent({"mean": 0.5, "low": None, "high": None})
    ('50.0 ± 5.0', '50.0')
    """
    if row["low"] is None or row["low"] != row["low"]:
        return f"{100 * row['mean']:.1f}"
    return f"{100 * row['mean']:.1f} ± {100 * (row['high'] - row['mean']):.1f}"


def score_name(results: dict[str, Any]) -> str:
    """Return what the figures of a table are.

    >>> score_name({"rows": [{"kind": "classification"}, {"kind": "regression"}]})
    'accuracy in % (regression: mean of Pearson and Spearman)'
    """
    if any(row.get("shots") == "all" for row in results["rows"]):
        return "each task's own metric in %"
    mixed = any(row.get("kind") == "regression" for row in results["rows"])
    return "accuracy in %" + (" (regression: mean of Pearson and Spearman)" if mixed else "")


def overlap_lines(results: dict[str, Any]) -> list[str]:
    """Return what to say of scored texts that were meta-trained on, a line per task.

    >>> overlap_lines({"overlap": [{"task": "mr", "rows": {"exact": 2}, "total": 80, "sources": ["sst2"], "lineage": []}]})
    ['2 of 80 scored rows of mr were meta-trained on (sst2)']
    """
    if results.get("overlap") is None:
        return ["not checked: whether scored texts were meta-trained on"]
    lines = []
    for one in results["overlap"]:
        sources, rows = ", ".join(one["sources"][:3]), sum(one["rows"].values())
        if rows:
            lines.append(f"{rows:,} of {one['total']:,} scored rows of {one['task']} were meta-trained on ({sources})")
        if one["lineage"]:
            lines.append(f"{one['task']} is made from the same source as {sources}: {', '.join(one['lineage'])}")
    return lines
