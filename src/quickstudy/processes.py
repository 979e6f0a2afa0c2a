"""Processes: the processes of one run start, decide and end together.

`torchrun` and `accelerate launch` start P processes and tell each its number. All of them run the same lines and meet in the same
order. An error of one process is held until they meet the next time, and then raised in all of them, so that none waits for
one that has gone. One that is killed can hold nothing: its connections break, and whoever waits for it fails at once.

There are two groups: gradients go through the device's own (gloo, NCCL), small values and errors through gloo on the processor.
gloo notices a closed connection at once, so its limit may be long, and it must be: one process may prepare data or write a
checkpoint while the others wait. NCCL may not notice, so its limit is short; only the uneven ends of an outer step wait there.
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

# torch and accelerate are imported by what needs them: the command line starts without them.

T = TypeVar("T")

GRADIENT_LIMIT, MEETING_LIMIT = timedelta(seconds=60), timedelta(minutes=30)


class ProcessError(RunError):
    """What went wrong in one process, raised in all; the cause in the process where it did."""


class ContactError(ProcessError):
    """Another process has ended or cannot be reached: each that is left finds out for itself."""


def world_size() -> int:
    """Return the number of processes that run together (P); 1 until they have joined."""
    distributed = sys.modules.get("torch.distributed")
    joined = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return int(distributed.get_world_size()) if distributed and joined else 1


def rank() -> int:
    """Return the number of this process, 0 to P - 1."""
    return int(os.environ.get("RANK", "0")) if _launched() else 0


def is_main() -> bool:
    """Return whether this is the process that writes and prints."""
    return rank() == 0


def join() -> None:
    """Join the processes that were launched together with this one; nothing to do for one alone, or a second time.

    Raises:
        RunError: They cannot work together on this device.
    """
    if not _launched() or world_size() > 1:
        return
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    on_processor = not torch.accelerator.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")
    # accelerate joins processes without an accelerator only when asked to: each would train alone, without a word.
    state = PartialState(cpu=on_processor, timeout=MEETING_LIMIT if on_processor else GRADIENT_LIMIT)
    if state.num_processes != int(os.environ["WORLD_SIZE"]):
        raise RunError(
            f"{os.environ['WORLD_SIZE']} processes were launched, but on {state.device} they cannot work together",
            fix="Start one process, or set ACCELERATE_USE_CPU=true.",
        )
    _meeting_group()


class Held:
    """A place for an error of this process until the processes meet; alone, an error is raised as ever."""

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
    """Run a block in all processes; when one of them fails, all do.

    Raises:
        ProcessError: Another process failed; with its number and its message. If all failed alike, each raises its own error.
    """
    join()
    held = Held()
    with held:
        yield
    gather(None, held)


def gather(value: T, held: Held | None = None) -> list[T]:
    """Meet the other processes, and return the value of each, by number.

    Args:
        value: A small value of this process; pickled.
        held: Its errors so far.

    Raises:
        ProcessError: One of them failed.
    """
    error = held.error if held else None
    if world_size() == 1:
        return [value]
    import torch.distributed as dist

    mine = None if error is None else _describe(error)
    found: list[Any] = [None] * world_size()
    with _contact():
        dist.all_gather_object(found, (mine, value), group=_meeting_group())
    failed = {process: told for process, (told, _) in enumerate(found) if told}
    if error and len(failed) == world_size() and len(set(failed.values())) == 1:
        raise error
    for process, (what, where, fix) in failed.items():
        raise ProcessError(f"process {process} of {world_size()}: {what}", where=where, fix=fix) from error
    return [value for _, value in found]


def all_reduce(tensor: "Tensor") -> None:
    """Replace a tensor by its sum over all processes.

    Raises:
        ContactError: One of them cannot be reached.
    """
    import torch.distributed as dist

    with _contact():
        dist.all_reduce(tensor)


def broadcast(tensors: "Iterator[Tensor]") -> None:
    """Give all processes the main one's values; nothing to do for one alone.

    Raises:
        ContactError: One of them cannot be reached.
    """
    if world_size() == 1:
        return
    import torch.distributed as dist

    with _contact():
        for tensor in tensors:
            dist.broadcast(tensor.detach(), src=0)


def leave() -> None:
    """Wait until all processes have said what they have to say, and leave the group: a launcher kills all when one ends."""
    if world_size() == 1:
        return
    import torch.distributed as dist

    with suppress(RuntimeError):  # one has gone before; there is nothing left to wait for
        dist.barrier(group=_meeting_group())
    _meeting_group.cache_clear()
    dist.destroy_process_group()


def _launched() -> bool:
    # LOCAL_RANK too: some clusters set WORLD_SIZE for jobs of one process per machine that know nothing of each other.
    return "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


@cache
def _meeting_group() -> Any:
    import torch.distributed as dist

    return dist.new_group(backend="gloo", timeout=MEETING_LIMIT)


@contextmanager
def _contact() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ContactError(
            f"process {rank()} of {world_size()} has lost the others ({reason})",
            fix="One has ended: see what it said, or what its launcher says of it. Then go on with: quickstudy pretrain --resume",
        ) from error


def _describe(error: Exception) -> tuple[str, str | None, str | None]:
    if isinstance(error, QuickstudyError):
        return error.what, error.where, error.fix
    if isinstance(error, OSError):
        return error.strerror or str(error), error.filename and str(error.filename), "Check space and permissions."
    return f"{type(error).__name__}: {error}", None, None
