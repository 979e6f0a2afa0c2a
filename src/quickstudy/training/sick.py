"""Sick numbers: episodes whose loss or gradient is NaN or infinite are left out, counted and named.

    left out in the last ten outer steps > max_left_out · 10 · M         the run stops

One such episode would make the meta-gradient, the moments of the optimizer and then all meta-parameters NaN. So it does
not count, and the mean is over the others. If no episode is left, the meta-parameters and the optimizer stay as they
are. Only where a meta-gradient is not finite are the episodes taken one by one; all other steps cost what they did.
"""

import logging
from collections.abc import Sequence

WINDOW = 10  # outer steps

_log = logging.getLogger(__name__)


def note_left_out(before: Sequence[int], sick: Sequence[str]) -> tuple[int, ...]:
    """Return how many episodes were left out in each of the last steps, with one more step.

    >>> note_left_out((0, 1), ["tone"])
    (0, 1, 1)
    >>> len(note_left_out((0,) * 10, []))
    10
    """
    return (*before, len(sick))[-WINDOW:]


def say_left_out(sick: Sequence[str]) -> None:
    """Say which tasks had to be left out; the log of the run says in which steps."""
    for task in sorted(set(sick)):
        _log.warning(
            "task %r: an episode is left out where its loss or gradient is NaN or infinite; metrics.jsonl says when",
            task,
        )
