"""Figures: confusions, calibration and costs of a comparison, put together for tables and drawings.

Counts of several draws are added up before a fraction is taken of them; scores are averaged over draws.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from quickstudy.evaluation.record import LabelScores, Reliability, Shots
from quickstudy.report.view import View

_MOST_LABELS = 30  # a larger matrix cannot be read; its most frequent confusions can


@dataclass(frozen=True, slots=True)
class Confusion:
    """What a learner predicted for each label, added up over draws.

    Attributes:
        counts: Lines are true labels, columns predicted ones.
        right: Right predictions.
        total: All predictions.
        frequent: The most frequent confusions, as (true label, predicted label, count).
    """

    counts: tuple[tuple[int, ...], ...]
    right: int
    total: int
    frequent: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True)
class LabelMean:
    """Mean over draws of the scores of one label; None where no draw has one."""

    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class TaskLabels:
    """How the labels of one task were predicted.

    Attributes:
        task: The task.
        shots: The largest number of shots that it has.
        labels: Names of its labels.
        confusions: By learner.
        scores: Of each label, by learner.
    """

    task: str
    shots: Shots
    labels: tuple[str, ...]
    confusions: Mapping[str, Confusion]
    scores: Mapping[str, tuple[LabelMean, ...]]

    @property
    def whole(self) -> bool:
        """Whether a matrix is small enough to be read."""
        return len(self.labels) <= _MOST_LABELS


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions of about the same confidence: its mean, their accuracy, and their fraction of all predictions."""

    confidence: float
    accuracy: float
    fraction: float


@dataclass(frozen=True, slots=True)
class Diagram:
    """The reliability of a learner's probabilities.

    Attributes:
        learner: The learner.
        index: Its place among all, for its style.
        n: Number of predictions.
        bins: Predictions by confidence.
        ece: Expected calibration error of all predictions together.
        mean_ece: Mean over draws of that of each draw.
        log_loss: Mean over draws, in nats.
    """

    learner: str
    index: int
    n: int
    bins: tuple[Bin, ...]
    ece: float
    mean_ece: float
    log_loss: float


@dataclass(frozen=True, slots=True)
class CostPoint:
    """A learner's seconds to adapt and its mean score; `index` is its place among all, for its style."""

    learner: str
    index: int
    seconds: float
    mean: float


def task_labels(view: View) -> list[TaskLabels]:
    """Return how the labels of each classification task were predicted, at the largest number of shots that it has."""
    tasks = []
    for name, task in view.results.tasks.items():
        having = [shots for shots in view.shots if any(key[:2] == (name, shots) for key in view.cells)]
        if not having or not task.label_names:
            continue
        confusions, scores = {}, {}
        for learner in view.learners:
            draws = view.cells.get((name, having[-1], learner), [])
            if figures := [draw.labels for draw in draws if draw.labels]:
                confusions[learner] = _added([each.confusion for each in figures], task.label_names)
                scores[learner] = _label_means([each.per_class for each in figures])
        tasks.append(TaskLabels(name, having[-1], task.label_names, confusions, scores))
    return [task for task in tasks if task.confusions]


def diagrams(view: View) -> list[Diagram]:
    """Return the reliability of each learner's probabilities. Predictions of all tasks and draws are put together."""
    reliable = []
    for index, learner in enumerate(view.learners):
        cells = [view.cells.get((task, view.largest, learner), []) for task in view.results.tasks]
        calibrations = [draw.calibration for draws in cells for draw in draws if draw.calibration]
        bins = _pooled([calibration.reliability for calibration in calibrations])
        if bins:
            ece = sum(abs(each.confidence - each.accuracy) * each.fraction for each in bins)
            means = (fmean(c.ece for c in calibrations), fmean(c.log_loss for c in calibrations))
            n = sum(sum(calibration.reliability.count) for calibration in calibrations)
            reliable.append(Diagram(learner, index, n, bins, ece, *means))
    return reliable


def cost_points(view: View) -> list[CostPoint]:
    """Return what learners cost and score at the largest number of shots, as far as both are known."""
    means, points = view.means(view.largest), []
    for index, name in enumerate(view.learners):
        seconds = view.results.learners[name].measured.costs.seconds_adapt
        if name in means and seconds:
            points.append(CostPoint(name, index, seconds, means[name].mean))
    return points


def _added(tables: Sequence[Sequence[Sequence[int]]], labels: Sequence[str]) -> Confusion:
    counts = tuple(tuple(map(sum, zip(*lines, strict=True))) for lines in zip(*tables, strict=True))
    wrong = [
        (labels[i], labels[j], value)
        for i, line in enumerate(counts)
        for j, value in enumerate(line)
        if value and i != j
    ]
    return Confusion(
        counts=counts,
        right=sum(line[i] for i, line in enumerate(counts)),
        total=sum(map(sum, counts)),
        frequent=tuple(sorted(wrong, key=lambda confused: -confused[2])[:_MOST_LABELS]),
    )


def _label_means(scores: Sequence[LabelScores]) -> tuple[LabelMean, ...]:
    return tuple(
        LabelMean(*(_mean(getattr(each, key)[label] for each in scores) for key in ("precision", "recall", "f1")))
        for label in range(len(scores[0].f1))
    )


def _pooled(of_draws: Sequence[Reliability]) -> tuple[Bin, ...]:
    columns = [
        [sum(column) for column in zip(*(getattr(each, key) for each in of_draws), strict=True)] for key in _SUMS
    ]
    count, confidence, right = columns
    total = sum(count)
    return tuple(
        Bin(sure / n, hits / n, n / total) for n, sure, hits in zip(count, confidence, right, strict=True) if n
    )


_SUMS = ("count", "confidence", "right")


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
