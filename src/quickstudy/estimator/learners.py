"""Learners: what a classifier starts from, opened once per process, however often it is fitted.

This module owns the opened learners. They are shared by all classifiers and are never changed: adapting changes no
meta-parameters. A run whose files have changed is opened again.
"""

from functools import lru_cache
from pathlib import Path

from quickstudy.methods.base import MetaLearner
from quickstudy.methods.support_steps import after_steps
from quickstudy.prior import load_prior
from quickstudy.runs import Run

_PRIOR = "the prior that ships with quickstudy"


def open_learner(run: str | Path | Run | None, steps: int = 0) -> tuple[MetaLearner, str]:
    """Return the learner of a run, or the prior, and what it is called.

    Args:
        run: The run, or its folder; None for the prior.
        steps: Gradient steps that it takes on a support set before it makes its head.

    Raises:
        QuickstudyError: There is no such run, it is not finished, it cannot be read, or it takes no steps.
    """
    learner, name = _opened(run)
    return after_steps(learner, steps), name


def _opened(run: str | Path | Run | None) -> tuple[MetaLearner, str]:
    if run is None:
        return load_prior(), _PRIOR
    opened = run if isinstance(run, Run) else Run.open(run)
    opened.check_finished()
    return _open(opened.folder.resolve(), opened.files.learned.stat().st_mtime_ns), opened.folder.name


@lru_cache(maxsize=2)
def _open(folder: Path, _written: int) -> MetaLearner:
    return Run.open(folder).learner()
