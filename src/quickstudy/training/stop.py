"""Stop: SIGTERM, which schedulers send before they take a machine away, is a wish that the training can follow.

The first one is only noted. The loop saves after the outer step that it is in, and then ends with `TerminatedError`. A
second one ends the process at once.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopWish:
    """Whether the training was asked to stop.

    Attributes:
        asked: Whether SIGTERM came.
    """

    def __init__(self) -> None:
        self.asked = False

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Note the signal, and let the next one end the process."""
        self.asked = True
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def noted_sigterm() -> Iterator[StopWish]:
    """Give the wish to stop, while a block runs.

    A program that has a handler of its own keeps it. Other threads than the main one get no signals.
    """
    wish = StopWish()
    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if mine:
        signal.signal(signal.SIGTERM, wish.note)
    try:
        yield wish
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
