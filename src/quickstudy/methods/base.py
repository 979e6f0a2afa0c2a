"""MetaLearner: the object that the outer loop trains, and what all methods and baselines have in common.

    meta_loss(episodes)    mean over episodes of the query loss after adapting to the support set
    adapt(support)         a model of one task; it never changes the meta-parameters

A method states only what is its own: the loss of one episode, and how it adapts. The target says what a
label is and what a loss is.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from quickstudy.methods.convergence import Convergence, find_worst
from quickstudy.methods.passes import FEATURES_ONCE, EncoderPasses
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedEpisode, EncodedSet
from quickstudy.models.encoder import Encoder
from quickstudy.models.feature_cache import FeatureCache, FeatureCaches
from quickstudy.models.head import Head
from quickstudy.models.partition import Partition
from quickstudy.models.target import Target
from quickstudy.tasks.task import Task


@dataclass(frozen=True, slots=True)
class EpisodeLoss:
    """The loss of one episode.

    Attributes:
        loss: (), differentiable in the meta-parameters.
        right: Which examples were labelled rightly, (Q,) booleans; empty where there is no right and wrong.
        convergence: How well the problems of an implicit method were solved; None for all others.
    """

    loss: Tensor
    right: Tensor
    convergence: Convergence | None = None

    @classmethod
    def measure(cls, target: Target, scores: Tensor, labels: Tensor) -> "EpisodeLoss":
        """Return the loss of what a head gives, (Q, N) or (Q, 1), against labels (Q,) in standard units."""
        return cls(target.loss(scores, labels), target.mark_right(scores, labels))


@dataclass(frozen=True, slots=True)
class MetaLoss:
    """The loss of some episodes.

    Attributes:
        loss: (), the mean over the episodes, differentiable in the meta-parameters.
        accuracy: Fraction of the examples that were labelled rightly, in episodes of classes; NaN without any.
        scored: Query examples in these episodes: the weight of `accuracy` in a mean over several calls.
        convergence: The worst of the episodes; None if no problem had to be solved.
    """

    loss: Tensor
    accuracy: float
    scored: int
    convergence: Convergence | None = None


class MetaLearner(nn.Module, ABC):
    """A way to learn how to learn.

    Attributes:
        name: Its name in the catalog; it goes into saved models.
        encoder: The shared encoder. Its parameters are meta-parameters, like all other parameters of the module.
        partition: How the encoder runs inside an episode.
        meta_trains: Whether there is anything to learn across tasks; False for baselines.
        reads_support: Whether adapting looks at the texts of the support set.
        chosen: What `for_support` chose for a support set, in words; empty if that is what was meta-learned.
        episodes_at_once: How many episodes `meta_loss` handles best in one call; None for the whole meta-batch.
    """

    episodes_at_once: ClassVar[int | None] = 1
    reads_support: ClassVar[bool] = True
    chosen = ""

    def __init__(self, encoder: Encoder, adapts: str, name: str, *, meta_trains: bool = True) -> None:
        super().__init__()
        self.name, self.meta_trains = name, meta_trains
        self.encoder = encoder
        self.partition = Partition(encoder, adapts)

    @property
    def reads_names(self) -> bool:
        """Whether adapting reads the label texts of the target."""
        return False

    @property
    def weighs(self) -> bool:
        """Whether examples can have different weights."""
        return True

    def prepare(self, tasks: Sequence[Task]) -> None:
        """Get to know the meta-train tasks before the outer loop. Most methods need not."""

    def meta_loss(self, episodes: Sequence[EncodedEpisode], progress: float = 1.0) -> MetaLoss:
        """Return the mean query loss over episodes, differentiable in the meta-parameters.

        Args:
            episodes: Some or all of a meta-batch.
            progress: Fraction of the meta-training that is done, 0 to 1, for methods that anneal.
        """
        losses = self.episode_losses(episodes, progress)
        accuracy = float(torch.cat([each.right for each in losses]).float().mean())
        scored = sum(len(e.query.labels) for e, each in zip(episodes, losses, strict=True) if len(each.right))
        convergence = find_worst(each.convergence for each in losses)
        return MetaLoss(torch.stack([each.loss for each in losses]).mean(), accuracy, scored, convergence)

    def episode_losses(self, episodes: Sequence[EncodedEpisode], progress: float) -> list[EpisodeLoss]:
        """Return the loss of each episode. A method that runs the encoder on all episodes at once overrides this."""
        return [self.episode_loss(episode, progress) for episode in episodes]

    @abstractmethod
    def episode_loss(self, episode: EncodedEpisode, progress: float) -> EpisodeLoss:
        """Return the loss of one episode; see `meta_loss`."""

    @abstractmethod
    def adapt(self, support: EncodedSet, target: Target, *, cache: FeatureCache | None = None) -> AdaptedModel:
        """Return a model of the task that the support set describes.

        Args:
            support: Labelled examples. Labels are positions in the target's label names, or scores.
            target: What the task asks for.
            cache: Remembers vectors of the encoder, which must not change while the cache is used.
        """

    def alternatives(self, target: Target) -> tuple["MetaLearner", ...]:
        """Return learners with all the encoders that `for_support` may choose for a target."""
        return (self,)

    def for_support(self, support: EncodedSet, target: Target, caches: FeatureCaches) -> "MetaLearner":
        """Return the learner that is to adapt to a support set: this one, unless it chooses among several.

        Args:
            support: See `adapt`.
            target: See `adapt`.
            caches: What the encoders of the learners remember.
        """
        return self

    def make_model(
        self, support: EncodedSet, target: Target, head: Head, params: Mapping[str, Tensor] | None = None
    ) -> AdaptedModel:
        """Return the model of a task with a head, and with adapted encoder parameters if there are any."""
        return AdaptedModel(self.partition, dict(params or {}), head, target, support.pair, self.name)

    def encoder_passes(self) -> EncoderPasses:
        """Return how an episode runs the encoder."""
        return FEATURES_ONCE

    def use_less_memory(self) -> bool:
        """Go over to the next way that needs less memory for the same meta-gradient; return whether there was one."""
        return False
