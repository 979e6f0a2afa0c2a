"""Explain: the plan of an outer step beside what one really takes; nothing is learned."""

import time
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

from quickstudy.cost import free_mib, measure
from quickstudy.methods.base import MetaLearner
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.training.meta_batch import MetaBatch
from quickstudy.training.outer import OuterSettings, meta_parameters
from quickstudy.training.plan import Plan, plan

# Matrix products of the size that a small encoder's layers have; a GPU is too fast for them to tell its rate.
_SIZES = {"cpu": (512, 384, 1536), "cuda": (8192, 8192, 8192)}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the meta-gradient of one outer step is reckoned to take, and what it took.

    Attributes:
        plan: Of one episode of the step; its memory is for all that are worked on at once.
        episodes: Of this process in the step.
        at_once: Episodes that are worked on at once.
        operations: Floating-point operations that were counted, of matrix products and attention.
        seconds: What the step took, without the time for its data.
        data_seconds: Sampling and tokenising; in training this goes on while the step before is computed.
        memory_mib: Memory beyond what was there before; None where it cannot be measured.
        free_mib: Memory that was left before; None likewise.
        rate: Floating-point operations per second of a matrix product in that precision on this device.
        precision: `no` (single), or `bf16`.
        device: Where it ran.
        outer_steps: That the whole training takes.
    """

    plan: Plan
    episodes: int
    at_once: int
    operations: float
    seconds: float
    data_seconds: float
    memory_mib: float | None
    free_mib: float | None
    rate: float
    precision: str
    device: str
    outer_steps: int


def explain(
    learner: MetaLearner, sampler: EpisodeSampler, settings: OuterSettings, accelerator: Accelerator
) -> Explanation:
    """Plan the first outer step and take its meta-gradient, once to count and once to time."""
    device = accelerator.device
    learner.to(device)
    meta_parameters(learner, settings.trains)
    own = MetaBatch(learner, sampler, settings.meta_batch_size, settings.outer_steps, accelerator)
    tick, free = time.perf_counter(), free_mib(device)
    episodes = own.episodes(0)
    data_seconds = time.perf_counter() - tick
    with FlopCounterMode(display=False) as counter:
        own.add(torch.zeros(3, device=device), 0)
    learner.zero_grad()
    with measure(device) as cost:
        own.add(torch.zeros(3, device=device), 0)
    learner.zero_grad()
    return Explanation(
        plan(learner, episodes, own.at_once),
        len(episodes),
        own.at_once,
        float(counter.get_total_flops()),
        cost.seconds - own.waited,
        data_seconds,
        cost.more_mib,
        free,
        matrix_rate(device, torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32),
        accelerator.mixed_precision,
        device.type,
        settings.outer_steps,
    )


def matrix_rate(device: torch.device, dtype: torch.dtype = torch.float32, *, repeats: int = 30) -> float:
    """Return the floating-point operations per second of matrix products: the fastest of some."""
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
