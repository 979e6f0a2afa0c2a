"""Record: what an evaluation measures, by name; every figure that is computed, stored or shown stands in one of these.

    Draw          one learner on one support set of one task: its scores, its calibration, its mistakes, its costs
    PairedTest    one learner against another on identical draws
    ShotsTable    all learners at one number of shots: means over tasks, paired tests, ranks

None stands for "not known": the interval of a single draw, memory that could not be measured. Scores and
probabilities go from 0 to 1. `results` has the records of learners and tasks, and all of them together;
`results_file` alone knows how they become files.
"""

from base64 import b64decode
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
class RowScores:
    """What each test row gives to the score that tables show; see `rows`. One of the two is there.

    Attributes:
        tests: Hash of the texts that were scored.
        right: Which rows were predicted rightly, as bits in base64; where the score is accuracy.
        pseudo: Pseudo-values of the jackknife over groups of rows; where the score is another.
    """

    tests: str
    right: str | None = None
    pseudo: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if (self.right is None) == (self.pseudo is None):
            raise ValueError("it has neither right rows nor pseudo-values, or both")

    def fit(self, n_test: int) -> bool:
        """Return whether they can be those of so many rows."""
        if self.right is None:
            return 0 < len(self.pseudo or ()) <= n_test
        try:
            return len(b64decode(self.right, validate=True)) == (n_test + 7) // 8
        except ValueError:
            return False


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
        rows: What each test row gives to the score; None where it is not known, as in results of earlier versions.
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
    rows: RowScores | None = None

    def __post_init__(self) -> None:
        if self.main not in self.scores:
            raise ValueError(f"the score {self.main!r}, which its tables show, is missing")
        if self.rows is not None and not self.rows.fit(self.n_test):
            raise ValueError(f"its rows are not those of {self.n_test} scored examples")

    @property
    def score(self) -> float:
        """The score that tables show."""
        return self.scores[self.main]


@dataclass(frozen=True, slots=True)
class DrawsMean:
    """Mean over the draws of one task.

    Attributes:
        mean: The mean.
        sd: Standard deviation of the draws; None for one draw, as are the ends of the interval.
        low: Lower end of the 95 % interval over draws.
        high: Upper end.
        n: Number of draws.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class TasksMean:
    """Mean over tasks, each of which counts once, as evidence about other tasks.

    Attributes:
        mean: The mean.
        low: Lower end of the 95 % interval over tasks; None for one task, as is `high`.
        high: Upper end.
        n: Number of tasks.
    """

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for a mean difference, as far as something can be told.

    Attributes:
        low: Lower end of the 95 % interval of the difference.
        high: Upper end.
        p: Probability of a difference as large as this if there were none.
        p_holm: The same, corrected by Holm for the number of pairs.
    """

    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None


@dataclass(frozen=True, slots=True)
class PairedTest:
    """The difference of two learners on identical draws.

    Attributes:
        a: The one with the better mean.
        b: The other.
        mean: Mean difference over tasks, a minus b.
        n: Number of tasks that both have.
        these_tasks: Evidence about these tasks, were other support sets drawn, and other test rows.
        other_tasks: Evidence about other tasks too.
        counts_rows: Whether `these_tasks` counts the noise of the test rows; not in results of earlier versions.
    """

    a: str
    b: str
    mean: float
    n: int
    these_tasks: Evidence
    other_tasks: Evidence
    counts_rows: bool = False


@dataclass(frozen=True, slots=True)
class LearnerMean:
    """A learner's mean over tasks at one number of shots.

    Attributes:
        learner: Its name.
        mean: The mean.
        low: Lower end of the 95 % interval over tasks.
        high: Upper end.
        n: Number of tasks.
        costs: Medians over the draws of all tasks.
    """

    learner: str
    mean: float
    low: float | None
    high: float | None
    n: int
    costs: Costs


@dataclass(frozen=True, slots=True)
class ShotsTable:
    """All learners at one number of shots.

    Attributes:
        shots: The number; no learner is in a table of shots that no task has draws of.
        learners: Means over tasks.
        pairs: Every pair of learners on identical draws.
        ranks: Average rank over tasks by learner, 1 is best.
        critical_difference: Ranks that differ by less are not told apart.
    """

    shots: Shots
    learners: tuple[LearnerMean, ...]
    pairs: tuple[PairedTest, ...]
    ranks: Mapping[str, float]
    critical_difference: float | None
