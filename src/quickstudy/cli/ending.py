"""Ending: what a verb says at its end: what to do next, or how to go on after Ctrl-C or SIGTERM.

Both go to standard error, so that a pipe gets results alone.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from quickstudy.cli.terminal import say
from quickstudy.errors import TerminatedError

INTERRUPTED = 130  # what shells report of a command that Ctrl-C ended


def say_next(what: str) -> None:
    """Say in one line what to do next."""
    say(f"next: {what}", file=sys.stderr)


@contextmanager
def interruptible(way_on: Callable[[], str]) -> Iterator[None]:
    """Leave with exit code 130 after Ctrl-C and 143 after SIGTERM, and say how to go on.

    Args:
        way_on: Returns how to go on; it is asked after the interruption.
    """
    try:
        yield
    except KeyboardInterrupt:
        from quickstudy.processes import is_main

        if is_main():
            say(f"interrupted; {way_on()}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    except TerminatedError as ended:
        from quickstudy.processes import is_main

        if is_main():
            say(f"terminated, and saved; {way_on()}", file=sys.stderr)
        raise typer.Exit(int(ended.code or 0)) from None
