"""Update rules that are LSTMs: a small network, shared by all coordinates, learns how to take a step.

    LSTMOptimizer       φ_t = f_t φ_{t-1} - i_t ∇_t
                        h_t = LSTM([pre(∇_t), pre(L_t)], h_{t-1})
                        f_t = σ(w_f [h_t, φ_{t-1}, f_{t-1}] + b_f)
                        i_t = 2 α σ(w_i [h_t, φ_{t-1}, i_{t-1}] + b_i)

    LearnedOptimizer    φ_t = φ_{t-1} - α (∇_t + w h_t + b)                  h_t = LSTM(LSTM(pre(∇_t)))

LSTMOptimizer is that of Ravi and Larochelle 2017 (openreview rJY0-Kcll): the cell state of an LSTM *is* the
parameters, and the candidate is the negative gradient. LearnedOptimizer is that of Andrychowicz et al. 2016,
arXiv:1606.04474, and so is pre(): log|x| / 10 and the sign.

Both start as gradient descent at rate α: the gates start at 1 and α, and the correction starts at 0. The factor 2 α
is not in the paper; heads need rates above 1. Before the first step f_0 = i_0 / α = 1. The paper's learned optimizer
has no ∇_t in its step: the LSTM's output is the step, and starts at random. In first order the gradients are inputs
without a derivative, as in both papers.
"""

import torch
from torch import Tensor, nn

from quickstudy.inner.optimizer import HEAD, InnerOptimizer, Params, State
from quickstudy.lstm import LSTMCell

_OPEN = 8.0  # bias of the forget gate: σ(8) = 0.9997; layer norms would not survive a loss of 1 % per step


class LSTMOptimizer(InnerOptimizer):
    """The LSTM whose cell state is the parameters.

    Args:
        lr: Rate α of encoder parameters at the start.
        head_lr: Rate α of head parameters at the start; `lr` by default.
        hidden: Hidden units per coordinate.
    """

    is_network = True

    def __init__(self, lr: float, head_lr: float | None = None, hidden: int = 20) -> None:
        super().__init__()
        self.lr, self.head_lr = lr, lr if head_lr is None else head_lr
        self.cell = LSTMCell(4, hidden)
        self.numbers_per_entry = 10 * hidden  # the gates and their inputs
        self.forget, self.input = nn.Linear(hidden + 2, 1), nn.Linear(hidden + 2, 1)
        with torch.no_grad():
            for gate, bias in ((self.forget, _OPEN), (self.input, 0.0)):
                gate.weight.zero_()
                gate.bias.fill_(bias)

    def init(self, params: Params) -> State:
        # For each coordinate: the state of the LSTM, and the two gates of the step before.
        return {
            n: (self.cell.start(p, p.numel()), torch.ones_like(p.flatten()), torch.ones_like(p.flatten()))
            for n, p in params.items()
        }

    def update(self, grads: Params, state: State, params: Params, *, loss: Tensor) -> tuple[Params, State]:
        new, after = {}, {}
        for name, p in params.items():
            hidden, forget, take = state[name]
            g, flat = grads[name].flatten(), p.flatten()
            inputs = torch.cat([preprocess(g), preprocess(loss.expand_as(g))], dim=-1)
            hidden = self.cell(inputs, hidden)
            forget = torch.sigmoid(self.forget(_with(hidden[0], flat, forget))).squeeze(-1)
            take = 2 * torch.sigmoid(self.input(_with(hidden[0], flat, take))).squeeze(-1)
            rate = self.head_lr if name.startswith(HEAD) else self.lr
            new[name] = (forget * flat - rate * take * g).view_as(p)
            after[name] = hidden, forget, take
        return new, after


class LearnedOptimizer(InnerOptimizer):
    """Two LSTM layers that correct the gradient.

    Args:
        lr: Rate α of encoder parameters at the start.
        head_lr: Rate α of head parameters at the start; `lr` by default.
        hidden: Hidden units per coordinate and layer.
    """

    is_network = True

    def __init__(self, lr: float, head_lr: float | None = None, hidden: int = 20) -> None:
        super().__init__()
        self.lr, self.head_lr = lr, lr if head_lr is None else head_lr
        self.numbers_per_entry = 20 * hidden
        self.lower, self.upper, self.out = LSTMCell(2, hidden), LSTMCell(hidden, hidden), nn.Linear(hidden, 1)
        with torch.no_grad():
            self.out.weight.zero_()
            self.out.bias.zero_()

    def init(self, params: Params) -> State:
        return {n: (self.lower.start(p, p.numel()), self.upper.start(p, p.numel())) for n, p in params.items()}

    def update(self, grads: Params, state: State, params: Params, *, loss: Tensor) -> tuple[Params, State]:
        new, after = {}, {}
        for name, p in params.items():
            lower, upper = state[name]
            lower = self.lower(preprocess(grads[name].flatten()), lower)
            upper = self.upper(lower[0], upper)
            rate = self.head_lr if name.startswith(HEAD) else self.lr
            new[name] = p - rate * (grads[name] + self.out(upper[0]).view_as(p))
            after[name] = lower, upper
        return new, after


def preprocess(x: Tensor, p: float = 10.0) -> Tensor:
    """Return (log|x| / p, sign x), or (-1, e^p x) where |x| < e^-p, as (B, 2), of values (B,).

    >>> preprocess(torch.tensor([1.0, 0.0])).tolist()
    [[0.0, 1.0], [-1.0, 0.0]]
    """
    small = torch.finfo(x.dtype).tiny
    large = x.abs() >= torch.exp(torch.tensor(-p, dtype=x.dtype))
    size = torch.where(
        large, x.abs().clamp_min(small), 1.0
    )  # the gradient needs a finite log even where it is not used
    first = torch.where(large, size.log() / p, -1.0)
    second = torch.where(large, x.sign(), torch.exp(torch.tensor(p, dtype=x.dtype)) * x)
    return torch.stack([first, second], dim=-1)


def _with(h: Tensor, *others: Tensor) -> Tensor:
    return torch.cat([h, *(other.unsqueeze(-1) for other in others)], dim=-1)
