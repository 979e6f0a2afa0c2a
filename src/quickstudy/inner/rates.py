"""LearnedRates: gradient descent whose rates are meta-parameters.

    φ ← φ - α ∘ g        α = (inner rate) · m,      m learned, 1 at the start

There is one m per entry of a parameter (Meta-SGD, Li et al. 2017, arXiv:1707.09835), per layer, or per layer and
inner step (LSLR of MAML++, Antoniou et al. 2019, arXiv:1810.09502). Multiples are learned instead of rates, so that
the same outer rate suits inner rates that differ a thousandfold. A multiple may become negative. The head has as many
rows as a task has labels, so it always has one m per tensor. Steps beyond the last trained step use the rates of that
step.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from quickstudy.inner.optimizer import HEAD, InnerOptimizer, Params, State

Granularity = Literal["entry", "layer", "layer-step"]


class LearnedRates(InnerOptimizer):
    """Gradient descent with learned rates.

    Args:
        lr: Inner rate of encoder parameters at the start.
        head_lr: Inner rate of head parameters at the start; `lr` by default.
        shapes: Shape of every encoder parameter that adapts, by name.
        granularity: What has a multiple: each `entry`, each tensor (`layer`), or each tensor in each step
            (`layer-step`).
        steps: How many inner steps have multiples, for `layer-step`.

    >>> rule = LearnedRates(0.5, None, {"w": (2,)})
    >>> rule.update({"w": torch.ones(2)}, 0, {"w": torch.ones(2)}, loss=torch.tensor(0.0))[0]["w"].tolist()
    [0.5, 0.5]
    """

    def __init__(
        self,
        lr: float,
        head_lr: float | None,
        shapes: Mapping[str, tuple[int, ...]],
        granularity: Granularity = "entry",
        steps: int = 1,
    ) -> None:
        super().__init__()
        self.lr, self.head_lr = lr, lr if head_lr is None else head_lr
        self.skips_zero_gradients = granularity != "entry"  # multiples of entries belong to the whole table
        self.numbers_per_entry = 2 if granularity == "entry" else 1  # the gradient, and its rate
        self._steps = max(1, steps) if granularity == "layer-step" else 1
        sizes = {HEAD + "weight": (), HEAD + "bias": ()} | {
            n: s if granularity == "entry" else () for n, s in shapes.items()
        }
        self.multiples = nn.ParameterDict(
            {_key(name): nn.Parameter(torch.ones(self._steps, *size)) for name, size in sizes.items()}
        )

    def init(self, params: Params) -> State:
        return 0

    def update(self, grads: Params, state: State, params: Params, *, loss: Tensor) -> tuple[Params, State]:
        step = min(state, self._steps - 1)
        new = {}
        for name, p in params.items():
            rate = self.head_lr if name.startswith(HEAD) else self.lr
            new[name] = p - rate * self.multiples[_key(name)][step] * grads[name]
        return new, state + 1


def _key(name: str) -> str:
    return name.replace(".", "/")  # a ParameterDict takes no dots
