"""Linear: the matrix products of inference by oneDNN, with weights laid out once for its kernels.

    y = x W^T + b          the same sums as `torch.nn.functional.linear`, taken in another order

PyTorch gives float32 products on a processor to its BLAS, which lays out W again in every call; laid out once they are up to
1.15 times as fast where that was measured (dev/LOG.md). Nothing is known about the model: calls of `linear` are caught while
the context lasts, so this serves every encoder, with its own weights or adapted ones. Weights are laid out at first sight and
forgotten at the end, so none goes stale.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_LEAST_WEIGHT = 64 * 64  # a smaller matrix gains nothing


@contextmanager
def packed_linear() -> Iterator[None]:
    """While this lasts, linear layers on the processor run packed; no gradients flow, and no weight may change.

    Does nothing where PyTorch was built without oneDNN.
    """
    with torch.no_grad():
        if not _available():
            yield
            return
        with _Packed():
            yield


class _Packed(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        # The weight is kept beside its packed form: as long as it lives, no other tensor has its id.
        self._known: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.nn.functional.linear and not kwargs and _fits(args[0], args[1]):
            x, weight, *bias = args
            if id(weight) not in self._known:
                self._known[id(weight)] = weight, torch.ops.mkldnn._reorder_linear_weight(weight.detach())
            packed = self._known[id(weight)][1]
            return torch.ops.mkldnn._linear_pointwise(x, packed, bias[0] if bias else None, "none", [], "")
        return func(*args, **(kwargs or {}))


def _fits(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32  # bfloat16 is oneDNN's already, and packing gains nothing there
        and weight.dim() == 2
        and weight.numel() >= _LEAST_WEIGHT
        and x.numel() > 0
    )


def _available() -> bool:
    """Whether PyTorch has the operators, which are those that its own compiler uses."""
    try:
        return torch.backends.mkldnn.is_available() and all(  # type: ignore[no-untyped-call]
            getattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
        )
    except AttributeError:
        return False
