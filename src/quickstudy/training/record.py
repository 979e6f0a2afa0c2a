"""Step record: what happened in one outer step, and the log of a run, which is one record per line of JSON.

JSON has no NaN: a figure that was not measured is `null` in the log and NaN in the record.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from quickstudy.errors import RunError
from quickstudy.storage.files import append_line, finite, write_text
from quickstudy.storage.reading import UnreadableError, parse_json, read_text, seal, unseal

# None where the others are NaN
_OPTIONAL = {
    "validation",
    "peak_mib",
    "inner_residual",
    "solve_residual",
    "mlm_loss",
    "perplexity",
}
_RENAMED = {"tasks_per_second": "episodes_per_second"}  # names of 0.1.0


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What happened in one outer step.

    Attributes:
        step: The number of the step, from 1; 0 stands for the untouched encoder before the first step.
        loss: Mean query loss of the meta-batch; NaN in step 0.
        accuracy: Query accuracy of the meta-batch; NaN in step 0, and if all of its episodes are regression.
        lr: Learning rate of the encoder in this step.
        grad_norm: Norm of the meta-gradient before clipping; NaN in step 0.
        seconds: Seconds since the loop began.
        episodes_per_second: Episodes per second in this step; NaN in step 0.
        validation: Meta-validation score after this step, 0 to 1; None if the step was not validated.
        peak_mib: The most memory that the process has held so far, on the device where there is one; None if unknown.
        waited: Seconds that this step waited for its episodes.
        inner_residual: How far iMAML's inner loop is from its minimum, in the worst episode of the main process; see
            `methods.convergence`. None for other methods.
        solve_residual: What iMAML's conjugate gradients leave over, likewise.
        mlm_loss: Mean loss of the masked tokens, in a step of masked-language modelling, which has no `loss` and no
            `accuracy`; None in a step of episodes.
        perplexity: Of masked tokens of held-out text after this step; None if it was not measured.
        left_out: The task of each episode that was left out, because its loss or gradient was NaN or infinite.
    """

    step: int
    loss: float = math.nan
    accuracy: float = math.nan
    lr: float = math.nan
    grad_norm: float = math.nan
    seconds: float = math.nan
    episodes_per_second: float = math.nan
    validation: float | None = None
    peak_mib: float | None = None
    waited: float = 0.0
    inner_residual: float | None = None
    solve_residual: float | None = None
    mlm_loss: float | None = None
    perplexity: float | None = None
    left_out: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return the record as one line of JSON.

        >>> StepRecord(0, lr=0.0, seconds=1.5, validation=0.5).to_json()[:42]
        '{"step": 0, "loss": null, "accuracy": null'
        """
        values = asdict(self)
        if not self.left_out:
            del values["left_out"]
        return json.dumps(seal(finite(values)), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> "StepRecord":
        """Read a line of a log; fields that it lacks, as logs of older versions do, were not measured.

        Raises:
            ValueError: The line is no record.
        """
        values = parse_json(line)
        if not isinstance(values, Mapping):
            raise ValueError("a record is a JSON object")
        values = unseal(values)
        values = {_RENAMED.get(name, name): value for name, value in values.items()}
        step = values.pop("step", None)
        if not isinstance(step, int) or isinstance(step, bool):
            raise ValueError(f"step = {step!r} is no whole number")
        left_out = values.pop("left_out", [])
        if not isinstance(left_out, list) or not all(isinstance(task, str) for task in left_out):
            raise ValueError("left_out holds no names of tasks")
        numbers: dict[str, Any] = {
            field.name: _number(field.name, values[field.name]) for field in fields(cls) if field.name in values
        }
        return cls(step, **numbers, left_out=tuple(left_out))


def _number(name: str, value: object) -> float | None:
    if value is None:
        return None if name in _OPTIONAL else math.nan
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name} = {value!r} is no number")
    return value


def append_record(log: Path, record: StepRecord) -> None:
    """Append a record to a log.

    Raises:
        RunError: The disk is full.
    """
    append_line(log, record.to_json())


def read_log(log: Path) -> list[StepRecord]:
    """Return the records of a log; none if there is no file.

    Raises:
        RunError: A line is no record.
    """
    records = []
    for number, line in enumerate(_whole_lines(log), 1):
        try:
            records.append(StepRecord.from_json(line))
        except (ValueError, TypeError) as error:
            raise RunError(
                f"this line of the log is damaged ({error})", where=f"{log}:{number}", fix="Copy the run again."
            ) from error
    return records


def check_log(log: Path, step: int) -> None:
    """Check that a log has a record of each step, up to the step that the last checkpoint has.

    Raises:
        RunError: Records are missing, or a line is no record.
    """
    steps = {record.step for record in read_log(log)}
    if missing := sorted(set(range(1, step + 1)) - steps):
        raise RunError(
            f"the log has no record of step {missing[0]}, and the checkpoint is of step {step}",
            where=str(log),
            fix="Copy the run again, or start a new run.",
        )


def cut_log(log: Path, step: int) -> None:
    """Remove the records after a step: a resumed run writes them again.

    Raises:
        RunError: A line is no record, or the disk is full.
    """
    if log.is_file():
        write_text(log, "".join(f"{record.to_json()}\n" for record in read_log(log) if record.step <= step))


def _whole_lines(log: Path) -> Sequence[str]:
    """Return the lines that have an end: the last one has none if the run was killed while it wrote it.

    Raises:
        RunError: The file is not UTF-8.
    """
    try:
        *lines, _ = read_text(log).split("\n") if log.exists() else [""]
    except UnreadableError as error:
        place = f"{log}:{error.line}" if error.line else str(log)
        raise RunError(f"the log is damaged ({error})", where=place, fix="Copy the run again.") from error
    return lines
