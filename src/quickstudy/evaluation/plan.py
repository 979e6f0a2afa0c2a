"""Plan: the trials of all tasks, drawn once and before anything is computed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from quickstudy.errors import DataError
from quickstudy.evaluation.draws import draw_trials
from quickstudy.evaluation.protocol import Protocol
from quickstudy.evaluation.saved_draws import read_saved_draws, restore_trials
from quickstudy.evaluation.trial import PlannedTask, Trial
from quickstudy.tasks.task import Task


def plan_tasks(protocol: Protocol, tasks: Sequence[Task]) -> tuple[PlannedTask, ...]:
    """Return tasks with their trials.

    Raises:
        DataError: Two tasks have one name, no task has a trial, or a task cannot be drawn from; see `draw_trials`.
    """
    names = [task.name for task in tasks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"two tasks have the name {twice!r}", fix="Name each once; rename one of the files.")
    planned = tuple(
        PlannedTask(replace(task, splits={}, fixed_draws={}), tuple(trials))
        for task, trials in zip(tasks, _trials(protocol, tasks), strict=True)
    )
    if not any(task.trials for task in planned):
        raise DataError(f"no task has draws of {', '.join(map(str, protocol.shots))} shots", fix="Use other --shots.")
    return planned


def _trials(protocol: Protocol, tasks: Sequence[Task]) -> list[list[Trial]]:
    if protocol.saved is None:
        return [draw_trials(protocol, task) for task in tasks]
    saved = read_saved_draws(Path(protocol.saved))
    return [restore_trials(saved, protocol.saved, task) for task in tasks]
