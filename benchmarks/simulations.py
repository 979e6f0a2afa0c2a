"""Simulations: how often intervals cover, tests decide and `recommend` decides, where the truth is known.

    python benchmarks/simulations.py [--simulations 2000]

Coverage should be 95 %, and a test at 5 % should decide in at most 5 % of cases where its null holds. Each line gives
what was simulated, the percentage, its own 95 % interval (Wilson), and what is wanted. All of it goes through the
functions that make reports. Prints the tables and writes simulations.json. Takes about ten minutes of one core.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from records import write
from simulated import SimulatedLine, SimulatedMean, Simulations
from worlds import EFFECTS, World, task_differences

from quickstudy.evaluation.crossed import over_rows
from quickstudy.evaluation.pairs import compare_all
from quickstudy.evaluation.rows import TaskRows
from quickstudy.evaluation.statistics import average_ranks, over_draws, over_tasks, paired_p, tasks_p
from quickstudy.report.comparison.recommend import recommend
from quickstudy.report.comparison.recommendation import Recommendation
from quickstudy.versions import versions

LEVEL = 0.05
ROWS = (100, 150, 200, 300)  # test rows of the tasks, in turn
NOISES = {"no noise of draws": 0.0, "draws as far apart as tasks": 1.0}  # sd of a draw, where that of tasks is 1
SYMMETRIC = ("normal", "t3")
KINDS = {
    "": World(1, 2),
    ", draws the same": World(1, 2, by_draw=0.0),
    ", draws far apart": World(1, 2, by_draw=0.1, by_row=0.2),
    ", accuracy 95 %": World(1, 2, accuracy=0.95),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--simulations", type=int, default=2000, help="for a line; coverage takes five times as many, power a tenth"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    n: int = options.simulations
    sections: tuple[Iterable[SimulatedLine | SimulatedMean], ...] = (
        coverage(n),
        tests_over_tasks(n),
        tests_over_rows(n),
        holm_and_ranks(n // 2),
        decided(n, lead=0.0),
        different_tasks(n // 2),
        decided(n // 10, lead=0.05),
    )
    lines: list[SimulatedLine | SimulatedMean] = []
    for each in chain.from_iterable(sections):
        lines.append(each)
        print(each.text(), flush=True)
    shares = tuple(each for each in lines if isinstance(each, SimulatedLine))
    means = tuple(each for each in lines if isinstance(each, SimulatedMean))
    write(options.out, Simulations(versions(), shares, means))


def coverage(n: int) -> Iterator[SimulatedLine]:
    """Yield how often the interval over tasks covers."""
    for tasks, effect, (noise, spread) in product((3, 6, 12), EFFECTS, NOISES.items()):
        means = [over_tasks(values) for values in task_differences(effect, tasks, spread, 5 * n)]
        covered = [mean.low is not None and mean.high is not None and mean.low <= 0 <= mean.high for mean in means]
        wanted = "93 to 97" if tasks > 3 and not effect.startswith("rare") else "stated only"
        yield line("interval over tasks covers", f"{tasks} tasks, {effect}, {noise}", covered, wanted)


def tests_over_tasks(n: int) -> Iterator[SimulatedLine]:
    """Yield how often tests over tasks decide where the mean difference is 0; the null of sign flips is symmetry."""
    for tasks, effect, (noise, spread) in product((6, 12), EFFECTS, NOISES.items()):
        simulated, setting = task_differences(effect, tasks, spread, n), f"{tasks} tasks, {effect}, {noise}"
        wanted = "at most 6" if effect in SYMMETRIC else "its null does not hold"
        yield line("sign flips decide", setting, [paired_p(values) <= LEVEL for values in simulated], wanted)
        wanted = "at most 6" if not effect.startswith("rare") else "stated only"
        yield line("the p of reports decides", setting, [tasks_p(values) <= LEVEL for values in simulated], wanted)


def tests_over_rows(n: int) -> Iterator[SimulatedLine]:
    """Yield how often the test on these tasks decides between two equals, beside that by draws alone."""
    for (kind, usual), tasks, draws in product(KINDS.items(), (1, 6), (2, 5, 10)):
        world, random = replace(usual, tasks=tasks, draws=draws), np.random.default_rng([tasks, draws])
        both = [two_p([world.right(random, task) for task in range(tasks)]) for _ in range(n)]
        setting = f"{tasks} task{'s' * (tasks > 1)}, {draws} draws, 150 test rows{kind}"
        yield line("the test on these tasks decides", setting, [p[0] <= LEVEL for p in both], "at most 6")
        yield line("by draws alone it would", setting, [p[1] <= LEVEL for p in both], "stated only")


def two_p(right: Sequence[NDArray[np.bool_]]) -> tuple[float, float]:
    """Return p that two learners are equal on these tasks: with rows, and by draws alone."""
    rows = {str(i): TaskRows(task[0].astype(float) - task[1]) for i, task in enumerate(right)}
    values = {
        name: of_task.values.mean(axis=1).tolist() for name, of_task in rows.items() if of_task.values is not None
    }
    p = over_rows(values, rows).p, over_draws(values).p
    return (1.0 if p[0] is None else p[0], 1.0 if p[1] is None else p[1])


def holm_and_ranks(n: int) -> Iterator[SimulatedLine]:
    """Yield how often any of all pairs is told apart, where all learners are equal; by Holm, and by Nemenyi."""
    for tasks, learners, effect in product((6, 12), (2, 6, 10), ("normal", "skewed, exponential")):
        pairs, ranks = [], []
        for values in task_differences(effect, tasks * learners, 1.0, n):
            rows = list(values.values())
            scores = {str(k): {str(i): rows[k * tasks + i] for i in range(tasks)} for k in range(learners)}
            pairs.append(any((pair.other_tasks.p_holm or 1) <= LEVEL for pair in compare_all(scores)))
            means, critical = average_ranks(scores)
            ranks.append(critical is not None and max(means.values()) - min(means.values()) >= critical)
        setting = f"{tasks} tasks, {learners} learners, {effect}"
        yield line("Holm tells some pair apart", setting, pairs, "at most 6")
        yield line("the critical difference does", setting, ranks, "at most 6")


def decided(n: int, lead: float) -> Iterator[SimulatedLine | SimulatedMean]:
    """Yield how often `recommend` decides where the first learner is better by so much, or none is.

    Beside that, by how many points the mean of the recommended learner is too good, before and after its correction.
    """
    leads, wanted = (f"one leads by {100 * lead:.0f} points", "power") if lead else ("equal", "at most 6")
    for tasks, learners in product((1, 6, 12), (2, 6, 10)):
        world = World(tasks, learners, rows=ROWS if tasks > 1 else ROWS[1:2], lead=lead)
        choices = recommended(world, n)
        setting = f"{tasks} task{'s' * (tasks > 1)}, {learners} learners, {leads}"
        for what, happened in happenings(choices).items():
            yield line(what, setting, happened, wanted)
        yield too_good(world, choices, setting)


def happenings(choices: Sequence[Recommendation]) -> dict[str, list[bool]]:
    return {
        "recommend calls some learner worse": [bool(each.worse) for each in choices],
        "recommend decides": [each.verdict != "not decided" for each in choices],
        "recommend decides, tasks like these": [each.verdict == "decided for tasks like these" for each in choices],
    }


def too_good(world: World, choices: Sequence[Recommendation], setting: str) -> SimulatedMean:
    """Return by how many points the means of recommended learners are above the truth."""
    truths = [world.accuracy + world.lead * (each.learner == "learner 0") for each in choices]
    before = [each.mean - truth for each, truth in zip(choices, truths, strict=True)]
    after = [(each.corrected or each.mean) - truth for each, truth in zip(choices, truths, strict=True)]
    error = float(np.std(after)) / len(after) ** 0.5
    return SimulatedMean(setting, 100 * float(np.mean(before)), 100 * float(np.mean(after)), 100 * error, len(choices))


def different_tasks(n: int) -> Iterator[SimulatedLine]:
    """Yield how often `recommend` speaks for other tasks where learners are equal over all tasks, not on each."""
    for tasks, learners in product((6, 12), (2, 6)):
        choices = recommended(World(tasks, learners, rows=ROWS, interaction=0.04), n)
        spoken = [any(w.verdict == "decided for tasks like these" for w in each.worse) for each in choices]
        setting = f"{tasks} tasks, {learners} learners, equal on average, ± 4 points"
        yield line("recommend speaks for tasks like these", setting, spoken, "at most 6")


def recommended(world: World, n: int) -> list[Recommendation]:
    random = np.random.default_rng(
        [world.tasks, world.learners, round(100 * world.lead), round(100 * world.interaction)]
    )
    return [recommend(world.results(random)) for _ in range(n)]


def line(what: str, setting: str, happened: Sequence[bool], wanted: str) -> SimulatedLine:
    """Return how often something happened, with the interval of Wilson 1927."""
    n, share = len(happened), float(np.mean(happened))
    middle, half = share + 1.92 / n, 1.96 * (share * (1 - share) / n + 0.96 / n**2) ** 0.5
    ends = (max(0.0, (middle - half) / (1 + 3.84 / n)), (middle + half) / (1 + 3.84 / n))
    return SimulatedLine(what, setting, 100 * share, 100 * ends[0], 100 * ends[1], wanted, n)


if __name__ == "__main__":
    main()
