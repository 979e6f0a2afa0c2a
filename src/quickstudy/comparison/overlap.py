"""Overlap: whether scored texts were meta-trained on, looked up before anything is scored."""

from collections.abc import Sequence
from dataclasses import replace

from quickstudy.comparison.learner import LearnerSpec
from quickstudy.data.reference import load_tasks
from quickstudy.errors import DataError
from quickstudy.evaluation.leakage import find_overlap, refuse_overlap
from quickstudy.evaluation.record import Learner, Overlap
from quickstudy.evaluation.trial import PlannedTask
from quickstudy.runs import Run


def describe_learners(
    specs: Sequence[LearnerSpec], tasks: Sequence[PlannedTask], *, allow_overlap: bool, encoder_only: bool = False
) -> dict[str, Learner]:
    """Return what each learner is, and what of the scored texts it was meta-trained on.

    Args:
        specs: The learners.
        tasks: What is scored.
        allow_overlap: Go on although there is overlap, or although it cannot be looked up.
        encoder_only: Whether only the encoders count.

    Raises:
        QuickstudyError: A run is not finished; there is overlap, or it cannot be looked up, and that is not allowed.
    """
    learners = {spec.name: spec.describe(encoder_only=encoder_only) for spec in specs}
    for spec in specs:
        if spec.run:
            run = Run.open(spec.run)
            seen = tuple(sorted(run.meta_train_tasks() & {task.name for task in tasks}))
            overlap = _overlap(run, tasks, allow=allow_overlap)
            learners[spec.name] = replace(learners[spec.name], seen=seen, overlap=overlap)
    return learners


def _overlap(run: Run, tasks: Sequence[PlannedTask], *, allow: bool) -> tuple[Overlap, ...] | None:
    """Return what of the scored texts a run was meta-trained on; None if that cannot be looked up and need not be."""
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
