"""Feature-based meta-learning: the support set's features make a head in one go; there is no inner loop.

    head = rule(f(x_1), y_1, .., f(x_B), y_B)        meta-loss = L_query(head)

A method of this family is its rule: prototypes, attention, a closed-form solution, a network that reads the support set. The
encoder runs once per episode, so adapting costs one pass, and a whole meta-batch goes through the encoder at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from quickstudy.methods.base import MetaLearner, MetaLoss, accuracy, label_scale, task_loss
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedEpisode, EncodedSet
from quickstudy.models.encoder import Encoder
from quickstudy.models.head import Head
from quickstudy.models.tokens import Sequences
from quickstudy.tasks.task import Kind


class HeadRule(nn.Module, ABC):
    """Makes a head of a support set's features; its `nn.Parameter`s are meta-parameters."""

    @abstractmethod
    def head(self, features: Tensor, labels: Tensor, n_way: int, kind: Kind) -> Head:
        """Return the head.

        Args:
            features: (B, F) support features.
            labels: (B,) label positions, or standardised scores.
            n_way: Labels (N); 1 for regression.
            kind: Classification or regression.
        """


class FeatureMetaLearner(MetaLearner):
    """Adapts by a rule.

    Args:
        encoder: The encoder.
        rule: Makes the head.
        meta_trains: False makes it a baseline.
        name: Goes into saved models.
    """

    episodes_at_once: ClassVar[int | None] = None

    def __init__(self, encoder: Encoder, rule: HeadRule, *, meta_trains: bool = True, name: str) -> None:
        super().__init__(encoder, "head", name, meta_trains=meta_trains)
        self.rule = rule

    def meta_loss(self, episodes: Sequence[EncodedEpisode], progress: float = 1.0) -> MetaLoss:
        losses, counts = [], []
        for episode, (support, query) in zip(episodes, self._encode(episodes), strict=True):
            labels, wanted = episode.support.labels, episode.query.labels
            if episode.kind == "regression":
                mean, std = label_scale(labels)
                labels, wanted = (labels - mean) / std, (wanted - mean) / std
            scores = self.rule.head(support, labels, episode.n_way, episode.kind)(query)
            losses.append(task_loss(scores, wanted, episode.kind))
            if episode.kind == "classification":
                counts.append((scores, wanted))
        return MetaLoss(torch.stack(losses).mean(), accuracy(counts))

    @torch.no_grad()
    def adapt(self, support: EncodedSet, label_names: Sequence[str], kind: Kind) -> AdaptedModel:
        labels, n_way = support.labels, len(label_names)
        features = self.encoder(support.sequences)
        if kind == "regression":
            mean, std = label_scale(labels)
            head = self.rule.head(features, (labels - mean) / std, 1, kind).rescaled(mean, std)
        else:
            head = self.rule.head(features, labels, n_way, kind)
        return AdaptedModel(self.partition, {}, head, tuple(label_names), kind, support.pair, self.name)

    def _encode(self, episodes: Sequence[EncodedEpisode]) -> list[tuple[Tensor, Tensor]]:
        """Return (support, query) features of each episode, from one pass over all single texts and one over all pairs."""
        found: dict[tuple[int, str], Tensor] = {}
        for pairs in (False, True):
            sets = [
                (index, part, examples.sequences)
                for index, episode in enumerate(episodes)
                for part, examples in (("support", episode.support), ("query", episode.query))
                if examples.sequences.pairs == pairs
            ]
            if sets:
                features = self.encoder(_concatenate([sequences for _, _, sequences in sets]))
                sizes = [len(sequences) for _, _, sequences in sets]
                for (index, part, _), own in zip(sets, features.split(sizes), strict=True):
                    found[index, part] = own
        return [(found[i, "support"], found[i, "query"]) for i in range(len(episodes))]


def _concatenate(parts: Sequence[Sequences]) -> Sequences:
    """Join sequences of one kind; of separate pairs, all first texts come before all second texts."""
    halves = (0, 1) if parts[0].pairs else (0,)

    def joined(select: str) -> tuple[tuple[int, ...], ...]:
        return tuple(
            row
            for half in halves
            for part in parts
            for row in getattr(part, select)[half * len(part) : (half + 1) * len(part)]
        )

    types = None if any(part.types is None for part in parts) else joined("types")
    return Sequences(joined("ids"), types, parts[0].pairs)
