"""Start: the head before the first inner step. It is built from the support set, because labels differ between tasks.

    zero          W = 0, b = 0
    position      w_n = t_n / sqrt(F), and b_n likewise      t_n is learned for each label position n (MAML)
    learned       w_n = w,  b_n = b                          w and b are learned, and the same for every label
    prototypes    w_n = 2 s c_n,  b_n = -s ||c_n||^2         c_n is the mean feature of label n; s is learned
    corrected     the prototypes' head + g(c_n)              g is a small network
    generated     (w_n, b_n) = mean of g(f(x)) over label n  see `generated_start`

With the prototypes' head, the start is a prototypical network (Proto-MAML, Triantafillou et al. 2020,
arXiv:1903.03096). LEOPARD (Bansal et al. 2020, arXiv:1911.03863) generates the whole head. In its variant, the
corrected start, g is added to the prototypes and is zero at first, so that the start already works.

Only the learned rows of positions tell labels apart before the support set is read. The first inner step can then
move the encoder: at a head that is the same for all labels, the gradient of the features is Σ_n (p_n - y_n) w = 0. The
sampler puts the labels of each episode in a random order, so no position means anything, and all positions can be
trained alike. A task's answers then depend a little on the order of its labels. All other starts treat labels alike.

For scores, the zero head and the learned heads start as they are, and the learned rows have one of their own for
them. The others start at ridge regression on the support set.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from quickstudy.methods.protonet import prototype_head
from quickstudy.models.head import LinearHead, ProjectedHead, ridge
from quickstudy.models.support_rows import SupportRows, class_means
from quickstudy.models.target import Target

AffineHead = LinearHead | ProjectedHead


class HeadStart(nn.Module, ABC):
    """Makes the first head of an episode.

    Attributes:
        reads_features: Whether the head depends on the encoder, and gradients flow through it.
    """

    reads_features: bool

    @abstractmethod
    def head(self, rows: Callable[[], SupportRows], target: Target, like: Tensor) -> AffineHead:
        """Return the head.

        Args:
            rows: Gives the rows of the support set, with features at θ; it is called only if they are needed.
            target: What the task asks for.
            like: A tensor of F entries, for size, type and device.
        """


class ZeroStart(HeadStart):
    """A head of zeros."""

    reads_features = False

    def head(self, rows: Callable[[], SupportRows], target: Target, like: Tensor) -> LinearHead:
        weight, bias = like.new_zeros(target.size, len(like)), like.new_zeros(target.size)
        return LinearHead(weight.requires_grad_(), bias.requires_grad_())


class PositionStart(HeadStart):
    """A learned row for each label position: the head that MAML meta-learns. It starts as a new `torch.nn.Linear`.

    What is learned is sqrt(F) times the row, so that an outer rate of 0.01 suits it, as it suits scales and learned
    rates. Positions that meta-training never had keep their random rows. Positions beyond the table get rows with the
    mean and the spread of the table's rows, drawn once and for all.

    Args:
        sizes: Feature sizes F that occur (single texts, pairs). There is a table for each, and a row for scores.
        positions: Rows of a table.
    """

    reads_features = False

    def __init__(self, sizes: set[int], positions: int = 20) -> None:
        super().__init__()
        self.tables = nn.ParameterDict({str(f): nn.Parameter(_uniform(positions, f + 1)) for f in sorted(sizes)})
        self.scores = nn.ParameterDict({str(f): nn.Parameter(_uniform(1, f + 1)) for f in sorted(sizes)})

    def head(self, rows: Callable[[], SupportRows], target: Target, like: Tensor) -> LinearHead:
        return target.apply(self, SupportRows(like.unsqueeze(0), like.new_zeros(1)))  # only F is read of this row

    def for_classes(self, rows: SupportRows, n_way: int) -> LinearHead:
        table = self.tables[str(rows.features.shape[-1])]
        if n_way > len(table):
            table = torch.cat([table, _further_rows(table, n_way - len(table))])
        return _unscaled_head(table[:n_way], rows.features)

    def for_scores(self, rows: SupportRows) -> LinearHead:
        return _unscaled_head(self.scores[str(rows.features.shape[-1])], rows.features)


def _uniform(*shape: int) -> Tensor:
    return torch.empty(shape).uniform_(-1, 1)


def _further_rows(table: Tensor, count: int) -> Tensor:
    """Return rows for the positions beyond a table. They differ, as a head that does not adapt needs it."""
    draws = torch.randn(count, table.shape[-1], generator=torch.Generator().manual_seed(0)).to(table)
    return table.mean(0) + table.detach().std(0, correction=0) * draws


def _unscaled_head(rows: Tensor, like: Tensor) -> LinearHead:
    rows = rows.to(like) / like.shape[-1] ** 0.5
    rows = rows if rows.requires_grad else rows.requires_grad_()  # the inner loop takes gradients in any case
    return LinearHead(rows[:, :-1], rows[:, -1])


class LearnedStart(HeadStart):
    """A learned row that all labels share. It prefers no label, but an update rule that looks at parameters sees it.

    Args:
        sizes: Feature sizes F that occur (single texts, pairs). There is a row for each.
    """

    reads_features = False

    def __init__(self, sizes: set[int]) -> None:
        super().__init__()
        self.rows = nn.ParameterDict({str(f): nn.Parameter(torch.zeros(f + 1)) for f in sorted(sizes)})

    def head(self, rows: Callable[[], SupportRows], target: Target, like: Tensor) -> LinearHead:
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

    def head(self, rows: Callable[[], SupportRows], target: Target, like: Tensor) -> LinearHead:
        return target.apply(self, rows())

    def for_classes(self, rows: SupportRows, n_way: int) -> LinearHead:
        return prototype_head(class_means(rows, n_way), self.log_scale.exp())

    def for_scores(self, rows: SupportRows) -> LinearHead:
        penalty = torch.as_tensor(self.penalty).to(rows.features)
        weight = ridge(rows.features, rows.labels.unsqueeze(-1), penalty, rows.weights)
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

    def head(self, rows: Callable[[], SupportRows], target: Target, like: Tensor) -> LinearHead:
        return target.apply(self, rows())

    def for_classes(self, rows: SupportRows, n_way: int) -> LinearHead:
        means = class_means(rows, n_way)
        start = prototype_head(means, self.prototypes.log_scale.exp())
        correction = self.networks[str(means.shape[-1])](means)
        return LinearHead(start.weight + correction[:, :-1], start.bias + correction[:, -1])

    def for_scores(self, rows: SupportRows) -> LinearHead:
        return self.prototypes.for_scores(rows)


def _generator(size: int, hidden: int) -> nn.Sequential:
    """Return a network from a class mean, (F,), to a row of the head, (F + 1,). Its last layer is zero at first."""
    first, last = nn.Linear(size, hidden), nn.Linear(hidden, size + 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(first, nn.Tanh(), last)


Word = Literal["learned", "zero"]


def make_start(word: Word, sizes: set[int]) -> HeadStart:
    """Return the start that the setting `start` of MAML and its relatives names.

    Args:
        word: `learned` (a row for each label position) or `zero`.
        sizes: Feature sizes F that occur.
    """
    return PositionStart(sizes) if word == "learned" else ZeroStart()


def read_start(names: Iterable[str]) -> str:
    """Return the value of the setting `start` with which a meta-learner was trained, from the names of its parameters.

    >>> read_start(iter(["start.scores.384", "start.tables.384"])), read_start(iter(["start.log_scale"]))
    ('learned', 'prototypes')
    >>> read_start([])
    'zero'
    >>> read_start(["start.generators.384.lower.weight"]), read_start(["start.networks.384.0.weight"])
    ('generated', 'prototypes')
    """
    prefixes = {"start.tables.": "learned", "start.generators.": "generated", "start.networks.": "prototypes"}
    names = set(names)
    for prefix, start in prefixes.items():
        if any(name.startswith(prefix) for name in names):
            return start
    return "prototypes" if "start.log_scale" in names else "zero"
