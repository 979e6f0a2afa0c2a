"""Reduction: the meta-gradients of all processes, summed in one flat buffer, once per outer step.

    [ failed | loss, right query examples, scored ones | which meta-parameters have a gradient | gradients ]

One sum carries all, so that every process takes part in every step whatever happens to it: a process that failed adds 1 to the
first entry, and then all of them stop. A meta-parameter that no process has a gradient of keeps none: AdamW would let it decay.
"""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from quickstudy.processes import Held, all_reduce, gather, world_size


class Reduction:
    """The flat buffer of a set of meta-parameters; a process alone has none.

    Args:
        params: The meta-parameters.
        held: Errors of this process.
    """

    def __init__(self, params: Sequence[nn.Parameter], held: Held) -> None:
        self.params, self.held = params, held
        self._sizes = [1, 3, len(params), *(p.numel() for p in params)]
        dtype = reduce(torch.promote_types, (p.dtype for p in params))
        self._flat = torch.zeros(sum(self._sizes) if world_size() > 1 else 0, dtype=dtype, device=params[0].device)

    def put(self, totals: Tensor) -> float | None:
        """Fill the buffer with this process's totals, (3,), and gradients; return their norm, None for a process alone."""
        if world_size() == 1:
            return None
        _, ours, reached, *parts = torch.split(self._flat, self._sizes)
        ours.copy_(totals)
        reached.copy_(torch.tensor([float(p.grad is not None) for p in self.params]))
        for parameter, part in zip(self.params, parts, strict=True):
            if parameter.grad is None:
                part.zero_()
            else:
                part.copy_(parameter.grad.reshape(-1))
        return float(self._flat[sum(self._sizes[:3]) :].norm())

    def sum(self, totals: Tensor) -> list[float]:
        """Return the totals, (3,), of all processes, and leave the sum of their gradients in `.grad`.

        Raises:
            ProcessError: One of them failed.
        """
        if world_size() == 1:
            return [float(value) for value in totals]
        self._flat[0] = float(self.held.error is not None)
        all_reduce(self._flat)
        failed, sums, reached, *parts = torch.split(self._flat, self._sizes)
        if failed.item():
            gather(None, self.held)
        for parameter, part, there in zip(self.params, parts, reached.tolist(), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype) if there else None
        return [float(value) for value in sums]
