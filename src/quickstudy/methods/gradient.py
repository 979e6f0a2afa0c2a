"""Gradient-based meta-learning: adapt by gradient steps from a meta-learned start.

    φ = unroll(L_support, θ, inner optimizer, S)        meta-loss = L_query(φ)

A method of this family is a choice of four: how the head starts, which parameters adapt, the inner optimizer, and the order.
MAML is (zeros, all, SGD, second), FOMAML the same with first order (Finn, Abbeel and Levine 2017, arXiv:1703.03400).

The head starts at zero, not at a learned matrix: labels and their number differ from task to task, and a zero head makes
the result independent of label order. The first inner step then moves the head to scaled class means, and only later steps move
the encoder (as in Unicorn-MAML, Ye and Chao 2022, arXiv:2106.16245).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from quickstudy.inner.optimizer import HEAD, InnerOptimizer, Params
from quickstudy.inner.unroll import Order, unroll
from quickstudy.methods.adapted import AdaptedModel
from quickstudy.methods.base import MetaLearner, MetaLoss, accuracy, label_scale, task_loss
from quickstudy.models.batch import EncodedEpisode, EncodedSet
from quickstudy.models.encoder import Encoder
from quickstudy.models.head import LinearHead
from quickstudy.models.partition import Prefix
from quickstudy.tasks.task import Kind

_WEIGHT, _BIAS = f"{HEAD}weight", f"{HEAD}bias"

# The inner loss of regression is scaled so that one head rate suits both kinds: the squared error has curvature
# 2 (||f||² + 1), about 4, and SGD diverges above a rate of 2 / curvature; rates that suit cross-entropy are far above that.
_REGRESSION_WEIGHT = 0.1


class GradientMetaLearner(MetaLearner):
    """Adapts by gradient steps.

    Args:
        encoder: The encoder.
        optimizer: Inner update rule.
        adapts: Which encoder parameters adapt beside the head: `head` (none), `layers:-m`, `bias`, `all`.
        inner_steps: Steps S in meta-training.
        adapt_steps: Steps when adapting to a task for use; `inner_steps` by default.
        order: `second` (exact) or `first`.
        meta_trains: False makes it a baseline (plain fine-tuning).
        name: Goes into saved models.
    """

    def __init__(
        self,
        encoder: Encoder,
        optimizer: InnerOptimizer,
        *,
        adapts: str = "all",
        inner_steps: int = 5,
        adapt_steps: int | None = None,
        order: Order = "second",
        meta_trains: bool = True,
        name: str = "maml",
    ) -> None:
        super().__init__(encoder, adapts, name, meta_trains=meta_trains)
        self.optimizer, self.order = optimizer, order
        self.inner_steps = inner_steps
        self.adapt_steps = inner_steps if adapt_steps is None else adapt_steps

    def meta_loss(self, episodes: Sequence[EncodedEpisode]) -> MetaLoss:
        losses, counts = [], []
        for episode in episodes:
            support, query = episode.support.labels, episode.query.labels
            if episode.kind == "regression":
                mean, std = label_scale(support)
                support, query = (support - mean) / std, (query - mean) / std
            phi = self._phi(episode.support, support, episode.n_way, episode.kind, self.inner_steps, self.order)
            scores = self._scores(phi, self.partition.prefix(episode.query.sequences))
            losses.append(task_loss(scores, query, episode.kind))
            if episode.kind == "classification":
                counts.append((scores, query))
        return MetaLoss(torch.stack(losses).mean(), accuracy(counts))

    def adapt(self, support: EncodedSet, label_names: Sequence[str], kind: Kind) -> AdaptedModel:
        labels, n_way = support.labels, len(label_names)
        if kind == "regression":
            mean, std = label_scale(labels)
            labels, n_way = (labels - mean) / std, 1
        phi = {
            name: p.detach() for name, p in self._phi(support, labels, n_way, kind, self.adapt_steps, "first").items()
        }
        head = LinearHead(phi.pop(_WEIGHT), phi.pop(_BIAS))
        if kind == "regression":
            head = LinearHead(head.weight * std, head.bias * std + mean)
        return AdaptedModel(self.partition, phi, head, tuple(label_names), kind, support.pair, self.name)

    def _phi(self, support: EncodedSet, labels: Tensor, n_way: int, kind: Kind, steps: int, order: Order) -> Params:
        # In first order nothing flows back through the support set, so its prefix needs no graph.
        with torch.set_grad_enabled(order == "second" and torch.is_grad_enabled()):
            prefix = self.partition.prefix(support.sequences)
        theta = self.partition.initial() | self._zero_head(n_way, pair=support.pair)
        weight = _REGRESSION_WEIGHT if kind == "regression" else 1.0
        return unroll(
            lambda params: weight * task_loss(self._scores(params, prefix), labels, kind),
            theta,
            self.optimizer,
            steps=steps,
            order=order,
        )

    def _scores(self, params: Params, prefix: Prefix) -> Tensor:
        return LinearHead(params[_WEIGHT], params[_BIAS])(self.partition.features(params, prefix))

    def _zero_head(self, n_way: int, *, pair: bool) -> Params:
        like = next(self.encoder.model.parameters())
        weight = like.new_zeros(n_way, self.encoder.feature_size(pair=pair)).requires_grad_()
        return {_WEIGHT: weight, _BIAS: like.new_zeros(n_way).requires_grad_()}
