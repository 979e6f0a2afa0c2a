"""Outer loop: one loop for every method.

    θ ← AdamW(θ, mean over the meta-batch of ∇_θ meta-loss),        episode j of step t has index t M + j

    lr_t = outer_lr · min(1, t / warmup) · (1 - t / outer_steps)

Processes deal the episodes of a meta-batch by index and add up their gradients in one flat buffer, once per step: hooks of
wrapped models do not fire inside a functional inner loop, so the model is never wrapped. The sampler and the schedule are pure
functions of the step, so a checkpoint is parameters, moments and a step number, and a resumed run is the same run.
AdamW: Loshchilov and Hutter 2019, arXiv:1711.05101.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from quickstudy.cost import peak_mib
from quickstudy.errors import RunError
from quickstudy.methods.base import MetaLearner
from quickstudy.models.batch import encode_episode
from quickstudy.models.cut import layer_stack
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.training.checkpoint import load_checkpoint, save_checkpoint

Validate = Callable[[MetaLearner], float]


@dataclass(frozen=True, slots=True)
class OuterSettings:
    """Settings of the outer loop.

    Attributes:
        outer_steps: Updates of the meta-parameters.
        outer_lr: Peak rate of the encoder.
        method_lr: Peak rate of what the method learns beside the encoder (scales, learned rates, generators).
        meta_batch_size: Episodes per update (M).
        warmup_steps: Steps of linear warm-up.
        weight_decay: AdamW's.
        clip_norm: The meta-gradient is scaled down to this norm.
        trains: Encoder parameters that are meta-parameters: `all`, or `layers` to leave the embeddings as they are.
        validate_every: Steps between meta-validations.
        patience: Meta-validations without a better score before the loop stops; 0 never stops early.
        keep: Meta-parameters to end with: `best` by meta-validation, or `last`.
    """

    outer_steps: int = 500
    outer_lr: float = 3e-5
    method_lr: float = 1e-2
    meta_batch_size: int = 4
    warmup_steps: int = 50
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    trains: str = "layers"
    validate_every: int = 100
    patience: int = 0
    keep: str = "best"


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What happened in one outer step; one line of `metrics.jsonl`.

    Attributes:
        step: Number of the step, from 1.
        loss: Mean query loss of the meta-batch.
        accuracy: Query accuracy of the meta-batch (NaN if all regression).
        lr: Rate of the encoder in this step.
        grad_norm: Norm of the meta-gradient before clipping.
        seconds: Since the loop began.
        tasks_per_second: Episodes per second in this step.
        validation: Meta-validation score before (step 0) or after this step, if it was taken.
        peak_mib: Most memory that the process has held so far, on the device where there is one; None if that is not known.
    """

    step: int
    loss: float
    accuracy: float
    lr: float
    grad_norm: float
    seconds: float
    tasks_per_second: float
    validation: float | None = None
    peak_mib: float | None = None


