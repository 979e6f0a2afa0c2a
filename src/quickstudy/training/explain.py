"""Explain: what an outer step is estimated to take, beside what one really takes. Nothing is learned."""

import time
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

from quickstudy.cost import free_mib, measure
from quickstudy.methods.base import MetaLearner
from quickstudy.settings import OuterSettings
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.training.meta_batch import MetaBatch
from quickstudy.training.outer import make_optimizer
from quickstudy.training.plan import Plan, plan

# Sizes of matrix products: for the processor those of a small encoder's layers, which are too small to measure a GPU.
_SIZES = {"cpu": (512, 384, 1536), "cuda": (8192, 8192, 8192)}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the meta-gradient of one outer step is estimated to take, and what it took.

    Attributes:
        plan: The estimate for one episode of the step; its memory is for all episodes that are computed at once.
        episodes: Episodes of this process in the step.
        at_once: Episodes that are computed at once.
        operations: Floating-point operations of matrix products and attention, counted.
        seconds: What the meta-gradient took, without the time for its data.
        data_seconds: Sampling and tokenising; in training this is done while the step before is computed.
        memory_mib: Memory that the training takes beyond what was held before; None where it cannot be measured.
        held_mib: Memory that was held before: the program, the encoder, the data; None where it cannot be measured.
        free_mib: Memory that was free before; None where it cannot be measured.
        rate: Floating-point operations per second of a matrix product, in that precision on this device.
        precision: `no` (single precision), or `bf16`.
        device: Where it ran.
        outer_steps: Outer steps of the whole training.
    """

    plan: Plan
    episodes: int
    at_once: int
    operations: float
    seconds: float
    data_seconds: float
    memory_mib: float | None
    held_mib: float | None
    free_mib: float | None
    rate: float
    precision: str
    device: str
    outer_steps: int


def explain(
    learner: MetaLearner, sampler: EpisodeSampler, settings: OuterSettings, accelerator: Accelerator
) -> Explanation:
    """Estimate the first outer step, take it and one more with a rate of 0 to measure them, and count the operations.

    The second step has what a training has from then on: the moments of the optimizer.
    """
    device = accelerator.device
    learner.to(device)
    optimizer = make_optimizer(learner, settings)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    meta_batch = MetaBatch(
        learner, sampler, settings.meta_batch_size, settings.outer_steps, accelerator, settings.max_length
    )
    began, free = time.perf_counter(), free_mib(device)
    episodes = meta_batch.episodes(0)
    data_seconds = time.perf_counter() - began
    with measure(device) as cost:
        _step(meta_batch, optimizer)
        began = time.perf_counter()
        _step(meta_batch, optimizer)
        seconds = time.perf_counter() - began
    at_once = meta_batch.at_once
    with FlopCounterMode(display=False) as counter:
        meta_batch.add(torch.zeros(3, device=device), 0)
    learner.zero_grad()
    more = cost.more_mib
    return Explanation(
        plan=plan(learner, episodes, at_once),
        episodes=len(episodes),
        at_once=at_once,
        operations=float(counter.get_total_flops()),
        seconds=seconds - meta_batch.waited,
        data_seconds=data_seconds,
        memory_mib=more,
        held_mib=None if more is None or cost.peak_mib is None else cost.peak_mib - more,
        free_mib=free,
        rate=matrix_rate(device, torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32),
        precision=accelerator.mixed_precision,
        device=device.type,
        outer_steps=settings.outer_steps,
    )


def _step(meta_batch: MetaBatch, optimizer: torch.optim.Optimizer) -> None:
    """Take the first outer step."""
    meta_batch.add(torch.zeros(3, device=meta_batch.accelerator.device), 0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if meta_batch.accelerator.device.type == "cuda":
        torch.cuda.synchronize(meta_batch.accelerator.device)


def matrix_rate(device: torch.device, dtype: torch.dtype = torch.float32, *, repeats: int = 30) -> float:
    """Return the floating-point operations per second of matrix products: the highest of several measurements."""
    rows, inputs, outputs = _SIZES.get(device.type, _SIZES["cuda"])
    a = torch.randn(rows, inputs, device=device, dtype=dtype)
    b = torch.randn(inputs, outputs, device=device, dtype=dtype)
    rates = []
    for _ in range(repeats):
        with measure(device) as cost:
            for _ in range(10):
                a @ b
        rates.append(10 * 2 * rows * inputs * outputs / cost.seconds)
    return max(rates)
