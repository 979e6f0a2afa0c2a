"""Methods that learn to read a support set: relation networks, in-context learning, and the LSTM reader.

    scores = prior + net(f(x), {(f(x_i), y_i)})

The prior is a prototypical network (for regression its kernel form), the net starts at zero: so the method starts from
something that works, and learns what a prototypical network cannot do. With `prior = 0` the net stands alone, as in its paper:

    relation       Sung et al. 2018, arXiv:1711.06025 (trained here with cross-entropy)
    in-context     in the manner of Garnelo et al. 2018, arXiv:1807.01613, and Hollmann et al. 2023, arXiv:2207.01848
    lstm-reader    Hochreiter et al. 2001; Santoro et al. 2016
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from quickstudy.methods.feature import HeadRule
from quickstudy.models.head import NetHead
from quickstudy.models.support_net import SupportNet
from quickstudy.tasks.task import Kind


class SupportNetRule(HeadRule):
    """The rule of a support net.

    Args:
        make: Makes the net.
        prior: Initial factor of the prior's squared distances, learned; 0 for no prior.
    """

    def __init__(self, make: Callable[[], SupportNet], prior: float = 10.0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # the same start every time, whatever ran before
            self.net = make()
            if prior == 0:  # without a prior an answer of zero everywhere would hide the net from its gradient
                nn.init.xavier_uniform_(self.net.answer.weight)  # type: ignore[arg-type, union-attr]
        self.prior = nn.Parameter(torch.tensor(float(prior)), requires_grad=prior > 0)

    def head(self, features: Tensor, labels: Tensor, n_way: int, kind: Kind) -> NetHead:
        values = labels.unsqueeze(-1) if kind == "regression" else nn.functional.one_hot(labels, n_way).to(features)
        zero = features.new_zeros(())
        return NetHead(features, values, self.prior, zero, zero + 1, self.net)
