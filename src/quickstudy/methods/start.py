"""Start: the head before the first inner step; it is built from the support set, because labels differ from task to task.

    zero          W = 0, b = 0
    learned       w_n = w,  b_n = b                          w and b learned, the same for every label
    prototypes    w_n = 2 s c_n,  b_n = -s ||c_n||^2         c_n the mean feature of label n, s learned
    generated     the prototypes' head + g(c_n),  g a small network

The prototypes' head makes the start a prototypical network (Proto-MAML, Triantafillou et al. 2020, arXiv:1903.03096). LEOPARD
(Bansal et al. 2020, arXiv:1911.03863) generates all of the head; here g is added to the prototypes and is zero at first, so
that it starts from something that works. All of them treat labels alike, so the order of labels does not matter. For
regression the zero head and the learned one start as they are, and the others at ridge regression on the support set.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from quickstudy.methods.protonet import prototype_head
from quickstudy.models.head import LinearHead, class_means, ridge
from quickstudy.tasks.task import Kind


class HeadStart(nn.Module, ABC):
    """Makes the first head of an episode.

    Attributes:
        reads_features: Whether the head depends on the encoder, and gradients flow through it.
    """

    reads_features: bool

    @abstractmethod
    def head(self, features: Callable[[], Tensor], labels: Tensor, n_way: int, kind: Kind, like: Tensor) -> LinearHead:
        """Return the head.

        Args:
            features: Gives the support features at θ, (B, F); called only if needed.
            labels: (B,) label positions or standardised scores.
            n_way: Labels (N); 1 for regression.
            kind: Classification or regression.
            like: A tensor of F entries, for size, type and device.
        """


class ZeroStart(HeadStart):
    """A head of zeros."""

    reads_features = False

    def head(self, features: Callable[[], Tensor], labels: Tensor, n_way: int, kind: Kind, like: Tensor) -> LinearHead:
        return LinearHead(like.new_zeros(n_way, len(like)).requires_grad_(), like.new_zeros(n_way).requires_grad_())


class LearnedStart(HeadStart):
    """A learned row for every label; by itself it prefers none, but an update rule that looks at parameters sees it.

    Args:
        sizes: Feature sizes F that occur (single texts, pairs); each has a row of its own.
    """

    reads_features = False

    def __init__(self, sizes: set[int]) -> None:
        super().__init__()
        self.rows = nn.ParameterDict({str(f): nn.Parameter(torch.zeros(f + 1)) for f in sorted(sizes)})

    def head(self, features: Callable[[], Tensor], labels: Tensor, n_way: int, kind: Kind, like: Tensor) -> LinearHead:
        row = self.rows[str(len(like))]
        return LinearHead(row[:-1].expand(n_way, -1), row[-1].expand(n_way))


class PrototypeStart(HeadStart):
    """The head of a prototypical network.

    Args:
        scale: Initial factor of the squared distances, learned.
        penalty: Of the ridge regression.
    """

    reads_features = True

    def __init__(self, scale: float = 10.0, penalty: float = 1.0) -> None:
        super().__init__()
        self.log_scale, self.penalty = nn.Parameter(torch.tensor(scale).log()), penalty

    def head(self, features: Callable[[], Tensor], labels: Tensor, n_way: int, kind: Kind, like: Tensor) -> LinearHead:
        found = features()
        if kind == "regression":
            weight = ridge(found, labels.unsqueeze(-1), torch.as_tensor(self.penalty).to(found))
            return LinearHead(weight, weight.new_zeros(1).requires_grad_())
        return prototype_head(class_means(found, labels, n_way), self.log_scale.exp())


class GeneratedStart(HeadStart):
    """A generated head.

    Args:
        sizes: Feature sizes F that occur (single texts, pairs); each has a network of its own.
        hidden: Its hidden units.
        scale: See `PrototypeStart`.
    """

    reads_features = True

    def __init__(self, sizes: set[int], hidden: int = 128, scale: float = 10.0) -> None:
        super().__init__()
        self.prototypes = PrototypeStart(scale)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # the same start every time, whatever ran before
            self.networks = nn.ModuleDict(
                {
                    str(f): nn.Sequential(nn.Linear(f, hidden), nn.Tanh(), nn.Linear(hidden, f + 1))
                    for f in sorted(sizes)
                }
            )
        for network in self.networks.values():
            for parameter in network[2].parameters():  # type: ignore[index]
                nn.init.zeros_(parameter)

    def head(self, features: Callable[[], Tensor], labels: Tensor, n_way: int, kind: Kind, like: Tensor) -> LinearHead:
        if kind == "regression":
            return self.prototypes.head(features, labels, n_way, kind, like)
        means = class_means(features(), labels, n_way)
        start, made = prototype_head(means, self.prototypes.log_scale.exp()), self.networks[str(len(like))](means)
        return LinearHead(start.weight + made[:, :-1], start.bias + made[:, -1])
