"""Reduction: the meta-gradients of all processes, added up in one flat buffer, once per outer step.

    [ failed | totals | which meta-parameters have a gradient | gradients ]        totals: see `TOTALS`

One sum carries everything, so every process takes part in every step, whatever happens to it. A process that failed
adds 1 to the first entry, and then all processes stop. A meta-parameter that has no gradient in any process keeps
none, because AdamW would let it decay.
"""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from quickstudy.processes import Held, all_reduce, gather, world_size

# Sums over the episodes: losses, right query examples, scored ones, episodes left out; and processes asked to stop.
TOTALS = 5


class Reduction:
    """The flat buffer of a set of meta-parameters. A process that runs alone has none.

    Args:
        params: The meta-parameters.
        held: The errors of this process.
    """

    def __init__(self, params: Sequence[nn.Parameter], held: Held) -> None:
        self.params, self.held = params, held
        self._sizes = [1, TOTALS, len(params), *(p.numel() for p in params)]
        dtype = reduce(torch.promote_types, (p.dtype for p in params))
        self._flat = torch.zeros(sum(self._sizes) if world_size() > 1 else 0, dtype=dtype, device=params[0].device)

    def put(self, totals: Tensor) -> float:
        """Copy this process's totals, (5,), and gradients into the buffer, and return the norm of the gradients."""
        if world_size() == 1:
            return float(nn.utils.get_total_norm([p.grad for p in self.params if p.grad is not None]))
        _, sums, has_gradient, *gradients = torch.split(self._flat, self._sizes)
        sums.copy_(totals)
        has_gradient.copy_(torch.tensor([float(p.grad is not None) for p in self.params]))
        for parameter, gradient in zip(self.params, gradients, strict=True):
            if parameter.grad is None:
                gradient.zero_()
            else:
                gradient.copy_(parameter.grad.reshape(-1))
        return float(self._flat[sum(self._sizes[:3]) :].norm())

    def sum(self, totals: Tensor) -> list[float]:
        """Return the totals, (5,), of all processes, and leave the sum of their gradients in `.grad`.

        Raises:
            ProcessError: One of the processes failed.
        """
        if world_size() == 1:
            return [float(value) for value in totals]
        self._flat[0] = float(self.held.error is not None)
        all_reduce(self._flat)
        failed, sums, has_gradient, *gradients = torch.split(self._flat, self._sizes)
        if failed.item():
            gather(None, self.held)
        for parameter, gradient, has in zip(self.params, gradients, has_gradient.tolist(), strict=True):
            parameter.grad = gradient.view_as(parameter).to(parameter.dtype) if has else None
        return [float(value) for value in sums]
