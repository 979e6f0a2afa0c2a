"""Practice tables: what `practice.py` measures, and the tables of docs/finance.md, docs/medicine.md and the log.

    one set      mean over draws, with the 95 % interval were other draws and other test rows taken (see `crossed`)
    many sets    mean over sets of (mean over draws), with the 95 % interval over sets; differences are paired

The test of many sets is the sign-flip test over sets, with p values corrected by Holm for the number of baselines.
"""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from records import Score, read, scores

from quickstudy.evaluation.crossed import over_rows
from quickstudy.evaluation.pairs import differences, holm
from quickstudy.evaluation.record import RowScores
from quickstudy.evaluation.rows import TaskRows, unpack
from quickstudy.evaluation.statistics import over_tasks, tasks_p

RARE_TIMES = 10
OURS = "quickstudy"
MOST_LABELS, WORST = 13, 5  # up to so many labels have a line each in a table of recalls; of more the worst are shown
MANY = 8  # sets; fewer have a table each
SETFIT = Path(__file__).parent / "leaderboard" / "setfit.jsonl"
SETFITS = ("setfit", "setfit, label names")
METRICS = {"accuracy": "accuracy", "f1": "macro-F1", "ece": "ECE"}


@dataclass(frozen=True)
class PracticeDraw:
    """One learner on one support set of a data set.

    Attributes:
        recall: Of each label; None for a label that no scored row has.
    """

    task: str
    learner: str
    shots: int
    draw: int
    n_test: int
    accuracy: float
    f1: float
    ece: float
    recall: tuple[float | None, ...]
    seconds_fit: float
    seconds_predict_1000: float
    rows: RowScores

    @property
    def lowest_recall(self) -> float:
        """The recall of the label that is found least often."""
        return min(value for value in self.recall if value is not None)


@dataclass(frozen=True)
class Practice:
    """A file of figures.

    Attributes:
        versions: Versions, the processor and the date.
        threads: Threads that computed.
        limit: The most rows of a set that are scored.
        rare: Whether one label had ten times as many examples as the others.
        labels: The labels of each set.
        draws: The figures.
    """

    versions: dict[str, str]
    threads: int
    limit: int
    rare: bool
    labels: dict[str, tuple[str, ...]]
    draws: tuple[PracticeDraw, ...]

    @property
    def learners(self) -> list[str]:
        """Names of the learners in their order."""
        return list(dict.fromkeys(draw.learner for draw in self.draws))

    def of(self, learner: str, shots: int) -> dict[str, list[PracticeDraw]]:
        """Return the draws of a learner by data set."""
        by_task: dict[str, list[PracticeDraw]] = {}
        for draw in self.draws:
            if (draw.learner, draw.shots) == (learner, shots):
                by_task.setdefault(draw.task, []).append(draw)
        return by_task


def read_practice(file: Path) -> Practice:
    return read(file, Practice)


def print_tables(practice: Practice) -> None:
    if len(practice.labels) < MANY:
        print(*(page_tables(practice, task) for task in practice.labels), sep="\n\n")
    else:
        print(*sets_tables(practice), sep="\n\n")


def page_tables(practice: Practice, task: str) -> str:
    """Return the tables of one data set: accuracy, calibration, recalls."""
    shots = sorted({draw.shots for draw in practice.draws if draw.task == task})
    if not shots:
        return f"{task}: no figures"
    return f"{_accuracy_table(practice, task, shots)}\n\n{_recall_table(practice, task, shots)}"


def _accuracy_table(practice: Practice, task: str, shots: Sequence[int]) -> str:
    heads = [f"{head}: {name}" for head in ("accuracy", "ECE") for name in practice.learners]
    lines = [_line("examples per label", *heads), _rule(1 + len(heads))]
    for k in shots:
        of_learner = [practice.of(name, k)[task] for name in practice.learners]
        accuracies = [_interval(draws) for draws in of_learner]
        errors = [f"{100 * statistics.mean(draw.ece for draw in draws):.1f}" for draws in of_learner]
        lines.append(_line(str(k), *accuracies, *errors))
    return "\n".join(lines)


def _interval(draws: Sequence[PracticeDraw]) -> str:
    """Return the accuracy in percent, with its interval were other support sets and other test rows taken."""
    rows = TaskRows(np.stack([unpack(draw.rows, draw.n_test) for draw in draws]))
    mean = over_rows({"set": [draw.accuracy for draw in draws]}, {"set": rows})
    if mean.low is None or mean.high is None:
        return f"{100 * mean.mean:.1f}"
    return f"{100 * mean.mean:.1f} [{100 * max(0.0, mean.low):.1f}, {100 * min(1.0, mean.high):.1f}]"


def _recall_table(practice: Practice, task: str, shots: Sequence[int]) -> str:
    """Return the recall of each label: of ours at each number of shots, of the others at the most shots."""
    others, most = [name for name in practice.learners if name != OURS], max(shots)
    ours = [_recalls(practice.of(OURS, k)[task]) for k in shots]
    theirs = [_recalls(practice.of(name, most)[task]) for name in others]
    labels = practice.labels[task]
    heads = [*(f"{k} per label" for k in shots), *(f"{name}, {most}" for name in others)]
    lines = [_line("recall of", *heads), _rule(1 + len(heads))]
    shown = np.flatnonzero(np.isfinite(ours[-1][0])).tolist()
    if len(labels) > MOST_LABELS:
        shown = np.argsort(ours[-1].mean(0), kind="stable")[:WORST].tolist()  # NaN comes last
        middle = [f"{np.nanmedian(recall.mean(0)):.0f}" for recall in (*ours, *theirs)]
        lines.append(_line(f"the middle one of {len(labels)} labels", *middle))
    for label in shown:
        cells = [f"{r.mean():.0f} ({r.min():.0f} to {r.max():.0f})" for r in (each[:, label] for each in ours)]
        lines.append(_line(labels[label], *cells, *(f"{recall[:, label].mean():.0f}" for recall in theirs)))
    return "\n".join(lines)


