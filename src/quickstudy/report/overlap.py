"""Overlap: what pages say of evaluated texts that a learner's meta-training saw."""

from quickstudy.evaluation.leakage.kind import REPORTED, describe_kinds
from quickstudy.evaluation.results import Learner, Overlap


def overlap_notes(learner: Learner) -> list[str]:
    """Return what must be said of a learner's meta-training; nothing if it saw nothing of what is evaluated.

    >>> seen = Overlap("mr", {"exact": 2}, 80, ("sst2",), ())
    >>> overlap_notes(Learner("maml", {}, "minilm", True, "0", overlap=(seen,)))
    ['2 of 80 scored rows of mr were meta-trained on (sst2): 2 the same text']
    """
    notes = [f"meta-trained on, not held out: {', '.join(learner.seen)}"] if learner.seen else []
    notes += [f"meta-validated on, not held out: {', '.join(learner.validated)}"] if learner.validated else []
    if learner.overlap is None:
        return [*notes, "not checked: whether evaluated texts were meta-trained on"]
    if learner.by_fingerprint:
        notes.append("its meta-training texts are not here, so that only rows with the same words were looked for")
    return notes + [note for overlap in learner.overlap for note in _notes(overlap)]


def _notes(overlap: Overlap) -> list[str]:
    sources, task, seen = ", ".join(overlap.sources[:3]), overlap.task, overlap.how
    counted = {kind: count for kind, count in overlap.rows.items() if kind not in REPORTED}
    notes = []
    if counted:
        rows = f"{overlap.overlapping_rows:,} of {overlap.total:,} scored rows of {task}"
        notes.append(f"{rows} were {seen} ({sources}): {describe_kinds(counted)}")
    if others := sum(overlap.rows.values()) - overlap.overlapping_rows:
        rows = f"{others:,} of {overlap.total:,} scored rows of {task}"
        notes.append(f"one text of the pair was {seen} in {rows} ({sources})")
    if overlap.support:
        rows = f"{sum(overlap.support.values()):,} of {overlap.support_total:,} support rows of {task}"
        notes.append(f"{rows} were {seen} ({sources}): {describe_kinds(overlap.support)}")
    if overlap.lineage:
        notes.append(f"{task} is made from the same source as {sources}: {', '.join(overlap.lineage)}")
    return notes
