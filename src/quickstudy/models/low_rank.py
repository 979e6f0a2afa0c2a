"""LowRank: low-rank corrections adapt instead of whole weight matrices (LoRA).

    W' = W + 2 B A          A (r, I) random,  B (O, r) zero at the start,  r the rank

Hu et al. 2022, arXiv:2106.09685, on every linear layer of the stack. The inner loop moves only A and B. Their start
is meta-learned, and so is W. The correction is added to W before the layer runs, so an adapted model has ordinary
weights. It is saved and opened like any other model, and nothing has to be taken out again. This is why peft's
modules are not used here: they wrap the layers of a model in place. A test checks that both give the same features.
"""

import torch
from torch import nn

from quickstudy.models.cut import Params
from quickstudy.models.parameter_filter import list_shapes
from quickstudy.models.partition import Partition

_SCALE = 2.0  # peft's lora_alpha / r at its customary lora_alpha = 2 r


class LowRank(nn.Module):
    """Low-rank corrections of the weights that a partition names. A and B are meta-parameters.

    Args:
        partition: A partition with the filter `lora` or `lora:r`.
    """

    def __init__(self, partition: Partition) -> None:
        super().__init__()
        self._partition = partition
        self._shapes = list_shapes(partition.encoder.model, partition.adapts)
        like = next(partition.encoder.model.parameters())
        self.parts = nn.ParameterList(
            (torch.randn(shape) / shape[1] ** 0.5 if name.endswith(".a") else torch.zeros(shape)).to(like)
            for name, shape in self._shapes.items()
        )

    def initial(self) -> Params:
        """Return A and B before the first inner step, as `<name of the weight>.a` and `.b`."""
        return dict(zip(self._shapes, self.parts, strict=True))

    def weights(self, params: Params) -> Params:
        """Return the corrected weights W' by name, given A and B in `params`; other entries are ignored."""
        with self._partition.encoder.run_lock.shared():
            start = dict(self._partition.encoder.model.named_parameters())
        return {n: start[n] + _SCALE * params[f"{n}.b"] @ params[f"{n}.a"] for n in self._partition.names}
