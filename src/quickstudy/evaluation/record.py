"""Record: what an evaluation hands on, by name; every figure that is computed, stored or shown stands in one of these classes.

    Draw          one learner on one support set of one task (see `draw_record`)
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

from quickstudy.evaluation.draw_record import Costs, Draw, Shots
from quickstudy.tasks.task import Kind

OverlapKind = Literal["exact", "normalised", "13-gram", "lineage"]


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
