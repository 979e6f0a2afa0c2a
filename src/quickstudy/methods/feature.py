"""Feature-based meta-learning: the features of the support set make a head in one go; there is no inner loop.

    head = rule(f(x_1), y_1, w_1, .., f(x_B), y_B, w_B)        meta-loss = L_query(head)

A method of this family is its rule: prototypes, attention, a closed-form solution, a network that reads the support
set. The encoder runs once per episode, so adapting costs one pass, and a whole meta-batch goes through the encoder at
once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from quickstudy.methods.base import EpisodeLoss, MetaLearner
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedEpisode, EncodedSet
from quickstudy.models.encoder import Encoder
from quickstudy.models.feature_cache import FeatureCache
from quickstudy.models.head import Head
from quickstudy.models.support_rows import SupportRows
from quickstudy.models.target import Target
from quickstudy.models.tokens import concatenate


class HeadRule(nn.Module, ABC):
    """Makes a head from the features of a support set. Its `nn.Parameter`s are meta-parameters.

    A rule that treats all targets alike works on `target.columns(rows.labels, rows.features)`. A rule that treats
    classes and scores differently has the methods `for_classes` and `for_scores` of `ByTarget`, and lets the target
    pick one: `return target.apply(self, rows)`. A rule that cannot weigh rows calls `refuse_weights`.
    """

    @abstractmethod
    def head(self, rows: SupportRows, target: Target) -> Head:
        """Return the head.

        Args:
            rows: Features, labels and weights of the support set.
            target: What the task asks for.
        """


SupportLoss = Callable[[Head, Tensor, Target], Tensor]  # of a head, and the labels (B,) in standard units


class FeatureMetaLearner(MetaLearner):
    """Adapts by a rule.

    Args:
        encoder: The encoder.
        rule: Makes the head.
        support_loss: What is learned from the support set beside the query loss; None for nothing.
        meta_trains: False makes it a baseline.
        name: It goes into saved models.
    """

    episodes_at_once: ClassVar[int | None] = None

    def __init__(
        self,
        encoder: Encoder,
        rule: HeadRule,
        *,
        support_loss: SupportLoss | None = None,
        meta_trains: bool = True,
        name: str,
    ) -> None:
        super().__init__(encoder, "head", name, meta_trains=meta_trains)
        self.rule, self._support_loss = rule, support_loss

    def episode_losses(self, episodes: Sequence[EncodedEpisode], progress: float) -> list[EpisodeLoss]:
        return [
            self._loss(episode, support, query)
            for episode, (support, query) in zip(episodes, self._encode(episodes), strict=True)
        ]

    def episode_loss(self, episode: EncodedEpisode, progress: float) -> EpisodeLoss:
        return self.episode_losses([episode], progress)[0]

    @torch.no_grad()
    def adapt(self, support: EncodedSet, target: Target, *, cache: FeatureCache | None = None) -> AdaptedModel:
        scale = target.scale(support.labels, support.weights)
        features = self.encoder(support.sequences, cache=cache)
        head = self.rule.head(SupportRows(features, scale.standardise(support.labels), support.weights), target)
        return self.make_model(support, target, scale.rescale(head))

    def _loss(self, episode: EncodedEpisode, support: Tensor, query: Tensor) -> EpisodeLoss:
        """Return the loss of an episode, given its features."""
        scale = episode.target.scale(episode.support.labels, episode.support.weights)
        labels = scale.standardise(episode.support.labels)
        head = self.rule.head(SupportRows(support, labels, episode.support.weights), episode.target)
        measured = EpisodeLoss.measure(episode.target, head(query), scale.standardise(episode.query.labels))
        if self._support_loss is None:
            return measured
        loss, b, q = self._support_loss(head, labels, episode.target), len(labels), len(query)
        return replace(measured, loss=(b * loss + q * measured.loss) / (b + q))

    def _encode(self, episodes: Sequence[EncodedEpisode]) -> list[tuple[Tensor, Tensor]]:
        """Return the (support, query) features of each episode: one pass over all single texts, one over all pairs."""
        features: dict[int, Tensor] = {}  # by the position of a set: support set of episode 0, its query set, ..
        sets = [examples.sequences for episode in episodes for examples in (episode.support, episode.query)]
        for pairs in (False, True):
            chosen = [position for position, sequences in enumerate(sets) if sequences.pairs == pairs]
            if chosen:
                encoded = self.encoder(concatenate([sets[position] for position in chosen]))
                sizes = [len(sets[position]) for position in chosen]
                features |= zip(chosen, encoded.split(sizes), strict=True)
        return [(features[2 * i], features[2 * i + 1]) for i in range(len(episodes))]
