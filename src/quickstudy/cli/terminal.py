"""Terminal: the only place where lines are printed; what comes from data cannot steer the terminal."""

import io
import sys
from typing import TextIO

from quickstudy.visible import visible


def say(text: str = "", *, file: TextIO | None = None) -> None:
    """Print a line, with control characters made visible.

    Args:
        text: What to print.
        file: Where; by default standard output.
    """
    print(visible(text), file=file or sys.stdout, flush=True)


def accept_all_characters() -> None:
    """Let characters that the terminal's encoding does not have, and bytes in names of files, be printed as codes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
