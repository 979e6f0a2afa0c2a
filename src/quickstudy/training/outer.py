"""Outer loop: one loop for every method.

    θ ← AdamW(θ, mean over the meta-batch of ∇_θ meta-loss),        episode j of step t has index t M + j

    lr_t = outer_lr · min(1, t / warmup) · (1 - t / outer_steps)

Processes deal the episodes of a meta-batch by index and add up their gradients in one flat buffer, once per step: hooks of
wrapped models do not fire inside a functional inner loop, so the model is never wrapped. What one process does alone it does
under `held`, and errors are raised where all meet; scores are the main process's, so all stop at the same step. The sampler and
the schedule are pure functions of the step, so a checkpoint is parameters, moments and a step number, and a resumed run is the
same run.
AdamW: Loshchilov and Hutter 2019, arXiv:1711.05101.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from quickstudy.cost import peak_mib
from quickstudy.errors import RunError
from quickstudy.methods.base import MetaLearner
from quickstudy.models.cut import layer_stack
from quickstudy.processes import Held, broadcast, gather
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.training.checkpoint import TrainState, load_checkpoint, save_checkpoint
from quickstudy.training.meta_batch import MetaBatch
from quickstudy.training.reduction import Reduction

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
        episodes_per_second: Episodes per second in this step.
        validation: Meta-validation score before (step 0) or after this step, if it was taken.
        peak_mib: Most memory that the process has held so far, on the device where there is one; None if that is not known.
        waited: Seconds that this step waited for its episodes.
    """

    step: int
    loss: float
    accuracy: float
    lr: float
    grad_norm: float
    seconds: float
    episodes_per_second: float
    validation: float | None = None
    peak_mib: float | None = None
    waited: float = 0.0


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
    """Meta-train, and leave the learner with its best or last meta-parameters, the same in all processes.

    Args:
        learner: What to train; changed in place.
        sampler: Where episodes come from.
        settings: The loop's settings.
        accelerator: Device, precision and processes.
        folder: Where the main process keeps checkpoints: `last` and `best`. If `last` is there, training goes on from it.
        on_step: Told of every step, in every process.
        validate: Gives a score of the learner, higher is better.

    Raises:
        RunError: The loss or the meta-gradient is not finite, or the processes read different checkpoints.
        ProcessError: Another process failed.
    """
    learner.to(accelerator.device)
    groups = _parameter_groups(learner, settings)
    params = [p for group in groups for p in group["params"]]
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    state = _same_for_all(load_checkpoint(folder / "last", learner, optimizer), folder / "last")
    broadcast(learner.parameters())
    best, stale, start = (state.best, state.stale, state.step) if state else (None, 0, 0)
    began = time.perf_counter() - (state.seconds if state else 0.0)
    main, held = accelerator.is_main_process, Held()
    reduction = Reduction(params, held)
    if validate and not state:
        best = _score(validate, learner, held)
        with held:
            if main:
                save_checkpoint(folder / "best", learner)
            nan = math.nan
            on_step(StepRecord(0, nan, nan, 0.0, nan, time.perf_counter() - began, nan, best))
    own = MetaBatch(learner, sampler, settings.meta_batch_size, settings.outer_steps, accelerator)
    for step in range(start, settings.outer_steps):
        if settings.patience and stale >= settings.patience:
            break
        tick = time.perf_counter()
        rate = schedule(step, settings)
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * rate
        loss, accuracy, norm = _meta_gradient(own, step, settings, reduction)
        with held:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        speed = settings.meta_batch_size / (time.perf_counter() - tick)
        due = (step + 1) % settings.validate_every == 0 or step + 1 == settings.outer_steps
        score = _score(validate, learner, held) if validate and due else None
        better = score is not None and (best is None or score > best)
        if score is not None:
            best, stale = (score, 0) if better else (best, stale + 1)
        seconds, peak = time.perf_counter() - began, peak_mib(accelerator.device)
        with held:
            if better and main:
                save_checkpoint(folder / "best", learner)
            lr = settings.outer_lr * rate
            on_step(StepRecord(step + 1, loss, accuracy, lr, norm, seconds, speed, score, peak, own.waited))
            if due and main:
                save_checkpoint(
                    folder / "last", learner, optimizer, step=step + 1, best=best, stale=stale, seconds=seconds
                )
        if due:
            gather(None, held)  # the others wait for the checkpoint here, where there is time
    if validate and settings.keep == "best":
        with held:
            if main:
                load_checkpoint(folder / "best", learner)
        gather(None, held)
        broadcast(learner.parameters())
    return learner


