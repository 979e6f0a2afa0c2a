"""Tables of a tournament: what meta-training gains, by kind of task, with intervals over tasks and a spread over seeds.

    score of a method in task t and draw d   = mean over its meta-training seeds
    gain over a baseline                     = mean over tasks of (mean over draws of the difference)

Seeds of one method share the tasks and the draws, so they are averaged within a task first. The interval is that over
tasks; how far the seeds lie apart is said beside it. Every table is over the tasks that have all its numbers of shots:
figures at 4 and at 16 shots that stand side by side are always over the same tasks.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from split import Split

from quickstudy.evaluation.pairs import differences, holm
from quickstudy.evaluation.statistics import over_tasks, tasks_p

PROBE = "linear-probe"
ALL = "all kinds"
FEWEST = 3  # tasks of a kind whose interval is printed; that over two tasks says nothing

Values = dict[str, list[float]]  # task → value of each draw


class Scored(Protocol):
    """What a table needs of a draw."""

    @property
    def learner(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def shots(self) -> int | str: ...
    @property
    def draw(self) -> int: ...
    @property
    def score(self) -> float: ...


@dataclass(frozen=True)
class Gain:
    """The mean gain of one method over a baseline, in points.

    Attributes:
        method: Name of the method.
        over: Name of the baseline.
        shots: Examples per class.
        kind: Kind of the tasks.
        tasks: How many tasks.
        mean: Mean over tasks.
        low: Lower end of the 95 % interval over tasks; None for a single task, as is `high`.
        high: Upper end.
        p: Of the paired test over tasks; None for a single kind.
        p_holm: The same, corrected for the number of methods.
    """

    method: str
    over: str
    shots: int
    kind: str
    tasks: int
    mean: float
    low: float | None
    high: float | None
    p: float | None = None
    p_holm: float | None = None


@dataclass(frozen=True)
class Seeds:
    """The mean score over all tasks of each meta-training seed of a method, in percent."""

    method: str
    shots: int
    means: dict[int, float]

    @property
    def mean(self) -> float:
        return statistics.mean(self.means.values())

    @property
    def spread(self) -> float:
        """The distance between the best and the worst seed."""
        return max(self.means.values()) - min(self.means.values())


@dataclass(frozen=True)
class Tables:
    """What a tournament shows.

    Attributes:
        tasks: The tasks that are counted, by kind.
        left_out: Tasks that lack one of the numbers of shots.
        gains: Over the linear probe and over the control.
        seeds: Scores by meta-training seed.
    """

    tasks: dict[str, tuple[str, ...]]
    left_out: tuple[str, ...]
    gains: tuple[Gain, ...]
    seeds: tuple[Seeds, ...]


def tables_of(draws: Sequence[Scored], split: Split, shots: Sequence[int], *, control: str) -> Tables:
    """Return the tables of the scored draws.

    Args:
        draws: Of all learners; a meta-trained one is called by its method and its seed.
        split: Says of which kind each task is.
        shots: The numbers of shots that stand side by side.
        control: The meta-trained baseline that gains are counted over, beside the linear probe.
    """
    by_shots = {k: _by_learner([draw for draw in draws if draw.shots == k]) for k in shots}
    every = sorted({draw.task for draw in draws})
    counted = [task for task in every if all(task in by_shots[k][PROBE] for k in shots)]
    kinds = _kinds(counted, split)
    gains: list[Gain] = []
    seeds: list[Seeds] = []
    for k in shots:
        runs = {name: {task: values[task] for task in counted} for name, values in by_shots[k].items()}
        averaged = _average_seeds(runs)
        for over in (PROBE, control):
            if over in averaged:
                gains += _gains(averaged, over, k, kinds)
        seeds += _seeds(runs, k)
    left_out = tuple(task for task in every if task not in counted)
    return Tables({kind: tuple(tasks) for kind, tasks in kinds.items()}, left_out, tuple(gains), tuple(seeds))


def choose(tables: Tables, methods: Iterable[str]) -> dict[str, float]:
    """Return the mean of each method over tasks and numbers of shots, the best first."""
    means: dict[str, list[float]] = defaultdict(list)
    for row in tables.seeds:
        means[row.method].append(row.mean)
    wanted = set(methods)
    best_first = sorted(wanted, key=lambda method: -statistics.mean(means[method]))
    return {method: statistics.mean(means[method]) for method in best_first}


def print_tables(tables: Tables) -> None:
    """Print the gains by kind, over each baseline, and the seeds."""
    shots = list(dict.fromkeys(gain.shots for gain in tables.gains))
    for kind, tasks in tables.tasks.items():
        if kind != ALL:
            print(f"- {kind} ({len(tasks)}): {', '.join(tasks)}")
    if tables.left_out:
        print(f"- left out, because they lack examples for one of the numbers of shots: {', '.join(tables.left_out)}")
    for over in dict.fromkeys(gain.over for gain in tables.gains):
        for k in shots:
            _print_gains([gain for gain in tables.gains if (gain.over, gain.shots) == (over, k)], over, k, tables)
    if tables.seeds:
        _print_seeds(tables.seeds, shots)


def _by_learner(draws: Iterable[Scored]) -> dict[str, Values]:
    values: dict[str, Values] = defaultdict(lambda: defaultdict(list))
    for draw in sorted(draws, key=lambda draw: draw.draw):
        values[draw.learner][draw.task].append(100 * draw.score)
    return {learner: dict(of_learner) for learner, of_learner in values.items()}


def _kinds(tasks: Sequence[str], split: Split) -> dict[str, list[str]]:
    """Return the tasks by kind, and all of them as one more."""
    kind_of = {_task_name(name): member.kind for name, member in split.items()}
    kinds: dict[str, list[str]] = {ALL: list(tasks)}
    for task in sorted(tasks, key=lambda task: kind_of[task]):
        kinds.setdefault(kind_of[task], []).append(task)
    return kinds


def _task_name(name: str) -> str:
    """Return what quickstudy calls the task of a data set."""
    return f"glue:{Path(name).name}" if name.startswith("glue/") else Path(name).name


def _method_and_seed(learner: str) -> tuple[str, int | None]:
    """Return the method and the meta-training seed that a learner's name says.

    >>> _method_and_seed("meta-sgd 2"), _method_and_seed("finetune, untouched")
    (('meta-sgd', 2), ('finetune, untouched', None))
    """
    method, _, seed = learner.rpartition(" ")
    return (method, int(seed)) if seed.isdigit() else (learner, None)


def _average_seeds(runs: Mapping[str, Values]) -> dict[str, Values]:
    """Return the scores of each method, draw by draw the mean over its seeds."""
    grouped: dict[str, list[Values]] = defaultdict(list)
    for learner, values in runs.items():
        method, seed = _method_and_seed(learner)
        grouped[f"{method}, untouched" if seed is None and _trained(method, runs) else method].append(values)
    return {
        method: {
            task: [statistics.mean(draw) for draw in zip(*(v[task] for v in values), strict=True)] for task in first
        }
        for method, values in grouped.items()
        for first in values[:1]
    }


def _trained(method: str, runs: Iterable[str]) -> bool:
    """Whether there are runs of this method, so that the untouched one needs another name."""
    return any(_method_and_seed(name)[0] == method and _method_and_seed(name)[1] is not None for name in runs)


def _gains(averaged: Mapping[str, Values], over: str, shots: int, kinds: Mapping[str, Sequence[str]]) -> list[Gain]:
    """Return the gains of all methods over one baseline; p values are corrected for the number of methods."""
    gains: dict[str, list[Gain]] = {}
    ps = {}
    for method, values in averaged.items():
        if method == over:
            continue
        between = differences(values, averaged[over])
        ps[method] = tasks_p(between)
        gains[method] = [
            Gain(method, over, shots, kind, mean.n, mean.mean, mean.low, mean.high)
            for kind, tasks in kinds.items()
            for mean in (over_tasks({task: between[task] for task in tasks}),)
        ]
    corrected = dict(zip(ps, holm(list(ps.values())), strict=True))
    return [
        Gain(**(vars(gain) | {"p": ps[method], "p_holm": corrected[method]})) if gain.kind == ALL else gain
        for method, rows in gains.items()
        for gain in rows
    ]


def _seeds(runs: Mapping[str, Values], shots: int) -> list[Seeds]:
    means: dict[str, dict[int, float]] = defaultdict(dict)
    for learner, values in runs.items():
        method, seed = _method_and_seed(learner)
        if seed is not None:
            means[method][seed] = statistics.mean(map(statistics.mean, values.values()))
    return [Seeds(method, shots, of_method) for method, of_method in means.items()]


def _print_gains(gains: Sequence[Gain], over: str, shots: int, tables: Tables) -> None:
    """Print one table: a line per method, a column per kind; the best over all kinds first."""
    print(
        f"\nGain over {over} at {shots} shots, in points, with the 95 % interval over {len(tables.tasks[ALL])} tasks\n"
    )
    print(f"| method | {' | '.join(f'{kind} ({len(tasks)})' for kind, tasks in tables.tasks.items())} | p (Holm) |")
    print(f"|---|{'---|' * (len(tables.tasks) + 1)}")
    rows: dict[str, dict[str, Gain]] = defaultdict(dict)
    for gain in gains:
        rows[gain.method][gain.kind] = gain
    for method, row in sorted(rows.items(), key=lambda item: -item[1][ALL].mean):
        cells = [_cell(row[kind]) for kind in tables.tasks]
        print(f"| {method} | {' | '.join(cells)} | {row[ALL].p_holm:.3f} |")


def _cell(gain: Gain) -> str:
    if gain.low is None or gain.high is None or gain.tasks < FEWEST:
        return f"{gain.mean:+z.1f}"
    return f"{gain.mean:+z.1f} [{gain.low:+z.1f}, {gain.high:+z.1f}]"


def _print_seeds(rows: Sequence[Seeds], shots: Sequence[int]) -> None:
    """Print the mean score of each seed, and how far the seeds lie apart."""
    print("\nMean score over the same tasks, %, by meta-training seed\n")
    heads = [f"{k} shots: {what}" for k in shots for what in ("mean", "of each seed", "best - worst")]
    print(f"| method | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    by_method: dict[str, dict[int, Seeds]] = defaultdict(dict)
    for row in rows:
        by_method[row.method][row.shots] = row
    for method, of_method in sorted(by_method.items(), key=lambda item: -item[1][shots[0]].mean):
        cells = []
        for row in (of_method[k] for k in shots):
            each = ", ".join(f"{mean:.1f}" for _, mean in sorted(row.means.items()))
            cells += [f"{row.mean:.1f}", each, f"{row.spread:.1f}"]
        print(f"| {method} | {' | '.join(cells)} |")
