"""Budget: how far a meta-training has come, on the scale of its outer steps.

    position of step t = t                                    a number of outer steps
    position of step t = outer_steps · spent / seconds        a budget of processor time

The schedule of the rates, what methods anneal, and the end of the loop all follow the position. So a training with a
budget of time warms up and decays over its budget, however many steps fit into it, and no trial has to tell how many
that will be. Processor time counts the work of all threads, and it does not depend on what else the machine does.
"""

import time
from collections.abc import Callable
from typing import Protocol


class Budget(Protocol):
    """How much a meta-training may spend."""

    def begin(self) -> None:
        """Start to count; the loop calls it once, before its first step."""
        ...

    def position(self, step: int) -> float:
        """Return how far the training is before a step, from 0 to `outer_steps`, where it ends."""
        ...


class Steps:
    """A budget of outer steps: a step is as far as its number."""

    def begin(self) -> None:
        """Nothing needs to be counted."""

    def position(self, step: int) -> float:
        return step


class CoreSeconds:
    """A budget of processor time.

    The training ends where it comes closest to its budget, as far as can be known. A step is not begun if it would pass
    the budget by more than it leaves unspent, were it as long as the longest so far.

    Args:
        seconds: Processor seconds, over all threads of the process.
        outer_steps: The scale of the positions, which the settings of the outer loop use for the warm-up.
        clock: Returns the processor seconds that the process has spent.

    Attributes:
        spent: Processor seconds from the begin to the last position that was asked for.

    >>> ticks = iter([0.0, 0.0, 4.0, 8.0])
    >>> budget = CoreSeconds(10.0, outer_steps=100, clock=lambda: next(ticks))
    >>> budget.begin()
    >>> [budget.position(step) for step in range(3)]
    [0.0, 40.0, 100.0]
    """

    def __init__(self, seconds: float, outer_steps: int, clock: Callable[[], float] = time.process_time) -> None:
        self.seconds, self.outer_steps, self._clock = seconds, outer_steps, clock
        self._began = self.spent = self._longest = 0.0

    def begin(self) -> None:
        self._began = self._clock()

    def position(self, step: int) -> float:
        before, self.spent = self.spent, self._clock() - self._began
        self._longest = max(self._longest, self.spent - before)
        over = self.spent + self._longest / 2 >= self.seconds
        return float(self.outer_steps) if over else self.outer_steps * self.spent / self.seconds
