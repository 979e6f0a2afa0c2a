"""GraphSize: how many numbers the graph of a pass through an encoder holds, per token and per pair of tokens in a row.

    graph of a batch = a · B T + b · B T²        b is of attention, where its weights are kept

Which results of a layer are kept for the gradient depends on the layer's code and not on the sizes. So the graphs of
two small batches tell a and b of any encoder. In BERT a pass keeps 16 numbers per token, layer and hidden unit, and a
second-order step 32.
"""

from collections.abc import Collection, Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

_ROWS, _LENGTHS = 2, (4, 8)


@dataclass(frozen=True, slots=True)
class GraphSize:
    """The numbers that a graph holds per token, and per pair of tokens in a row."""

    per_token: float
    per_pair: float

    def of(self, tokens: float, pairs: float) -> float:
        """Return how many numbers the graph of a batch holds."""
        return self.per_token * tokens + self.per_pair * pairs


def measure_graph(model: nn.Module, names: Collection[str] | None = None, *, second: bool = False) -> GraphSize:
    """Return the size of a graph, from two small batches.

    Args:
        model: A Hugging Face model; nothing of it changes.
        names: The parameters that the gradient is of; None for all.
        second: Whether the graph is that of a second-order step: of the pass and of its gradient.
    """
    short, long = (_numbers(model, names, length, second=second) / (_ROWS * length) for length in _LENGTHS)
    per_pair = (long - short) / (_LENGTHS[1] - _LENGTHS[0])
    return GraphSize(short - per_pair * _LENGTHS[0], per_pair)


def _numbers(model: nn.Module, names: Collection[str] | None, length: int, *, second: bool) -> float:
    """Return how many numbers a graph holds beside the parameters, their gradients and the inputs."""
    params = {name: p.detach() for name, p in model.named_parameters()}
    asked = [p.requires_grad_() for name, p in params.items() if names is None or name in names]
    ids = torch.full((_ROWS, length), 5, device=asked[0].device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    held: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    grads: tuple[Tensor | None, ...] = ()
    with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor), _kernel(second=second):
        states = functional_call(model, params, kwargs=inputs).last_hidden_state
        if second:
            loss = states.square().sum()
            grads = torch.autograd.grad(loss, asked, create_graph=True, allow_unused=True)
    known = _places(params.values()) | _places(inputs.values()) | _places(g for g in grads if g is not None)
    size = asked[0].element_size()
    return sum(t.untyped_storage().nbytes() for place, t in held.items() if place not in known) / size


def _kernel(*, second: bool) -> "sdpa_kernel | nullcontext[None]":  # type: ignore[valid-type]
    return sdpa_kernel(SDPBackend.MATH) if second else nullcontext()


def _places(tensors: Iterable[Tensor]) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}
