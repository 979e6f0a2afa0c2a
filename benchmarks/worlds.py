"""Worlds: simulated scores of learners whose true differences are known, for `simulations.py` and the tests.

    effect of a task    normal, t3, gamma, lognormal, exponential, or rare; mean 0 and standard deviation 1
    right prediction    z + row + learner × row + learner × draw + rest > 0      normal terms, variances add up to 1

The first is a paired difference of each task, to which the noise of the draws is added. The second makes a comparison
down to its test rows. The row makes some texts hard for all learners. Learner × row is what a learner has particular to
a text in all draws: the noise of the test rows, which does not average out over draws. By default, a difference of two
equals has a standard deviation of 4.3, 3.7, 3.2 and 2.5 points from 100, 150, 200 and 300 test rows alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from quickstudy.evaluation.record import Costs, Draw, Footprint, RowScores
from quickstudy.evaluation.results import EvaluatedTask, Learner, Results, UsedProtocol, Versions
from quickstudy.evaluation.rows import pack
from quickstudy.evaluation.summary import shots_tables

Array = NDArray[np.float64]
Shape = tuple[int, ...]
SHOTS = 4


def _lognormal(random: np.random.Generator, shape: Shape) -> Array:
    raw = random.lognormal(0, 0.5, shape)
    mean, variance = float(np.exp(0.125)), float(np.exp(0.25) * (np.exp(0.25) - 1))
    return np.asarray((raw - mean) / variance**0.5)


EFFECTS: dict[str, Callable[[np.random.Generator, Shape], Array]] = {
    "normal": lambda random, shape: random.standard_normal(shape),
    "t3": lambda random, shape: random.standard_t(3, shape) / 3**0.5,
    "skewed, lognormal(0.5)": _lognormal,
    "skewed, gamma(2)": lambda random, shape: (random.gamma(2, 1, shape) - 2) / 2**0.5,
    "skewed, exponential": lambda random, shape: random.exponential(1, shape) - 1,
    "rare, one task in five": lambda random, shape: np.where(random.random(shape) < 0.2, 2.0, -0.5),
}


def task_differences(
    effect: str, tasks: int, noise: float, simulations: int, draws: int = 5
) -> list[dict[str, list[float]]]:
    """Return simulated paired differences of mean 0, by task and draw.

    Args:
        effect: Distribution of the tasks' effects, one of `EFFECTS`; its standard deviation is 1.
        tasks: Number of tasks.
        noise: Standard deviation of a draw.
        simulations: How many.
        draws: Draws of each task.
    """
    random = np.random.default_rng([list(EFFECTS).index(effect), tasks, round(10 * noise)])
    effects = EFFECTS[effect](random, (simulations, tasks, 1))
    values = effects + noise * random.standard_normal((simulations, tasks, draws))
    return [{str(task): row for task, row in enumerate(rows)} for rows in values.tolist()]


@dataclass(frozen=True)
class World:
    """What learners are compared in.

    Attributes:
        tasks: Number of tasks.
        learners: Number of learners.
        draws: Draws of each task.
        rows: Test rows of the tasks, in turn.
        accuracy: Mean accuracy of the learners.
        lead: How much more accurate the first one is.
        interaction: Standard deviation of what a learner has particular to a task, in accuracy.
        shared: Variance of the row.
        by_row: Variance of learner × row.
        by_draw: Variance of learner × draw.
    """

    tasks: int
    learners: int
    draws: int = 5
    rows: Sequence[int] = (150,)
    accuracy: float = 0.75
    lead: float = 0.0
    interaction: float = 0.0
    shared: float = 0.3
    by_row: float = 0.6
    by_draw: float = 0.02

    def right(self, random: np.random.Generator, task: int) -> NDArray[np.bool_]:
        """Return which rows of a task are right: (learner, draw, row)."""
        n, d, r = self.learners, self.draws, self.rows[task % len(self.rows)]
        level = np.full(n, self.accuracy) + self.interaction * random.standard_normal(n)
        level[0] += self.lead
        terms = [
            (self.shared, (1, 1, r)),
            (self.by_row, (n, 1, r)),
            (self.by_draw, (n, d, 1)),
            (1 - self.shared - self.by_row - self.by_draw, (n, d, r)),
        ]
        latent = sum(variance**0.5 * random.standard_normal(shape) for variance, shape in terms)
        return np.asarray(latent + norm.ppf(np.clip(level, 0.01, 0.99))[:, None, None] > 0)

    def results(self, random: np.random.Generator) -> Results:
        """Return a comparison, as `quickstudy compare` makes it, at one number of shots."""
        draws = tuple(
            _draw(f"task {task}", f"learner {name}", number, right)
            for task in range(self.tasks)
            for name, of_learner in enumerate(self.right(random, task))
            for number, right in enumerate(of_learner)
        )
        tasks = dict.fromkeys((draw.task for draw in draws), _TASK)
        learners = dict.fromkeys((draw.learner for draw in draws), _LEARNER)
        return Results(Versions(*"123456"), _PROTOCOL, learners, tasks, shots_tables(draws, (SHOTS,)), draws)


_TASK = EvaluatedTask("general", "classification", ("a", "b"), "accuracy", 150, "0")
_LEARNER = Learner("protonet", {}, "tiny", False, "0")
_PROTOCOL = UsedProtocol("few-shot", 1, (SHOTS,), 5, 0, None, None, None)


def _draw(task: str, learner: str, number: int, right: NDArray[np.bool_]) -> Draw:
    return Draw(
        task=task,
        domain="general",
        kind="classification",
        learner=learner,
        shots=SHOTS,
        draw=number,
        n_test=len(right),
        main="accuracy",
        scores={"accuracy": float(right.mean())},
        calibration=None,
        labels=None,
        mistakes=None,
        footprint=Footprint("cpu", 1, 0, 0, 0),
        costs=Costs(seconds_adapt=1.0),
        rows=RowScores(task, right=pack(right)),
    )
