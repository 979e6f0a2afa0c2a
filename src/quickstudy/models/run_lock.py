"""RunLock: many runs of a model with its own weights at once, or a single run with weights from outside.

PyTorch runs a model with other weights by putting them into the model for as long as the run takes. Another thread
that runs the same model meanwhile would get the wrong weights. So a run with weights from outside waits until all
other runs have ended, and those that come later wait for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, RLock


class RunLock:
    """Says who may run a model.

    >>> lock = RunLock()
    >>> with lock.shared(), lock.shared():
    ...     pass
    >>> with lock.alone():
    ...     pass
    """

    def __init__(self) -> None:
        self._entrance = RLock()  # held by a run that is alone, so that no other run begins
        self._ended = Condition()
        self._running = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Run the model with its own weights, or read them; others may do the same at once."""
        with self._entrance, self._ended:
            self._running += 1
        try:
            yield
        finally:
            with self._ended:
                self._running -= 1
                self._ended.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Run the model with weights from outside; never within `shared`, whose end it would wait for."""
        with self._entrance, self._ended:
            self._ended.wait_for(lambda: self._running == 0)
            yield

    def __deepcopy__(self, _memo: object) -> "RunLock":
        return RunLock()  # the copy of a model is another model
