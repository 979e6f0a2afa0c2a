"""Results file: results and draws to JSON and back; nothing else knows the keys of these files.

Keys are the names of the records' fields, with one exception: a draw is one flat object, so that `results.jsonl` and
Parquet have a column per figure. Scores stand there by their names (`accuracy`, `mcc`), beside the fields of the
other groups:

    {"task": "tone", "learner": "maml", "shots": 4, .., "accuracy": 0.8, .., "log_loss": 0.5, .., "confusion": [..]}
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, is_dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from quickstudy.errors import RunError
from quickstudy.evaluation.json_file import as_record, read_json
from quickstudy.evaluation.record import Calibration, Costs, Draw, Footprint, LabelFigures
from quickstudy.evaluation.results import Results
from quickstudy.evaluation.trial import Trial
from quickstudy.storage.files import finite, write_json
from quickstudy.storage.reading import UnreadableError, seal, unseal
from quickstudy.tasks.split import readable

CELLS = "cells"  # the folder beside it that makes a folder a comparison
FORMAT = 2  # raise it when an older version's file can no longer be read

_GROUPS = {"calibration": Calibration, "labels": LabelFigures, "footprint": Footprint, "costs": Costs}
_GROUP_KEYS = {group: tuple(field.name for field in fields(kind)) for group, kind in _GROUPS.items()}
_PLAIN_KEYS = tuple(field.name for field in fields(Draw) if field.name not in {*_GROUPS, "scores", "mistakes"})
_LEFT_OUT = ("mistakes", "rows")  # where there are none
_UNNAMED = frozenset({*_GROUPS, "scores"})
_NO_FIGURES = ("mistakes", "rows", "device", "threads", *_GROUP_KEYS["costs"])  # or they differ from run to run


def write_results(file: Path, results: Results) -> None:
    """Write `results.json`."""
    write_json(file, seal(finite(plain_results(results))), indent=None)


def plain_results(results: Results) -> dict[str, Any]:
    """Return the content of `results.json`."""
    names = [field.name for field in fields(Results) if field.name != "draws"]
    plain = {name: _plain(getattr(results, name)) for name in names}
    return {"format": FORMAT, **plain, "draws": [_flat(draw) for draw in results.draws]}


def read_results(file: Path, renew: str) -> Results:
    """Read `results.json`.

    Args:
        file: The file.
        renew: How to make it again, for the message about one that cannot be used.

    Raises:
        RunError: It is damaged, of another version's format, or names what it does not hold.
    """
    values = read_json(file, renew)
    if not isinstance(values, dict):
        raise RunError("the file is damaged, or holds something else", where=str(file), fix=renew)
    if (version := values.get("format", 1)) != FORMAT:
        message = f"these results have format {version}, and this quickstudy reads format {FORMAT}"
        raise RunError(message, where=str(file), fix=renew)
    values = _unsealed(values, file, renew)
    if isinstance(values.get("draws"), list):
        values["draws"] = [_nested(row) for row in values["draws"]]
    results = as_record(Results, values, file, renew, unnamed=_UNNAMED)
    if fault := next(chain(_strangers(results), _sizes(results)), None):
        raise RunError(f"the file is damaged ({fault})", where=str(file), fix=renew)
    return results


def write_draws(file: Path, draws: Sequence[Draw]) -> None:
    """Write the draws of a cell."""
    write_json(file, [seal(finite({"format": FORMAT, **_flat(draw)})) for draw in draws], indent=None)


def read_draws(file: Path, trials: Sequence[Trial]) -> list[Draw]:
    """Read the draws of a cell.

    Args:
        file: The file.
        trials: What was adapted to and scored.

    Raises:
        RunError: It is damaged.
    """
    fix = "Remove this file: the next comparison computes it again."
    rows = read_json(file, fix)
    if not isinstance(rows, list):
        raise RunError("the file is damaged, or holds something else", where=str(file), fix=fix)
    try:
        rows = [_nested(_renewed(row, trials)) for row in rows]
    except (AttributeError, TypeError, ValueError) as error:
        raise RunError(f"the file is damaged ({error})", where=str(file), fix=fix) from error
    draws = as_record(list[Draw], rows, file, fix, unnamed=_UNNAMED)
    if fault := _other_draws(draws, trials):
        raise RunError(f"the file is damaged ({fault})", where=str(file), fix=fix)
    return draws


def figure_rows(draws: Sequence[Draw]) -> list[dict[str, Any]]:
    """Return the figures of draws as rows with the same columns, null where a draw does not have one.

    Nothing in them differs from run to run: costs are left out.
    """
    rows = [_flat(draw) for draw in draws]
    columns = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in _NO_FIGURES]
    return [{key: row.get(key) for key in columns} for row in rows]


def _unsealed(values: dict[str, Any], file: Path, fix: str) -> dict[str, Any]:
    try:
        return unseal(values)
    except UnreadableError as error:
        raise RunError(f"the file is damaged ({error})", where=str(file), fix=fix) from error


def _flat(draw: Draw) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for field in fields(Draw):
        value = getattr(draw, field.name)
        if field.name == "scores":
            row |= value
        elif field.name in _GROUPS:
            row |= _plain(value) if value is not None else {}
        elif field.name not in _LEFT_OUT or value is not None:
            row[field.name] = _plain(value)
    return row


def _nested(row: Any) -> Any:
    """Return the flat object of a draw in groups; what has no other place is a score."""
    if not isinstance(row, dict):
        return row
    left = dict(row)
    groups = {group: {key: left.pop(key) for key in keys if key in left} for group, keys in _GROUP_KEYS.items()}
    optional = {"calibration": groups.pop("calibration") or None, "labels": groups.pop("labels") or None}
    plain = {key: left.pop(key) for key in _PLAIN_KEYS if key in left}
    return {**plain, **groups, **optional, "mistakes": left.pop("mistakes", None), "scores": left}


def _other_draws(draws: Sequence[Draw], trials: Sequence[Trial]) -> str | None:
    """Say how the draws of a cell differ from its trials; None if they do not."""
    if [(draw.shots, draw.draw) for draw in draws] != [(trial.shots, trial.draw) for trial in trials]:
        return "its draws are not those of the comparison"
    for draw, trial in zip(draws, trials, strict=True):
        for mistake in draw.mistakes or ():
            if not 0 <= mistake.row < len(trial.tests):
                return f"draw {draw.draw} names row {mistake.row} of {len(trial.tests)}"
    return None


def _renewed(row: Any, trials: Sequence[Trial]) -> Any:
    """Return a draw as this version writes it; cells of format 1 have no `format`."""
    if not isinstance(row, dict):
        return row
    if "format" in row:
        return {key: value for key, value in unseal(row).items() if key != "format"}
    return _with_mistakes(_with_whole_costs(row), trials)


def _with_whole_costs(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of format 1 with costs of someone who has nothing encoded yet.

    The time for 1,000 texts was right, and that for the scored texts follows from it. `label-names` was timed with its
    names encoded already, so how long it adapts is not known.
    """
    adapts = {"seconds_adapt": None} if row.get("learner") == "label-names" else {}
    per_1000, n_test = row.get("seconds_predict_1000"), row.get("n_test")
    whole = {} if per_1000 is None or n_test is None else {"seconds_predict": per_1000 * n_test / 1000}
    return row | adapts | whole


