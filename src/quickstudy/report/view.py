"""View: results as tables and drawings look at them: learners in order, draws by cell, means over draws and tasks."""

from dataclasses import dataclass
from functools import cached_property

from quickstudy.evaluation.record import Draw, DrawsMean, LearnerMean, Shots
from quickstudy.evaluation.results import Results
from quickstudy.evaluation.statistics import summarize


@dataclass(frozen=True, slots=True)
class Score:
    """A mean that a table or a drawing shows, with its 95 % interval.

    Attributes:
        task: Its task; None for the mean over tasks.
        shots: Number of shots.
        learner: Name of the learner.
        mean: Mean over the draws of the task, or over tasks.
        low: Lower end of the interval over the same; None where there is none.
        high: Upper end.
        n: Number of draws, or of tasks.
    """

    task: str | None
    shots: Shots
    learner: str
    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class View:
    """Results to be shown.

    Attributes:
        results: The results; at least one of their tables has learners.
        learners: The order of columns, colours and lists.
    """

    results: Results
    learners: tuple[str, ...]

    @cached_property
    def shots(self) -> tuple[Shots, ...]:
        """The numbers of shots that have figures, few first."""
        return tuple(table.shots for table in self.results.tables if table.learners)

    @property
    def largest(self) -> Shots:
        """The largest number of shots."""
        return self.shots[-1]

    @cached_property
    def cells(self) -> dict[tuple[str, Shots, str], list[Draw]]:
        """The draws of each (task, shots, learner)."""
        cells: dict[tuple[str, Shots, str], list[Draw]] = {}
        for draw in self.results.draws:
            cells.setdefault((draw.task, draw.shots, draw.learner), []).append(draw)
        return cells

    @property
    def gain(self) -> tuple[str, str] | None:
        """The first two learners: their difference is what the first has gained (of a run, by its meta-training)."""
        return (self.learners[0], self.learners[1]) if len(self.learners) > 1 else None

    def means(self, shots: Shots) -> dict[str, LearnerMean]:
        """Return the mean over tasks of each learner, in their order."""
        means = {mean.learner: mean for mean in self.results.table(shots).learners}
        return {name: means[name] for name in self.learners if name in means}

    @cached_property
    def averages(self) -> list[Score]:
        """The means over tasks, as scores."""
        return [
            Score(None, shots, name, mean.mean, mean.low, mean.high, mean.n)
            for shots in self.shots
            for name, mean in self.means(shots).items()
        ]

    @cached_property
    def task_scores(self) -> list[Score]:
        """The means over the draws of each task."""
        scores = []
        for task in self.results.tasks:
            for shots in self.shots:
                for name in self.learners:
                    if draws := self.cells.get((task, shots, name)):
                        mean = summarize([draw.score for draw in draws])
                        scores.append(Score(task, shots, name, mean.mean, mean.low, mean.high, mean.n))
        return scores

    def difference(self, task: str, shots: Shots, a: str, b: str) -> DrawsMean | None:
        """Return the mean over draws of the difference of two learners on one task; None if they share no draw."""
        scores = [{draw.draw: draw.score for draw in self.cells.get((task, shots, name), ())} for name in (a, b)]
        values = [score - scores[1][number] for number, score in scores[0].items() if number in scores[1]]
        return summarize(values) if values else None


def best_first(results: Results) -> View:
    """Return a view of results with the best mean at the largest number of shots first."""
    largest = next(table for table in reversed(results.tables) if table.learners)
    ranked = [mean.learner for mean in sorted(largest.learners, key=lambda mean: -mean.mean)]
    return View(results, tuple(dict.fromkeys([*ranked, *results.learners])))


def in_order(results: Results) -> View:
    """Return a view of results with the learners in the order that they have in the results."""
    return View(results, tuple(results.learners))
