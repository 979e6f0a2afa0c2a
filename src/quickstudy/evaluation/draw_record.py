"""Draw record: one learner on one support set of one task: its scores, its calibration, its mistakes and its costs.

None stands for "not known", such as memory that could not be measured. Scores and probabilities go from 0 to 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from quickstudy.tasks.task import Kind

Shots = int | Literal["all"]


@dataclass(frozen=True, slots=True)
class Costs:
    """What adapting and predicting took, for a user who has nothing encoded yet.

    Attributes:
        seconds_adapt: Adapting to the support set.
        seconds_predict: Predicting all scored texts.
        seconds_predict_1000: The same for 1,000 texts.
        adapt_peak_mib: The most memory that the process held while it adapted, in MiB.
        predict_peak_mib: The same while it predicted.
    """

    seconds_adapt: float | None = None
    seconds_predict: float | None = None
    seconds_predict_1000: float | None = None
    adapt_peak_mib: float | None = None
    predict_peak_mib: float | None = None


@dataclass(frozen=True, slots=True)
class Footprint:
    """Where a learner computed, and how large it is.

    Attributes:
        device: Type of the device, `cpu` or `cuda`.
        threads: Threads of the processor that PyTorch used.
        parameters: Parameters of the learner.
        adapted_parameters: Parameters that one task has for itself.
        bytes_saved: Size of a saved model.
    """

    device: str
    threads: int
    parameters: int
    adapted_parameters: int
    bytes_saved: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """Predictions by how sure the learner was: a figure for each of 15 equal bins of confidence.

    Attributes:
        count: Predictions in the bin.
        confidence: Sum of their probabilities.
        right: How many of them are right.
    """

    count: tuple[int, ...]
    confidence: tuple[float, ...]
    right: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.count) == len(self.confidence) == len(self.right):
            raise ValueError("its lists are of unequal length")


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far the probabilities of a draw can be trusted.

    Attributes:
        log_loss: In nats.
        ece: Expected calibration error.
        reliability: The bins that it is computed from.
    """

    log_loss: float
    ece: float
    reliability: Reliability


@dataclass(frozen=True, slots=True)
class LabelScores:
    """Scores of each label of the task, in its order; None for labels that an episode did not have."""

    precision: tuple[float | None, ...]
    recall: tuple[float | None, ...]
    f1: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """What was predicted for each label.

    Attributes:
        per_class: Scores of each label.
        confusion: How often each true label (line) was predicted as each label (column).
    """

    per_class: LabelScores
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Mistake:
    """A wrong prediction, without its text.

    Attributes:
        row: Number of the example among the scored ones.
        predicted: Name of the label that was predicted.
        probability: What the learner thought that it has.
    """

    row: int
    predicted: str
    probability: float | None


@dataclass(frozen=True, slots=True)
class Draw:
    """One learner that adapted to one support set of one task and was scored.

    Attributes:
        task: Name of the task.
        domain: Subject area of the task.
        kind: Classification or regression.
        learner: Name of the learner.
        shots: Labelled examples per class.
        draw: Number of the support set.
        n_test: How many examples were scored.
        main: Name of the score that tables show.
        scores: Value of each score by its name, e.g. `accuracy`; see `metrics`.
        calibration: Of the probabilities; None for regression.
        labels: Figures of each label; None for regression.
        mistakes: The surest wrong predictions; None where they are not kept (regression, and all draws but the first).
        footprint: Where it computed, and how large it is.
        costs: What it took.
    """

    task: str
    domain: str
    kind: Kind
    learner: str
    shots: Shots
    draw: int
    n_test: int
    main: str
    scores: Mapping[str, float]
    calibration: Calibration | None
    labels: LabelFigures | None
    mistakes: tuple[Mistake, ...] | None
    footprint: Footprint
    costs: Costs

    def __post_init__(self) -> None:
        if self.main not in self.scores:
            raise ValueError(f"the score {self.main!r}, which its tables show, is missing")

    @property
    def score(self) -> float:
        """The score that tables show."""
        return self.scores[self.main]
