"""Inference: faster encoders on a processor, while no gradients flow.

    batches      each thread takes whole ones, where PyTorch has all threads share every operation
    products     y = x W^T + b with W laid out once for oneDNN
    attention    keys to a whole number of vector registers; those added are masked, so they weigh nothing

Threads of their own do not wait for each other after each operation. PyTorch gives float32 products to its BLAS, which lays
out W again in every call; laid out once they are up to 1.15 times as fast. Its attention takes the exponentials of a row in
registers of 16 (AVX-512) and what is left over one by one, so rows of 9 to 15 keys cost more than rows of 16 (up to 1.7 times
as much). All measured in dev/LOG.md; results differ by rounding.

Nothing is known about the model: its calls are caught while the context lasts, so this serves every encoder. Weights are laid
out at first sight and forgotten at the end, so none goes stale.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event, Lock
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import linear, pad, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

Item = TypeVar("Item")
Result = TypeVar("Result")

_LEAST_WEIGHT = 64 * 64  # a smaller matrix gains nothing
_LANES = 16  # float32 numbers in a register of AVX-512; attention is computed in float32 in every precision
_ALONE = Lock()  # PyTorch's number of threads is the whole process's
_current: ContextVar["_Fast | None"] = ContextVar("_current", default=None)


@contextmanager
def fast_inference() -> Iterator[None]:
    """While this lasts, encoders on the processor run faster; no gradients flow, and no weight may change."""
    with torch.no_grad(), _Fast() as fast:
        token = _current.set(fast)
        try:
            yield
        finally:
            _current.reset(token)


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return the function's results, in order; within `fast_inference` several threads take items, as many as PyTorch has.

    Meanwhile PyTorch's own number of threads is 1, for the whole process, and a thread that first uses PyTorch meanwhile keeps
    1: a server sets the number in its threads before they predict. Of several calls at once one runs.

    Args:
        function: What to do with an item; it may write nothing that others read.
        items: Read when a thread is free for one, by one thread at a time; not to the end once something has failed.
    """
    fast, threads = _current.get(), torch.get_num_threads()
    if fast is None or threads == 1:
        return [function(item) for item in items]
    source, one_at_a_time, stop = enumerate(items), Lock(), Event()
    found: dict[int, Result] = {}

    def work(_: int) -> None:
        try:
            with torch.no_grad(), fast:
                while True:
                    with one_at_a_time:
                        following = None if stop.is_set() else next(source, None)
                    if following is None:
                        break
                    found[following[0]] = function(following[1])
        finally:  # there is no item left, or something failed
            stop.set()

    with _ALONE, ThreadPoolExecutor(threads) as pool:
        torch.set_num_threads(1)  # what a new thread begins with, and what the BLAS takes for all
        try:
            list(pool.map(work, range(threads)))
        finally:
            stop.set()  # an interrupt is not kept waiting
            torch.set_num_threads(threads)
    return [found[at] for at in range(len(found))]


class _Fast(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        # The weight is kept beside its packed form: as long as it lives, no other tensor has its id.
        self._known: dict[int, tuple[Tensor, Tensor]] = {}
        self._packs = _packs()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is linear and self._packs and not kwargs and _fits(args[0], args[1]):
            return self._product(*args)
        if func is scaled_dot_product_attention and _worth_filling(*args, **kwargs):
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if id(weight) not in self._known:
            self._known[id(weight)] = weight, torch.ops.mkldnn._reorder_linear_weight(weight.detach())
        packed = self._known[id(weight)][1]
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
        return product


def _fits(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32  # bfloat16 is oneDNN's already, and packing gains nothing there
        and weight.dim() == 2
        and weight.numel() >= _LEAST_WEIGHT
        and x.numel() > 0
    )


def _packs() -> bool:
    """Whether PyTorch has oneDNN and the operators, which are those that its own compiler uses."""
    try:
        return torch.backends.mkldnn.is_available() and all(  # type: ignore[no-untyped-call]
            getattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
        )
    except AttributeError:
        return False


def _worth_filling(query: Tensor, key: Tensor, *others: Any, **kwargs: Any) -> bool:
    """Whether all queries attend to all keys, and of the last register the larger half would be filled."""
    plain = len(others) <= 1 and kwargs.get("attn_mask") is None and not kwargs.get("is_causal")
    fused = query.device.type == "cpu" and query.dtype in (torch.float32, torch.bfloat16)
    return plain and fused and key.shape[-2] % _LANES > _LANES // 2


def _attention(query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Tensor:
    """Return the attention of queries, (..., Q, D), to keys, (..., K, D), that are filled up to whole registers."""
    keys = key.shape[-2]
    spare = -keys % _LANES
    mask = pad(query.new_zeros(keys), (0, spare), value=-torch.inf).expand(*query.shape[:-1], -1)
    key, value = (pad(states, (0, 0, 0, spare)) for states in (key, value))
    return scaled_dot_product_attention(query, key, value, **{**kwargs, "attn_mask": mask})
