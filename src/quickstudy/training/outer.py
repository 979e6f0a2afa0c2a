"""Outer loop: one loop for every method.

    θ ← AdamW(θ, mean over the meta-batch of ∇_θ meta-loss),        episode j of step t has index t M + j

    lr_t = outer_lr · min(1, t / warmup) · decay(t / outer_steps),          decay: linear or cosine, see `schedule`

Several processes share the episodes of a meta-batch by index, and add up their gradients in one flat buffer once per
step. The model is never wrapped, because the hooks of wrapped models do not fire inside a functional inner loop. What
one process does alone runs under `held`, so that its errors are raised where all processes meet. The main process's
scores count for all, so all stop at the same step. The sampler, the schedule and the passages of masked-language
modelling, which can take a share of the steps, are pure functions of the step. So a checkpoint needs only parameters,
moments and a step number, and a resumed run is the same run. AdamW: Loshchilov and Hutter 2019, arXiv:1711.05101.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from quickstudy.cost import peak_mib
from quickstudy.errors import RunError, TerminatedError
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.convergence import warn_of
from quickstudy.models.cut import layer_stack
from quickstudy.processes import Held, broadcast, gather
from quickstudy.settings import OuterSettings
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.training.budget import Budget, Steps
from quickstudy.training.checkpoint import TrainState, load_checkpoint, save_checkpoint
from quickstudy.training.kept import is_better
from quickstudy.training.language import LanguageModel
from quickstudy.training.meta_batch import MetaBatch
from quickstudy.training.record import StepRecord
from quickstudy.training.reduction import TOTALS, Reduction
from quickstudy.training.sick import WINDOW, note_left_out, say_left_out
from quickstudy.training.stop import StopWish, noted_sigterm

Validate = Callable[[MetaLearner], float]

LAST, BEST = "last", "best"  # the names of the two checkpoints
LANGUAGE = "language"  # the name of the language head among the modules of a learner


def train(
    learner: MetaLearner,
    sampler: EpisodeSampler,
    settings: OuterSettings,
    *,
    accelerator: Accelerator,
    folder: Path,
    on_step: Callable[[StepRecord], None],
    validate: Validate | None = None,
    budget: Budget | None = None,
    language: LanguageModel | None = None,
) -> MetaLearner:
    """Meta-train, and leave the learner with its best or last meta-parameters, the same in all processes.

    Args:
        learner: What to train; it is changed in place.
        sampler: Where episodes come from.
        settings: The loop's settings.
        accelerator: Device, precision and processes.
        folder: Where the main process keeps the checkpoints `last` and `best`. If there is a `last`, training goes on
            from it.
        on_step: Called with the record of every step, in every process.
        validate: Gives a score of the learner; higher is better.
        budget: How much the loop may spend; by default `outer_steps` steps. A budget of time is that of one process,
            and a training with it begins anew.
        language: Masked-language modelling, which takes a share of the steps; None for none.

    Raises:
        RunError: Too many episodes had to be left out (`max_left_out`), a checkpoint cannot be read or written, or the
            processes read different checkpoints.
        ProcessError: Another process failed.
        TerminatedError: SIGTERM came; the training was saved after the step that it was in.
    """
    if language:
        learner.add_module(LANGUAGE, language.head)  # its parameters are saved with those of the method
    with noted_sigterm() as wish:
        loop = _Loop(
            learner, sampler, settings, accelerator, folder, on_step, validate, budget or Steps(), wish, language
        )
        loop.begin()
        while not loop.done:
            loop.step()
        loop.end()
    return learner


@dataclass(frozen=True, slots=True)
class _MetaGradient:
    """What is known of the meta-gradient of one step, over all processes.

    Attributes:
        loss: Mean query loss of the episodes that count; NaN if none does.
        accuracy: Their query accuracy; NaN if all are regression.
        norm: Norm of the meta-gradient before clipping.
        left_out: Tasks of the episodes that were left out.
        stop: Whether a process was asked to stop.
    """

    loss: float
    accuracy: float
    norm: float
    left_out: tuple[str, ...]
    stop: bool


class _Loop:
    """One meta-training, from its start or its last checkpoint to its end; see `train`."""

    def __init__(
        self,
        learner: MetaLearner,
        sampler: EpisodeSampler,
        settings: OuterSettings,
        accelerator: Accelerator,
        folder: Path,
        on_step: Callable[[StepRecord], None],
        validate: Validate | None,
        budget: Budget,
        wish: StopWish,
        language: LanguageModel | None,
    ) -> None:
        self.learner, self.settings, self.accelerator = learner.to(accelerator.device), settings, accelerator
        self.on_step, self.validate, self.budget, self.wish = on_step, validate, budget, wish
        self.language = language
        self.last, self.best = folder / LAST, folder / BEST
        self.state = TrainState()
        self.held = Held()
        self.optimizer = make_optimizer(learner, settings, language)
        params = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.reduction = Reduction(params, self.held)
        size, steps = settings.meta_batch_size, settings.outer_steps
        skips = language.is_due if language else lambda _: False
        self.meta_batch = MetaBatch(learner, sampler, size, steps, accelerator, settings.max_length, skips)
        self._began = time.perf_counter()
        self._position = 0.0  # how far the loop is before its next step
        self._warned = False

    @property
    def done(self) -> bool:
        """Whether all steps are done, or the scores have not become better for too long."""
        exhausted = 0 < self.settings.patience <= self.state.stale
        return exhausted or self._position >= self.settings.outer_steps

    def begin(self) -> None:
        """Go on from the last checkpoint, or validate the untouched encoder as step 0."""
        saved = _same_for_all(load_checkpoint(self.last, self.learner, self.optimizer), self.last)
        broadcast(self.learner.parameters())
        if saved:
            self.state = saved
            self._began = time.perf_counter() - saved.seconds
        elif self.validate:
            self.state = TrainState(best=self._score(self.validate))
            with self.held:
                self._save(self.best)
                self.on_step(StepRecord(0, lr=0.0, seconds=self._seconds(), validation=self.state.best))
        self.budget.begin()
        self._position = self.budget.position(self.state.step)

    def step(self) -> None:
        """Take one outer step; validate and save if it is due."""
        began = time.perf_counter()
        rate = schedule(self._position, self.settings)
        gradient = self._meta_gradient(self.state.step)
        if len(gradient.left_out) < self.settings.meta_batch_size:
            self._update(rate)
        speed = self.settings.meta_batch_size / (time.perf_counter() - began)
        self.state = replace(
            self.state, step=self.state.step + 1, left_out=note_left_out(self.state.left_out, gradient.left_out)
        )
        self._position = self.budget.position(self.state.step)
        self._warn_of_convergence()
        due = self.settings.is_due(self.state.step) or self.done
        score = self._score(self.validate) if self.validate and due else None
        perplexity = self._perplexity(self.language) if self.language and due else None
        better = score is not None and is_better(score, self.state.best)
        if score is not None:
            self.state = self.state.validated(score)
        self.state = replace(self.state, seconds=self._seconds())
        with self.held:
            if better:
                self._save(self.best)
            self.on_step(self._record(gradient, rate, speed, score, perplexity))
            if due or gradient.stop:
                self._save(self.last, self.optimizer)
        if due or gradient.stop:
            gather(None, self.held)  # the other processes wait for the checkpoint here, where they may wait long
        if gradient.stop:
            raise TerminatedError

    def end(self) -> None:
        """Take the best meta-parameters, if those are to be kept."""
        if not self.validate or self.settings.keep != "best":
            return
        with self.held:
            if self.accelerator.is_main_process:
                load_checkpoint(self.best, self.learner)
        gather(None, self.held)
        broadcast(self.learner.parameters())

    def _meta_gradient(self, step: int) -> _MetaGradient:
        """Leave the clipped meta-gradient of the meta-batch in `.grad`; what is not finite is left out."""
        size, sick = self.settings.meta_batch_size, tuple[str, ...]()
        language = self.language if self.language and self.language.is_due(step) else None
        totals = torch.zeros(TOTALS, device=self.accelerator.device)
        with self.held:
            if language:
                language.add(totals[:3], step, self.accelerator, scale=size)
            else:
                self.meta_batch.add(totals[:3], step, self._position)
            totals[4] = float(self.wish.asked)
            # Checked before the sum over processes, which would not tell whose gradient it was.
            if not math.isfinite(self.reduction.put(totals)) or not totals.isfinite().all():
                if language:
                    raise self._diverged("the loss of masked-language modelling or its gradient is not finite", step)
                sick = self.meta_batch.add_healthy(totals[:3].zero_(), step, self._position)
                totals[3] = len(sick)
                self.reduction.put(totals)
        loss, right, scored, missing, stop = self.reduction.sum(totals)
        if missing:
            sick = tuple(name for names in gather(sick) for name in names)
            self._check_left_out(sick, step)
        count = size - len(sick)
        for gradient in (p.grad for p in self.reduction.params if missing and count and p.grad is not None):
            gradient.mul_(size / count)  # it is the mean over the episodes that count
        norm = float(nn.utils.clip_grad_norm_(self.reduction.params, self.settings.clip_norm))
        if count and not (math.isfinite(loss) and math.isfinite(norm)):
            raise self._diverged(f"the meta-loss is {loss / count} and the norm of its gradient {norm}", step)
        return _MetaGradient(
            loss / count if count else math.nan, right / scored if scored else math.nan, norm, sick, bool(stop)
        )

    def _update(self, rate: float) -> None:
        """Take AdamW's step with the rates of this step."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * rate
        with self.held:
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def _check_left_out(self, sick: Sequence[str], step: int) -> None:
        """Say which tasks were left out, and stop if that is too much, or if the meta-parameters are not finite."""
        if self.accelerator.is_main_process:
            say_left_out(sick)
        if not all(p.isfinite().all() for p in self.reduction.params):
            raise self._diverged(f"the meta-parameters hold NaN or infinity, and so does the loss of {sick[0]!r}", step)
        recent = note_left_out(self.state.left_out, sick)
        if sum(recent) > self.settings.max_left_out * WINDOW * self.settings.meta_batch_size:
            names = ", ".join(sorted(set(sick)))
            raise self._diverged(
                f"{sum(recent)} episodes of {len(recent)} outer steps were left out, because their loss or gradient "
                f"was NaN or infinite (now: {names})",
                step,
            )

    def _diverged(self, what: str, step: int) -> RunError:
        saved = " The last good checkpoint is in the run folder." if step >= self.settings.validate_every else ""
        return RunError(f"{what} in outer step {step + 1}", fix=f"Lower inner_lr, head_lr or outer_lr.{saved}")

    def _score(self, validate: Validate) -> float:
        """Validate in all processes at once, so that none waits long; the main process's score counts for all."""
        score = math.nan
        with self.held:
            score = validate(self.learner)
        return gather(score, self.held)[0]

    def _perplexity(self, language: LanguageModel) -> float:
        """Measure it in all processes at once; the main process's counts."""
        value = math.nan
        with self.held:
            value = language.perplexity(self.accelerator)
        return gather(value, self.held)[0]

    def _warn_of_convergence(self) -> None:
        convergence = self.meta_batch.convergence
        if convergence and convergence.is_poor and not self._warned:
            self._warned = True
            warn_of(convergence)

    def _record(
        self, gradient: _MetaGradient, rate: float, speed: float, score: float | None, perplexity: float | None
    ) -> StepRecord:
        convergence = self.meta_batch.convergence
        masked = self.language is not None and self.language.is_due(self.state.step - 1)
        return StepRecord(
            step=self.state.step,
            loss=math.nan if masked else gradient.loss,
            accuracy=math.nan if masked else gradient.accuracy,
            mlm_loss=gradient.loss if masked else None,
            perplexity=perplexity,
            lr=self.settings.outer_lr * rate,
            grad_norm=gradient.norm,
            seconds=self.state.seconds,
            episodes_per_second=math.nan if masked else speed,
            validation=score,
            peak_mib=peak_mib(self.accelerator.device),
            waited=self.meta_batch.waited,
            inner_residual=convergence.inner if convergence else None,
            solve_residual=convergence.solve if convergence else None,
            left_out=gradient.left_out,
        )

    def _save(self, folder: Path, optimizer: torch.optim.Optimizer | None = None) -> None:
        if self.accelerator.is_main_process:
            save_checkpoint(folder, self.learner, self.state, optimizer)

    def _seconds(self) -> float:
        return time.perf_counter() - self._began


