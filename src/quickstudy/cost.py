"""Cost: seconds and peak memory of a block of code.

Peak memory is the most that the process holds while the block runs. On a GPU it is what PyTorch has allocated there.
On a processor it is resident memory, and Linux lets a process reset its peak (proc(5), clear_refs). Where the system
does not allow this, the peak is not known.
"""

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MEMORY, _GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


@dataclass
class Cost:
    """What a block took.

    Attributes:
        seconds: Wall time.
        peak_mib: Most memory held, in MiB; None where it cannot be measured.
        more_mib: How much more that is than what was held before.
    """

    seconds: float = 0.0
    peak_mib: float | None = None
    more_mib: float | None = None


@contextmanager
def measure(device: torch.device) -> Iterator[Cost]:
    """Fill in a cost when the block ends.

    Args:
        device: Where the block computes.

    >>> with measure(torch.device("cpu")) as small:
    ...     pass
    >>> with measure(torch.device("cpu")) as large:
    ...     _ = torch.ones(16 << 20).sum()
    >>> large.seconds > small.seconds and (large.peak_mib is None or large.peak_mib > small.peak_mib + 32)
    True
    """
    cost, known = Cost(), _restart(device)
    before = peak_mib(device) if known else None
    tick = time.perf_counter()
    yield cost
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    cost.seconds = time.perf_counter() - tick
    cost.peak_mib = peak_mib(device) if known else None
    if cost.peak_mib is not None and before is not None:
        cost.more_mib = cost.peak_mib - before


def peak_mib(device: torch.device) -> float | None:
    """Return the most memory, in MiB, that the process has held on a device; None where it cannot be measured."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)


def free_mib(device: torch.device) -> float | None:
    """Return the memory, in MiB, that is left on a device for this process; None where it is not known.

    Processes that were launched together on one machine share what the processor has.
    """
    if device.type == "cuda":
        # PyTorch keeps memory that it has reserved and not allocated. The next tensors can use it.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (torch.cuda.mem_get_info(device)[0] + kept) / 2**20
    limits = []
    with suppress(OSError, ValueError):
        line = next(line for line in _MEMORY.read_text().splitlines() if line.startswith("MemAvailable:"))
        limits.append(int(line.split()[1]) / 1024)
    with suppress(OSError, ValueError):  # a container's limit, in bytes, or "max"
        limits.append((int((_GROUP / "memory.max").read_text()) - int((_GROUP / "memory.current").read_text())) / 2**20)
    return min(limits) / int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if limits else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory."""
    phrases = "DefaultCPUAllocator", "std::bad_alloc", "ALLOC_FAILED", "out of memory"  # in a plain RuntimeError
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(phrase in str(error) for phrase in phrases)


def _restart(device: torch.device) -> bool:
    """Set the high-water mark to what is held now; return whether that is possible."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return True
    with suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before is not held
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return True
