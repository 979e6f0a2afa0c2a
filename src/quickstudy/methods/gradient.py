"""Gradient-based meta-learning: adapt by gradient steps from a meta-learned start.

    φ = unroll(L_support, θ, inner optimizer, S)        meta-loss = objective(θ, φ), usually L_query(φ)

A method of this family is a choice of five: how the head starts, what adapts, the inner optimizer, the order, and the
objective. MAML is (learned, all, SGD, second, query). FOMAML is the same with first order (Finn, Abbeel and Levine
2017, arXiv:1703.03400). The catalog has the others.

With a head that starts at zero, the first inner step moves the head to scaled class means, and only later steps move
the encoder (as in Unicorn-MAML, Ye and Chao 2022, arXiv:2106.16245). Its answers do not depend on the order of labels.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from quickstudy.inner.optimizer import HEAD, SGD, InnerOptimizer, Params
from quickstudy.inner.unroll import Order, Recompute, unroll
from quickstudy.methods.base import EpisodeLoss, MetaLearner
from quickstudy.methods.convergence import Convergence, find_worst
from quickstudy.methods.inner_loop import InnerLoop
from quickstudy.methods.name_gate import NameGate
from quickstudy.methods.objective import InnerProblem, Objective, proximal, query, reptile
from quickstudy.methods.passes import FEATURES_ONCE, EncoderPasses
from quickstudy.methods.start import AffineHead, HeadStart, ZeroStart
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedEpisode, EncodedSet
from quickstudy.models.encoder import Encoder
from quickstudy.models.feature_cache import FeatureCache
from quickstudy.models.low_rank import LowRank
from quickstudy.models.parameter_filter import read_rank
from quickstudy.models.partition import Prefix
from quickstudy.models.support_rows import SupportRows
from quickstudy.models.target import Target
from quickstudy.models.tokens import NO_SEQUENCES, Sequences

_WEIGHT = f"{HEAD}weight"
_IMPLICIT = 11  # φ, ∇L, ∇G, the difference to θ and its gradient; x, r, d and A d of conjugate gradients, and two new


class GradientMetaLearner(MetaLearner):
    """Adapts by gradient steps.

    Args:
        encoder: The encoder.
        inner: What adapts, at which rates, and for how many steps.
        rule: Makes the inner update rule from `inner_lr` and `head_lr`.
        start: Makes the head before the first step; zero by default.
        gate: Adds label names to the rows that the start reads; None if they are not read.
        head_adapts: Whether the head adapts too.
        order: `second` (exact) or `first`.
        exact_steps: In second order, how many of the last steps are differentiated through; None for all.
        objective: What the outer loop minimises.
        strength: How strongly adapted parameters are pulled back to their start, for objectives that need it (iMAML).
        meta_trains: False makes it a baseline (plain fine-tuning).
        name: It goes into saved models.

    Attributes:
        stored_steps: In second order, how many of the last inner steps keep their graph in memory. The others run
            again on the way back, with the same gradient. None keeps all.
    """

    def __init__(
        self,
        encoder: Encoder,
        inner: InnerLoop = InnerLoop(),
        rule: Callable[[float, float | None], InnerOptimizer] = SGD,
        *,
        start: HeadStart | None = None,
        gate: NameGate | None = None,
        head_adapts: bool = True,
        order: Order = "second",
        exact_steps: int | None = None,
        objective: Objective = query,
        strength: float = 0.0,
        meta_trains: bool = True,
        name: str = "maml",
    ) -> None:
        super().__init__(encoder, inner.adapts, name, meta_trains=meta_trains)
        self.low_rank = LowRank(self.partition) if read_rank(inner.adapts) else None
        self.optimizer, self.order, self.exact_steps = rule(inner.inner_lr, inner.head_lr), order, exact_steps
        self.start, self.gate, self.head_adapts = start or ZeroStart(), gate, head_adapts
        self.objective, self.strength = objective, strength
        self.inner_steps = inner.inner_steps
        self.adapt_steps = inner.inner_steps if inner.adapt_steps is None else inner.adapt_steps
        self.stored_steps: int | None = None

    @property
    def reads_names(self) -> bool:
        return self.gate is not None

    def episode_loss(self, episode: EncodedEpisode, progress: float) -> EpisodeLoss:
        target, scale = episode.target, episode.target.scale(episode.support.labels, episode.support.weights)
        support_labels, query_labels = map(scale.standardise, (episode.support.labels, episode.query.labels))
        model = _InnerModel(self, episode.support, support_labels, target, episode.names, episode.query)
        prefix = self.partition.prefix(episode.query.sequences, model.tokens)
        scores = torch.empty(0)  # those of the last parameters whose query loss was asked for
        reported: list[Convergence] = []

        def query_loss(params: Params) -> Tensor:
            nonlocal scores
            scores = model.scores(params, prefix)
            return target.loss(scores, query_labels)

        problem = InnerProblem(
            theta=model.theta,
            support_loss=model.support_loss,
            query_loss=query_loss,
            support_fraction=episode.support.total / (episode.support.total + len(query_labels)),
            optimizer=self.optimizer,
            steps=self.inner_steps,
            order=self.order,
            exact_steps=self.exact_steps,
            progress=progress,
            inner_weight=target.inner_weight,
            recompute=None if self.stored_steps is None else model.recompute(self.stored_steps),
            report=reported.append,
        )
        loss = self.objective(problem)
        return EpisodeLoss(loss, target.mark_right(scores, query_labels), find_worst(reported))

    def adapt(self, support: EncodedSet, target: Target, *, cache: FeatureCache | None = None) -> AdaptedModel:
        scale = target.scale(support.labels, support.weights)
        names = target.encode_names(self.encoder, pair=support.pair)
        with torch.no_grad():
            model = _InnerModel(self, support, scale.standardise(support.labels), target, names, cache=cache)
        loss = proximal(model.support_loss, model.theta, self.strength) if self.strength else model.support_loss
        phi = unroll(loss, model.theta, self.optimizer, steps=self.adapt_steps, order="first")
        with torch.no_grad():
            head = model.head({name: p.detach() for name, p in phi.items()})
            params = self.partition.restore_table(model.weights(phi), model.tokens)
            adapted = {name: p.detach() for name, p in params.items()}
            return self.make_model(support, target, scale.rescale(head), adapted)

    @property
    def _differentiated_steps(self) -> int:
        """Inner steps that are differentiated through."""
        if self.order == "first":
            return 0
        return self.inner_steps if self.exact_steps is None else min(self.inner_steps, self.exact_steps)

    def use_less_memory(self) -> bool:
        exact = self._differentiated_steps
        stored = exact if self.stored_steps is None else min(exact, self.stored_steps)
        if not self.partition.names or not stored or self.strength:  # iMAML differentiates through no step
            return False
        self.stored_steps = stored // 2
        return True

    def encoder_passes(self) -> EncoderPasses:
        # In first order no gradient flows back through the support set, unless the head is made of it.
        flows = self.order == "second" or self.start.reads_features
        passes = self._passes_of_inner_steps(3 if flows else 1)
        held, apart = int(self.start.reads_features), self.inner_steps > 1 and not self._differentiated_steps
        passes = replace(
            passes, flows=flows, held=held, copies=self._copies(), updates_apart=apart and not self.low_rank
        )
        if self.strength:  # iMAML keeps the graph of a gradient, and multiplies with it
            passes = replace(
                passes,
                graphs=int(bool(self.partition.names)),
                held=1,
                copies=_IMPLICIT,
                inner=True,
                updates_apart=False,
            )
        if self.objective is reptile:
            passes = replace(passes, flows=False, joint=True, reaches_adapted_only=True)
        known = self.objective is query and not self.optimizer.is_network
        return passes if known else replace(passes, support=None)

    def _passes_of_inner_steps(self, below: int) -> EncoderPasses:
        if not self.partition.names:
            return EncoderPasses(FEATURES_ONCE.way, FEATURES_ONCE.why, (below, below))
        steps, exact = self.inner_steps, self._differentiated_steps
        again = self._steps_again
        fraction = self.partition.layer_fraction
        rows = self.optimizer.skips_zero_gradients and self.partition.tokens_in_use() is not None
        why = (
            f"{1 - fraction:.0%} of the layers lie below all that adapts and run once"
            if fraction < 1
            else "parameters of every layer adapt"
        )
        why += "; only the embedding rows in use adapt" if rows else ""
        why += f"; {again} of {steps} steps run again on the way back" if again else ""
        above = 9 * exact + 3 * again + 3 * (steps - exact) + (3 if self.start.reads_features else 0)
        return EncoderPasses(
            "prefix once" if fraction < 1 else "whole encoder at every inner step",
            why,
            (below, above),
            graphs=max(exact - again, 1) if exact else 0,
            rows=rows,
            inner=steps > exact,
        )

    @property
    def _steps_again(self) -> int:
        """Inner steps that run again on the way back."""
        return 0 if self.stored_steps is None else max(0, self._differentiated_steps - self.stored_steps)

    def _copies(self) -> int:
        """Return how many numbers are held for each entry of what adapts."""
        steps, exact = self.inner_steps, self._differentiated_steps
        # A correction of low rank is added to W in each step, and the graph holds the sum and its gradient.
        per_step = self.optimizer.numbers_per_entry + (self.low_rank is not None)
        if not exact and self.low_rank:
            return 1
        if not exact:  # φ before and after a step, and the gradient
            return min(steps, 2) + 1 + steps * self.optimizer.numbers_per_entry
        # φ of every step, and the gradient of the meta-loss in it on the way back; that of a step that runs again too.
        return steps + exact * per_step + (3 if self._steps_again else 1)


class _InnerModel:
    """The model of one episode as a function of its inner parameters, those of the encoder that adapt and the head.

    Attributes:
        theta: The inner parameters before the first step.
        tokens: The tokens whose embedding rows are in use; None if the table is not split.
    """

    def __init__(
        self,
        learner: GradientMetaLearner,
        support: EncodedSet,
        labels: Tensor,
        target: Target,
        names: Sequences,
        query_set: EncodedSet | None = None,
        *,
        cache: FeatureCache | None = None,
    ) -> None:
        self.partition, self._target = learner.partition, target
        self._labels, self._weights = labels, support.weights
        self._gate = learner.gate if len(names) else None
        names = names if self._gate else NO_SEQUENCES
        # In first order no gradient flows back through the support set, unless the head is made of it.
        flows = learner.order == "second" or learner.start.reads_features
        with torch.set_grad_enabled(flows and torch.is_grad_enabled()):
            self.tokens = None
            if learner.optimizer.skips_zero_gradients:
                sets = [examples.sequences for examples in (support, query_set) if examples]
                self.tokens = self.partition.tokens_in_use(*sets, names)
            self._prefix = self.partition.prefix(support.sequences, self.tokens, cache=cache)
            self._names = self.partition.prefix(names, self.tokens, cache=cache) if self._gate else None
        self._low_rank = learner.low_rank
        theta = self._low_rank.initial() if self._low_rank else self.partition.initial(self.tokens)
        like = next(learner.encoder.model.parameters()).new_empty(learner.encoder.feature_size(pair=support.pair))
        start = learner.start.head(lambda: self._rows(theta), target, like)
        self._start, self._head_adapts = start, learner.head_adapts
        self._meta_parameters = list(learner.parameters())
        self.theta = theta | (_name_tensors(start) if learner.head_adapts else {})

    def recompute(self, stored: int) -> Recompute:
        """Return what must be known to run all but the last `stored` steps again."""
        fixed = {} if self._head_adapts else _name_tensors(self._start)
        fixed |= {_name(t): t for t in pytree.tree_leaves(self._prefix.started) if _has_gradient(t)}
        return Recompute(stored, fixed, self._meta_parameters)

    def support_loss(self, params: Params) -> Tensor:
        # A step that runs again is given the tensors of the prefix that it reads.
        started = pytree.tree_map(lambda t: params.get(_name(t), t) if _has_gradient(t) else t, self._prefix.started)
        scores = self.scores(params, replace(self._prefix, started=started))
        return self._target.inner_weight * self._target.loss(scores, self._labels, self._weights)

    def scores(self, params: Params, prefix: Prefix) -> Tensor:
        return self.head(params)(self._features(params, prefix))

    def weights(self, params: Params) -> Params:
        """Return the adapted encoder parameters."""
        return self._low_rank.weights(params) if self._low_rank else {n: params[n] for n in self.partition.names}

    def head(self, params: Params) -> AffineHead:
        if _WEIGHT not in params:
            return self._start
        return type(self._start)(**{field.name: params[HEAD + field.name] for field in fields(self._start)})

    def _rows(self, theta: Params) -> SupportRows:
        """Return what the start of the head reads: the examples, and the names if there are any, at θ."""
        rows = SupportRows(self._features(theta, self._prefix), self._labels, self._weights)
        return self._gate(rows, self._features(theta, self._names)) if self._gate and self._names else rows

    def _features(self, params: Params, prefix: Prefix) -> Tensor:
        return self.partition.features(self.weights(params), prefix)


def _name_tensors(head: AffineHead) -> Params:
    """Return the tensors of a head by the names that they have among the inner parameters."""
    return {HEAD + field.name: getattr(head, field.name) for field in fields(head)}


def _has_gradient(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _name(tensor: Tensor) -> str:
    return f"prefix.{id(tensor)}"  # the prefix holds the tensor, so that no other has its id
