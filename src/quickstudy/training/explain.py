"""Explain: the plan of an outer step beside what one episode really takes."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from quickstudy.cost import free_mib, measure
from quickstudy.methods.base import MetaLearner
from quickstudy.models.batch import EncodedEpisode, encode_episode
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.training.plan import Plan, plan

_ROWS, _INPUTS, _OUTPUTS = 512, 384, 1536  # a matrix product of the size that a small encoder's layers have


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one episode is reckoned to take and what it took.

    Attributes:
        plan: Of one episode.
        operations: Floating-point operations that were counted: matrix products and attention.
        seconds: Sampling, tokenising and the meta-gradient.
        data_seconds: Of these, sampling and tokenising.
        memory_mib: Memory beyond what was there before; None where it cannot be measured.
        free_mib: Memory that was left before; None likewise.
        rate: Floating-point operations per second of a matrix product on this device.
        loss: The meta-loss.
    """

    plan: Plan
    operations: float
    seconds: float
    data_seconds: float
    memory_mib: float | None
    free_mib: float | None
    rate: float
    loss: float


def explain(learner: MetaLearner, sampler: EpisodeSampler, *, repeats: int = 3) -> Explanation:
    """Run one episode and put its plan beside it; nothing is learned.

    Args:
        learner: Where it will be trained; its meta-parameters require gradients.
        sampler: Gives the episode.
        repeats: Timed runs; the fastest counts.
    """
    device = learner.encoder.device
    free = free_mib(device)
    tick = time.perf_counter()
    episode = encode_episode(learner.encoder, sampler[0])
    data_seconds = time.perf_counter() - tick
    planned = plan(learner, [episode])
    with FlopCounterMode(display=False) as counter:
        loss = _meta_gradient(learner, episode)
    costs = []
    for _ in range(repeats):
        with measure(device) as cost:
            _meta_gradient(learner, episode)
        costs.append(cost)
    seconds = data_seconds + min(cost.seconds for cost in costs)
    operations, rate = float(counter.get_total_flops()), matrix_rate(device)
    return Explanation(planned, operations, seconds, data_seconds, costs[0].more_mib, free, rate, float(loss))


def matrix_rate(device: torch.device, dtype: torch.dtype = torch.float32, *, repeats: int = 30) -> float:
    """Return the floating-point operations per second of a matrix product of a layer's size: the fastest of some."""
    a = torch.randn(_ROWS, _INPUTS, device=device, dtype=dtype)
    b = torch.randn(_INPUTS, _OUTPUTS, device=device, dtype=dtype)
    rates = []
    for _ in range(repeats):
        with measure(device) as cost:
            for _ in range(10):
                a @ b
        rates.append(10 * 2 * _ROWS * _INPUTS * _OUTPUTS / cost.seconds)
    return max(rates)


def _meta_gradient(learner: MetaLearner, episode: EncodedEpisode) -> Tensor:
    """Return the meta-loss, (), after taking its gradient; the gradient is thrown away."""
    loss = learner.meta_loss([episode]).loss
    wanted = [p for p in learner.parameters() if p.requires_grad]
    torch.autograd.grad(loss, wanted, allow_unused=True)
    return loss.detach()
