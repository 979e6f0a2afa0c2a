"""NameGate: a label name is a further row of its class, which counts as much as names explain the support set.

    p(n | f) = softmax_n(-t ||f - f(name n)||^2)                   what names alone answer
    s = weighted mean over support rows of log p(y_i | f_i) + log N        0 for names that say nothing
    κ = softplus(a s + b)                                          how many examples a name is worth

a, b and t are meta-learned. A prototype then becomes c_n = (K mean_n + κ f(name n)) / (K + κ): the examples outweigh
the name as K grows, and names that explain the support set badly count little. A class that has a name and no example
is its name, which then counts κ and as much as the examples of another class, in the mean. Xing et al. 2019,
arXiv:1902.07104, mix prototypes with embeddings of names too, by a network that reads the name; here the weight follows
from the support set.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from quickstudy.models.head import squared_distances
from quickstudy.models.support_rows import SupportRows

Names = Literal["none", "gated"]

_LEAST = 1e-6  # examples that a name is worth at least, so that a class without examples has a mean


class NameGate(nn.Module):
    """Adds the label names to the rows of a support set.

    Args:
        slope: Initial a, learned.
        offset: Initial b, learned.
        scale: Initial factor t of the squared distances, learned. About 10 suits features of unit length.
    """

    def __init__(self, slope: float = 1.0, offset: float = 0.0, scale: float = 10.0) -> None:
        super().__init__()
        self.slope, self.offset = nn.Parameter(torch.tensor(slope)), nn.Parameter(torch.tensor(offset))
        self.log_scale = nn.Parameter(torch.tensor(scale).log())
        self.factor = 1.0  # of κ

    def forward(self, rows: SupportRows, names: Tensor) -> SupportRows:
        """Return the rows of the examples and those of the names.

        Args:
            rows: The examples; their labels are positions.
            names: (N, F) features of the names.
        """
        labels = torch.arange(len(names), device=names.device)
        weight = self.weigh(rows, names).to(rows.features.dtype) + _absent(rows, len(names))
        return SupportRows(
            torch.cat([rows.features, names]), torch.cat([rows.labels, labels]), torch.cat([rows.counts, weight])
        )

    def weigh(self, rows: SupportRows, names: Tensor) -> Tensor:
        """Return κ, (): how many examples each name is worth."""
        explained = self.explain(rows, names)
        kappa = nn.functional.softplus(self.slope * explained + self.offset)
        return (self.factor * kappa).clamp_min(_LEAST)

    def explain(self, rows: SupportRows, names: Tensor) -> Tensor:
        """Return s, (): how much better than chance the names alone explain the labels; 0 without examples."""
        answers = torch.log_softmax(-self.log_scale.exp() * squared_distances(rows.features, names), dim=-1)
        right = answers.gather(-1, rows.labels.unsqueeze(-1)).squeeze(-1) + math.log(len(names))
        return (rows.counts * right).sum() / rows.counts.sum().clamp_min(torch.finfo(right.dtype).tiny)


def _absent(rows: SupportRows, n_way: int) -> Tensor:
    """Return what the examples of a class count in the mean, (N,), for classes without examples; 0 for the others."""
    counts = nn.functional.one_hot(rows.labels, n_way).sum(0)
    mean = rows.counts.sum() / (counts > 0).sum().clamp_min(1)
    return torch.where(counts > 0, torch.zeros_like(mean), mean)


def make_gate(names: Names) -> NameGate | None:
    """Return what the setting `names` of a method stands for.

    Args:
        names: `gated`, or `none` if names are not read.
    """
    return NameGate() if names == "gated" else None
