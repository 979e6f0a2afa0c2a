"""Record: what an evaluation hands on, by name; every figure that is computed, stored or shown stands in one of these classes.

    Draw          one learner on one support set of one task: its scores, its calibration, its mistakes, its costs
    PairedTest    one learner against another on identical draws
    ShotsTable    all learners at one number of shots: means over tasks, paired tests, ranks
    Learner       what a learner is, what its meta-training took, and what it costs
    EvaluatedTask what a task is, and the texts that the report may show
    Results       all of these together: the content of `results.json`

None stands for "not known": an interval of a single draw, memory that could not be measured. Scores and probabilities go
from 0 to 1. How records become files is the business of `results_file` alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

from quickstudy.tasks.task import Kind

Shots = int | Literal["all"]
OverlapKind = Literal["exact", "normalised", "13-gram", "lineage"]


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
        low: Lower end of the 95 % interval over tasks; None for one task, as are `high` and `above`.
        high: Upper end.
        n: Number of tasks.
        above: Probability that the mean is above 0.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    above: float | None


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
        above: Probability that the difference is above 0 on other tasks too.
        these_tasks: Evidence about these tasks, were other support sets drawn.
        other_tasks: Evidence about other tasks too.
    """

    a: str
    b: str
    mean: float
    n: int
    above: float | None
    these_tasks: Evidence
    other_tasks: Evidence


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


@dataclass(frozen=True, slots=True)
class Curve:
    """A meta-training over its outer steps.

    Attributes:
        step: Outer steps.
        loss: Meta-loss of each; None where it was not finite.
        validation: Outer step and meta-validation score.
    """

    step: tuple[int, ...] = ()
    loss: tuple[float | None, ...] = ()
    validation: tuple[tuple[int, float | None], ...] = ()

    def __post_init__(self) -> None:
        if len(self.step) != len(self.loss):
            raise ValueError("it has steps without a loss, or losses without a step")


@dataclass(frozen=True, slots=True)
class Training:
    """What a meta-training took; None where the run's log does not say.

    Attributes:
        outer_steps: Outer steps.
        seconds: Wall time.
        peak_mib: The most memory that the process held, in MiB.
        curve: Meta-loss and meta-validation over the outer steps.
    """

    outer_steps: int | None
    seconds: float | None
    peak_mib: float | None
    curve: Curve | None


@dataclass(frozen=True, slots=True)
class Overlap:
    """What one evaluated task has in common with the meta-train tasks.

    Attributes:
        task: The evaluated task.
        rows: Scored rows by kind of overlap (exact, normalised, 13-gram).
        total: Scored rows in all.
        sources: Meta-train tasks that have the same texts or a common source; most rows first.
        lineage: Declared sources in common.
        examples: The first few of the texts.
    """

    task: str
    rows: Mapping[str, int]
    total: int
    sources: tuple[str, ...]
    lineage: tuple[str, ...]
    examples: tuple[str, ...] = ()

    @property
    def overlapping_rows(self) -> int:
        """Scored rows that were meta-trained on."""
        return sum(self.rows.values())

    @property
    def overlapping_fraction(self) -> float:
        """The same, as a fraction of all that are scored."""
        return self.overlapping_rows / max(1, self.total)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a learner costs: medians over its draws at the largest number of shots.

    Attributes:
        device: Where it computed, in words.
        parameters: Parameters of the learner.
        adapted_parameters: Parameters that one task has for itself.
        bytes_saved: Size of a saved model.
        costs: Of adapting and predicting.
    """

    device: str | None = None
    parameters: float | None = None
    adapted_parameters: float | None = None
    bytes_saved: float | None = None
    costs: Costs = field(default_factory=Costs)


@dataclass(frozen=True, slots=True)
class Learner:
    """What was compared, and what it costs.

    Attributes:
        method: Name of the method.
        settings: Settings of the method that differ from its defaults.
        encoder: Public name of the encoder.
        trained: Whether it is meta-trained.
        fingerprint: Hash of all that its predictions follow from: the encoder's files, the settings, what was learned.
        training: What its meta-training took; None without one, or where the run has no log.
        seen: Evaluated tasks that it was meta-trained on.
        overlap: Scored texts that it was meta-trained on; None if that could not be looked up.
        measured: What adapting and predicting cost.
    """

    method: str
    settings: Mapping[str, JsonValue]
    encoder: str
    trained: bool
    fingerprint: str
    training: Training | None = None
    seen: tuple[str, ...] = ()
    overlap: tuple[Overlap, ...] | None = ()
    measured: Measured = field(default_factory=Measured)


@dataclass(frozen=True, slots=True)
class LabelledText:
    """An example as a reader sees it: its texts, and the name of its label or its score."""

    text: str
    text_pair: str | None
    label: str | int | float | None


@dataclass(frozen=True, slots=True)
class FirstDraw:
    """Texts of the first draw of a number of shots, for the report to show.

    Attributes:
        shots: The number.
        support: The support set.
        scored: The scored examples that some learner got wrong, by `Mistake.row`.
    """

    shots: Shots
    support: tuple[LabelledText, ...]
    scored: Mapping[int, LabelledText]


@dataclass(frozen=True, slots=True)
class EvaluatedTask:
    """A task that learners were evaluated on.

    Attributes:
        domain: Subject area.
        kind: Classification or regression.
        label_names: Position = label; empty for regression.
        metric: The task's own metric.
        n_test: How many examples are scored in each draw.
        trials: Hash of the texts and labels of all its trials.
        first_draws: Texts to show, by number of shots; empty if texts are left out.
    """

    domain: str
    kind: Kind
    label_names: tuple[str, ...]
    metric: str
    n_test: int
    trials: str
    first_draws: tuple[FirstDraw, ...] = ()


@dataclass(frozen=True, slots=True)
class Versions:
    """With what, where and when results were made."""

    quickstudy: str
    torch: str
    transformers: str
    python: str
    machine: str
    date: str


@dataclass(frozen=True, slots=True)
class UsedProtocol:
    """The protocol that results were made by; see `protocol.Protocol`. Ways and queries are None but for episodes."""

    name: str
    version: int
    shots: tuple[Shots, ...]
    draws: int
    seed: int
    limit: int | None
    n_way: int | None
    n_query: int | None


@dataclass(frozen=True, slots=True)
class Results:
    """All that an evaluation or a comparison gives.

    Attributes:
        versions: With what, where and when they were made.
        protocol: What learners adapted to and were scored on.
        learners: By name.
        tasks: By name.
        tables: One for each number of shots, few first.
        draws: One for each learner, task, number of shots and support set.
    """

    versions: Versions
    protocol: UsedProtocol
    learners: Mapping[str, Learner]
    tasks: Mapping[str, EvaluatedTask]
    tables: tuple[ShotsTable, ...]
    draws: tuple[Draw, ...]

    def table(self, shots: Shots) -> ShotsTable:
        """Return the table of a number of shots."""
        return next(table for table in self.tables if table.shots == shots)
