"""SupportSteps: a few gradient steps on episodes that are drawn from the support set itself, before the head is made.

    φ_0 = θ,    φ_{s+1} = Adam(φ_s, ∇ mean_j L_{B_j}(rule(A_j; φ_s))),    A_j, B_j: halves of the support set at random
    head = rule(support set; φ_S)

A rule that only makes a head cannot change the features. Where a task needs other features, and there are examples
enough, these steps go on with the meta-training on the task's examples: the same rule, the same loss, with half of the
examples of each class to make the head and the other half to score it. What is known of a class by its name stays in
each episode. A class of a single example has nothing to score, and its example is always in A.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from quickstudy.errors import RecipeError
from quickstudy.inner.optimizer import Adam, Params
from quickstudy.inner.unroll import unroll
from quickstudy.methods.base import EpisodeLoss, MetaLearner
from quickstudy.methods.by_evidence import ByEvidence
from quickstudy.methods.feature import FeatureMetaLearner
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedEpisode, EncodedSet
from quickstudy.models.cut import layer_stack
from quickstudy.models.feature_cache import FeatureCache
from quickstudy.models.partition import Prefix
from quickstudy.models.support_rows import SupportRows
from quickstudy.models.target import Target
from quickstudy.models.tokens import NO_SEQUENCES
from quickstudy.seeding import rng

_EPISODES = 4  # random halves per step; they share one pass through the encoder


class SupportSteps(MetaLearner):
    """Adapts a learner of the feature family, after a few gradient steps of all layers of its encoder.

    Args:
        learner: What is adapted; it is not changed.
        steps: Gradient steps S, 1 or more.
        lr: Adam's rate.

    Raises:
        RecipeError: The learner makes its head in another way than by a rule.
    """

    def __init__(self, learner: MetaLearner, steps: int, lr: float = 5e-5) -> None:
        if not isinstance(learner, FeatureMetaLearner):
            raise RecipeError(
                f"{learner.name} takes no gradient steps before it makes its head",
                fix="Leave out the steps, or use a run of a method that makes its head in one go, e.g. r2d2, protonet.",
            )
        layers = len(learner.encoder.model.get_submodule(layer_stack(learner.encoder.model)[0]))
        super().__init__(learner.encoder, f"layers:-{layers}", f"{learner.name}, {steps} steps", meta_trains=False)
        self.learner, self.steps, self.optimizer = learner, steps, Adam(lr)

    @property
    def reads_names(self) -> bool:
        return self.learner.reads_names

    @property
    def weighs(self) -> bool:
        return self.learner.weighs

    def episode_loss(self, episode: EncodedEpisode, progress: float) -> EpisodeLoss:
        raise RecipeError(f"{self.name} is not meta-trained", fix=f"Meta-train {self.learner.name}.")

    def adapt(self, support: EncodedSet, target: Target, *, cache: FeatureCache | None = None) -> AdaptedModel:
        scale = target.scale(support.labels, support.weights)
        labels = scale.standardise(support.labels)
        names = target.encode_names(self.encoder, pair=support.pair) if self.reads_names else NO_SEQUENCES
        with torch.no_grad():
            texts = self.partition.prefix(support.sequences)
            named = self.partition.prefix(names) if len(names) else None
        halves = _halves(support.labels.cpu().numpy(), classes=bool(target.label_names))

        def loss(params: Params) -> Tensor:
            features, of_names = self._features(params, texts), self._features(params, named)
            return torch.stack(
                [
                    self._score(features, of_names, labels, support.weights, next(halves), target)
                    for _ in range(_EPISODES)
                ]
            ).mean()

        splits = _can_be_split(support, target)
        phi = unroll(loss, self.partition.initial(), self.optimizer, steps=self.steps if splits else 0, order="first")
        with torch.no_grad():
            params = {name: p.detach() for name, p in phi.items()}
            features, of_names = self._features(params, texts), self._features(params, named)
            head = self.learner.head_for_use(SupportRows(features, labels, support.weights), of_names, target)
            return self.make_model(support, target, scale.rescale(head), params)

    def _features(self, params: Params, prefix: Prefix | None) -> Tensor:
        """Return the features of some sequences, (B, F); none where there are no sequences."""
        return torch.empty(0) if prefix is None else self.partition.features(params, prefix)

    def _score(
        self,
        features: Tensor,
        names: Tensor,
        labels: Tensor,
        weights: Tensor | None,
        first: Tensor,
        target: Target,
    ) -> Tensor:
        """Return the loss, (), on half of the rows, of the head that the other half makes."""
        a, b = first, ~first
        head = self.learner.head(features[a], labels[a], None if weights is None else weights[a], names, target)
        return target.loss(head(features[b]), labels[b], None if weights is None else weights[b])


def after_steps(learner: MetaLearner, steps: int) -> MetaLearner:
    """Return the learner that takes so many gradient steps on a support set first; with 0 steps the learner itself.

    Raises:
        RecipeError: The number is negative, or the learner takes no steps before it makes its head.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise RecipeError(f"steps = {steps!r} is not possible", fix="Give a whole number, 0 or more.")
    if not steps:
        return learner
    # What is chosen by evidence is chosen for features as they were before the steps.
    return SupportSteps(learner.trained if isinstance(learner, ByEvidence) else learner, steps)


def _can_be_split(support: EncodedSet, target: Target) -> bool:
    """Return whether there is a row to score when the head is made of others."""
    if not target.label_names:
        return len(support.labels) > 1
    return bool((torch.bincount(support.labels, minlength=target.size) > 1).any())


def _halves(labels: np.ndarray, *, classes: bool) -> Iterator[Tensor]:
    """Yield masks, (B,): which rows make the head. It is the larger half of the rows of each class, at random."""
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)] if classes else [np.arange(len(labels))]
    random = rng(0, "support steps")
    while True:
        first = torch.zeros(len(labels), dtype=torch.bool)
        for rows in groups:
            first[random.permutation(rows)[: -(-len(rows) // 2)]] = True
        yield first
