"""InnerOptimizer: the update rule of the inner loop, as a pure (init, update) pair.

    SGD     φ ← φ - α g
    Adam    m ← β1 m + (1 - β1) g,   v ← β2 v + (1 - β2) g²,   φ ← φ - α m̂ / (sqrt(v̂) + ε)

State goes in and comes out, and the optimizer itself stores nothing. So it can serve many episodes at once, and the
gradient can flow through every step. What an optimizer learns are its `nn.Parameter`s: they are meta-parameters. Adam
is that of Kingma and Ba 2015, arXiv:1412.6980, in the form of `torch.optim.Adam`.

Heads start from zero on features of unit length, and need rates a thousand times as large as the layers below. So
there is a rate `head_lr` for the names that start with `head.`.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

Params = dict[str, Tensor]
State = Any

HEAD = "head."  # names of head parameters start with it


class InnerOptimizer(nn.Module, ABC):
    """An update rule.

    Attributes:
        skips_zero_gradients: True if a parameter entry whose gradient is always zero never changes. Then only the
            embedding rows used in the episode have to be adapted.
        numbers_per_entry: About how many numbers the graph of a step holds per parameter entry, beside the entry.
        is_network: Whether the rule is a network itself, whose operations are not estimated.
    """

    skips_zero_gradients: bool = False
    numbers_per_entry: int = 0
    is_network: bool = False

    @abstractmethod
    def init(self, params: Params) -> State:
        """Return the state before the first step."""

    @abstractmethod
    def update(self, grads: Params, state: State, params: Params, *, loss: Tensor) -> tuple[Params, State]:
        """Return (new parameters, new state); changes nothing in place.

        Args:
            grads: Gradient of the support loss, by parameter name.
            state: From `init` or the last `update`.
            params: The parameters at which the gradient was taken.
            loss: The support loss, (), for rules that look at it.
        """


class SGD(InnerOptimizer):
    """Gradient descent.

    Args:
        lr: Inner rate α of encoder parameters.
        head_lr: Inner rate of head parameters; `lr` by default.

    >>> rule = SGD(lr=0.5)
    >>> rule.update({"w": torch.tensor(2.0)}, (), {"w": torch.tensor(1.0)}, loss=torch.tensor(0.0))[0]["w"].item()
    0.0
    """

    skips_zero_gradients = True

    def __init__(self, lr: float, head_lr: float | None = None) -> None:
        super().__init__()
        self.lr, self.head_lr = lr, lr if head_lr is None else head_lr

    def init(self, params: Params) -> State:
        return ()

    def update(self, grads: Params, state: State, params: Params, *, loss: Tensor) -> tuple[Params, State]:
        rate = {name: self.head_lr if name.startswith(HEAD) else self.lr for name in params}
        return {name: torch.add(p, grads[name], alpha=-rate[name]) for name, p in params.items()}, state


class Adam(InnerOptimizer):
    """Adam, with bias correction.

    Args:
        lr: Inner rate α of encoder parameters.
        head_lr: Inner rate of head parameters; `lr` by default.
        betas: Decay rates of the moments.
        eps: Added to the denominator.
    """

    skips_zero_gradients = True

    def __init__(
        self, lr: float, head_lr: float | None = None, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__()
        self.lr, self.head_lr = lr, lr if head_lr is None else head_lr
        self.betas, self.eps = betas, eps

    def init(self, params: Params) -> State:
        zeros = {name: p.new_zeros(p.shape) for name, p in params.items()}
        return 0, zeros, zeros

    def update(self, grads: Params, state: State, params: Params, *, loss: Tensor) -> tuple[Params, State]:
        step, first, second = state
        step += 1
        b1, b2 = self.betas
        first = {name: b1 * first[name] + (1 - b1) * g for name, g in grads.items()}
        second = {name: b2 * second[name] + (1 - b2) * g * g for name, g in grads.items()}
        new = {}
        for name, p in params.items():
            rate = self.head_lr if name.startswith(HEAD) else self.lr
            square = second[name] / (1 - b2**step)
            # The root has no derivative at 0, which is the value for an entry without a gradient.
            denominator = torch.where(square > 0, square, 1).sqrt().where(square > 0, 0) + self.eps
            new[name] = p - rate * (first[name] / (1 - b1**step)) / denominator
        return new, (step, first, second)
