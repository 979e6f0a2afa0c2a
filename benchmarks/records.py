"""Records: what the JSON files of the benchmarks hold, with one checked way to read and to write them.

Each benchmark fills in the record of its file; `results.py` makes its tables from the same records. Fields have the
names of the JSON keys, in the order of the file. Seconds are wall time where nothing else is said, memory is in MiB.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AliasChoices, Field, TypeAdapter

from quickstudy.evaluation.record import Draw
from quickstudy.storage.files import write_json

Record = TypeVar("Record")


def read(file: Path, kind: type[Record]) -> Record:
    """Read a record; a file that does not hold it is refused by pydantic, which names the field."""
    return TypeAdapter(kind).validate_json(file.read_text(encoding="utf-8"))


def write(file: Path, record: Any) -> None:
    """Write a record in one step, so that a benchmark that is stopped leaves the file of the run before."""
    write_json(file, TypeAdapter(type(record)).dump_python(record, mode="json", by_alias=True))


@dataclass(frozen=True)
class Spread:
    """The median of some values, with the least and the greatest."""

    median: float
    min: float
    max: float

    @classmethod
    def over(cls, values: Iterable[float]) -> "Spread":
        values = list(values)
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 2) -> str:
        return f"{self.median:.{digits}f} ({self.min:.{digits}f} to {self.max:.{digits}f})"


# adapt_predict.json


@dataclass(frozen=True)
class AdaptPredictRow:
    method: str
    adapt_s: Spread
    predict_100_s: Spread


@dataclass(frozen=True)
class AdaptPredict:
    versions: dict[str, str]
    threads: int
    load_encoder_s: float
    repeat: int
    rows: tuple[AdaptPredictRow, ...]


# costs.json


@dataclass(frozen=True)
class CostPoint:
    """The cost of one meta-gradient where one size has this value and the others are as usual."""

    size: str
    value: int
    seconds: float
    more_mib: float
    data_seconds: float
    operations: float
    planned_mib: Annotated[float, Field(validation_alias=AliasChoices("planned_mib", "reckoned_mib"))]  # older files

    @property
    def data_fraction(self) -> float:
        """How much of the time sampling and tokenising take."""
        return self.data_seconds / (self.data_seconds + self.seconds)


@dataclass(frozen=True)
class Line:
    """The straight line through the seconds (and the memory) of one size, and how much of the variance it explains."""

    seconds_per_unit: float
    seconds_at_0: float
    r2: float
    mib_per_unit: float


@dataclass(frozen=True)
class Costs:
    adapts: str
    runs: int
    versions: dict[str, str]
    lines: dict[str, Line]
    rows: tuple[CostPoint, ...]

    def points(self, size: str) -> list[CostPoint]:
        return [point for point in self.rows if point.size == size]


# peers.json and gpu.json


@dataclass(frozen=True)
class PeerRow:
    """What one implementation takes for the meta-gradient of a case."""

    name: str
    seconds: float
    more_mib: float
    times_ours: float
    spread: tuple[float, float]
    times_floor: float


@dataclass(frozen=True)
class PeerCase:
    """One case: `operations` are the least that it takes, `rate` what matrix products reach, operations per second."""

    case: str
    best_peer: str | None
    operations: float
    rate: float
    runs: int
    rows: tuple[PeerRow, ...]
    device: str = "cpu"
    threads: int | None = None
    versions: dict[str, str] | None = None


@dataclass(frozen=True)
class Peers:
    cases: dict[str, PeerCase]


@dataclass(frozen=True)
class MetaBatchCost:
    """What the second-order meta-gradient of a whole meta-batch takes."""

    seconds: float
    more_mib: float
    share_of_matrix_rate: float


@dataclass(frozen=True)
class Gpu:
    device: str
    versions: dict[str, str]
    rates: dict[str, float]
    cases: dict[str, PeerCase]
    meta_batch: dict[str, MetaBatchCost]
    profile: str


# prediction.json


@dataclass(frozen=True)
class TokensPerText:
    mean: float
    median: float


@dataclass(frozen=True)
class PredictionRow:
    """One way to predict; probabilities and labels are compared with those of quickstudy in single precision."""

    case: str
    core_s: Spread
    wall_s: Spread
    texts_per_core_s: float
    times_as_fast_core: Spread
    times_as_fast_wall: Spread
    largest_difference_of_probabilities: float | None = None
    equal_labels: float | None = None


@dataclass(frozen=True)
class Prediction:
    versions: dict[str, str]
    threads: int
    texts: int
    references: Annotated[tuple[str, ...], Field(alias="from")]
    tokens_per_text: TokensPerText
    repeat: int
    largest_difference_of_features: float
    rows: tuple[PredictionRow, ...]


# processes.json


@dataclass(frozen=True)
class ProcessRun:
    """What the main process of a run measured; `floats` are summed over the processes in each of `sum_seconds`."""

    seconds_per_episode: float
    loss: tuple[float, ...]
    peak_mib: float | None
    floats: int
    sum_seconds: tuple[float, ...]
    threads: int


@dataclass(frozen=True)
class Processes:
    settings: dict[str, str | int]
    versions: dict[str, str]
    throughput_ratios: tuple[float, ...]
    loss_difference: float
    sum_seconds: tuple[float, ...]
    floats: int
    runs: dict[str, tuple[ProcessRun, ...]]


# frozen_evaluation.json


@dataclass(frozen=True)
class FrozenRow:
    task: str
    texts: int | None
    draws: int | None
    encode_seconds: float
    evaluate_seconds: float
    ratio: float


@dataclass(frozen=True)
class FrozenEvaluation:
    learner: str
    threads: int
    limit: int
    rows: tuple[FrozenRow, ...]


# leaderboard/setfit.jsonl, leaderboard/steps.jsonl


@dataclass(frozen=True)
class Score:
    """The figures of one learner on one support set; `main` names the metric that tables show."""

    task: str
    domain: str
    kind: str
    learner: str
    shots: int
    draw: int
    n_test: int
    main: str
    metric: float
    seconds_adapt: float
    seconds_predict: float
    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    mcc: float | None = None
    pearson: float | None = None
    spearman: float | None = None
    mse: float | None = None
    log_loss: float | None = None
    ece: float | None = None

    @property
    def main_score(self) -> float:
        return float(getattr(self, self.main))

    @classmethod
    def from_draw(cls, draw: Draw) -> "Score":
        assert draw.shots != "all"  # no benchmark fine-tunes on all of train
        costs, calibration = draw.costs, draw.calibration
        return cls(
            task=draw.task,
            domain=draw.domain,
            kind=draw.kind,
            learner=draw.learner,
            shots=draw.shots,
            draw=draw.draw,
            n_test=draw.n_test,
            main=draw.main,
            seconds_adapt=costs.seconds_adapt or 0.0,
            seconds_predict=costs.seconds_predict or 0.0,
            log_loss=calibration.log_loss if calibration else None,
            ece=calibration.ece if calibration else None,
            **draw.scores,
        )


def scores(rows: Sequence[Mapping[str, Any]]) -> tuple[Score, ...]:
    """Return the rows of an evaluation as records."""
    return TypeAdapter(tuple[Score, ...]).validate_python(rows)


# setfit_speed.json


@dataclass(frozen=True)
class SpeedRow:
    """The time that one learner takes to adapt to one support set, and its figures there."""

    name: str
    task: str
    draw: int
    n_way: int
    seconds_adapt: float
    main: str
    accuracy: float
    precision: float
    recall: float
    f1: float
    mcc: float
    metric: float

    @property
    def main_score(self) -> float:
        return float(getattr(self, self.main))


@dataclass(frozen=True)
class SetFitSpeed:
    shots: int
    versions: dict[str, str]
    rows: tuple[SpeedRow, ...]

    def by_name(self) -> dict[str, list[SpeedRow]]:
        """Return the rows of each learner, in the order of the support sets."""
        named: dict[str, list[SpeedRow]] = {}
        for row in self.rows:
            named.setdefault(row.name, []).append(row)
        return named

    def times_as_fast(self, name: str) -> Spread:
        """Return SetFit's time over that of a learner, support set by support set."""
        setfit = {(row.task, row.draw): row.seconds_adapt for row in self.by_name()["setfit"]}
        return Spread.over(setfit[row.task, row.draw] / row.seconds_adapt for row in self.by_name()[name])


# text_tasks.json


@dataclass(frozen=True)
class TextTasks:
    """What was measured: of the first reading, and of drawing episodes."""

    versions: dict[str, str]
    megabytes: float
    sentences: int
    tasks: int
    index_s: float
    index_cpu_s: float
    index_mib: float
    open_s: float
    episodes: int
    episodes_per_s: float
    episodes_per_cpu_s: float
    sample_mib: float
    imports_mib: float
    same_again: bool


# large_file.json


@dataclass(frozen=True)
class LargeFileRow:
    """A file that was labelled: seconds without start and first pass, and the peak of memory in each quarter of it."""

    encoder: str
    precision: str
    format: str
    rows: int
    wall_s: float
    core_s: float
    file_mib: float
    before_mib: float
    quarters_mib: tuple[float, ...]
    stopped_at: int
    same_after_resume: bool


@dataclass(frozen=True)
class LargeFile:
    versions: dict[str, str]
    rows: tuple[LargeFileRow, ...]
