"""Versions: with what, where and when figures are made; goes into every results file."""

import datetime
import platform
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import torch
import transformers

from quickstudy._version import __version__


def versions(*beside: str) -> dict[str, str]:
    """Return the versions of what computes, the machine, and the date.

    Args:
        beside: Other packages that take part.
    """
    threads = torch.get_num_threads()
    return {
        "quickstudy": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        **{package: version(package) for package in beside},
        "machine": f"{_processor()}, {threads} thread{'s' * (threads > 1)}",
        "date": datetime.date.today().isoformat(),
    }


def _processor() -> str:
    with suppress(OSError):  # not Linux
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.machine()
