"""Start: the head before the first inner step. It is built from the support set, because labels differ between tasks.

    zero          W = 0, b = 0
    learned       w_n = w,  b_n = b                          w and b are learned, and the same for every label
    prototypes    w_n = 2 s c_n,  b_n = -s ||c_n||^2         c_n is the mean feature of label n; s is learned
    corrected     the prototypes' head + g(c_n)              g is a small network
    generated     (w_n, b_n) = mean of g(f(x)) over label n  see `generated_start`

With the prototypes' head, the start is a prototypical network (Proto-MAML, Triantafillou et al. 2020,
arXiv:1903.03096). LEOPARD (Bansal et al. 2020, arXiv:1911.03863) generates the whole head. In its variant, the
corrected start, g is added to the prototypes and is zero at first, so that the start already works. All starts treat
labels alike, so the order of the labels does not matter.

For scores, the zero head and the learned head start as they are. The others start at ridge regression on the support
set.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from quickstudy.methods.protonet import prototype_head
from quickstudy.models.head import LinearHead, ProjectedHead, class_means, ridge
from quickstudy.models.target import Target

AffineHead = LinearHead | ProjectedHead


class HeadStart(nn.Module, ABC):
    """Makes the first head of an episode.

    Attributes:
        reads_features: Whether the head depends on the encoder, and gradients flow through it.
    """

    reads_features: bool

    @abstractmethod
    def head(self, features: Callable[[], Tensor], labels: Tensor, target: Target, like: Tensor) -> AffineHead:
        """Return the head.

        Args:
            features: Gives the support features at θ, (B, F); it is called only if they are needed.
            labels: (B,) label positions, or standardised scores.
            target: What the task asks for.
            like: A tensor of F entries, for size, type and device.
        """


class ZeroStart(HeadStart):
    """A head of zeros."""

    reads_features = False

    def head(self, features: Callable[[], Tensor], labels: Tensor, target: Target, like: Tensor) -> LinearHead:
        weight, bias = like.new_zeros(target.size, len(like)), like.new_zeros(target.size)
        return LinearHead(weight.requires_grad_(), bias.requires_grad_())


class LearnedStart(HeadStart):
    """A learned row that all labels share. It prefers no label, but an update rule that looks at parameters sees it.

    Args:
        sizes: Feature sizes F that occur (single texts, pairs). There is a row for each.
    """

    reads_features = False

    def __init__(self, sizes: set[int]) -> None:
        super().__init__()
        self.rows = nn.ParameterDict({str(f): nn.Parameter(torch.zeros(f + 1)) for f in sorted(sizes)})

    def head(self, features: Callable[[], Tensor], labels: Tensor, target: Target, like: Tensor) -> LinearHead:
        row = self.rows[str(len(like))]
        return LinearHead(row[:-1].expand(target.size, -1), row[-1].expand(target.size))


class PrototypeStart(HeadStart):
    """The head of a prototypical network.

    Args:
        scale: Initial factor of the squared distances, learned.
        penalty: Penalty of the ridge regression that predicts scores.
    """

    reads_features = True

    def __init__(self, scale: float = 10.0, penalty: float = 1.0) -> None:
        super().__init__()
        self.log_scale, self.penalty = nn.Parameter(torch.tensor(scale).log()), penalty

    def head(self, features: Callable[[], Tensor], labels: Tensor, target: Target, like: Tensor) -> LinearHead:
        return target.apply(self, features(), labels)

    def for_classes(self, features: Tensor, labels: Tensor, n_way: int) -> LinearHead:
        return prototype_head(class_means(features, labels, n_way), self.log_scale.exp())

    def for_scores(self, features: Tensor, labels: Tensor) -> LinearHead:
        weight = ridge(features, labels.unsqueeze(-1), torch.as_tensor(self.penalty).to(features))
        return LinearHead(weight, weight.new_zeros(1).requires_grad_())


class CorrectedStart(HeadStart):
    """The prototypes' head and a correction that a network makes of the class means.

    Args:
        sizes: Feature sizes F that occur (single texts, pairs). There is a network for each.
        hidden: Hidden units of a network.
        scale: See `PrototypeStart`.
    """

    reads_features = True

    def __init__(self, sizes: set[int], hidden: int = 128, scale: float = 10.0) -> None:
        super().__init__()
        self.prototypes = PrototypeStart(scale)
        self.networks = nn.ModuleDict({str(f): _generator(f, hidden) for f in sorted(sizes)})

    def head(self, features: Callable[[], Tensor], labels: Tensor, target: Target, like: Tensor) -> LinearHead:
        return target.apply(self, features(), labels)

    def for_classes(self, features: Tensor, labels: Tensor, n_way: int) -> LinearHead:
        means = class_means(features, labels, n_way)
        start = prototype_head(means, self.prototypes.log_scale.exp())
        correction = self.networks[str(means.shape[-1])](means)
        return LinearHead(start.weight + correction[:, :-1], start.bias + correction[:, -1])

    def for_scores(self, features: Tensor, labels: Tensor) -> LinearHead:
        return self.prototypes.for_scores(features, labels)


def _generator(size: int, hidden: int) -> nn.Sequential:
    """Return a network from a class mean, (F,), to a row of the head, (F + 1,). Its last layer is zero at first."""
    first, last = nn.Linear(size, hidden), nn.Linear(hidden, size + 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(first, nn.Tanh(), last)


def read_start(names: Iterable[str]) -> str:
    """Return the value of the setting `start` with which a meta-learner was trained, from the names of its parameters.

    >>> read_start(["start.generators.384.lower.weight"]), read_start(["start.networks.384.0.weight"]), read_start([])
    ('generated', 'prototypes', 'zero')
    """
    names = set(names)
    if any(name.startswith("start.generators.") for name in names):
        return "generated"
    corrected = any(name.startswith("start.networks.") for name in names)
    return "prototypes" if corrected or "start.log_scale" in names else "zero"
