"""Versions: with what, where and when figures are made; goes into every results file."""

import datetime
import platform

import torch
import transformers

import quickstudy


def versions() -> dict[str, str]:
    """Return the versions of what computes, the machine, and the date."""
    return {
        "quickstudy": quickstudy.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "date": datetime.date.today().isoformat(),
    }
