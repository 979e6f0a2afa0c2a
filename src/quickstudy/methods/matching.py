"""Matching networks: attention over the support set.

    a_i = softmax_i(scale cos(f(x), f(x_i)))        p(y=n | x) = sum_{i: y_i=n} a_i

Vinyals et al. 2016, arXiv:1606.04080, without full context embeddings: the encoder is the embedding. The paper's
attention has no scale. For regression
the prediction is sum_i a_i y_i.
"""

import torch
from torch import Tensor, nn

from quickstudy.methods.feature import HeadRule
from quickstudy.models.head import MatchingHead
from quickstudy.models.target import Target


class Matching(HeadRule):
    """The rule of matching networks.

    Args:
        scale: Initial factor of the cosines, learned.
    """

    def __init__(self, scale: float = 10.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def head(self, features: Tensor, labels: Tensor, target: Target) -> MatchingHead:
        return MatchingHead(features, target.columns(labels, features), self.log_scale.exp())
