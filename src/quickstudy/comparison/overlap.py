"""Overlap: whether scored texts were meta-trained on, looked up before anything is scored."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from quickstudy.comparison.learner import LearnerSpec
from quickstudy.data.reference import load_tasks
from quickstudy.errors import DataError
from quickstudy.evaluation.leakage import find_overlap, refuse_overlap
from quickstudy.evaluation.results import Learner, Overlap
from quickstudy.evaluation.trial import PlannedTask
from quickstudy.runs import Run


def with_overlap(
    learners: Mapping[str, Learner], specs: Sequence[LearnerSpec], tasks: Sequence[PlannedTask], *, allow: bool
) -> dict[str, Learner]:
    """Return learners with what of the scored texts they were meta-trained on.

    Args:
        learners: What each learner is, by name.
        specs: Where they come from.
        tasks: What is scored.
        allow: Go on although there is overlap, or although it cannot be looked up.

    Raises:
        DataError: There is overlap, or it cannot be looked up, and that is not allowed.
    """
    described = dict(learners)
    overlaps: dict[tuple[str, ...], tuple[Overlap, ...] | None] = {}  # runs with the same meta-train tasks share them
    for spec in specs:
        if spec.run:
            run = Run.open(spec.run)
            trained = tuple(run.recipe.tasks.train)
            if trained not in overlaps:
                overlaps[trained] = _overlap(run, tasks, allow=allow)
            seen = tuple(sorted(run.meta_train_tasks() & {task.name for task in tasks}))
            described[spec.name] = replace(learners[spec.name], seen=seen, overlap=overlaps[trained])
    return described


def _overlap(run: Run, tasks: Sequence[PlannedTask], *, allow: bool) -> tuple[Overlap, ...] | None:
    """Return the overlap of the scored texts with the texts that a run was meta-trained on.

    It is None if the meta-train tasks cannot be read and overlap is allowed.
    """
    try:
        trained = load_tasks(run.recipe.tasks.train)
    except DataError as error:
        if allow:
            return None
        raise DataError(
            f"overlap with the meta-train tasks cannot be checked: {error.what}",
            where=error.where or str(run.files.config),
            fix="Put the data back where they were, or go on unchecked with --allow-overlap.",
        ) from error
    overlaps = find_overlap(trained, tasks)
    if not allow:
        refuse_overlap(overlaps)
    return overlaps
