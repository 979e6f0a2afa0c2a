"""Cell: the draws of one learner on one task at one number of shots; a file that is computed once.

A cell's key is a hash of all that its figures follow from: the learner's fingerprint, the task, the texts of its
trials, and the descriptions of its labels if there are any. A cell holds no texts, so it serves results with texts and
without.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from quickstudy._version import __version__
from quickstudy.errors import RunError
from quickstudy.evaluation.hashing import hash_of
from quickstudy.evaluation.record import Draw, Shots
from quickstudy.evaluation.results import Learner
from quickstudy.evaluation.results_file import CELLS, read_draws
from quickstudy.evaluation.trial import PlannedTask, trials_hash
from quickstudy.full_settings import FullSettings

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cell:
    """One learner on one task at one number of shots.

    Attributes:
        learner: What the learner is called now; the cell may have been computed when it was called otherwise.
        task: The task with its trials.
        shots: The number of shots.
        file: Where its draws are, or will be.
    """

    learner: str
    task: PlannedTask
    shots: Shots
    file: Path

    def discard_if_damaged(self) -> None:
        """Remove the file if it is damaged, and say so: the cell is then computed again."""
        try:
            if self.file.exists():
                self.read()
        except RunError as error:
            _log.warning("%s: %s; it is computed again", self.file.name, error.what)
            self.file.unlink()

    def read(self) -> list[Draw]:
        """Return its draws under the names that learner and task have now.

        Raises:
            RunError: The file is damaged.
        """
        draws = read_draws(self.file, self.task.by_shots[self.shots])
        return [replace(draw, learner=self.learner, domain=self.task.task.domain) for draw in draws]


def plan_cells(folder: Path, learners: Mapping[str, Learner], tasks: Sequence[PlannedTask]) -> tuple[Cell, ...]:
    """Return the cells of a comparison: learner by learner, task by task, few shots first."""
    hashes = [(task, shots, trials_hash(trials)) for task in tasks for shots, trials in task.by_shots.items()]
    return tuple(
        Cell(name, task, shots, folder / CELLS / f"{_key(learner.fingerprint, task, planned)}.json")
        for name, learner in learners.items()
        for task, shots, planned in hashes
    )


def _key(fingerprint: str, task: PlannedTask, planned: str) -> str:
    """Return the key of a cell: a hash of the learner's fingerprint, the task, the cell's trials, and this version."""
    about = task.task
    full, described = asdict(FullSettings()), sorted(about.label_descriptions.items())
    values = [__version__, full, fingerprint, about.name, about.kind, about.metric, planned]
    return hash_of([*values, described] if described else values)[:32]