def schedule(step: int, settings: OuterSettings) -> float:
    """Return the factor of the peak rate in a step: linear warm-up, then linear decay to zero.

    >>> [round(schedule(t, OuterSettings(outer_steps=10, warmup_steps=2)), 2) for t in (0, 1, 2, 9)]
    [0.5, 0.9, 0.8, 0.1]
    """
    warm = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    return warm * (1 - step / settings.outer_steps)


def _meta_gradient(
    own: MetaBatch, step: int, settings: OuterSettings, reduction: Reduction
) -> tuple[float, float, float]:
    """Leave the clipped meta-gradient of a whole meta-batch in `.grad`; return loss, accuracy and the norm before clipping."""
    size = settings.meta_batch_size
    totals = torch.zeros(3, device=own.accelerator.device)  # loss · episodes, right query examples, scored ones
    with reduction.held:
        own.add(totals, step)
        mine = reduction.put(totals)
        if mine is not None:  # checked before the sum, which would not tell whose it was
            _check_finite(float(totals[0]) / size, mine, step, settings)
    loss, right, scored = reduction.sum(totals)
    norm = float(nn.utils.clip_grad_norm_(reduction.params, settings.clip_norm))
    _check_finite(loss / size, norm, step, settings)
    return loss / size, right / scored if scored else math.nan, norm


def meta_parameters(learner: MetaLearner, trains: str) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Let the encoder parameters that `trains` names require a gradient, and no others; return them, and those beside them."""
    encoder = learner.encoder.model
    prefix = "" if trains == "all" else f"{layer_stack(encoder)[0]}."
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(name.startswith(prefix))
    inside = {id(p) for p in encoder.parameters()}
    own = [p for p in encoder.parameters() if p.requires_grad]
    return own, [p for p in learner.parameters() if id(p) not in inside]


def _parameter_groups(learner: MetaLearner, settings: OuterSettings) -> list[dict[str, Any]]:
    """Two groups: the encoder's meta-parameters, and what the method learns beside it (without weight decay)."""
    own, beside = meta_parameters(learner, settings.trains)
    groups: list[dict[str, Any]] = [{"params": own, "lr": settings.outer_lr, "peak_lr": settings.outer_lr}]
    if beside:
        method = {"params": beside, "lr": settings.method_lr, "peak_lr": settings.method_lr, "weight_decay": 0.0}
        groups.append(method)
    return groups


def _score(validate: Validate, learner: MetaLearner, held: Held) -> float:
    """Validate in all processes at once, so that none waits long; the main one's score decides for all."""
    score = math.nan
    with held:
        score = validate(learner)
    return gather(score, held)[0]


def _same_for_all(state: TrainState | None, folder: Path) -> TrainState | None:
    steps = [None if found is None else found.step for found in gather(state)]
    other = next((process for process, step in enumerate(steps) if step != steps[0]), None)
    if other is not None:
        raise RunError(
            f"process 0 goes on from step {steps[0]}, process {other} from step {steps[other]}",
            where=str(folder),
            fix="Keep the run folder on a disk that all processes see.",
        )
    return state


def _check_finite(loss: float, norm: float, step: int, settings: OuterSettings) -> None:
    if not math.isfinite(loss) or not math.isfinite(norm):
        saved = " The last good checkpoint is in the run folder." if step >= settings.validate_every else ""
        raise RunError(
            f"the meta-loss is {loss} and the norm of its gradient {norm} in outer step {step + 1}",
            fix=f"Lower inner_lr, head_lr or outer_lr.{saved}",
        )
