"""Processes: the processes of one run start, decide and end together.

`torchrun` and `accelerate launch` start P processes, and each learns its rank, 0 to P - 1. All of them run the same
lines, each on its share of the episodes. Rank 0 is the main process: it alone writes files and prints.

The processes *meet* when each of them calls `gather`, `all_reduce` or `broadcast`: such a call returns only when all
have made it. So a process that stopped at its error would leave the others waiting. To prevent that, an error is
*held*:

    held = Held()
    with held:                     # an error in this block is kept in `held`; the process goes on after the block
        work_of_this_process()
    gather(None, held)             # all processes meet here, and the error is raised in all of them

    with together():               # the same in one block
        work_of_this_process()

A process that runs alone has nobody to wait for, so its errors are raised at once. A process that is killed cannot
hold an error, but its connections break, and the processes that wait for it fail at once.

There are two groups of connections. Gradients go through the device's group (gloo or NCCL); small values and errors
go through gloo on the processor. gloo notices a closed connection at once, so its limit of time may be long. It has
to be long, because one process may prepare data or write a checkpoint while the others wait. NCCL may not notice, so
its limit is short; there the processes only wait for the slowest of them in an outer step.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from quickstudy.errors import QuickstudyError, RunError

if TYPE_CHECKING:
    from torch import Tensor

# torch and accelerate are imported by the functions that need them, so that the command line starts without them.

T = TypeVar("T")

GRADIENT_LIMIT = timedelta(seconds=60)  # how long a process waits for gradients of the others
MEETING_LIMIT = timedelta(minutes=30)  # how long it waits for their small values and errors


class ProcessError(RunError):
    """The error of one process, raised in all. In the process where it happened, `__cause__` is the error itself."""


class ContactError(ProcessError):
    """Another process has ended or cannot be reached. Each process that is left raises this error by itself."""


def world_size() -> int:
    """Return how many processes run together (P); 1 until they have joined."""
    distributed = sys.modules.get("torch.distributed")
    joined = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return int(distributed.get_world_size()) if distributed and joined else 1


def rank() -> int:
    """Return the rank of this process, 0 to P - 1."""
    return int(os.environ.get("RANK", "0")) if _launched() else 0


def is_main() -> bool:
    """Return whether this is the process that writes and prints."""
    return rank() == 0


def join() -> None:
    """Join the processes that were launched together with this one; a second call, or a process alone, does nothing.

    Raises:
        RunError: They cannot work together on this device.
    """
    if not _launched() or world_size() > 1:
        return
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    on_processor = not torch.accelerator.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")
    # accelerate joins processes without an accelerator only if `cpu` is set; else each would silently train alone.
    state = PartialState(cpu=on_processor, timeout=MEETING_LIMIT if on_processor else GRADIENT_LIMIT)
    if state.num_processes != int(os.environ["WORLD_SIZE"]):
        raise RunError(
            f"{os.environ['WORLD_SIZE']} processes were launched, but on {state.device} they cannot work together",
            fix="Start one process, or set ACCELERATE_USE_CPU=true.",
        )
    _meeting_group()


class Held:
    """Keeps an error of this process until the processes meet; see the first lines of this file.

    Only the first error of several blocks is kept. Three kinds of error are not kept but raised at once: the error of
    another process, an interruption, and every error of a process that runs alone.

    Attributes:
        error: The error that is kept; None if there is none.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if world_size() == 1 or not isinstance(error, Exception) or isinstance(error, ProcessError):
            return False
        self.error = self.error or error
        return True


@contextmanager
def together() -> Iterator[None]:
    """Run a block in all processes, and meet at its end. If the block fails in one process, it fails in all.

    Raises:
        ProcessError: A process failed; the message names it. If all failed alike, each raises its error itself.
    """
    join()
    held = Held()
    with held:
        yield
    gather(None, held)


def gather(value: T, held: Held | None = None) -> list[T]:
    """Meet the other processes, and return the value of each, by rank.

    Args:
        value: A small value of this process; it is pickled.
        held: The errors of this process so far.

    Raises:
        ProcessError: One of the processes holds an error. If all hold the same, each raises its error itself.
    """
    error = held.error if held else None
    if world_size() == 1:
        return [value]
    import torch.distributed as dist

    failure_here = None if error is None else _describe(error)
    answers: list[Any] = [None] * world_size()
    with _contact():
        dist.all_gather_object(answers, (failure_here, value), group=_meeting_group())
    failures = {process: failure for process, (failure, _) in enumerate(answers) if failure}
    if error and len(failures) == world_size() and len(set(failures.values())) == 1:
        raise error
    for process, (what, where, fix) in failures.items():
        raise ProcessError(f"process {process} of {world_size()}: {what}", where=where, fix=fix) from error
    return [value for _, value in answers]


def all_reduce(tensor: "Tensor") -> None:
    """Replace a tensor by its sum over all processes.

    Raises:
        ContactError: Another process cannot be reached.
    """
    import torch.distributed as dist

    with _contact():
        dist.all_reduce(tensor)


def broadcast(tensors: "Iterator[Tensor]") -> None:
    """Replace tensors by the values that they have in the main process. Does nothing for a process that runs alone.

    Raises:
        ContactError: Another process cannot be reached.
    """
    if world_size() == 1:
        return
    import torch.distributed as dist

    with _contact():
        for tensor in tensors:
            dist.broadcast(tensor.detach(), src=0)


def leave() -> None:
    """Wait for the other processes, and leave the group.

    A launcher kills all processes when one of them ends, so none may end before all have printed what they have to
    say.
    """
    if world_size() == 1:
        return
    import torch.distributed as dist

    with suppress(RuntimeError):  # another process has ended before; there is nothing left to wait for
        dist.barrier(group=_meeting_group())
    _meeting_group.cache_clear()
    dist.destroy_process_group()


def _launched() -> bool:
    # LOCAL_RANK is needed too: some clusters set WORLD_SIZE for separate jobs of one process each.
    return "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


@cache
def _meeting_group() -> Any:
    import torch.distributed as dist

    return dist.new_group(backend="gloo", timeout=MEETING_LIMIT)


@contextmanager
def _contact() -> Iterator[None]:
    """Turn the error of a broken connection into a `ContactError`."""
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ContactError(
            f"process {rank()} of {world_size()} has lost the others ({reason})",
            fix="One of them has ended: see what it printed, or what the launcher says of it. Then go on with: "
            "quickstudy pretrain --resume",
        ) from error


def _describe(error: Exception) -> tuple[str, str | None, str | None]:
    """Return what, where and how to fix it, for the processes that did not raise the error."""
    if isinstance(error, QuickstudyError):
        return error.what, error.where, error.fix
    if isinstance(error, OSError):
        return error.strerror or str(error), error.filename and str(error.filename), "Check space and permissions."
    return f"{type(error).__name__}: {error}", None, None
