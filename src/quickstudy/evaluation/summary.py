"""Summary: draws put together; a table for each number of shots, and what a learner costs."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from statistics import median

from quickstudy.evaluation.pairs import compare_all
from quickstudy.evaluation.record import Costs, Draw, LearnerMean, Shots, ShotsTable
from quickstudy.evaluation.results import Measured
from quickstudy.evaluation.rows import rows_by_task, scores_by_task
from quickstudy.evaluation.statistics import average_ranks, over_tasks


def shots_tables(draws: Sequence[Draw], shots: Sequence[Shots]) -> tuple[ShotsTable, ...]:
    """Return one table for each number of shots."""
    return tuple(_table([draw for draw in draws if draw.shots == k], k) for k in shots)


def measured_costs(draws: Sequence[Draw]) -> Measured:
    """Return what a learner costs: medians over its draws at one number of shots."""
    sizes = [draw.footprint for draw in draws]
    places = sorted({f"{size.device}, {size.threads} thread{'s' * (size.threads > 1)}" for size in sizes})
    return Measured(
        device=" and ".join(places) or None,
        parameters=_median(size.parameters for size in sizes),
        adapted_parameters=_median(size.adapted_parameters for size in sizes),
        bytes_saved=_median(size.bytes_saved for size in sizes),
        costs=_median_costs(draws),
    )


def _table(draws: Sequence[Draw], shots: Shots) -> ShotsTable:
    by_learner: dict[str, list[Draw]] = {}
    for draw in draws:
        by_learner.setdefault(draw.learner, []).append(draw)
    if not by_learner:
        return ShotsTable(shots, (), (), {}, None)
    scores = {learner: scores_by_task(of_learner) for learner, of_learner in by_learner.items()}
    rows = {learner: rows_by_task(of_learner) for learner, of_learner in by_learner.items()}
    means = []
    for learner, of_learner in by_learner.items():
        mean = over_tasks(scores[learner])
        means.append(LearnerMean(learner, mean.mean, mean.low, mean.high, mean.n, _median_costs(of_learner)))
    ranks, difference = average_ranks(scores)
    return ShotsTable(shots, tuple(means), tuple(compare_all(scores, rows)), ranks, difference)


def _median_costs(draws: Sequence[Draw]) -> Costs:
    return Costs(*(_median(getattr(draw.costs, field.name) for draw in draws) for field in fields(Costs)))


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
