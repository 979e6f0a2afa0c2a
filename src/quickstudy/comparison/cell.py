"""Cell: the draws of one learner on one task at one number of shots; computed once, in this process, in others, or through Ray.

A cell's key is a hash of all that its figures follow from: the learner's weights and settings, the task's texts and draws. The
missing cells of one task are one job for each encoder: learners that share it share its work. All draws of a task are encoded
together, whichever cells are missing, so figures do not depend on where a comparison was interrupted.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from quickstudy._version import __version__
from quickstudy.adaptation.full import finetune_task
from quickstudy.adaptation.settings import FullSettings
from quickstudy.comparison.learner import LearnerSpec, hash_of
from quickstudy.cost import measure
from quickstudy.data.reference import load_tasks
from quickstudy.evaluation.evaluate import Row, evaluate_learners, row_of, sizes
from quickstudy.evaluation.protocol import Protocol, Shots, Trial, content, trials
from quickstudy.methods.base import MetaLearner
from quickstudy.models.encoder import Encoder
from quickstudy.storage import write_json
from quickstudy.tasks.split import ListSplit
from quickstudy.tasks.task import Task


@dataclass(frozen=True)
class Job:
    """The missing cells of learners with one encoder on one task, as a process gets them.

    Attributes:
        learners: By what they are called.
        reference: Reference that loads the task, among others.
        task: Its name.
        missing: Target file by learner and number of shots.
        protocol: What is adapted to and scored.
        texts: Whether wrongly predicted texts are kept.
    """

    learners: dict[str, LearnerSpec]
    reference: str
    task: str
    missing: dict[tuple[str, Shots], Path]
    protocol: Protocol
    texts: bool


def key_of(weights: str, task: Task, planned: str) -> str:
    """Return the key of a cell: of the learner's fingerprint, the task, the hash of the cell's trials, and this version."""
    full = asdict(FullSettings())
    return hash_of([__version__, full, weights, task.name, task.kind, task.metric, planned])[:32]


def trials_hash(planned: Sequence[Trial]) -> str:
    """Return a hash of the texts and labels of trials."""
    parts = {id(part): (part, trial.label_names) for trial in planned for part in (trial.support, trial.tests)}
    hashes = {key: hash_of([content(e, names) for e in part]) for key, (part, names) in parts.items()}
    return hash_of([[t.shots, t.draw, t.label_names, hashes[id(t.support)], hashes[id(t.tests)]] for t in planned])


def run_jobs(jobs: Sequence[Job], workers: int, *, ray: str | None = None) -> Iterator[Job]:
    """Compute jobs, and return each as it is finished.

    Args:
        jobs: What to compute.
        workers: Processes; the processor's cores are dealt to them.
        ray: Address of a Ray cluster (`local` starts one here) to compute on in place of processes of our own. Every machine
            must reach runs, data and the folder of the comparison under the same paths.
    """
    threads = max(1, torch.get_num_threads() // workers)
    if ray:
        yield from _through_ray(jobs, workers, threads, ray)
    elif workers == 1 or len(jobs) < 2:
        for job in jobs:
            compute(job)
            yield job
    else:
        # Processes are started afresh: a fork of a process whose threads have run would hang.
        with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
            futures = {pool.submit(compute, job): job for job in jobs}
            try:
                for future in as_completed(futures):
                    future.result()
                    yield futures[future]
            finally:
                pool.shutdown(cancel_futures=True)  # after an error nothing new is begun


def _through_ray(jobs: Sequence[Job], workers: int, threads: int, address: str) -> Iterator[Job]:
    import ray

    started = not ray.is_initialized()
    if started:
        cpus = workers * threads if address == "local" else None
        ray.init(address, num_cpus=cpus, log_to_driver=False, logging_level="error", include_dashboard=False)
    folder = Path.cwd()

    def work(job: Job) -> None:
        os.chdir(folder)  # what relative paths are relative to
        torch.set_num_threads(threads)
        compute(job)

    try:
        remote = ray.remote(num_cpus=threads, max_retries=0)(work)
        waiting = {remote.remote(job): job for job in jobs}
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            try:
                ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            yield waiting.pop(done)
    finally:
        if started:
            ray.shutdown()


def compute(job: Job) -> None:
    """Compute the missing cells of a job; each is written as it is finished."""
    learners = _load(tuple((name, spec, spec.fingerprint()) for name, spec in job.learners.items()))
    task = next(task for task in load_tasks(job.reference) if task.name == job.task)
    planned = trials(job.protocol, task)
    draws = Counter(trial.shots for trial in planned)
    found: dict[tuple[str, Shots], list[Row]] = {cell: [] for cell in job.missing}

    def keep(row: Row) -> None:
        cell = row["learner"], row["shots"]
        found[cell].append(row)
        if len(found[cell]) == draws[row["shots"]]:
            write_json(job.missing[cell], found[cell], indent=None)

    if job.protocol.name == "full":
        for name, learner in learners.items():
            _finetune(name, learner, task, planned, keep, texts=job.texts)
    else:
        evaluate_learners(learners, [task], job.protocol, only=job.missing, texts=job.texts, on_row=keep)


@lru_cache(maxsize=1)  # the jobs of an encoder follow one another; a run of the same name can be another by now
def _load(learners: tuple[tuple[str, LearnerSpec, str], ...]) -> dict[str, MetaLearner]:
    encoder = None
    if any(spec.recipe() is None for _, spec, _ in learners):
        encoder = Encoder.load(learners[0][1].encoder)
    return {name: spec.load(encoder) for name, spec, _ in learners}


def _finetune(
    name: str, learner: MetaLearner, task: Task, planned: Sequence[Trial], keep: Callable[[Row], None], *, texts: bool
) -> None:
    """Fine-tune the learner's encoder on all of train, once per seed."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # as the Trainer chooses
    for trial in planned:
        own = Task(task.name, {"train": ListSplit(trial.support)}, task.label_names, task.kind, task.pair)
        with measure(device) as adapting:
            model = finetune_task(learner.encoder, own, FullSettings(seed=trial.draw))
        with measure(device) as predicting:
            scores = model.logits(trial.tests)
        costs: dict[str, Any] = {
            "seconds_adapt": adapting.seconds,
            "seconds_predict": predicting.seconds,
            "seconds_predict_1000": 1000 * predicting.seconds / len(trial.tests),
            "adapt_peak_mib": adapting.peak_mib,
            "predict_peak_mib": predicting.peak_mib,
        }
        figures = row_of(name, task, trial, scores, show_wrong=texts and trial.draw == 0)
        keep({**figures, **sizes(learner, model), **costs})
