"""Kept step: the outer step whose meta-parameters a run ends with, and a warning if that is the untouched encoder."""

from collections.abc import Iterable
from dataclasses import dataclass

from quickstudy.training.record import StepRecord


@dataclass(frozen=True, slots=True)
class KeptStep:
    """The outer step whose meta-parameters a run ends with.

    Attributes:
        step: Its number; 0 is the encoder before the first step.
        steps: How many outer steps the run took.
        validation: Its meta-validation score, 0 to 1; None if it was not validated.
    """

    step: int
    steps: int
    validation: float | None

    @property
    def warning(self) -> str | None:
        """What to say if meta-training changed nothing; None if a later step was kept.

        >>> KeptStep(6, 12, 0.7).warning is None
        True
        """
        if self.step or not self.steps:
            return None
        return (
            f"meta-training did not help: none of the {self.steps} outer steps scored higher on the meta-validation "
            "tasks than the encoder that the run started from. That encoder was kept (step 0), so nothing was "
            "learned.\n"
            "  Try more outer steps, another outer_lr, more validation_episodes, or meta-train tasks that are closer "
            "to the meta-validation tasks."
        )

    def describe(self) -> str:
        """Return the step and its score in words.

        >>> KeptStep(6, 12, 0.7131).describe()
        'step 6 of 12, meta-validation score 71.3 %'
        >>> KeptStep(0, 12, 0.7).describe()
        'step 0 of 12 (the untouched encoder), meta-validation score 70.0 %'
        >>> KeptStep(12, 12, None).describe()
        'step 12 of 12, without meta-validation'
        """
        untouched = "" if self.step else " (the untouched encoder)"
        score = (
            "without meta-validation"
            if self.validation is None
            else f"meta-validation score {100 * self.validation:.1f} %"
        )
        return f"step {self.step} of {self.steps}{untouched}, {score}"


def find_kept(log: Iterable[StepRecord], keep: str) -> KeptStep | None:
    """Return the step that a run keeps; None if nothing is logged.

    Args:
        log: The records of the run.
        keep: `best` or `last`; see `OuterSettings`. Without meta-validation the best is the last.

    >>> log = [StepRecord(step, validation=score) for step, score in enumerate([0.5, 0.7, 0.7, None])]
    >>> find_kept(log, "best"), find_kept(log, "last")
    (KeptStep(step=1, steps=3, validation=0.7), KeptStep(step=3, steps=3, validation=None))
    """
    records = sorted(log, key=lambda record: record.step)
    if not records:
        return None
    last = kept = records[-1]
    if keep == "best":
        best = None
        for record in records:
            if record.validation is not None and is_better(record.validation, best):
                kept, best = record, record.validation
    return KeptStep(kept.step, last.step, kept.validation)


def is_better(score: float, best: float | None) -> bool:
    """Whether a meta-validation score is better than the best so far; an equal score is not.

    >>> is_better(0.5, None), is_better(0.6, 0.5), is_better(0.5, 0.5)
    (True, True, False)
    """
    return best is None or score > best
