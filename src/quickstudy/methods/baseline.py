"""Baselines that learn nothing across tasks and fit nothing: the most frequent label, and the nearest neighbour.

majority    p(y=n) = share of n in the support set; for regression the mean
nearest     the label of the support example that is nearest to f(x)
"""

import torch
from torch import Tensor, nn

from quickstudy.methods.feature import HeadRule
from quickstudy.models.head import LinearHead, NearestHead
from quickstudy.tasks.task import Kind


class Majority(HeadRule):
    """Looks at the labels alone."""

    def head(self, features: Tensor, labels: Tensor, n_way: int, kind: Kind) -> LinearHead:
        weight = features.new_zeros(n_way, features.shape[-1])
        if kind == "regression":
            return LinearHead(weight, labels.mean().unsqueeze(0))
        shares = nn.functional.one_hot(labels, n_way).to(features).mean(0)
        return LinearHead(weight, shares.clamp_min(torch.finfo(shares.dtype).tiny).log())


class Nearest(HeadRule):
    """Looks for the nearest support example."""

    def head(self, features: Tensor, labels: Tensor, n_way: int, kind: Kind) -> NearestHead:
        values = labels.unsqueeze(-1) if kind == "regression" else nn.functional.one_hot(labels, n_way).to(features)
        return NearestHead(features, values)
