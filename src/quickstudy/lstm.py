"""LSTMCell: one step of an LSTM, in plain operations: torch's own has no double backward on a GPU and no rule for vmap.

    i, f, g, o = W [x, h] + b,      c ← σ(f) c + σ(i) tanh(g),      h ← σ(o) tanh(c)

Hochreiter and Schmidhuber 1997. The forget gate starts open (a bias of 1).
"""

import torch
from torch import Tensor, nn

LSTMState = tuple[Tensor, Tensor]


class LSTMCell(nn.Module):
    """One step of an LSTM.

    Args:
        inputs: Size I of an input.
        hidden: Size H of a state.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.gates = nn.Linear(inputs + hidden, 4 * hidden)
        self.hidden = hidden
        with torch.no_grad():
            self.gates.bias[hidden : 2 * hidden] = 1.0

    def start(self, like: Tensor, *batch: int) -> LSTMState:
        """Return the state before the first step: zeros, (*batch, H), with the type and device of a tensor."""
        zeros = like.new_zeros(*batch, self.hidden)
        return zeros, zeros

    def forward(self, x: Tensor, state: LSTMState) -> LSTMState:
        """Return (h, c), each (..., H), of inputs (..., I) and a state."""
        h, c = state
        i, f, g, o = self.gates(torch.cat([x, h], dim=-1)).chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
