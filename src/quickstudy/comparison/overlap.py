"""Overlap: whether meta-training saw what is evaluated, looked up before anything is scored.

A run has seen the tasks that it was meta-trained on, and those on which its checkpoint was chosen: its
meta-validation tasks, whatever `keep` and `patience` are, because their scores were there to be looked at.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from quickstudy.comparison.learner import LearnerSpec
from quickstudy.data.reference import load_tasks
from quickstudy.errors import DataError
from quickstudy.evaluation.leakage.find import find_overlap
from quickstudy.evaluation.leakage.fingerprint import find_known_rows
from quickstudy.evaluation.leakage.refuse import refuse_overlap
from quickstudy.evaluation.results import Learner, Overlap
from quickstudy.evaluation.trial import PlannedTask
from quickstudy.runs import Run
from quickstudy.tasks.task import Task

Lists = tuple[tuple[str, ...], tuple[str, ...]]  # references to the tasks of meta-training and of meta-validation
Overlaps = tuple[Overlap, ...] | None


@dataclass(frozen=True, slots=True)
class _LookUp:
    """What was looked up of a run: its meta-validation tasks, the overlap, and whether fingerprints had to do."""

    validation: frozenset[str] = frozenset()
    overlaps: Overlaps = None
    by_fingerprint: bool = False


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
    known: dict[Lists, _LookUp] = {}  # runs with the same tasks are looked up once
    for spec in specs:
        if spec.run:
            run = Run.open(spec.run)
            lists = tuple(run.recipe.tasks.train), tuple(run.recipe.tasks.validation)
            if lists not in known:
                known[lists] = _look_up(run, tasks, allow=allow)
            looked_up = known[lists]
            described[spec.name] = replace(
                learners[spec.name],
                seen=_named(run.meta_train_tasks(), tasks),
                validated=_named(run.meta_validation_tasks() | looked_up.validation, tasks),
                overlap=looked_up.overlaps,
                by_fingerprint=looked_up.by_fingerprint,
            )
    return described


def _look_up(run: Run, tasks: Sequence[PlannedTask], *, allow: bool) -> _LookUp:
    """Return the overlap of what is evaluated with what a run saw.

    A compact run has fingerprints of the texts that it saw, for where the texts are not. Of other runs, nothing is
    known without the texts.
    """
    try:
        trained, validation = load_tasks(run.recipe.tasks.train), _load_validation(run)
    except DataError as error:
        if run.files.seen.is_file():
            overlaps = find_known_rows(run.fingerprints(), tasks, f"the training of {run.recipe.name}")
            return _refuse(_LookUp(overlaps=overlaps, by_fingerprint=True), allow=allow)
        if allow:
            return _LookUp()
        raise DataError(
            f"overlap with the tasks of the meta-training cannot be checked: {error.what}",
            where=error.where or str(run.files.config),
            fix="Put the data back where they were, or go on unchecked with --allow-overlap.",
        ) from error
    overlaps = find_overlap(trained, tasks) + find_overlap(validation, tasks, how="seen in meta-validation")
    return _refuse(_LookUp(frozenset(task.name for task in validation), overlaps), allow=allow)


def _refuse(looked_up: _LookUp, *, allow: bool) -> _LookUp:
    if not allow:
        refuse_overlap(looked_up.overlaps or ())
    return looked_up


def _load_validation(run: Run) -> list[Task]:
    references = run.recipe.tasks.validation
    return load_tasks(references) if references else []


def _named(names: Collection[str], tasks: Sequence[PlannedTask]) -> tuple[str, ...]:
    return tuple(sorted(set(names) & {task.name for task in tasks}))