def _recalls(draws: Sequence[PracticeDraw]) -> NDArray[np.float64]:
    """Return recalls in percent, draws × labels; NaN for a label that no scored row has."""
    return 100 * np.array([draw.recall for draw in draws], dtype=np.float64)


def sets_tables(practice: Practice) -> Iterator[str]:
    """Yield the tables over many sets, at each number of shots."""
    for k in sorted({draw.shots for draw in practice.draws}):
        sets = practice.of(OURS, k)
        yield f"{k} examples per label, {len(sets)} sets: {', '.join(sorted(sets))}"
        yield _means_table(practice, k)
        yield _gains_table(practice, k)
        if not practice.rare and (beside := _setfit_table(practice, k)):
            yield beside


def _means_table(practice: Practice, shots: int) -> str:
    heads = ("accuracy", "macro-F1", "lowest recall", "ECE", "seconds to learn", "seconds for 1,000 texts")
    lines = [_line("learner", *heads), _rule(1 + len(heads))]
    for name in practice.learners:
        of_sets = practice.of(name, shots)
        percent = [_mean(of_sets, metric) for metric in ("accuracy", "f1", "lowest_recall", "ece")]
        seconds = [_median(of_sets, "seconds_fit"), _median(of_sets, "seconds_predict_1000")]
        lines.append(_line(name, *(f"{value:.1f}" for value in percent), *(f"{value:.2g}" for value in seconds)))
    return "\n".join(lines)


def _gains_table(practice: Practice, shots: int) -> str:
    others = [name for name in practice.learners if name != OURS]
    heads = [head for name in METRICS.values() for head in (name, "p")]
    lines = [_line(f"{OURS} minus", *heads), _rule(1 + len(heads))]
    columns = [_gains(practice, others, shots, metric) for metric in METRICS]
    for i, name in enumerate(others):
        lines.append(_line(name, *(cell for column in columns for cell in column[i])))
    return "\n".join(lines)


def _gains(practice: Practice, others: Sequence[str], shots: int, metric: str) -> list[tuple[str, str]]:
    """Return our mean difference to each of the others, in points, with its interval and corrected p."""
    ours = _values(practice.of(OURS, shots), metric)
    between = [differences(ours, _values(practice.of(name, shots), metric)) for name in others]
    means, ps = [over_tasks(each) for each in between], holm([tasks_p(each) for each in between])
    return [(f"{m.mean:+.1f} [{m.low:+.1f}, {m.high:+.1f}]", _p(p)) for m, p in zip(means, ps, strict=True)]


def _setfit_table(practice: Practice, shots: int) -> str:
    """Return the differences to SetFit on the sets and draws that SetFit was run on; empty if there are too few."""
    lines = SETFIT.read_text(encoding="utf-8").splitlines() if SETFIT.exists() else []
    rows = [row for row in scores([json.loads(line) for line in lines]) if row.n_test <= practice.limit]
    heads = ("sets", "draws", "accuracy", "p", "macro-F1", "p", "its seconds to learn")
    cells = {name: _beside(practice, shots, [row for row in rows if row.learner == name]) for name in SETFITS}
    table = [_line(f"{OURS} minus", *heads), _rule(1 + len(heads))]
    table += [_line(name, *of_name) for name, of_name in cells.items() if of_name]
    return "\n".join(table) if len(table) > 2 else ""


def _beside(practice: Practice, shots: int, rows: Iterable[Score]) -> list[str]:
    """Return the cells of one learner's line; none if there are too few sets."""
    theirs = {(row.task, row.draw): row for row in rows if row.shots == shots}
    pairs: dict[str, list[tuple[PracticeDraw, Score]]] = defaultdict(list)
    for task, draws in practice.of(OURS, shots).items():
        for draw in draws:
            other = theirs.get((task, draw.draw))
            if other and other.n_test == draw.n_test:
                pairs[task].append((draw, other))
    if len(pairs) < MANY:
        return []
    cells = [str(len(pairs)), str(sum(map(len, pairs.values())))]
    for metric in ("accuracy", "f1"):
        between = {t: [100 * (getattr(a, metric) - getattr(b, metric)) for a, b in both] for t, both in pairs.items()}
        mean = over_tasks(between)
        cells += [f"{mean.mean:+.1f} [{mean.low:+.1f}, {mean.high:+.1f}]", _p(tasks_p(between))]
    seconds = statistics.median(row.seconds_adapt for both in pairs.values() for _, row in both)
    return [*cells, f"{seconds:.2g}"]


def _values(of_sets: Mapping[str, Sequence[PracticeDraw]], metric: str) -> dict[str, list[float]]:
    """Return a metric in percent, by data set and draw."""
    return {task: [100 * getattr(draw, metric) for draw in draws] for task, draws in of_sets.items()}


def _mean(of_sets: Mapping[str, Sequence[PracticeDraw]], metric: str) -> float:
    return over_tasks(_values(of_sets, metric)).mean


def _median(of_sets: Mapping[str, Sequence[PracticeDraw]], what: str) -> float:
    return float(statistics.median(getattr(draw, what) for draws in of_sets.values() for draw in draws))


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(columns: int) -> str:
    return "|" + "---|" * columns