def train(
    learner: MetaLearner,
    sampler: EpisodeSampler,
    settings: OuterSettings,
    *,
    accelerator: Accelerator,
    folder: Path,
    on_step: Callable[[StepRecord], None],
    validate: Validate | None = None,
) -> MetaLearner:
    """Meta-train, and leave the learner with its best or last meta-parameters.

    Args:
        learner: What to train; changed in place.
        sampler: Where episodes come from.
        settings: The loop's settings.
        accelerator: Device, precision and processes.
        folder: Where checkpoints go: `last` and `best`. If `last` is there, training goes on from it.
        on_step: Told of every step.
        validate: Gives a score of the learner, higher is better.

    Raises:
        RunError: The loss or the meta-gradient is not finite.
    """
    learner.to(accelerator.device)
    groups = _parameter_groups(learner, settings)
    params = [p for group in groups for p in group["params"]]
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    state = load_checkpoint(folder / "last", learner, optimizer)
    best, stale, start = (state.best, state.stale, state.step) if state else (None, 0, 0)
    began = time.perf_counter() - (state.seconds if state else 0.0)
    if validate and not state:
        best = validate(learner)
        save_checkpoint(folder / "best", learner)
        nan = math.nan
        on_step(StepRecord(0, nan, nan, 0.0, nan, time.perf_counter() - began, nan, best))
    for step in range(start, settings.outer_steps):
        if settings.patience and stale >= settings.patience:
            break
        tick = time.perf_counter()
        rate = schedule(step, settings)
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * rate
        loss, accuracy = _meta_batch(learner, sampler, step, settings, accelerator)
        norm = _reduce_and_clip(params, settings.clip_norm, accelerator)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise RunError(
                f"the meta-loss is {loss} and the norm of its gradient {norm} in outer step {step + 1}",
                fix="Lower inner_lr, head_lr or outer_lr."
                + (" The last good checkpoint is in the run folder." if (folder / "last").exists() else ""),
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        now = time.perf_counter()
        score = None
        last = step + 1 == settings.outer_steps
        if validate and ((step + 1) % settings.validate_every == 0 or last):
            score = validate(learner)
            better = best is None or score > best
            stale = 0 if better else stale + 1
            if better:
                best = score
                save_checkpoint(folder / "best", learner)
        seconds = time.perf_counter() - began
        speed = settings.meta_batch_size / (now - tick)
        peak = peak_mib(accelerator.device)
        on_step(StepRecord(step + 1, loss, accuracy, settings.outer_lr * rate, norm, seconds, speed, score, peak))
        if (step + 1) % settings.validate_every == 0 or last:
            save_checkpoint(folder / "last", learner, optimizer, step=step + 1, best=best, stale=stale, seconds=seconds)
    if validate and settings.keep == "best":
        load_checkpoint(folder / "best", learner)
    return learner


def schedule(step: int, settings: OuterSettings) -> float:
    """Return the factor of the peak rate in a step: linear warm-up, then linear decay to zero.

    >>> [round(schedule(t, OuterSettings(outer_steps=10, warmup_steps=2)), 2) for t in (0, 1, 2, 9)]
    [0.5, 0.9, 0.8, 0.1]
    """
    warm = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    return warm * (1 - step / settings.outer_steps)


def _meta_batch(
    learner: MetaLearner, sampler: EpisodeSampler, step: int, settings: OuterSettings, accelerator: Accelerator
) -> tuple[float, float]:
    """Add up the meta-gradient of this process's episodes; return the loss and accuracy over all processes."""
    size = settings.meta_batch_size
    first = step * size
    mine = range(first + accelerator.process_index, first + size, accelerator.num_processes)
    totals = torch.zeros(3, device=accelerator.device)  # loss · episodes, accuracy · episodes, episodes with accuracy
    for indices in _parts(mine, learner.episodes_at_once):
        episodes = [encode_episode(learner.encoder, sampler[index]) for index in indices]
        with accelerator.autocast():
            found = learner.meta_loss(episodes, step / settings.outer_steps)
        accelerator.backward(found.loss * (len(episodes) / size))
        known = 0.0 if math.isnan(found.accuracy) else 1.0
        accuracy = found.accuracy if known else 0.0
        totals += len(episodes) * torch.tensor([float(found.loss.detach()), accuracy, known], device=totals.device)
    totals = accelerator.reduce(totals, "sum") if accelerator.num_processes > 1 else totals
    loss, right, known = totals.tolist()
    return loss / size, right / known if known else math.nan


def _parts(indices: range, size: int | None) -> Iterator[range]:
    size = size or max(1, len(indices))
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def _parameter_groups(learner: MetaLearner, settings: OuterSettings) -> list[dict[str, Any]]:
    """Two groups: the encoder's meta-parameters, and what the method learns beside it (without weight decay)."""
    encoder = learner.encoder.model
    if settings.trains == "layers":
        prefix = f"{layer_stack(encoder)[0]}."
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(name.startswith(prefix))
    inside = {id(p) for p in encoder.parameters()}
    own = [p for p in encoder.parameters() if p.requires_grad]
    beside = [p for p in learner.parameters() if id(p) not in inside]
    groups: list[dict[str, Any]] = [{"params": own, "lr": settings.outer_lr, "peak_lr": settings.outer_lr}]
    if beside:
        method = {"params": beside, "lr": settings.method_lr, "peak_lr": settings.method_lr, "weight_decay": 0.0}
        groups.append(method)
    return groups


def _reduce_and_clip(params: list[nn.Parameter], limit: float, accelerator: Accelerator) -> float:
    """Sum the meta-gradients of all processes in one flat buffer, scale them to the norm limit, return their norm.

    A parameter that no process has a gradient of keeps none: AdamW would let it decay.
    """
    if accelerator.num_processes > 1:
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
        reached = torch.tensor([float(p.grad is not None) for p in params], device=accelerator.device)
        flat: Tensor = accelerator.reduce(torch.cat([reached, *(g.reshape(-1) for g in grads)]), "sum")
        counts, *parts = torch.split(flat, [len(params), *(g.numel() for g in grads)])
        for parameter, part, count in zip(params, parts, counts.tolist(), strict=True):
            parameter.grad = part.view_as(parameter) if count else None
    return float(nn.utils.clip_grad_norm_(params, limit))
