"""Matching networks: attention over the support set.

    a_i = softmax_i(scale cos(f(x), f(x_i)) + log w_i)        p(y=n | x) = sum_{i: y_i=n} a_i

Vinyals et al. 2016, arXiv:1606.04080, without full context embeddings: the encoder is the embedding. The paper's
attention has no scale and no weights w_i, which are 1 unless the user gives others. For regression the prediction is
sum_i a_i y_i.
"""

import torch
from torch import nn

from quickstudy.methods.feature import HeadRule
from quickstudy.models.head import MatchingHead
from quickstudy.models.support_rows import SupportRows
from quickstudy.models.target import Target


class Matching(HeadRule):
    """The rule of matching networks.

    Args:
        scale: Initial factor of the cosines, learned.
    """

    def __init__(self, scale: float = 10.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def head(self, rows: SupportRows, target: Target) -> MatchingHead:
        columns = target.columns(rows.labels, rows.features)
        return MatchingHead(rows.features, columns, self.log_scale.exp(), rows.weights)
