"""Trial: one support set, and the examples that a learner is scored on after it has adapted.

A planned task holds everything that evaluating it needs, as values: it can be handed to another process, and the data
are read once, when it is planned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from quickstudy.evaluation.hashing import content_hash, hash_of
from quickstudy.evaluation.record import Shots
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Task

Examples = tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """One support set and what a learner that adapted to it is scored on.

    Attributes:
        shots: Labelled examples per class, or `all`.
        draw: Number of the support set.
        label_names: Position = label; empty for regression. An episode has labels of its own.
        support: Examples to adapt to.
        tests: Examples to score; the same object for trials that share them.
    """

    shots: Shots
    draw: int
    label_names: tuple[str, ...]
    support: Examples
    tests: Examples


@dataclass(frozen=True)
class PlannedTask:
    """A task as it is evaluated.

    Attributes:
        task: What is known of it; its rows stand in the trials alone.
        trials: By shots and draw, few shots first.
    """

    task: Task
    trials: tuple[Trial, ...]

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.task.name

    @cached_property
    def by_shots(self) -> dict[Shots, tuple[Trial, ...]]:
        """Its trials at each number of shots."""
        numbers = dict.fromkeys(trial.shots for trial in self.trials)
        return {shots: tuple(trial for trial in self.trials if trial.shots == shots) for shots in numbers}

    @cached_property
    def scored(self) -> Examples:
        """The examples that any of its trials scores, each once."""
        shared = {id(trial.tests): trial.tests for trial in self.trials}
        return tuple(dict.fromkeys(example for tests in shared.values() for example in tests))


def trials_hash(trials: Sequence[Trial]) -> str:
    """Return a hash of the texts and labels of trials."""
    sets = {id(each): (each, trial.label_names) for trial in trials for each in (trial.support, trial.tests)}
    hashes = {key: hash_of([content_hash(e, names) for e in examples]) for key, (examples, names) in sets.items()}
    return hash_of([[t.shots, t.draw, t.label_names, hashes[id(t.support)], hashes[id(t.tests)]] for t in trials])
