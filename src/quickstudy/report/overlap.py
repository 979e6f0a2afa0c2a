"""Overlap: what pages say of scored texts that a learner was meta-trained on."""

from quickstudy.evaluation.results import Learner, Overlap


def overlap_notes(learner: Learner) -> list[str]:
    """Return what must be said of a learner's meta-training; nothing if it saw nothing of what is scored.

    >>> seen = Overlap("mr", {"exact": 2}, 80, ("sst2",), ())
    >>> overlap_notes(Learner("maml", {}, "minilm", True, "0", overlap=(seen,)))
    ['2 of 80 scored rows of mr were meta-trained on (sst2)']
    """
    notes = [f"meta-trained on, not held out: {', '.join(learner.seen)}"] if learner.seen else []
    if learner.overlap is None:
        return [*notes, "not checked: whether scored texts were meta-trained on"]
    return notes + [note for overlap in learner.overlap for note in _notes(overlap)]


def _notes(overlap: Overlap) -> list[str]:
    sources, rows = ", ".join(overlap.sources[:3]), overlap.overlapping_rows
    notes = []
    if rows:
        notes.append(f"{rows:,} of {overlap.total:,} scored rows of {overlap.task} were meta-trained on ({sources})")
    if overlap.lineage:
        notes.append(f"{overlap.task} is made from the same source as {sources}: {', '.join(overlap.lineage)}")
    return notes
