"""MetaBatch: the episodes of one process in every meta-batch, made ahead of time, as many at once as memory allows.

While a step is computed, a thread samples and tokenises the episodes of the next step. Before the first step their
memory is estimated, so that only as many episodes are worked on at once as fit. If memory runs out all the same, the
step begins again with half as many at once. A single episode takes the next way of its method that needs less memory
(`MetaLearner.use_less_memory`). The sum over the episodes stays the same, and so does the meta-gradient.
"""

import gc
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from quickstudy.cost import free_mib, is_out_of_memory
from quickstudy.errors import RunError
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.convergence import Convergence, find_worst
from quickstudy.models.batch import EncodedEpisode, encode_episode
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.training.plan import plan

_MEMORY_FRACTION = 0.8  # of the free memory; a step may take so much by its estimate


class MetaBatch:
    """The episodes of this process in the meta-batches.

    Args:
        learner: The learner that is trained.
        sampler: Gives the episodes.
        size: Episodes of a meta-batch over all processes (M).
        steps: Outer steps.
        accelerator: Device, precision and processes.
        max_length: Tokens per sequence; longer ones are cut. By default those that the encoder reads.
        skips: Whether a step is no step of episodes, so that none are made ahead for it.

    Attributes:
        at_once: How many episodes are worked on at once.
        waited: Seconds that the last step waited for its episodes.
        convergence: The worst of this process's episodes in the last step; None if no problem had to be solved.
    """

    def __init__(
        self,
        learner: MetaLearner,
        sampler: EpisodeSampler,
        size: int,
        steps: int,
        accelerator: Accelerator,
        max_length: int | None = None,
        skips: Callable[[int], bool] = lambda _: False,
    ) -> None:
        self.learner, self.sampler, self.size, self.steps = learner, sampler, size, steps
        self.accelerator, self._skips = accelerator, skips
        self._reader = learner.encoder if max_length is None else learner.encoder.shortened(max_length)
        self.at_once = learner.episodes_at_once or max(1, len(self._indices(0)))
        self.waited = 0.0
        self.convergence: Convergence | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="episodes")
        self._ahead: tuple[int, Future[list[EncodedEpisode]]] | None = None
        self._fits = False

    def add(self, totals: Tensor, step: int, position: float | None = None) -> None:
        """Take the meta-gradient of a step, and leave it in `.grad`.

        Args:
            totals: (3,), to which are added: the sum of the losses, the query examples that were labelled rightly, and
                all query examples that were scored.
            step: Number of the step, from 0.
            position: How far the training is, from 0 to `steps`; by default the number of the step.

        Raises:
            RunError: Not even a single episode fits into memory.
        """
        episodes = self._take(step)
        if not self._fits and episodes:
            self._fit(episodes)
        before = totals.clone()
        progress = (step if position is None else position) / self.steps
        while not self._add(totals, progress, episodes):
            totals.copy_(before)
            for parameter in self.learner.parameters():
                parameter.grad = None
            gc.collect()
            if self.accelerator.device.type == "cuda":
                torch.cuda.empty_cache()
            if not self._shrink():
                raise _too_large()

    def add_healthy(self, totals: Tensor, step: int, position: float) -> tuple[str, ...]:
        """Take the meta-gradient of the last step again, without the episodes whose loss or gradient is not finite.

        Args:
            totals: As in `add`, from zero; what is left out does not count.
            step: Number of the step.
            position: How far the training is.

        Returns:
            The tasks of the episodes that were left out.
        """
        params, sick = [p for p in self.learner.parameters() if p.requires_grad], []
        kept: list[Tensor | None] = [None] * len(params)
        for episode in self.episodes(step):
            self.learner.zero_grad(set_to_none=True)
            alone = torch.zeros_like(totals)
            if not self._add(alone, position / self.steps, [episode]):
                raise _too_large()
            gradients = [p.grad for p in params]
            if not alone.isfinite().all() or not all(g.isfinite().all() for g in gradients if g is not None):
                sick.append(episode.task)
                continue
            totals += alone
            kept = [
                each if new is None else new if each is None else each + new
                for each, new in zip(kept, gradients, strict=True)
            ]
        for parameter, gradient in zip(params, kept, strict=True):
            parameter.grad = gradient
        return tuple(sick)

    def _add(self, totals: Tensor, progress: float, episodes: list[EncodedEpisode]) -> bool:
        """Return whether there was enough memory. If not, what was added so far must be thrown away."""
        self.convergence = None
        try:
            for start in range(0, len(episodes), self.at_once):
                group = episodes[start : start + self.at_once]
                with self.accelerator.autocast(), attention(self.accelerator):
                    result = self.learner.meta_loss(group, progress)
                self.accelerator.backward(result.loss * (len(group) / self.size))
                self.convergence = find_worst([self.convergence, result.convergence])
                # Accuracy is counted in examples, so that it does not depend on how the episodes are divided.
                right = result.scored * result.accuracy if result.scored else 0.0
                counts = [len(group) * float(result.loss.detach()), right, result.scored]
                totals += torch.tensor(counts, device=totals.device)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return False  # from here on nothing refers to the graph
        return True

    def _fit(self, episodes: list[EncodedEpisode]) -> None:
        """Work on as many episodes at once as fit into the free memory by their estimate."""
        self._fits, free = True, free_mib(self.accelerator.device)
        while free is not None and plan(self.learner, episodes, self.at_once).memory_mib > _MEMORY_FRACTION * free:
            if not self._shrink():
                break

    def _shrink(self) -> bool:
        if self.at_once == 1:
            return self.learner.use_less_memory()
        self.at_once = -(-self.at_once // 2)
        return True

    def _take(self, step: int) -> list[EncodedEpisode]:
        tick = time.perf_counter()
        ready, future = self._ahead or (None, None)
        episodes = future.result() if future and ready == step else self.episodes(step)
        self.waited = time.perf_counter() - tick
        following = next((later for later in range(step + 1, self.steps) if not self._skips(later)), None)
        if following is not None:
            self._ahead = following, self._pool.submit(self.episodes, following)
        return episodes

    def episodes(self, step: int) -> list[EncodedEpisode]:
        """Sample and tokenise this process's episodes of a step."""
        return [encode_episode(self._reader, self.sampler[index]) for index in self._indices(step)]

    def _indices(self, step: int) -> range:
        first = step * self.size
        return range(first + self.accelerator.process_index, first + self.size, self.accelerator.num_processes)


def _too_large() -> RunError:
    return RunError(
        "there is not enough memory for one episode",
        fix="Use shorter texts (outer.max_length), fewer examples (episodes.k_shot, n_query), "
        "fewer inner steps, or let less adapt (method.adapts).",
    )


def attention(accelerator: Accelerator) -> AbstractContextManager[None]:
    """Choose the attention kernel: the exact one on a processor in bf16, where the fused one has a slow gradient."""
    slow = accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16"
    return sdpa_kernel(SDPBackend.MATH) if slow else nullcontext()
