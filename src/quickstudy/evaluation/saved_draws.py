"""Saved draws: `draws.json`, the trials of a comparison with each example by the hash of its content.

    {"protocol": {..}, "tasks": {"tone": {"sets": [[hash, ..], ..], "trials": [{.., "support": 0, "tests": 1}, ..]}}}

`support` and `tests` are places in `sets`: trials that share their scored examples, or all of train, share one set.
Texts are looked up in the task's data, wherever they now stand, so the file gives the same trials in every later
version.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

from quickstudy.errors import DataError, RunError, did_you_mean
from quickstudy.evaluation.draws import all_examples
from quickstudy.evaluation.hashing import content_hash
from quickstudy.evaluation.json_file import as_record, read_json
from quickstudy.evaluation.protocol import Protocol, ProtocolName
from quickstudy.evaluation.record import Shots
from quickstudy.evaluation.results import UsedProtocol
from quickstudy.evaluation.trial import Examples, PlannedTask, Trial
from quickstudy.storage.files import write_json
from quickstudy.storage.reading import UnreadableError, seal, unseal
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Task


@dataclass(frozen=True, slots=True)
class SavedTrial:
    """A trial with its sets by their places."""

    shots: Shots
    draw: int
    labels: tuple[str, ...]
    support: int
    tests: int


@dataclass(frozen=True, slots=True)
class SavedTask:
    """The sets of a task, as hashes of their examples, and its trials."""

    sets: tuple[tuple[str, ...], ...]
    trials: tuple[SavedTrial, ...]


@dataclass(frozen=True, slots=True)
class SavedDraws:
    """The content of a file of draws: the protocol that drew, and what it drew of each task by its name."""

    protocol: UsedProtocol
    tasks: Mapping[str, SavedTask]


def save_draws(file: Path, protocol: Protocol, planned: Iterable[PlannedTask]) -> None:
    """Write what was drawn; draws of other tasks by the same protocol stay in the file."""
    used, tasks = protocol.used, {task.name: _saved(task.trials) for task in planned}
    if file.is_file():
        before = read_saved_draws(file)
        if before.protocol == used:
            tasks = {**before.tasks, **tasks}
    write_json(file, seal(asdict(SavedDraws(used, tasks))), indent=None)


def load_protocol(file: str | Path) -> Protocol:
    """Return the protocol of a file of draws; its trials are those of the file.

    Raises:
        DataError: There is no such file, or it is not one of draws.
    """
    return Protocol(**asdict(read_saved_draws(Path(file)).protocol), saved=str(file))


def read_saved_draws(file: Path) -> SavedDraws:
    """Read a file of draws.

    Raises:
        DataError: There is no such file, or it is not one of draws.
    """
    fix = f"Give a draws.json that compare wrote, or one of: {', '.join(get_args(ProtocolName))}."
    try:
        values = read_json(file, fix)
        plain = unseal(values) if isinstance(values, dict) else values
        return as_record(SavedDraws, plain, file, fix)
    except RunError as error:
        raise DataError(f"this is no file of draws: {error.what}", where=error.where, fix=fix) from error
    except UnreadableError as error:
        raise DataError(f"the file is damaged ({error})", where=str(file), fix="Make it again with compare.") from error


def restore_trials(saved: SavedDraws, file: str, task: Task) -> list[Trial]:
    """Return the trials of a task as they were saved.

    Args:
        saved: The draws.
        file: Where they are from, for messages.
        task: The task, with its data.

    Raises:
        DataError: There are none of this task, or its data do not have the texts any more.
    """
    if task.name not in saved.tasks:
        raise DataError(
            f"there are no draws of task {task.name!r}", where=file, fix=did_you_mean(task.name, saved.tasks)
        )
    splits = (*task.splits.values(), *task.fixed_draws.values())
    known = {content_hash(e, task.label_names): e for split in splits for e in all_examples(split)}
    sets, restored = saved.tasks[task.name].sets, dict[tuple[int, tuple[str, ...]], Examples]()

    def restore(place: int, labels: tuple[str, ...]) -> Examples:
        if (place, labels) not in restored:  # what was shared is shared again
            examples = _look_up(sets[place], known, task.name, file)
            restored[place, labels] = tuple(_with_label(example, task.label_names, labels) for example in examples)
        return restored[place, labels]

    return [
        Trial(t.shots, t.draw, t.labels, restore(t.support, t.labels), restore(t.tests, t.labels))
        for t in saved.tasks[task.name].trials
    ]


def _saved(trials: Sequence[Trial]) -> SavedTask:
    sets = {id(examples): (examples, trial) for trial in trials for examples in (trial.support, trial.tests)}
    places = {key: place for place, key in enumerate(sets)}
    return SavedTask(
        tuple(tuple(content_hash(e, trial.label_names) for e in examples) for examples, trial in sets.values()),
        tuple(SavedTrial(t.shots, t.draw, t.label_names, places[id(t.support)], places[id(t.tests)]) for t in trials),
    )


def _look_up(hashes: Sequence[str], known: Mapping[str, Example], task: str, file: str) -> list[Example]:
    if missing := sum(of_example not in known for of_example in hashes):
        raise DataError(
            f"{missing} of {len(hashes)} texts of a draw are not in task {task!r}: its data changed",
            where=file,
            fix="Use the data that the draws were made from.",
        )
    return [known[of_example] for of_example in hashes]


def _with_label(example: Example, label_names: Sequence[str], labels: Sequence[str]) -> Example:
    return replace(example, label=labels.index(label_names[int(example.label or 0)])) if labels else example
