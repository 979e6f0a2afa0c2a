"""Feature-based meta-learning: the features of the support set make a head in one go; there is no inner loop.

    head = rule(f(x_1), y_1, w_1, .., f(x_B), y_B, w_B)        meta-loss = L_query(head)

A method of this family is its rule: prototypes, attention, a closed-form solution, a network that reads the support
set. The encoder runs once per episode, so adapting costs one pass, and a whole meta-batch goes through the encoder at
once. If the method reads label names, they are further rows (see `name_gate`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from quickstudy.methods.base import EpisodeLoss, MetaLearner
from quickstudy.methods.described import raise_described
from quickstudy.methods.name_gate import NameGate
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedEpisode, EncodedSet
from quickstudy.models.encoder import Encoder
from quickstudy.models.feature_cache import FeatureCache
from quickstudy.models.head import Head
from quickstudy.models.support_rows import SupportRows
from quickstudy.models.target import Target
from quickstudy.models.tokens import NO_SEQUENCES, Sequences, concatenate


class HeadRule(nn.Module, ABC):
    """Makes a head from the features of a support set. Its `nn.Parameter`s are meta-parameters.

    A rule that treats all targets alike works on `target.columns(rows.labels, rows.features)`. A rule that treats
    classes and scores differently has the methods `for_classes` and `for_scores` of `ByTarget`, and lets the target
    pick one: `return target.apply(self, rows)`. A rule that cannot weigh rows says so (`weighs`) and calls
    `refuse_weights`.
    """

    @property
    def weighs(self) -> bool:
        """Whether rows can have different weights."""
        return True

    @abstractmethod
    def head(self, rows: SupportRows, target: Target) -> Head:
        """Return the head.

        Args:
            rows: Features, labels and weights of the support set.
            target: What the task asks for.
        """

    def calibrate(self, head: Head, rows: SupportRows, examples: int, target: Target) -> Head:
        """Return the head with probabilities that suit this support set; by default as the rule made it.

        Args:
            head: What `head` made of the rows.
            rows: Features, labels and weights of the support set.
            examples: How many of the rows, the first ones, are examples. The others are label names.
            target: What the task asks for.
        """
        return head


SupportLoss = Callable[[Head, Tensor, Target], Tensor]  # of a head, and the labels (B,) in standard units


class FeatureMetaLearner(MetaLearner):
    """Adapts by a rule.

    Args:
        encoder: The encoder.
        rule: Makes the head.
        gate: Adds label names to the rows; None if they are not read.
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
        gate: NameGate | None = None,
        support_loss: SupportLoss | None = None,
        meta_trains: bool = True,
        name: str,
    ) -> None:
        super().__init__(encoder, "head", name, meta_trains=meta_trains)
        self.rule, self.gate, self._support_loss = rule, gate, support_loss

    @property
    def reads_names(self) -> bool:
        return self.gate is not None

    @property
    def weighs(self) -> bool:
        return self.rule.weighs

    def episode_losses(self, episodes: Sequence[EncodedEpisode], progress: float) -> list[EpisodeLoss]:
        return [
            self._loss(episode, features) for episode, features in zip(episodes, self._encode(episodes), strict=True)
        ]

    def episode_loss(self, episode: EncodedEpisode, progress: float) -> EpisodeLoss:
        return self.episode_losses([episode], progress)[0]

    @torch.no_grad()
    def adapt(self, support: EncodedSet, target: Target, *, cache: FeatureCache | None = None) -> AdaptedModel:
        examples, names = self.read(support, target, cache)
        head, rows = self.head_for_use(examples, names, target), self.with_names(examples, names)
        head = self.rule.calibrate(head, rows, len(support.labels), target)
        return self.make_model(support, target, target.scale(support.labels, support.weights).rescale(head))

    def head_for_use(self, examples: SupportRows, names: Tensor, target: Target) -> Head:
        """Return the head of the examples and the names (N, F), in which classes without examples are raised."""

        def make(some: SupportRows) -> Head:
            return self.rule.head(self.with_names(some, names), target)

        return raise_described(make(examples), make, examples, target.size) if len(names) else make(examples)

    def head(self, features: Tensor, labels: Tensor, weights: Tensor | None, names: Tensor, target: Target) -> Head:
        """Return the head that the rule makes.

        Args:
            features: (B, F), of the support set.
            labels: (B,) positions, or standardised scores.
            weights: (B,) how often each row counts; None if each counts once.
            names: (N, F), of the label names; empty if they are not read.
            target: What the task asks for.
        """
        return self.rule.head(self.with_names(SupportRows(features, labels, weights), names), target)

    def read(self, support: EncodedSet, target: Target, cache: FeatureCache | None) -> tuple[SupportRows, Tensor]:
        """Return the examples of a support set, and the features of the names, (N, F), if they are read."""
        labels = target.scale(support.labels, support.weights).standardise(support.labels)
        names = target.encode_names(self.encoder, pair=support.pair) if self.gate else NO_SEQUENCES
        texts = concatenate([support.sequences, names]) if len(names) else support.sequences
        features = self.encoder(texts, cache=cache).split([len(labels), len(names)])
        return SupportRows(features[0], labels, support.weights), features[1]

    def _loss(self, episode: EncodedEpisode, features: "_Features") -> EpisodeLoss:
        """Return the loss of an episode, given its features."""
        support, target = episode.support, episode.target
        scale = target.scale(support.labels, support.weights)
        labels = scale.standardise(support.labels)
        head = self.head(features.support, labels, support.weights, features.names, target)
        measured = EpisodeLoss.measure(target, head(features.query), scale.standardise(episode.query.labels))
        if self._support_loss is None:
            return measured
        loss, b, q = self._support_loss(head, labels, target), len(labels), len(features.query)
        return replace(measured, loss=(b * loss + q * measured.loss) / (b + q))

    def with_names(self, examples: SupportRows, names: Tensor) -> SupportRows:
        """Return the rows that the rule reads: the examples, and the names (N, F) if there are any."""
        return self.gate(examples, names) if self.gate and len(names) else examples

    def _encode(self, episodes: Sequence[EncodedEpisode]) -> list["_Features"]:
        """Return the features of each episode: one pass over all single texts, one over all pairs."""
        size = len(fields(_Features))
        sets = [sequences for episode in episodes for sequences in self._sets(episode)]
        features = [torch.empty(0)] * len(sets)  # in the order of the sets: support set of episode 0, its query set, ..
        for pairs in (False, True):
            chosen = [i for i, sequences in enumerate(sets) if len(sequences) and sequences.pairs == pairs]
            if chosen:
                encoded = self.encoder(concatenate([sets[position] for position in chosen]))
                for position, each in zip(chosen, encoded.split([len(sets[i]) for i in chosen]), strict=True):
                    features[position] = each
        return [_Features(*features[start : start + size]) for start in range(0, len(sets), size)]

    def _sets(self, episode: EncodedEpisode) -> tuple[Sequences, Sequences, Sequences]:
        """Return what the encoder runs in an episode, in the order of `_Features`."""
        names = episode.names if self.gate else NO_SEQUENCES
        return episode.support.sequences, episode.query.sequences, names


@dataclass(frozen=True, slots=True)
class _Features:
    """The features of an episode: `support` (B, F), `query` (Q, F), and `names` (N, F), which may be empty."""

    support: Tensor
    query: Tensor
    names: Tensor