def _with_mistakes(row: dict[str, Any], trials: Sequence[Trial]) -> dict[str, Any]:
    """Return a row of format 1 with mistakes by their row, in place of their texts, which it holds under `wrong`."""
    if not isinstance(row.get("wrong"), list):
        return row
    rest = {key: value for key, value in row.items() if key != "wrong"}
    trial = next((t for t in trials if (t.shots, t.draw) == (row.get("shots"), row.get("draw"))), None)
    if trial is None:
        return rest
    texts = [tuple(readable(example, trial.label_names).values()) for example in trial.tests]
    places = {text: place for place, text in reversed(list(enumerate(texts)))}
    mistakes = []
    for wrong in row["wrong"]:
        *text, predicted, probability = wrong.values()
        if tuple(text) in places:
            mistakes.append({"row": places[tuple(text)], "predicted": predicted, "probability": probability})
    return rest | {"mistakes": mistakes}


def _plain(value: Any) -> Any:
    """Return a record as plain values."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _strangers(results: Results) -> Iterator[str]:
    """Yield learners and tasks that are named and not described."""
    for table in results.tables:
        for mean in table.learners:
            if mean.learner not in results.learners:
                yield f"the table of {table.shots} shots names {mean.learner!r}, learners does not"
    for index, draw in enumerate(results.draws):
        if draw.learner not in results.learners:
            yield f"draws.{index} names {draw.learner!r}, learners does not"
        if draw.task not in results.tasks:
            yield f"draws.{index} names {draw.task!r}, tasks does not"


def _sizes(results: Results) -> Iterator[str]:
    """Yield figures of labels that are more or fewer than the task's labels."""
    for index, draw in enumerate(results.draws):
        if draw.labels is None:
            continue
        n_way = len(results.tasks[draw.task].label_names)
        matrix, scores = draw.labels.confusion, draw.labels.per_class
        if {len(matrix), *map(len, matrix)} != {n_way}:
            yield f"draws.{index}.confusion has not {n_way} lines and columns"
        if {len(scores.precision), len(scores.recall), len(scores.f1)} != {n_way}:
            yield f"draws.{index}.per_class has not {n_way} labels"
