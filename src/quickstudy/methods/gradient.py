"""Gradient-based meta-learning: adapt by gradient steps from a meta-learned start.

    φ = unroll(L_support, θ, inner optimizer, S)        meta-loss = objective(θ, φ), usually L_query(φ)

A method of this family is a choice of five: how the head starts, what adapts, the inner optimizer, the order, the objective.
MAML is (zero, all, SGD, second, query), FOMAML the same with first order (Finn, Abbeel and Levine 2017, arXiv:1703.03400); the
catalog has the others.

With a head that starts at zero the first inner step moves it to scaled class means, and only later steps move the encoder (as in
Unicorn-MAML, Ye and Chao 2022, arXiv:2106.16245).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from quickstudy.inner.optimizer import HEAD, InnerOptimizer, Params
from quickstudy.inner.unroll import Order, Recompute, unroll
from quickstudy.methods.base import MetaLearner, MetaLoss, accuracy, label_scale, task_loss
from quickstudy.methods.objective import Episodic, Objective, proximal, query
from quickstudy.methods.passes import FEATURES_ONCE, EncoderPasses
from quickstudy.methods.start import HeadStart, ZeroStart
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedEpisode, EncodedSet
from quickstudy.models.encoder import Encoder
from quickstudy.models.head import LinearHead
from quickstudy.models.low_rank import LowRank
from quickstudy.models.partition import Prefix, rank_of
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
        start: Makes the head before the first step; zero by default.
        adapts: Which encoder parameters adapt: `head` (none), `layers:-m`, `bias`, `all`, `lora:r`.
        head_adapts: Whether the head adapts too.
        inner_steps: Steps S in meta-training.
        adapt_steps: Steps when adapting to a task for use; `inner_steps` by default.
        order: `second` (exact) or `first`.
        exact_steps: In second order, how many of the last steps are differentiated through; None for all.
        objective: What the outer loop minimises.
        strength: Of the pull towards where adapting starts, for objectives that adapt with one (iMAML).
        meta_trains: False makes it a baseline (plain fine-tuning).
        name: Goes into saved models.

    Attributes:
        stored_steps: In second order, how many of the last inner steps keep their graph in memory; the others run
            again on the way back, with the same gradient. None keeps all.
    """

    def __init__(
        self,
        encoder: Encoder,
        optimizer: InnerOptimizer,
        *,
        start: HeadStart | None = None,
        adapts: str = "all",
        head_adapts: bool = True,
        inner_steps: int = 5,
        adapt_steps: int | None = None,
        order: Order = "second",
        exact_steps: int | None = None,
        objective: Objective = query,
        strength: float = 0.0,
        meta_trains: bool = True,
        name: str = "maml",
    ) -> None:
        super().__init__(encoder, adapts, name, meta_trains=meta_trains)
        self.low_rank = LowRank(self.partition) if rank_of(adapts) else None
        self.optimizer, self.order, self.exact_steps = optimizer, order, exact_steps
        self.start, self.head_adapts = start or ZeroStart(), head_adapts
        self.objective, self.strength = objective, strength
        self.inner_steps = inner_steps
        self.adapt_steps = inner_steps if adapt_steps is None else adapt_steps
        self.stored_steps: int | None = None

    def meta_loss(self, episodes: Sequence[EncodedEpisode], progress: float = 1.0) -> MetaLoss:
        losses, counts = [], []
        for episode in episodes:
            support, wanted = episode.support.labels, episode.query.labels
            if episode.kind == "regression":
                mean, std = label_scale(support)
                support, wanted = (support - mean) / std, (wanted - mean) / std
            inner = _Inner(self, episode.support, support, episode.n_way, episode.kind, episode.query)
            prefix = self.partition.prefix(episode.query.sequences, inner.tokens)
            last: list[Tensor] = []

            def query_loss(
                params: Params,
                inner: "_Inner" = inner,
                prefix: Prefix = prefix,
                wanted: Tensor = wanted,
                last: list[Tensor] = last,
                kind: Kind = episode.kind,
            ) -> Tensor:
                last[:] = [inner.scores(params, prefix)]
                return task_loss(last[0], wanted, kind)

            sizes = len(support), len(wanted)
            losses.append(
                self.objective(
                    Episodic(
                        inner.theta,
                        inner.loss,
                        query_loss,
                        sizes[0] / sum(sizes),
                        self.optimizer,
                        self.inner_steps,
                        self.order,
                        self.exact_steps,
                        progress,
                        _REGRESSION_WEIGHT if episode.kind == "regression" else 1.0,
                        None if self.stored_steps is None else inner.recompute(self.stored_steps),
                    )
                )
            )
            if episode.kind == "classification":
                counts.append((last[0], wanted))
        return MetaLoss(torch.stack(losses).mean(), accuracy(counts))

    @property
    def _exact(self) -> int:
        """Inner steps that are differentiated through."""
        if self.order == "first":
            return 0
        return self.inner_steps if self.exact_steps is None else min(self.inner_steps, self.exact_steps)

    def encoder_passes(self) -> EncoderPasses:
        steps, exact = self.inner_steps, self._exact
        again = 0 if self.stored_steps is None else max(0, exact - self.stored_steps)
        # In first order no gradient flows back through the support set unless the head is made of it.
        below = 3 if self.order == "second" or self.start.reads_features else 1
        if not self.partition.names:
            way = EncoderPasses(FEATURES_ONCE.way, FEATURES_ONCE.why, (below, below))
        else:
            fraction = self.partition.layer_fraction
            name = "prefix once" if fraction < 1 else "whole encoder at every inner step"
            why = (
                f"{1 - fraction:.0%} of the layers lie below all that adapts and run once"
                if fraction < 1
                else "parameters of every layer adapt"
            )
            rows = self.optimizer.skips_zero_gradients and self.partition.in_play() is not None
            why += "; of the word embeddings only the rows in play adapt" if rows else ""
            why += f"; {again} of {steps} steps run again on the way back" if again else ""
            above = 9 * exact + 3 * again + 3 * (steps - exact) + (3 if self.start.reads_features else 0)
            # Beside φ_s of every step there are three gradients of their size while a step is gone back through.
            graphs, copies = (max(exact - again, 1), steps + 3) if exact else (0, 2)
            way = EncoderPasses(
                name,
                why,
                (below, above),
                graphs=graphs,
                copies=copies + steps * self.optimizer.numbers_per_entry,
                rows=rows,
            )
        known = self.objective is query and not self.optimizer.numbers_per_entry
        return way if known else replace(way, support=None)

    def use_less_memory(self) -> bool:
        stored = self._exact if self.stored_steps is None else min(self._exact, self.stored_steps)
        if not self.partition.names or not stored or self.strength:  # with a pull no step is differentiated through
            return False
        self.stored_steps = stored // 2
        return True

    def adapt(self, support: EncodedSet, label_names: Sequence[str], kind: Kind) -> AdaptedModel:
        labels, n_way = support.labels, len(label_names)
        if kind == "regression":
            mean, std = label_scale(labels)
            labels, n_way = (labels - mean) / std, 1
        with torch.no_grad():
            inner = _Inner(self, support, labels, n_way, kind)
        loss = proximal(inner.loss, inner.theta, self.strength) if self.strength else inner.loss
        phi = unroll(loss, inner.theta, self.optimizer, steps=self.adapt_steps, order="first")
        head = inner.head(phi)
        head = LinearHead(head.weight.detach(), head.bias.detach())
        if kind == "regression":
            head = head.rescaled(mean, std)
        with torch.no_grad():
            own = {name: p.detach() for name, p in self.partition.whole(inner.weights(phi), inner.tokens).items()}
        return AdaptedModel(self.partition, own, head, tuple(label_names), kind, support.pair, self.name)


