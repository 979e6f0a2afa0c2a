"""Prototypical networks: classify by distance to the mean embedding of each label.

    c_n = mean_{(x,y) in support, y=n} f(x)        p(y=n | x) = softmax_n(-scale ||f(x) - c_n||^2)

Snell, Swersky and Zemel 2017, arXiv:1703.05175; the learned scale as in TADAM (Oreshkin et al. 2018, arXiv:1805.10123). No
inner loop, so adapting costs one encoder pass, and a whole meta-batch goes through the encoder at once. For regression every
support example is its own prototype and the prediction is the softmax-weighted mean of their labels.

Since ||f||^2 is the same for every label, the classifier is linear: w_n = 2 scale c_n, b_n = -scale ||c_n||^2.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from quickstudy.errors import RecipeError
from quickstudy.methods.adapted import AdaptedModel
from quickstudy.methods.base import MetaLearner, MetaLoss, accuracy, label_scale, task_loss
from quickstudy.models.batch import EncodedEpisode, EncodedSet
from quickstudy.models.encoder import Encoder
from quickstudy.models.head import KernelHead, LinearHead, class_means
from quickstudy.models.tokens import Sequences
from quickstudy.tasks.task import Kind


class ProtoNet(MetaLearner):
    """Prototypical networks.

    Args:
        encoder: The encoder.
        scale: Initial factor of the squared distances, learned. About 10 suits features of unit length.
        name: Goes into saved models.
    """

    episodes_at_once: ClassVar[int | None] = None

    def __init__(self, encoder: Encoder, *, scale: float = 10.0, name: str = "protonet") -> None:
        if scale <= 0:
            raise RecipeError(f"scale = {scale} is not possible", fix="Give a number above 0.")
        super().__init__(encoder, "head", name)
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def meta_loss(self, episodes: Sequence[EncodedEpisode], progress: float = 1.0) -> MetaLoss:
        losses, counts = [], []
        for episode, (support, query) in zip(episodes, self._encode(episodes), strict=True):
            labels, wanted = episode.support.labels, episode.query.labels
            if episode.kind == "regression":
                mean, std = label_scale(labels)
                labels, wanted = (labels - mean) / std, (wanted - mean) / std
            scores = self._head(support, labels, episode.n_way, episode.kind)(query)
            losses.append(task_loss(scores, wanted, episode.kind))
            if episode.kind == "classification":
                counts.append((scores, wanted))
        return MetaLoss(torch.stack(losses).mean(), accuracy(counts))

    @torch.no_grad()
    def adapt(self, support: EncodedSet, label_names: Sequence[str], kind: Kind) -> AdaptedModel:
        head = self._head(self.encoder(support.sequences), support.labels, len(label_names), kind)
        return AdaptedModel(self.partition, {}, head, tuple(label_names), kind, support.pair, self.name)

    def _head(self, features: Tensor, labels: Tensor, n_way: int, kind: Kind) -> LinearHead | KernelHead:
        scale = self.log_scale.exp()
        if kind == "regression":
            return KernelHead(features, labels, scale)
        means = class_means(features, labels, n_way)
        return LinearHead(2 * scale * means, -scale * means.square().sum(-1))

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
