"""Importing: large packages are imported without searches for garbage in between.

Python searches for garbage after every 700 new objects that stay, and every tenth search goes through older objects
too. PyTorch and transformers make more than half a million while they are imported, and nearly all stay. A third of
the time of their import goes into searches that find next to nothing.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """While this lasts, Python does not search for garbage; what was imported then counts as old, as it would have."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # the objects that a program has frozen itself stay frozen
            gc.freeze()  # these two move all objects to the oldest ones, without a look at any of them
            gc.unfreeze()
        gc.enable()
