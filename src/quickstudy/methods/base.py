"""MetaLearner: the object the outer loop trains, and what every method and baseline has in common.

    meta_loss(episodes)    mean over episodes of the query loss after adapting to the support set
    adapt(support)         a classifier for one task; never changes the meta-parameters

Losses: cross-entropy for classification; for regression the squared error of labels standardised by the support set's mean
and standard deviation, so that a task scored from 0 to 5 and one scored from 0 to 100 weigh the same.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from quickstudy.methods.passes import FEATURES_ONCE, EncoderPasses
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedEpisode, EncodedSet
from quickstudy.models.encoder import Encoder
from quickstudy.models.partition import Partition
from quickstudy.tasks.task import Kind, Task


@dataclass(frozen=True, slots=True)
class MetaLoss:
    """What one meta-batch gives.

    Attributes:
        loss: (), the mean query loss, differentiable in the meta-parameters.
        accuracy: Share of query examples labelled rightly in the classification episodes; NaN without any.
    """

    loss: Tensor
    accuracy: float


class MetaLearner(nn.Module, ABC):
    """A way to learn how to learn.

    Attributes:
        name: Name in the catalog; goes into saved models.
        encoder: The shared encoder; its parameters are meta-parameters, like all others of the module.
        partition: How the encoder runs inside an episode.
        meta_trains: Whether there is anything to learn across tasks; False for baselines.
        reads_support: Whether adapting looks at the texts of the support set.
        episodes_at_once: How many episodes `meta_loss` handles best in one call; None for the whole meta-batch.
    """

    episodes_at_once: ClassVar[int | None] = 1
    reads_support: ClassVar[bool] = True

    def __init__(self, encoder: Encoder, adapts: str, name: str, *, meta_trains: bool = True) -> None:
        super().__init__()
        self.name, self.meta_trains = name, meta_trains
        self.encoder = encoder
        self.partition = Partition(encoder, adapts)

    def prepare(self, tasks: Sequence[Task]) -> None:
        """Get to know the meta-train tasks before the outer loop; most methods need not."""

    @abstractmethod
    def meta_loss(self, episodes: Sequence[EncodedEpisode], progress: float = 1.0) -> MetaLoss:
        """Return the mean query loss over episodes, differentiable in the meta-parameters.

        Args:
            episodes: Some or all of a meta-batch.
            progress: Share of the meta-training that is done, 0 to 1, for methods that anneal.
        """

    def encoder_passes(self) -> EncoderPasses:
        """Return how an episode runs the encoder."""
        return FEATURES_ONCE

    def use_less_memory(self) -> bool:
        """Take the next way that needs less memory for the same meta-gradient; return whether there was one."""
        return False

    @abstractmethod
    def adapt(self, support: EncodedSet, label_names: Sequence[str], kind: Kind) -> AdaptedModel:
        """Return a model of the task that the support set describes.

        Args:
            support: Labelled examples; labels are positions in `label_names`, or scores.
            label_names: N names; empty for regression.
            kind: Classification or regression.
        """


def task_loss(scores: Tensor, labels: Tensor, kind: Kind) -> Tensor:
    """Return the mean loss, (), of scores (B, N) or (B, 1) against labels (B,)."""
    if kind == "classification":
        return nn.functional.cross_entropy(scores, labels)
    return nn.functional.mse_loss(scores.squeeze(-1), labels)


def label_scale(support: Tensor) -> tuple[Tensor, Tensor]:
    """Return (mean, standard deviation), each (), of a regression episode's support labels (B,); 1 if all are equal."""
    std = support.std(correction=0)
    return support.mean(), torch.where(std > 1e-6, std, 1.0)


def accuracy(counts: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Return the share of right labels over (scores, labels) pairs of classification episodes."""
    if not counts:
        return float("nan")
    right = torch.cat([scores.detach().argmax(-1) == labels for scores, labels in counts])
    return float(right.float().mean())
