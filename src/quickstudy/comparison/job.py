"""Job: the missing cells of one task, for learners that share an encoder and with it the work on the task's texts.

All draws of a task are encoded together, whichever cells are missing, so figures do not depend on where a comparison
was interrupted.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from quickstudy.comparison.cell import Cell
from quickstudy.comparison.full import finetune_and_score
from quickstudy.comparison.learner import LearnerSpec, load_learners
from quickstudy.evaluation.evaluate import evaluate_learners
from quickstudy.evaluation.record import Draw, Shots
from quickstudy.evaluation.results_file import write_draws
from quickstudy.evaluation.trial import PlannedTask
from quickstudy.methods.base import MetaLearner


@dataclass(frozen=True, slots=True)
class Job:
    """The missing cells of learners with one encoder on one task, as a process gets them.

    Attributes:
        learners: The learners.
        task: The task with its trials.
        full: Whether encoders are fully fine-tuned.
        files: Where draws go, by learner and number of shots.
    """

    learners: tuple[LearnerSpec, ...]
    task: PlannedTask
    full: bool
    files: dict[tuple[str, Shots], Path]


def plan_jobs(cells: Sequence[Cell], specs: Sequence[LearnerSpec], *, full: bool) -> list[Job]:
    """Return the jobs that compute the missing cells; those of one encoder follow one another."""
    encoders = {spec: spec.encoder_key for spec in specs}
    jobs = []
    for encoder in dict.fromkeys(encoders.values()):
        sharing = {spec.name: spec for spec in specs if encoders[spec] == encoder}
        missing = [cell for cell in cells if cell.learner in sharing and not cell.file.is_file()]
        for task in {cell.task.name: cell.task for cell in missing}.values():
            files = {(cell.learner, cell.shots): cell.file for cell in missing if cell.task is task}
            learners = tuple(sharing[name] for name in dict.fromkeys(name for name, _ in files))
            jobs.append(Job(learners, task, full, files))
    return jobs


def compute(job: Job) -> None:
    """Compute the missing cells of a job; each is written as it is finished."""
    learners = _load(tuple((spec, spec.fingerprint()) for spec in job.learners))
    awaited = Counter(trial.shots for trial in job.task.trials)
    finished: dict[tuple[str, Shots], list[Draw]] = {cell: [] for cell in job.files}

    def keep(draw: Draw) -> None:
        cell = draw.learner, draw.shots
        finished[cell].append(draw)
        if len(finished[cell]) == awaited[draw.shots]:
            write_draws(job.files[cell], finished[cell])

    if job.full:
        for name, learner in learners.items():
            for draw in finetune_and_score(name, learner, job.task.task, job.task.trials):
                keep(draw)
    else:
        names = {spec.name: spec.names for spec in job.learners}
        evaluate_learners(learners, [job.task], names=names, only=job.files, on_draw=keep)


@lru_cache(maxsize=1)  # the jobs of an encoder follow one another; a run of the same name can be another by now
def _load(learners: tuple[tuple[LearnerSpec, str], ...]) -> dict[str, MetaLearner]:
    return load_learners(spec for spec, _ in learners)
