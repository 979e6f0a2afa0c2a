"""Pool: computes what is missing of a comparison, in this process, in several, or through Ray.

The figures are the same either way.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import torch

from quickstudy.comparison.job import Job, compute, plan_jobs
from quickstudy.comparison.plan import Plan
from quickstudy.errors import RunError
from quickstudy.evaluation.results_file import CELLS
from quickstudy.evaluation.saved_draws import save_draws

OnCell = Callable[[int, int, str], None]  # cells that are done, all of them, and which were finished last


def run_missing(plan: Plan, workers: int, ray: str | None, on_cell: OnCell) -> None:
    """Compute the cells of a comparison that are not there.

    Args:
        plan: The comparison.
        workers: Processes; the processor's cores are dealt to them.
        ray: Address of a Ray cluster that computes in place of processes here; `local` starts one. Every
            machine must reach runs and the folder of the comparison under the same paths.
        on_cell: Told of every finished job.

    Raises:
        RunError: Ray is asked for and not installed.
    """
    if ray and not find_spec("ray"):
        raise RunError("Ray is not installed", fix="pip install 'quickstudy[ray]'")
    (plan.folder / CELLS).mkdir(parents=True, exist_ok=True)
    save_draws(plan.folder / "draws.json", plan.protocol, plan.tasks)
    for cell in plan.cells:
        cell.discard_if_damaged()
    jobs = plan_jobs(plan.cells, plan.specs, full=plan.full)
    done = len(plan.cells) - sum(len(job.files) for job in jobs)
    for job in _run(jobs, workers, ray):
        done += len(job.files)
        on_cell(done, len(plan.cells), f"{job.task.name}, {', '.join(spec.name for spec in job.learners)}")


def _run(jobs: Sequence[Job], workers: int, ray: str | None) -> Iterator[Job]:
    """Compute jobs, and return each as it is finished."""
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
