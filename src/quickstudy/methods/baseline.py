"""Baselines that learn nothing across tasks and fit nothing: the most frequent label, and the nearest neighbour.

    majority    p(y=n) = fraction of n in the support set; for scores their mean
    nearest     the label of the support example that is nearest to f(x)

A method that does no better than these two has learned nothing.
"""

import torch
from torch import nn

from quickstudy.methods.feature import HeadRule
from quickstudy.models.head import LinearHead, NearestHead
from quickstudy.models.support_rows import SupportRows, refuse_weights
from quickstudy.models.target import Target


class Majority(HeadRule):
    """Looks at the labels alone."""

    def head(self, rows: SupportRows, target: Target) -> LinearHead:
        return target.apply(self, rows)

    def for_classes(self, rows: SupportRows, n_way: int) -> LinearHead:
        counts = rows.counts @ nn.functional.one_hot(rows.labels, n_way).to(rows.features)
        fractions = counts / rows.counts.sum()
        bias = fractions.clamp_min(torch.finfo(fractions.dtype).tiny).log()
        return LinearHead(rows.features.new_zeros(n_way, rows.features.shape[-1]), bias)

    def for_scores(self, rows: SupportRows) -> LinearHead:
        mean = rows.counts @ rows.labels / rows.counts.sum()
        return LinearHead(rows.features.new_zeros(1, rows.features.shape[-1]), mean.unsqueeze(0))


class Nearest(HeadRule):
    """Looks for the nearest support example. The same example given twice changes nothing, so weights are refused."""

    @property
    def weighs(self) -> bool:
        return False

    def head(self, rows: SupportRows, target: Target) -> NearestHead:
        refuse_weights(rows.weights, "nearest-neighbour")
        return NearestHead(rows.features, target.columns(rows.labels, rows.features))
