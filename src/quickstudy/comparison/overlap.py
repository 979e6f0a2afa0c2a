"""Overlap: whether meta-training saw what is evaluated, looked up before anything is scored.

A run has seen the tasks that it was meta-trained on, and those on which its checkpoint was chosen: its
meta-validation tasks, whatever `keep` and `patience` are, because their scores were there to be looked at.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from quickstudy.comparison.learner import LearnerSpec
from quickstudy.data.reference import load_tasks
from quickstudy.errors import DataError
from quickstudy.evaluation.leakage.find import find_overlap
from quickstudy.evaluation.leakage.refuse import refuse_overlap
from quickstudy.evaluation.results import Learner, Overlap
from quickstudy.evaluation.trial import PlannedTask
from quickstudy.runs import Run
from quickstudy.tasks.task import Task

Lists = tuple[tuple[str, ...], tuple[str, ...]]  # references to the tasks of meta-training and of meta-validation
Overlaps = tuple[Overlap, ...] | None


def with_overlap(
    learners: Mapping[str, Learner], specs: Sequence[LearnerSpec], tasks: Sequence[PlannedTask], *, allow: bool
) -> dict[str, Learner]:
    """Return learners with what their meta-training saw of the evaluated tasks.

    Args:
        learners: What each learner is, by name.
        specs: Where they come from.
        tasks: What is evaluated.
        allow: Go on although there is overlap, or although it cannot be looked up.

    Raises:
        DataError: There is overlap, or it cannot be looked up, and that is not allowed.
    """
    described = dict(learners)
    known: dict[Lists, tuple[set[str], Overlaps]] = {}  # runs with the same tasks are looked up once
    for spec in specs:
        if spec.run:
            run = Run.open(spec.run)
            lists = tuple(run.recipe.tasks.train), tuple(run.recipe.tasks.validation)
            if lists not in known:
                known[lists] = _look_up(run, tasks, allow=allow)
            validation, overlaps = known[lists]
            described[spec.name] = replace(
                learners[spec.name],
                seen=_named(run.meta_train_tasks(), tasks),
                validated=_named(run.meta_validation_tasks() | validation, tasks),
                overlap=overlaps,
            )
    return described


def _look_up(run: Run, tasks: Sequence[PlannedTask], *, allow: bool) -> tuple[set[str], Overlaps]:
    """Return the names of a run's meta-validation tasks, and the overlap of what is evaluated with what it saw.

    No names and None if the tasks that it saw cannot be read and overlap is allowed.
    """
    try:
        trained, validation = load_tasks(run.recipe.tasks.train), _load_validation(run)
    except DataError as error:
        if allow:
            return set(), None
        raise DataError(
            f"overlap with the tasks of the meta-training cannot be checked: {error.what}",
            where=error.where or str(run.files.config),
            fix="Put the data back where they were, or go on unchecked with --allow-overlap.",
        ) from error
    overlaps = find_overlap(trained, tasks) + find_overlap(validation, tasks, how="seen in meta-validation")
    if not allow:
        refuse_overlap(overlaps)
    return {task.name for task in validation}, overlaps


def _load_validation(run: Run) -> list[Task]:
    references = run.recipe.tasks.validation
    return load_tasks(references) if references else []


def _named(names: Collection[str], tasks: Sequence[PlannedTask]) -> tuple[str, ...]:
    return tuple(sorted(set(names) & {task.name for task in tasks}))