def schedule(step: float, settings: OuterSettings) -> float:
    """Return the factor of the peak rate at a step, or between two: a linear warm-up, then a linear or cosine decay.

    >>> [round(schedule(t, OuterSettings(outer_steps=10, warmup_steps=2)), 2) for t in (0, 1, 2, 9)]
    [0.5, 0.9, 0.8, 0.1]
    >>> cosine = OuterSettings(outer_steps=10, warmup_steps=0, schedule="cosine")
    >>> [round(schedule(t, cosine), 2) for t in (0, 5, 9)]
    [1.0, 0.5, 0.02]
    """
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    done = step / settings.outer_steps
    return warm * ((1 + math.cos(math.pi * done)) / 2 if settings.schedule == "cosine" else 1 - done)


def meta_parameters(learner: MetaLearner, trains: str) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Let the encoder parameters that `trains` names require a gradient, and no others.

    Args:
        learner: The learner to be trained.
        trains: `all`, `layers` or `none`; see `OuterSettings`.

    Returns:
        The encoder's meta-parameters, and those that the method has beside the encoder, without the language head's.
    """
    encoder = learner.encoder.model
    prefix = f"{layer_stack(encoder)[0]}." if trains == "layers" else ""
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(trains != "none" and name.startswith(prefix))
    in_encoder = {id(parameter) for parameter in encoder.parameters()}
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    beside = {name: parameter for name, parameter in learner.named_parameters() if id(parameter) not in in_encoder}
    return trained, [parameter for name, parameter in beside.items() if not name.startswith(f"{LANGUAGE}.")]


def make_optimizer(
    learner: MetaLearner, settings: OuterSettings, language: LanguageModel | None = None
) -> torch.optim.AdamW:
    """Return AdamW with groups of the encoder's meta-parameters, the language head, and what is beside them.

    A language head is trained like the encoder, at a rate of its own if it has one. What is beside them does not decay.
    """
    encoder, beside = meta_parameters(learner, settings.trains)
    head = [parameter for name, parameter in learner.named_parameters() if name.startswith(f"{LANGUAGE}.")]
    head_rate = language.settings.head_lr if language else None
    shared = encoder if head_rate else encoder + head
    groups = [{"params": shared, "lr": settings.outer_lr, "peak_lr": settings.outer_lr}]
    if head_rate:
        groups.append({"params": head, "lr": head_rate, "peak_lr": head_rate})
    if beside:
        rate = settings.method_lr
        groups.append({"params": beside, "lr": rate, "peak_lr": rate, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, weight_decay=settings.weight_decay)


def _same_for_all(state: TrainState | None, folder: Path) -> TrainState | None:
    steps = [None if other is None else other.step for other in gather(state)]
    different = next((process for process, step in enumerate(steps) if step != steps[0]), None)
    if different is not None:
        raise RunError(
            f"process 0 goes on from step {steps[0]}, process {different} from step {steps[different]}",
            where=str(folder),
            fix="Keep the run folder on a disk that all processes see.",
        )
    return state
