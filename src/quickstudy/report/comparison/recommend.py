"""Recommend: which learner of a comparison to take for these tasks, within limits, and whether the evidence decides.

Only learners within the limits are considered. The one with the best mean leads. Learners that the paired test over
draws (these tasks, other support sets; corrected by Holm for all pairs) cannot tell from it are its equals. The
fastest of these equals is recommended, and of several that are about as fast the one with the best mean: a difference
that nothing shows is not worth waiting for. With a single draw, or where no draw differs from another, no test can
tell, and the better mean decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from quickstudy.errors import DataError
from quickstudy.evaluation.record import LearnerMean, PairedTest, ShotsTable
from quickstudy.evaluation.results import Results
from quickstudy.report.headline import told_from_chance

_CLOSE = 1.1  # times of adapting that differ by less are taken as the same


@dataclass(frozen=True, slots=True)
class Limits:
    """What there is to work with; None where it does not matter.

    Attributes:
        shots: Labelled examples per class that there will be. The largest compared number that is not above it counts.
        seconds: The most seconds that adapting to a task may take.
        mib: The most memory that adapting and predicting may take, in MiB.
        no_gpu: Only learners whose costs were measured without one.
    """

    shots: int | None = None
    seconds: float | None = None
    mib: float | None = None
    no_gpu: bool = False


@dataclass(frozen=True, slots=True)
class Worse:
    """A learner that is told from the best: how far it is behind, and p of that."""

    learner: str
    by: float
    p: float | None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Which learner to take.

    Attributes:
        learner: Its name.
        shots: The number of shots that the figures are of.
        mean: Its mean over tasks.
        low: Lower end of the 95 % interval over tasks; None for one task.
        high: Upper end.
        seconds_adapt: Seconds to adapt to a task.
        equals: The others that are not told from the best.
        worse: Those that are.
        decided: Whether something within the limits is worse.
        why: The reason, in words.
    """

    learner: str
    shots: int
    mean: float
    low: float | None
    high: float | None
    seconds_adapt: float | None
    equals: tuple[str, ...]
    worse: tuple[Worse, ...]
    decided: bool
    why: str


def recommend(results: Results, limits: Limits = Limits()) -> Recommendation:
    """Recommend a learner.

    Args:
        results: Of a comparison.
        limits: What the learner must keep to.

    Raises:
        DataError: No compared number of shots is that small, or no learner is within the limits.
    """
    shots, table = _table(results, limits.shots)
    within = [mean for mean in table.learners if _fits(mean, results.learners[mean.learner].measured.device, limits)]
    if not within:
        raise DataError("no learner is within the limits", fix=f"There are: {', '.join(map(_offer, table.learners))}.")
    best = max(within, key=lambda mean: mean.mean)
    names = {mean.learner for mean in within}
    against = [pair for pair in table.pairs if pair.a == best.learner and pair.b in names]
    worse = [pair for pair in against if told_from_chance(pair.these_tasks)]
    untold = [pair.b for pair in against if pair.these_tasks.p_holm is None]
    apart = {*untold, *(pair.b for pair in worse)}
    equals = [mean for mean in within if mean.learner not in apart]
    chosen = _fastest(equals)
    others = [mean.learner for mean in equals if mean is not chosen]
    return Recommendation(
        learner=chosen.learner,
        shots=shots,
        mean=chosen.mean,
        low=chosen.low,
        high=chosen.high,
        seconds_adapt=chosen.costs.seconds_adapt,
        equals=tuple(others),
        worse=tuple(Worse(pair.b, pair.mean, pair.these_tasks.p_holm) for pair in worse),
        decided=bool(worse),
        why=" ".join(filter(None, [_why(chosen, best, others, worse, len(within)), _untold(best, untold)])),
    )


def _table(results: Results, most: int | None) -> tuple[int, ShotsTable]:
    """Return the table of the most shots that there are and that there will be."""
    compared = {table.shots: table for table in results.tables if table.shots != "all" and table.learners}
    possible = [shots for shots in compared if most is None or shots <= most]
    if not compared:
        raise DataError("the comparison has no figures of few shots", fix="Compare by another protocol than full.")
    if not possible:
        raise DataError(
            f"the comparison has no figures of {most} shots or fewer",
            fix=f"It has {', '.join(map(str, compared))}: compare with fewer --shots.",
        )
    return max(possible), compared[max(possible)]


def _fastest(equals: Sequence[LearnerMean]) -> LearnerMean:
    """Return the best mean of those that adapt about as fast as any."""
    times = [mean.costs.seconds_adapt for mean in equals]
    least = min((seconds for seconds in times if seconds is not None), default=None)
    fast = [
        mean
        for mean, seconds in zip(equals, times, strict=True)
        if least is None or (seconds is not None and seconds <= _CLOSE * least)
    ]
    return max(fast, key=lambda mean: mean.mean)


def _fits(mean: LearnerMean, device: str | None, limits: Limits) -> bool:
    """Return whether a learner is known to keep the limits: what was not measured does not."""
    seconds, mib = mean.costs.seconds_adapt, _memory(mean)
    if limits.seconds is not None and (seconds is None or seconds > limits.seconds):
        return False
    if limits.mib is not None and (mib is None or mib > limits.mib):
        return False
    return not limits.no_gpu or "cuda" not in (device or "")


def _memory(mean: LearnerMean) -> float | None:
    adapting, predicting = mean.costs.adapt_peak_mib, mean.costs.predict_peak_mib
    return None if adapting is None or predicting is None else max(adapting, predicting)


def _offer(mean: LearnerMean) -> str:
    seconds, mib = mean.costs.seconds_adapt, _memory(mean)
    known = [None if seconds is None else f"{seconds:.3g} s", None if mib is None else f"{mib:.0f} MiB"]
    return f"{mean.learner} ({', '.join(filter(None, known)) or 'not measured'})"


def _why(
    chosen: LearnerMean, best: LearnerMean, others: Sequence[str], worse: Sequence[PairedTest], compared: int
) -> str:
    name, mean = chosen.learner, f"{100 * chosen.mean:.1f}"
    if compared == 1:
        return f"{name} is the only one within the limits; its mean is {mean}."
    if not worse and not others:
        return f"{name} has the best mean ({mean})."
    if not worse:
        lead = "Nothing is better than anything else here: no difference is told from chance."
        return f"{lead} {name} ({mean}) adapts as fast as any."
    least = min(100 * pair.mean for pair in worse)
    behind = ", ".join(pair.b for pair in worse)
    lead = f"{best.learner} ({100 * best.mean:.1f}) is ahead of {behind} by {least:.1f} points or more."
    if not others:
        return lead
    if chosen is best:
        return f"{lead} The evidence does not tell it from {', '.join(others)}; it adapts fastest of these."
    return f"{lead} The evidence does not tell it from {name} ({mean}), which adapts fastest of its equals."


def _untold(best: LearnerMean, names: Sequence[str]) -> str:
    if not names:
        return ""
    return (
        f"Whether {best.learner} is ahead of {', '.join(names)} by more than chance cannot be tested: use more draws."
    )
