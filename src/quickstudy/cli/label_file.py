"""Label file: the predictions for a file, written beside its columns row by row, so that its size does not matter.

The file is read twice: first to find rows that cannot be used before anything is written, then to label it. What is
written has another name until it is whole. After Ctrl-C, or an error on the way, the rows so far are kept as a whole
file, and `resume` goes on behind them.
"""

import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from quickstudy.data.columns import Columns
from quickstudy.data.excel import MOST_ROWS
from quickstudy.data.reading import read_column_names, read_rows
from quickstudy.data.survey import Survey, survey_rows
from quickstudy.data.table import CheckedRow
from quickstudy.data.texts import read_rows_to_label
from quickstudy.data.writing import RowWriter, find_out_format, open_writer
from quickstudy.errors import DataError, QuickstudyError
from quickstudy.storage.files import refuse_existing, writing
from quickstudy.storage.lock import locked
from quickstudy.tasks.split import Example

if TYPE_CHECKING:
    from quickstudy.export.onnx_model import OnnxModel
    from quickstudy.models.adapted import AdaptedModel

_CHUNK = 4096  # rows that are labelled at a time: many enough for full speed, few enough for memory and for Ctrl-C
_COMPARED, _NEAR = 32, 0.02  # rows whose predictions are made again to see whether they are of this model, and how near
_LABEL, _VALUE, _PROBABILITY = "predicted_label", "predicted_value", "probability_{}"
_GO_ON = "Give the model, the file and the options with which it was begun, or start again with --overwrite."


@dataclass
class Labelled:
    """How far the labelling of a file came.

    Attributes:
        total: Rows to label.
        rows: Rows in the file that was written.
        cut: Rows of this call whose texts are longer than the model reads.
        labels: How many rows of this call got each label.
        interrupted: Whether Ctrl-C ended it.
    """

    total: int
    rows: int = 0
    cut: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    interrupted: bool = False


@dataclass(frozen=True)
class Places:
    """What is read and written.

    Attributes:
        source: The file with the texts.
        target: The file to write.
        overwrite: Replace the file to write if it is there.
        resume: Go on behind its rows.
    """

    source: Path
    target: Path
    overwrite: bool = False
    resume: bool = False

    @property
    def before(self) -> Path | None:
        """The file to go on with."""
        return self.target if self.resume and self.target.exists() else None


def label_file(
    model: "AdaptedModel | OnnxModel",
    places: Places,
    columns: Columns = Columns(),
    *,
    skip_bad_rows: bool = False,
    on_rows: Callable[[int, int], None] = lambda _done, _total: None,
) -> Labelled:
    """Label a file.

    Args:
        model: The model.
        places: What is read and written.
        columns: Which columns hold the texts.
        skip_bad_rows: Leave out rows that cannot be used.
        on_rows: Told how many rows are written, and of how many.

    Raises:
        QuickstudyError: The file cannot be read or written, or has rows that cannot be used: nothing is written. Or the
            model fails, or the disk is full: the rows so far are kept.
    """
    refuse_target(places)
    with writing(places.target), locked(places.target):
        return _label_alone(model, places, columns, skip_bad_rows=skip_bad_rows, on_rows=on_rows)


def _label_alone(
    model: "AdaptedModel | OnnxModel",
    places: Places,
    columns: Columns,
    *,
    skip_bad_rows: bool,
    on_rows: Callable[[int, int], None],
) -> Labelled:
    """Label a file that no other process writes; see `label_file`."""
    survey = survey_rows(places.source, columns, skip_bad_rows=skip_bad_rows)
    schema = _schema(survey, model, places)
    rows = read_rows_to_label(places.source, columns, skip_bad_rows=skip_bad_rows)
    state = Labelled(survey.rows, rows=_pass_over(rows, survey, places, model) if places.before else 0)
    unfinished = places.target.with_name(f".{places.target.name}.part")
    try:
        with writing(places.target):
            writer = open_writer(unfinished, places.target, schema, before=places.before)
            try:
                _label(model, rows, writer, state, on_rows)
            except KeyboardInterrupt:
                state.interrupted = True
            finally:
                writer.close()
                if state.rows:
                    unfinished.replace(places.target)
    except QuickstudyError as error:
        if state.rows and not unfinished.exists():
            fix = f"{error.fix} {describe_rest(places, state)}"
            raise type(error)(error.what, where=error.where, fix=fix) from error
        raise
    finally:
        unfinished.unlink(missing_ok=True)
    return state


def describe_rest(places: Places, state: Labelled) -> str:
    """Say what an unfinished file holds, and how to go on."""
    if not state.rows:
        return "Nothing was written."
    held = f"{places.target} holds the first {state.rows:,} of {state.total:,} rows."
    if find_out_format(places.target) == ".xlsx":
        return f"{held} An Excel file cannot be resumed: for large files choose .csv or .parquet."
    return f"{held} Go on with the same command and --resume."


def refuse_target(places: Places) -> None:
    """Refuse a file that cannot be written, or that is there.

    Raises:
        QuickstudyError: What is wrong with it.
    """
    find_out_format(places.target)
    if places.overwrite and places.resume:
        raise DataError("--overwrite and --resume are opposites", fix="Leave one of them out.")
    if places.target.exists() and places.target.samefile(places.source):
        raise DataError("the file to write is the file to read", where=str(places.target), fix="Choose another --out.")
    if not (places.overwrite or places.resume):
        refuse_existing(places.target, "Choose another --out, replace it with --overwrite, or go on with --resume.")
    if not places.target.resolve().parent.is_dir():
        raise DataError("there is no such folder", where=str(places.target.parent), fix="Make it, or check the path.")


