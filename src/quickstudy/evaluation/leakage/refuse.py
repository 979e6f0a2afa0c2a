"""Refuse: no task is scored of which too much was seen in meta-training."""

from collections.abc import Iterable

from quickstudy.errors import DataError
from quickstudy.evaluation.leakage.kind import REPORTED, describe_kinds
from quickstudy.evaluation.results import Overlap

MOST = 0.005  # of a task's scored rows: a stray set phrase is no leak

_SOURCES = 3


def refuse_overlap(overlaps: Iterable[Overlap]) -> None:
    """Refuse to score what was seen in meta-training.

    Raises:
        DataError: More than `MOST` of a task's scored rows overlap, or it shares a source with a seen task.
    """
    for overlap in overlaps:
        sources = ", ".join(overlap.sources[:_SOURCES])
        if overlap.overlapping_fraction > MOST:
            percent = f"{100 * overlap.overlapping_fraction:.1f} %"
            kinds = describe_kinds({kind: n for kind, n in overlap.rows.items() if kind not in REPORTED})
            what = f"{percent} of the scored rows of task {overlap.task!r} were {overlap.how} in {sources}"
            what += f" ({kinds}, of {overlap.total:,}; for example {_cut(overlap.examples[0])!r})"
        elif overlap.lineage:
            what = f"task {overlap.task!r} is made from the same source as {sources}: {', '.join(overlap.lineage)}"
        else:
            continue
        raise DataError(what, fix="Evaluate on other tasks, or go on with --allow-overlap: the report will say so.")


def _cut(text: str, length: int = 60) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
