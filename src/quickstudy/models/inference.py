"""Inference: faster encoders on a processor, while no gradients flow.

    batches      each thread takes whole batches, while in PyTorch all threads share every operation
    products     y = x W^T + b, with W laid out once for oneDNN, and rows of zeros behind those of x up to whole blocks
    attention    keys are filled up to a whole number of vector registers; added keys are masked, so they weigh nothing

Threads that take whole batches do not wait for each other after each operation. PyTorch gives float32 products to its
BLAS, which lays out W again in every call; with W laid out once, products are up to 1.15 times as fast. PyTorch's
attention computes the exponentials of a row in registers of 16 numbers (AVX-512), and the rest one by one. So rows of
9 to 15 keys cost up to 1.7 times as much as rows of 16. For each number of rows that x has had, oneDNN keeps half a MiB
until the process ends. The batches of a large file have hundreds of such numbers, and whole blocks have few. All
figures were measured in dev/LOG.md. Results differ by rounding.

The code knows nothing about the model: it intercepts the model's calls while the context lasts, so it serves every
encoder. Weights are laid out when they are first seen, and forgotten at the end, so that none goes out of date.
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
_BLOCK = 32  # rows of x; with more, fewer shapes are kept, and more zeros are multiplied
_LANES = 16  # float32 numbers in a register of AVX-512; attention is computed in float32 in every precision
_ALONE = Lock()  # PyTorch has one number of threads for the whole process
_current: ContextVar["_Fast | None"] = ContextVar("_current", default=None)


@contextmanager
def fast_inference() -> Iterator[None]:
    """While this lasts, encoders on the processor run faster. No gradients flow, and no weight may change."""
    with torch.no_grad(), _Fast() as fast:
        token = _current.set(fast)
        try:
            yield
        finally:
            _current.reset(token)


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return the function's results in the order of the items.

    Within `fast_inference`, as many threads take items as PyTorch has. Meanwhile PyTorch's number of threads is 1 for
    the whole process, and a thread that uses PyTorch for the first time meanwhile keeps 1. A server therefore sets
    the number in its threads before they predict. If there are several calls at the same time, they run one after the
    other.

    Args:
        function: What to do with an item. It may not write anything that other calls read.
        items: The items. A thread that is free reads the next one, one thread at a time. After an error none is read.
    """
    fast, threads = _current.get(), torch.get_num_threads()
    if fast is None or threads == 1:
        return [function(item) for item in items]
    source, one_at_a_time, stop = enumerate(items), Lock(), Event()
    results: dict[int, Result] = {}

    def work(_: int) -> None:
        try:
            with torch.no_grad(), fast:
                while True:
                    with one_at_a_time:
                        following = None if stop.is_set() else next(source, None)
                    if following is None:
                        break
                    results[following[0]] = function(following[1])
        finally:  # there is no item left, or a call failed
            stop.set()

    with _ALONE, ThreadPoolExecutor(threads) as pool:
        torch.set_num_threads(1)  # a new thread starts with this number, and the BLAS uses it for all threads
        try:
            list(pool.map(work, range(threads)))
        finally:
            stop.set()  # after an interrupt the threads end too
            torch.set_num_threads(threads)
    return [results[position] for position in range(len(results))]


class _Fast(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        # The weight is stored beside its packed form: while it is stored, no other tensor has its id.
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
        rows = _whole_blocks(x)
        if weight.dtype == torch.bfloat16:  # goes to oneDNN already, and packing gains nothing
            product = linear(rows, weight, bias)
        else:
            if id(weight) not in self._known:
                self._known[id(weight)] = weight, torch.ops.mkldnn._reorder_linear_weight(weight.detach())
            packed = self._known[id(weight)][1]
            product = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")
        return product[: x.shape[:-1].numel()].view(*x.shape[:-1], -1)


def _fits(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.dim() > 1
        and weight.dim() == 2
        and weight.numel() >= _LEAST_WEIGHT
        and x.numel() > 0
    )


def _whole_blocks(x: Tensor) -> Tensor:
    """Return x, (..., F), as rows, (R, F), with rows of zeros behind them up to a whole number of blocks."""
    rows = x.flatten(0, -2)
    count = len(rows)
    if count % _BLOCK == 0:
        return rows
    filled = rows.new_empty(count - count % _BLOCK + _BLOCK, rows.shape[1])
    filled[:count], filled[count:] = rows, 0
    return filled


def _packs() -> bool:
    """Whether PyTorch has oneDNN, and the operators that its compiler uses."""
    try:
        return torch.backends.mkldnn.is_available() and all(  # type: ignore[no-untyped-call]
            getattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
        )
    except AttributeError:
        return False


def _worth_filling(query: Tensor, key: Tensor, *others: Any, **kwargs: Any) -> bool:
    """Whether all queries attend to all keys, and the last register is more than half full."""
    plain = len(others) <= 1 and kwargs.get("attn_mask") is None and not kwargs.get("is_causal")
    fused = query.device.type == "cpu" and query.dtype in (torch.float32, torch.bfloat16)
    return plain and fused and key.shape[-2] % _LANES > _LANES // 2


def _attention(query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Tensor:
    """Return the attention of queries, (..., Q, D), to keys, (..., K, D), which are filled up to whole registers."""
    keys = key.shape[-2]
    added = -keys % _LANES
    mask = pad(query.new_zeros(keys), (0, added), value=-torch.inf).expand(*query.shape[:-1], -1)
    key, value = (pad(states, (0, 0, 0, added)) for states in (key, value))
    return scaled_dot_product_attention(query, key, value, **{**kwargs, "attn_mask": mask})
