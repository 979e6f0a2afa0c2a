"""Verdict: what the evidence says of one learner being ahead of another, in three steps.

    decided for tasks like these     other tasks would show the difference too
    decided for these tasks          other support sets and other test rows of these tasks would show it too
    not decided                      neither

The first needs the second as well, where the second can be tested: with few tasks, their means may lie close together
by chance. Test rows are the same in all draws, so their noise does not average out over draws. Where it is not known
(results of earlier versions), nothing is decided for these tasks alone. p values are corrected by Holm for all pairs
of the learners that are considered, and multiplied by the numbers of shots that the comparison has: each of them is
one more look at the same question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from quickstudy.evaluation.pairs import holm
from quickstudy.evaluation.record import PairedTest
from quickstudy.report.headline import LEVEL

Verdict = Literal[
    "decided for tasks like these", "decided for these tasks", "decided for this task", "not decided"
]  # the strongest first


@dataclass(frozen=True, slots=True)
class Judged:
    """A pair of learners, and what is decided of it.

    Attributes:
        pair: The better mean is first.
        verdict: What is decided.
        p: The corrected p that it was decided by, or that was too large; None where nothing can be tested.
    """

    pair: PairedTest
    verdict: Verdict
    p: float | None


def judge(pairs: Sequence[PairedTest], looks: int) -> list[Judged]:
    """Return what is decided of each pair.

    Args:
        pairs: All pairs of the learners that are considered.
        looks: How many numbers of shots were looked at.
    """
    other = _corrected([pair.other_tasks.p for pair in pairs], looks)
    these = _corrected([pair.these_tasks.p if pair.counts_rows else None for pair in pairs], looks)
    return [_judged(*each) for each in zip(pairs, other, these, strict=True)]


def weakest(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the weakest of several verdicts.

    >>> weakest(["decided for tasks like these", "decided for these tasks"])
    'decided for these tasks'
    """
    return max(verdicts, key=get_args(Verdict).index)


def _judged(pair: PairedTest, other: float | None, these: float | None) -> Judged:
    if other is not None and max(other, these or 0.0) <= LEVEL:
        return Judged(pair, "decided for tasks like these", max(other, these or 0.0))
    if these is not None and these <= LEVEL:
        return Judged(pair, "decided for this task" if pair.n == 1 else "decided for these tasks", these)
    return Judged(pair, "not decided", other if these is None and pair.n > 1 else these)


def _corrected(p: Sequence[float | None], looks: int) -> list[float | None]:
    corrected = holm([float("nan") if value is None else value for value in p])
    return [None if value is None else min(1.0, looks * raised) for value, raised in zip(p, corrected, strict=True)]
