"""GeneratedStart: a network writes the head before the first inner step, and the head reads projected features.

    (w_n, b_n) = mean_{(x,y) in support, y=n} g(f(x))        p(y=n | x) = softmax_n(w_n · h(f(x)) + b_n)

This is the head of LEOPARD (Bansal, Jha and McCallum 2020, arXiv:1911.03863, equations 2 to 4). Both g and h have two
layers, each followed by tanh. The generator g is meta-learned and does not adapt. The projection h is meta-learned and
adapts in the inner loop, like w_n and b_n. Any number of labels is possible, because a row depends on the examples of
its label alone.

Features of single texts and of pairs differ in size, so there are a generator and a projection for each size. The first
layers start with weights of variance 1, which suits features of unit length. The last layers start small: that of g so
that the first head prefers no label strongly, and that of h so that it suits the usual inner rates. The paper has one
small outer rate for all parameters; here what is learned is a multiple of the weights, so that the outer rate of
scales and learned rates suits it too. For scores, for which the paper has no head, w is ridge regression on h(f(x)).
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from quickstudy.methods.start import HeadStart
from quickstudy.models.head import ProjectedHead, ridge
from quickstudy.models.support_rows import SupportRows, class_means
from quickstudy.models.target import Target

PROJECTION = ("lower_weight", "lower_bias", "upper_weight", "upper_bias")  # the parameters of h in a `ProjectedHead`
_GAIN_OF_G, _GAIN_OF_H = 0.1, 0.3  # sizes of their last layers at the start


class GeneratedStart(HeadStart):
    """A generated head on projected features.

    Args:
        sizes: Feature sizes F that occur (single texts, pairs).
        hidden: Hidden units of g and h, and the number P of projected features.
        penalty: Penalty of the ridge regression that predicts scores.
    """

    reads_features = True

    def __init__(self, sizes: set[int], hidden: int = 128, penalty: float = 1.0) -> None:
        super().__init__()
        self.generators = nn.ModuleDict({str(f): TwoLayers(f, hidden, hidden + 1, _GAIN_OF_G) for f in sorted(sizes)})
        self.projections = nn.ModuleDict({str(f): TwoLayers(f, hidden, hidden, _GAIN_OF_H) for f in sorted(sizes)})
        self.penalty = penalty

    def head(self, rows: Callable[[], SupportRows], target: Target, like: Tensor) -> ProjectedHead:
        return target.apply(self, rows())

    def for_classes(self, rows: SupportRows, n_way: int) -> ProjectedHead:
        written = self.generators[str(rows.features.shape[-1])](rows.features)
        means = class_means(replace(rows, features=written), n_way)
        return self._project(means[:, :-1], means[:, -1], rows.features)

    def for_scores(self, rows: SupportRows) -> ProjectedHead:
        projected = self.projections[str(rows.features.shape[-1])](rows.features)
        penalty = torch.as_tensor(self.penalty).to(rows.features)
        weight = ridge(projected, rows.labels.unsqueeze(-1), penalty, rows.weights)
        return self._project(weight, weight.new_zeros(1).requires_grad_(), rows.features)

    def _project(self, weight: Tensor, bias: Tensor, like: Tensor) -> ProjectedHead:
        h = self.projections[str(like.shape[-1])]
        assert isinstance(h, TwoLayers)
        return ProjectedHead(weight, bias, *h.layers())


class TwoLayers(nn.Module):
    """A network with tanh after each of its two layers.

    What is learned is sqrt(size) times the first layer's weights, and sqrt(hidden) / gain times those of the second. So
    an outer rate of 0.01 changes the outputs slowly.

    Args:
        size: Inputs.
        hidden: Hidden units.
        outputs: Outputs.
        gain: Size of the second layer's first weights; with 1, its outputs are about as large as its inputs.
    """

    def __init__(self, size: int, hidden: int, outputs: int, gain: float) -> None:
        super().__init__()
        self._lower_scale, self._upper_scale = size**-0.5, gain * hidden**-0.5
        self.lower, self.upper = nn.Linear(size, hidden), nn.Linear(hidden, outputs)
        nn.init.normal_(self.lower.weight, std=1 / self._lower_scale)
        nn.init.normal_(self.upper.weight)
        nn.init.zeros_(self.lower.bias)
        nn.init.zeros_(self.upper.bias)

    def layers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the weights and biases of the two layers, as the equations have them."""
        lower, upper = self._lower_scale * self.lower.weight, self._upper_scale * self.upper.weight
        return lower, self.lower.bias, upper, self.upper.bias

    def forward(self, features: Tensor) -> Tensor:
        """Return (..., outputs) of features (..., size)."""
        lower_weight, lower_bias, upper_weight, upper_bias = self.layers()
        hidden = torch.tanh(nn.functional.linear(features, lower_weight, lower_bias))
        return torch.tanh(nn.functional.linear(hidden, upper_weight, upper_bias))
