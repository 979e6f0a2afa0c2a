"""Plan: learners, tasks and cells of a comparison, settled before anything is computed or written."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quickstudy.comparison.cell import Cell, plan_cells
from quickstudy.comparison.learner import LearnerSpec, named_learner, refuse_twice
from quickstudy.data.reference import load_tasks
from quickstudy.errors import DataError, RunError
from quickstudy.evaluation.plan import plan_tasks
from quickstudy.evaluation.protocol import Protocol
from quickstudy.evaluation.results import Learner
from quickstudy.evaluation.results_file import CELLS
from quickstudy.evaluation.trial import PlannedTask
from quickstudy.storage.trust import check_folder
from quickstudy.tasks.task import Task

Learners = str | Path | Sequence[str | Path]
Tasks = str | Path | Task | Iterable[str | Path | Task]


@dataclass(frozen=True)
class Plan:
    """A comparison that can begin.

    Attributes:
        folder: Where it goes, or goes on.
        protocol: What learners adapt to and are scored on.
        specs: Where learners come from.
        learners: What each of them is, by name.
        tasks: With their trials.
        cells: Learner by learner, task by task, few shots first.
    """

    folder: Path
    protocol: Protocol
    specs: tuple[LearnerSpec, ...]
    learners: Mapping[str, Learner]
    tasks: tuple[PlannedTask, ...]
    cells: tuple[Cell, ...]

    @property
    def full(self) -> bool:
        """Whether encoders are fully fine-tuned, so that nothing else of a learner counts."""
        return self.protocol.name == "full"


def plan_comparison(learners: Learners, tasks: Tasks, folder: Path, protocol: Protocol, encoder: str) -> Plan:
    """Return the plan of a comparison; see `compare`.

    Raises:
        QuickstudyError: A folder that holds something else, unknown or unfinished learners, unknown tasks, or tasks
            that cannot be drawn from.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / CELLS).is_dir():
        raise RunError("this folder is no comparison", where=str(folder), fix="Choose another --out.")
    check_folder(folder, "comparison")
    names, full = [learners] if isinstance(learners, str | Path) else learners, protocol.name == "full"
    specs = tuple(named_learner(str(name), encoder) for name in names)
    refuse_twice(specs, encoder_only=full)
    planned = plan_tasks(protocol, load_all(tasks))
    described = {spec.name: spec.describe(encoder_only=full) for spec in specs}
    return Plan(folder, protocol, specs, described, planned, plan_cells(folder, described, planned))


def load_all(tasks: Tasks) -> list[Task]:
    """Load what references name, beside tasks that are loaded already.

    Raises:
        DataError: There is none, or a reference names nothing.
    """
    listed = [tasks] if isinstance(tasks, str | Path | Task) else tasks
    loaded = [task for item in listed for task in ([item] if isinstance(item, Task) else load_tasks(str(item)))]
    if not loaded:
        raise DataError("there is no task to evaluate on", fix="Give at least one.")
    return loaded