class _Inner:
    """One support set: the parameters before the first step, and the loss and scores of any others."""

    def __init__(
        self,
        learner: GradientMetaLearner,
        support: EncodedSet,
        labels: Tensor,
        n_way: int,
        kind: Kind,
        query: EncodedSet | None = None,
    ) -> None:
        self.partition, self.labels, self.kind = learner.partition, labels, kind
        # In first order nothing flows back through the support set unless the head is made of it.
        flows = learner.order == "second" or learner.start.reads_features
        with torch.set_grad_enabled(flows and torch.is_grad_enabled()):
            self.tokens = None
            if learner.optimizer.skips_zero_gradients:
                parts = [part.sequences for part in (support, query) if part]
                self.tokens = self.partition.in_play(*parts)
            self.prefix = self.partition.prefix(support.sequences, self.tokens)
        self._low_rank = learner.low_rank
        theta = self._low_rank.initial() if self._low_rank else self.partition.initial(self.tokens)
        like = next(learner.encoder.model.parameters()).new_empty(learner.encoder.feature_size(pair=support.pair))
        start = learner.start.head(lambda: self.features(theta, self.prefix), labels, n_way, kind, like)
        self._fixed = None if learner.head_adapts else start
        self._parameters = list(learner.parameters())
        self.theta = theta | ({_WEIGHT: start.weight, _BIAS: start.bias} if learner.head_adapts else {})

    def recompute(self, stored: int) -> Recompute:
        """Return what has to be known to run all but the last `stored` steps again."""
        fixed = {_WEIGHT: self._fixed.weight, _BIAS: self._fixed.bias} if self._fixed else {}
        fixed |= {_name(t): t for t in pytree.tree_leaves(self.prefix.parts) if _flows(t)}
        return Recompute(stored, fixed, self._parameters)

    def loss(self, params: Params) -> Tensor:
        # A step that runs again is given what it reads of the prefix.
        parts = pytree.tree_map(lambda t: params.get(_name(t), t) if _flows(t) else t, self.prefix.parts)
        weight = _REGRESSION_WEIGHT if self.kind == "regression" else 1.0
        return weight * task_loss(self.scores(params, replace(self.prefix, parts=parts)), self.labels, self.kind)

    def scores(self, params: Params, prefix: Prefix) -> Tensor:
        return self.head(params)(self.features(params, prefix))

    def features(self, params: Params, prefix: Prefix) -> Tensor:
        return self.partition.features(self.weights(params), prefix)

    def weights(self, params: Params) -> Params:
        return self._low_rank.weights(params) if self._low_rank else {n: params[n] for n in self.partition.names}

    def head(self, params: Params) -> LinearHead:
        if _WEIGHT in params:
            return LinearHead(params[_WEIGHT], params[_BIAS])
        assert self._fixed
        return self._fixed


def _flows(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _name(tensor: Tensor) -> str:
    return f"prefix.{id(tensor)}"  # the prefix keeps it, so that no other has its id
