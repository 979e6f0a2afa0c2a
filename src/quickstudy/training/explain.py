"""Explain: what an outer step is estimated to take, beside what one really takes. Nothing is learned."""

import time
from dataclasses import dataclass
from itertools import count

import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

from quickstudy.cost import free_mib, measure
from quickstudy.methods.base import MetaLearner
from quickstudy.settings import OuterSettings
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.training.language import LanguageModel
from quickstudy.training.meta_batch import MetaBatch
from quickstudy.training.outer import make_optimizer
from quickstudy.training.plan import LanguagePlan, Plan, plan, plan_language

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
        language: What a step of masked-language modelling takes; None if there are none.
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
    language: "LanguageCost | None" = None

    @property
    def training_seconds(self) -> float:
        """What all outer steps take, each as long as the one of its kind that was measured."""
        share, language = (self.language.share, self.language.seconds) if self.language else (0.0, 0.0)
        return self.outer_steps * ((1 - share) * self.seconds + share * language)


@dataclass(frozen=True, slots=True)
class LanguageCost:
    """What a step of masked-language modelling is estimated to take, and what it took.

    Attributes:
        plan: The estimate.
        share: Which share of the outer steps is of this kind.
        passages: Passages of the step in this process.
        operations: Floating-point operations of matrix products and attention, counted.
        seconds: What the step took, with drawing and tokenising its passages.
        memory_mib: Memory beyond what was in use before; None where it cannot be measured.
    """

    plan: LanguagePlan
    share: float
    passages: int
    operations: float
    seconds: float
    memory_mib: float | None


def explain(
    learner: MetaLearner,
    sampler: EpisodeSampler,
    settings: OuterSettings,
    accelerator: Accelerator,
    language: LanguageModel | None = None,
) -> Explanation:
    """Estimate the first outer step, take it and one more with a rate of 0 to measure them, and count the operations.

    The second step has what a training has from then on: the moments of the optimizer. The first step of
    masked-language modelling is estimated and measured too, if the training has such steps.
    """
    device = accelerator.device
    learner.to(device)
    optimizer = make_optimizer(learner, settings, language)
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
        language=_explain_language(language, accelerator) if language else None,
    )


def _explain_language(language: LanguageModel, accelerator: Accelerator) -> LanguageCost:
    step = next(step for step in count() if language.is_due(step))
    totals = torch.zeros(3, device=accelerator.device)
    language.head.to(accelerator.device)
    trained = (language.encoder.model, language.head)
    with FlopCounterMode(display=False) as counter:
        language.add(totals, step, accelerator, scale=1.0)
    for module in trained:
        module.zero_grad()
    with measure(accelerator.device) as cost:
        language.add(totals, step, accelerator, scale=1.0)
    for module in trained:
        module.zero_grad()
    sizes, masked = language.sizes(step, accelerator)
    return LanguageCost(
        plan=plan_language(language.encoder, sizes, masked),
        share=language.settings.share,
        passages=len(sizes),
        operations=float(counter.get_total_flops()),
        seconds=cost.seconds,
        memory_mib=cost.more_mib,
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
