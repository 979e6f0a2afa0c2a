"""Results: what an evaluation gives as a whole, the content of `results.json`.

    Learner         what a learner is, what its meta-training took, and what it costs
    EvaluatedTask   what a task is, and the texts that the report may show
    Results         these, the protocol, a table for each number of shots, and all draws

None stands for "not known" or "there is none".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from quickstudy.evaluation.leakage.kind import REPORTED, Seen
from quickstudy.evaluation.record import Costs, Draw, Shots, ShotsTable
from quickstudy.tasks.task import Kind


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
    """What one evaluated task has in common with the tasks that meta-training saw.

    Attributes:
        task: The evaluated task.
        rows: Scored rows by kind of overlap; see `leakage.kind`.
        total: Scored rows in all.
        sources: Seen tasks that have the same texts or a common source; most rows first.
        lineage: Declared sources in common.
        examples: The first few of the texts.
        how: What was done with the seen tasks.
        support: Rows of support sets by kind of overlap.
        support_total: Rows of support sets in all.
    """

    task: str
    rows: Mapping[str, int]
    total: int
    sources: tuple[str, ...]
    lineage: tuple[str, ...]
    examples: tuple[str, ...] = ()
    how: Seen = "meta-trained on"
    support: Mapping[str, int] = field(default_factory=dict)
    support_total: int = 0

    @property
    def overlapping_rows(self) -> int:
        """Scored rows that were seen; those of kinds that are only reported are left out."""
        return sum(count for kind, count in self.rows.items() if kind not in REPORTED)

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
        validated: Evaluated tasks of its meta-validation, on which its checkpoint was chosen.
        overlap: What is evaluated and was seen; None if that could not be looked up.
        by_fingerprint: Whether it was looked up without the texts, so that only rows of the same words were found.
        measured: What adapting and predicting cost.
    """

    method: str
    settings: Mapping[str, JsonValue]
    encoder: str
    trained: bool
    fingerprint: str
    training: Training | None = None
    seen: tuple[str, ...] = ()
    validated: tuple[str, ...] = ()
    overlap: tuple[Overlap, ...] | None = ()
    by_fingerprint: bool = False
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
