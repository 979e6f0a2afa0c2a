"""Recommend: which learner of a comparison to take for these tasks, within limits, and what the evidence decides.

Only learners within the limits are considered. The one with the best mean leads. Learners that the evidence (see
`verdict`) cannot tell from it are its equals. The fastest of these equals is recommended, and of several that are
about as fast the one with the best mean: a difference that nothing shows is not worth waiting for. With a single draw,
or where no draw differs from another, no test can tell, and the better mean stands. It also stands where draws alone
tell learners apart and the noise of the test rows is not known; but nothing is called decided then.

The best of several means looks better than it is, because it was picked for that. `corrected` is the mean without
what that is worth; see `crossed.picked_bonus`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from quickstudy.errors import DataError
from quickstudy.evaluation.crossed import picked_bonus
from quickstudy.evaluation.record import Draw, LearnerMean, PairedTest, ShotsTable
from quickstudy.evaluation.results import Results
from quickstudy.evaluation.rows import rows_by_task, scores_by_task
from quickstudy.report.comparison.recommendation import Recommendation, Worse
from quickstudy.report.comparison.verdict import Judged, Verdict, judge, weakest
from quickstudy.report.comparison.words import describe
from quickstudy.report.headline import told_from_chance

_CLOSE = 1.1  # times of adapting that differ by less are taken as the same


@dataclass(frozen=True, slots=True)
class Limits:
    """What there is to work with; None where it does not matter.

    Attributes:
        shots: Labelled examples per class that there will be. The largest compared number that is not above it
            counts, and the answer says so.
        seconds: The most seconds that adapting to a task may take.
        mib: The most memory that adapting and predicting may take, in MiB.
        no_gpu: Only learners whose costs were measured without one.
    """

    shots: int | None = None
    seconds: float | None = None
    mib: float | None = None
    no_gpu: bool = False


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
    best, names = max(within, key=lambda mean: mean.mean), {mean.learner for mean in within}
    looks = len(_few_shots(results))
    judged = judge([pair for pair in table.pairs if {pair.a, pair.b} <= names], looks)
    against = [each for each in judged if each.pair.a == best.learner]
    worse = [each for each in against if each.verdict != "not decided"]
    unclear = [each.pair for each in against if each not in worse and _unclear(each.pair)]
    apart = {*(pair.b for pair in unclear), *(each.pair.b for each in worse)}
    equals = [mean for mean in within if mean.learner not in apart]
    chosen, candidates = _choose(equals, best, within)
    corrected = _corrected_mean(chosen, candidates, [draw for draw in results.draws if draw.shots == shots])
    choice = Recommendation(
        learner=chosen.learner,
        shots=shots,
        mean=chosen.mean,
        low=chosen.low,
        high=chosen.high,
        corrected=corrected,
        seconds_adapt=chosen.costs.seconds_adapt,
        equals=tuple(mean.learner for mean in equals if mean is not chosen),
        worse=tuple(Worse(each.pair.b, each.pair.mean, each.p, each.verdict) for each in worse),
        verdict=_verdict(worse, len(within)),
        why="",
    )
    words = describe(
        choice,
        best,
        limits.shots,
        judged,
        [pair.b for pair in unclear if pair.these_tasks.p is None],
        len(candidates),
        looks,
    )
    return replace(choice, why=words)


def _few_shots(results: Results) -> dict[int, ShotsTable]:
    return {table.shots: table for table in results.tables if isinstance(table.shots, int) and table.learners}


def _unclear(pair: PairedTest) -> bool:
    """Return whether learners cannot be called equal either: no test can tell, or only draws are known and do tell."""
    return pair.these_tasks.p is None or (not pair.counts_rows and told_from_chance(pair.these_tasks))


def _verdict(worse: Sequence[Judged], compared: int) -> Verdict | None:
    if compared == 1:
        return None
    return weakest([each.verdict for each in worse]) if len(worse) == compared - 1 else "not decided"


def _table(results: Results, most: int | None) -> tuple[int, ShotsTable]:
    """Return the table of the most shots that there are and that there will be."""
    compared = _few_shots(results)
    possible = [shots for shots in compared if most is None or shots <= most]
    if not compared:
        raise DataError("the comparison has no figures of few shots", fix="Compare by another protocol than full.")
    if not possible:
        raise DataError(
            f"the comparison has no figures of {most} shots or fewer",
            fix=f"It has {', '.join(map(str, compared))}: compare with fewer --shots.",
        )
    return max(possible), compared[max(possible)]


class _Choice(NamedTuple):
    """The learner that is taken, and those among which it was picked for its mean."""

    chosen: LearnerMean
    candidates: Sequence[LearnerMean]


def _choose(equals: Sequence[LearnerMean], best: LearnerMean, within: Sequence[LearnerMean]) -> _Choice:
    """Return the best mean of those that adapt about as fast as any."""
    times = [mean.costs.seconds_adapt for mean in equals]
    least = min((seconds for seconds in times if seconds is not None), default=None)
    fast = [
        mean
        for mean, seconds in zip(equals, times, strict=True)
        if least is None or (seconds is not None and seconds <= _CLOSE * least)
    ]
    chosen = max(fast, key=lambda mean: mean.mean)
    return _Choice(chosen, within if chosen is best else fast)


def _corrected_mean(chosen: LearnerMean, candidates: Sequence[LearnerMean], draws: Sequence[Draw]) -> float | None:
    """Return the mean without what it owes to having been picked; None where that is not known."""
    names = [mean.learner for mean in candidates]
    of_learners = [[draw for draw in draws if draw.learner == name] for name in names]
    rows = [rows_by_task(of_learner) for of_learner in of_learners]
    scores = [scores_by_task(of_learner) for of_learner in of_learners]
    tests = [{task: of_task.tests for task, of_task in of_learner.items()} for of_learner in rows]
    alike = all(each == tests[0] for each in tests) and all(each.keys() == tests[0].keys() for each in scores)
    if len(names) < 2 or not alike or min(map(len, tests[0].values()), default=0) < 2:
        return None
    return chosen.mean - picked_bonus(scores, rows)


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
