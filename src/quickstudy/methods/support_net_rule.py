"""Methods that learn to read a support set: relation networks, in-context learning, and the LSTM reader.

    scores = prior + net(f(x), {(f(x_i), y_i)})

The prior is a prototypical network (for regression, its kernel form), and the net starts at zero. So the method
starts from something that works, and learns what a prototypical network cannot do. With `prior = 0` the net stands
alone, as in its paper:

    relation       Sung et al. 2018, arXiv:1711.06025 (trained here with cross-entropy)
    in-context     in the manner of Garnelo et al. 2018, arXiv:1807.01613, and Hollmann et al. 2023, arXiv:2207.01848
    lstm-reader    Hochreiter et al. 2001; Santoro et al. 2016 (with `answer_late` as the loss of the support set)
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from quickstudy.methods.feature import HeadRule
from quickstudy.models.head import Head, NetHead
from quickstudy.models.support_net import LSTMReader, SupportNet
from quickstudy.models.support_rows import SupportRows, refuse_weights
from quickstudy.models.target import Target


class SupportNetRule(HeadRule):
    """The rule of a support net.

    Args:
        make: Makes the net.
        prior: Initial factor of the prior's squared distances, learned; 0 for no prior.
    """

    def __init__(self, make: Callable[[], SupportNet], prior: float = 10.0) -> None:
        super().__init__()
        self.net = make()
        if prior == 0:  # without a prior, a last layer of zeros would let no gradient through to the net
            nn.init.xavier_uniform_(self.net.answer.weight)  # type: ignore[arg-type, union-attr]
        self.prior = nn.Parameter(torch.tensor(float(prior)), requires_grad=prior > 0)

    @property
    def weighs(self) -> bool:
        return self.net.weighs

    def head(self, rows: SupportRows, target: Target) -> NetHead:
        if not self.net.weighs:
            refuse_weights(rows.weights, self.net.kind)
        columns, zero = target.columns(rows.labels, rows.features), rows.features.new_zeros(())
        weights = rows.weights if self.net.weighs else None
        return NetHead(rows.features, columns, self.prior, zero, zero + 1, self.net, weights)


def answer_late(head: Head, labels: Tensor, target: Target) -> Tensor:
    """Return the loss, (), of what an LSTM reader answers for each support example before it is told its label.

    The answers are the LSTM's own, without the prior, which is made from all labels of the support set. The loss is
    the mean over examples and orders (Santoro et al. 2016).
    """
    assert isinstance(head, NetHead)
    assert isinstance(head.net, LSTMReader)
    answers = head.net.answer_support(head.points, head.values)
    return torch.stack([target.loss(each, labels) for each in answers]).mean()
