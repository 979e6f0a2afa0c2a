"""Recommendation: which learner to take, what the evidence decides, and why."""

from dataclasses import dataclass

from quickstudy.report.comparison.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Worse:
    """A learner that is told from the best: how far it is behind, for which tasks, and p of that."""

    learner: str
    by: float
    p: float | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Which learner to take.

    Attributes:
        learner: Its name.
        shots: The number of shots that the figures are of.
        mean: Its mean over tasks.
        low: Lower end of the 95 % interval over tasks; None for one task.
        high: Upper end.
        corrected: Its mean, corrected for having been picked as the best of several; None where it was not picked for
            its mean, or where it is not known what the test rows give.
        seconds_adapt: Seconds to adapt to a task.
        equals: The others that are not told from the best.
        worse: Those that are.
        verdict: The weakest that holds against all others: with one equal it is "not decided". None if no other
            learner is within the limits.
        why: The reason, in words.
    """

    learner: str
    shots: int
    mean: float
    low: float | None
    high: float | None
    corrected: float | None
    seconds_adapt: float | None
    equals: tuple[str, ...]
    worse: tuple[Worse, ...]
    verdict: Verdict | None
    why: str
