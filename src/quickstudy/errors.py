"""Errors: what went wrong, where, and how to fix it, in one message a user can act on.

Every error that a user's input can cause is a `QuickstudyError`. The command line prints its text and leaves with
exit code 2, without a traceback; from Python it is an ordinary exception.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class QuickstudyError(Exception):
    """A mistake in the input, with the place and the way out.

    Args:
        what: One sentence that says what is wrong.
        where: The place, e.g. `few.csv:12`; None when there is none.
        fix: How to fix it; None when `what` already says so.

    >>> print(QuickstudyError("the text is empty", where="few.csv:12", fix="Fill it in or delete the row."))
    few.csv:12: the text is empty
      Fill it in or delete the row.
    """

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        text = f"{where}: {what}" if where else what
        super().__init__(f"{text}\n  {fix}" if fix else text)


class DataError(QuickstudyError, ValueError):
    """A data file, a data set or a task that cannot be used. It is a `ValueError`, as scikit-learn expects of input."""


class RecipeError(QuickstudyError):
    """A recipe or a setting that cannot be used."""


class RunError(QuickstudyError):
    """A run or model folder that cannot be read or written."""


class TerminatedError(SystemExit):
    """A training that SIGTERM ended after it was saved. Without a handler, the process leaves with exit code 143."""

    def __init__(self) -> None:
        super().__init__(143)


class NothingLearnedWarning(UserWarning):
    """A meta-training after which the encoder is still the untouched one."""


class NoExampleWarning(UserWarning):
    """A label that a model knows by its description alone."""


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return `Did you mean 'x'?` for the closest option, else the list of options.

    >>> did_you_mean("outer_step", ["outer_steps", "outer_lr"])
    "Did you mean 'outer_steps'?"
    >>> did_you_mean("zzz", ["b", "a"])
    'Choose one of: a, b.'
    """
    names = sorted(options)
    close = get_close_matches(word, names, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Choose one of: {', '.join(names)}." if names else "There is nothing to choose from."
