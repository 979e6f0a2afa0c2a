"""Baselines that learn nothing across tasks and fit nothing: the most frequent label, and the nearest neighbour.

    majority    p(y=n) = fraction of n in the support set; for scores their mean
    nearest     the label of the support example that is nearest to f(x)

A method that does no better than these two has learned nothing.
"""

import torch
from torch import Tensor, nn

from quickstudy.methods.feature import HeadRule
from quickstudy.models.head import LinearHead, NearestHead
from quickstudy.models.target import Target


class Majority(HeadRule):
    """Looks at the labels alone."""

    def head(self, features: Tensor, labels: Tensor, target: Target) -> LinearHead:
        return target.apply(self, features, labels)

    def for_classes(self, features: Tensor, labels: Tensor, n_way: int) -> LinearHead:
        fractions = nn.functional.one_hot(labels, n_way).to(features).mean(0)
        bias = fractions.clamp_min(torch.finfo(fractions.dtype).tiny).log()
        return LinearHead(features.new_zeros(n_way, features.shape[-1]), bias)

    def for_scores(self, features: Tensor, labels: Tensor) -> LinearHead:
        return LinearHead(features.new_zeros(1, features.shape[-1]), labels.mean().unsqueeze(0))


class Nearest(HeadRule):
    """Looks for the nearest support example."""

    def head(self, features: Tensor, labels: Tensor, target: Target) -> NearestHead:
        return NearestHead(features, target.columns(labels, features))
