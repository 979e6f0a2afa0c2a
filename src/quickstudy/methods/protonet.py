"""Prototypical networks: classify by the distance to the mean feature of each label.

    c_n = mean_{(x,y) in support, y=n} f(x)        p(y=n | x) = softmax_n(-scale ||f(x) - c_n||^2)

Snell, Swersky and Zemel 2017, arXiv:1703.05175. The learned scale is that of TADAM (Oreshkin et al. 2018,
arXiv:1805.10123). For regression every support example is its own prototype, and the prediction is the
softmax-weighted mean of their labels.

Since ||f||^2 is the same for every label, the classifier is linear: w_n = 2 scale c_n, b_n = -scale ||c_n||^2.
"""

import torch
from torch import Tensor, nn

from quickstudy.methods.feature import HeadRule
from quickstudy.models.head import Head, KernelHead, LinearHead
from quickstudy.models.support_rows import SupportRows, class_means
from quickstudy.models.target import Target


class Prototypes(HeadRule):
    """The rule of prototypical networks.

    Args:
        scale: Initial factor of the squared distances, learned. About 10 suits features of unit length.
    """

    def __init__(self, scale: float = 10.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def head(self, rows: SupportRows, target: Target) -> Head:
        return target.apply(self, rows)

    def for_classes(self, rows: SupportRows, n_way: int) -> Head:
        return prototype_head(class_means(rows, n_way), self.log_scale.exp())

    def for_scores(self, rows: SupportRows) -> Head:
        return KernelHead(rows.features, rows.labels, self.log_scale.exp(), rows.weights)


def prototype_head(means: Tensor, scale: Tensor) -> LinearHead:
    """Return the linear head whose logits are -scale ||f - c_n||^2, up to a constant, for class means (N, F)."""
    return LinearHead(2 * scale * means, -scale * means.square().sum(-1))