def _label(
    model: "AdaptedModel | OnnxModel",
    rows: Iterator[CheckedRow],
    writer: RowWriter,
    state: Labelled,
    on_rows: Callable[[int, int], None],
) -> None:
    """Label the rows that are left, a chunk at a time."""
    on_rows(state.rows, state.total)
    while chunk := list(islice(rows, _CHUNK)):
        examples = [Example(row.text, row.text_pair) for row in chunk]
        answers = list(_answers(model, examples))
        state.cut += model.count_cut(examples)
        model.forget_texts()
        with _uninterrupted():
            writer.write([{**row.values, **answer} for row, answer in zip(chunk, answers, strict=True)])
            state.rows += len(chunk)
            state.labels.update(str(answer[_LABEL]) for answer in answers if _LABEL in answer)
        on_rows(state.rows, state.total)


def _answers(model: "AdaptedModel | OnnxModel", examples: Sequence[Example]) -> Iterator[Mapping[str, object]]:
    if model.kind == "regression":
        yield from ({_VALUE: value} for value in model.predict(examples))
        return
    names = [_PROBABILITY.format(name) for name in model.label_names]
    probabilities = model.predict_proba(examples)
    for best, chances in zip(probabilities.argmax(-1).tolist(), probabilities.tolist(), strict=True):
        rounded = (round(chance, 6) for chance in chances)
        yield {_LABEL: model.label_names[best], **dict(zip(names, rounded, strict=True))}


def _schema(survey: Survey, model: "AdaptedModel | OnnxModel", places: Places) -> pa.Schema:
    """Return the columns of the file to write: those of the file that is read, then those of the predictions."""
    added = _added_columns(model)
    for name in added:
        if name in survey.schema.names:
            raise DataError(
                f"there is a column {name!r} already, which predictions would replace",
                where=f"{places.source}:1",
                fix="Rename or remove it.",
            )
    if find_out_format(places.target) == ".xlsx" and survey.rows > MOST_ROWS:
        what = f"an Excel sheet holds {MOST_ROWS:,} rows, and there are {survey.rows:,}"
        raise DataError(what, where=str(places.target), fix="Write to .csv or .parquet.")
    return pa.schema([*survey.schema, *(pa.field(name, kind) for name, kind in added.items())])


def _added_columns(model: "AdaptedModel | OnnxModel") -> dict[str, pa.DataType]:
    if model.kind == "regression":
        return {_VALUE: pa.float64()}
    return {_LABEL: pa.string(), **{_PROBABILITY.format(name): pa.float64() for name in model.label_names}}


def _pass_over(rows: Iterator[CheckedRow], survey: Survey, places: Places, model: "AdaptedModel | OnnxModel") -> int:
    """Pass over the rows that are labelled already; return how many they are.

    Raises:
        DataError: The file to go on with was not made from these rows, or not by this model.
    """
    _check_columns(places.target, survey, model)
    done = 0
    first: list[tuple[str, Mapping[str, object], Example]] = []
    for where, labelled in read_rows(places.target):
        row = next(rows, None)
        if row is None or isinstance(labelled, DataError) or not _has_texts(labelled, row, survey.columns):
            raise DataError(f"this row was not made from the row of {places.source}", where=where, fix=_GO_ON)
        if done < _COMPARED:
            first.append((where, labelled, Example(row.text, row.text_pair)))
        done += 1
    _check_answers(model, first)
    return done


def _check_columns(target: Path, survey: Survey, model: "AdaptedModel | OnnxModel") -> None:
    """Raise `DataError` unless the file to go on with has the columns of this model's predictions, and no others."""
    names = {name.strip() for name in read_column_names(target)}  # as the header of a CSV file is read
    if not {_LABEL, _VALUE} & names:
        what = "this file holds no predictions, so there is nothing to go on with"
        raise DataError(what, where=str(target), fix=_GO_ON)
    if names - {name.strip() for name in survey.schema.names} != {name.strip() for name in _added_columns(model)}:
        raise DataError("the columns are not those of this file and this model", where=str(target), fix=_GO_ON)


def _has_texts(labelled: Mapping[str, object], row: CheckedRow, columns: Columns) -> bool:
    second = labelled.get(columns.text_pair) if columns.text_pair else None
    return (labelled.get(columns.text), second) == (row.text, row.text_pair)


def _check_answers(
    model: "AdaptedModel | OnnxModel", rows: Sequence[tuple[str, Mapping[str, object], Example]]
) -> None:
    """Raise `DataError` unless the model gives what stands in some rows, up to what batches and bf16 change."""
    if not rows:
        return
    for (where, labelled, _), answer in zip(rows, _answers(model, [example for *_, example in rows]), strict=True):
        for name, value in answer.items():
            if isinstance(value, float) and not _is_near(labelled.get(name), value):
                raise DataError("another model made this prediction", where=where, fix=_GO_ON)


def _is_near(written: object, value: float) -> bool:
    try:
        number = float(written)  # type: ignore[arg-type]  # what is no number is caught
    except (TypeError, ValueError):
        return False
    return abs(number - value) <= _NEAR * max(1.0, abs(value))


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait until the block ends, so that what is written and what is counted are the same."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt
