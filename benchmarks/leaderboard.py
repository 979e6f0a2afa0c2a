"""Leaderboard: the shipped prior and what people use today, on the same support sets and test rows.

    python benchmarks/leaderboard.py DATA                # the learners of quickstudy; page and results.json
    python benchmarks/leaderboard.py DATA --setfit       # SetFit on those sets that it can do in reasonable time; hours
    python benchmarks/leaderboard.py DATA --steps        # the prior after 20 gradient steps, on the same sets; an hour
    python benchmarks/leaderboard.py DATA --tables       # compute nothing; print what there is

The data sets are the test sets of split.json: the prior saw none of them, nor anything made from the same source. The
six of LEOPARD have its published support sets. All figures lie in `--out`, by default leaderboard/ beside this file. A
comparison that was stopped goes on where it was; so does SetFit.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from matplotlib.figure import Figure
from records import Score, scores, write
from split import read_split, references, side
from tournament_tables import Tables, print_tables, tables_of

from quickstudy.comparison.compare import compare
from quickstudy.data.reference import load_tasks
from quickstudy.evaluation.protocol import Protocol
from quickstudy.evaluation.record import Draw
from quickstudy.evaluation.results_file import read_results
from quickstudy.report.comparison.page import write_comparison
from quickstudy.tasks.task import Task

PRIOR, PROBE = "prior", "linear-probe"
LEARNERS = (PRIOR, f"{PRIOR}:no-names", f"{PRIOR}:opaque-names", PROBE, "protonet", "label-names", "majority")
STEPS, STEPPED = 20, f"{PRIOR}, 20 steps"
SHOTS, DRAWS, LIMIT = (4, 8, 16), 5, 200
STEP_DRAWS = 2  # of the prior after gradient steps, which take most of a minute at 16 shots
MOST_LABELS = 6  # of a set that SetFit is run on: its time grows with the square of the examples


@dataclass(frozen=True)
class Scored:
    """What tables need of one draw, whoever computed it."""

    learner: str
    task: str
    shots: int
    draw: int
    score: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(""))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--setfit", action="store_true", help="Run SetFit, without and with label names.")
    parser.add_argument("--setfit-draws", type=int, default=DRAWS)
    parser.add_argument("--steps", action="store_true", help="Run the prior after gradient steps.")
    parser.add_argument("--tables", action="store_true", help="Compute nothing.")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.setfit:
        run_setfit(options)
    elif options.steps:
        run_steps(options)
    elif not options.tables:
        run_learners(options)
    show(options)


def run_learners(options: argparse.Namespace) -> None:
    """Compare the learners of quickstudy, and keep the results without confusion matrices and wrong predictions."""
    tasks = [task for name in references(side(read_split(), "test"), options.data) for task in load_tasks(name)]
    results = compare(
        LEARNERS,
        tasks,
        options.out / "work",
        protocol=Protocol(shots=SHOTS, draws=DRAWS, limit=LIMIT),
        workers=options.workers,
        texts=False,
        on_cell=lambda done, of, what: print(f"{done} of {of}: {what}", flush=True),
    )
    draws = tuple(replace(draw, labels=None, mistakes=None) for draw in results.draws)
    write_comparison(options.out, replace(results, draws=draws))


def run_setfit(options: argparse.Namespace) -> None:
    """Run SetFit on the single texts with few labels."""
    chosen = [name for name in references(side(read_split(), "test"), options.data) if suits_setfit(load_tasks(name))]
    script = Path(__file__).with_name("setfit_baseline.py")
    numbers = ["--shots", ",".join(map(str, SHOTS)), "--draws", str(options.setfit_draws), "--limit", str(LIMIT)]
    for names in ([], ["--names"]):
        command = [sys.executable, str(script), "--tasks", *chosen, *numbers, *names, "--out", str(options.out)]
        subprocess.run(command, check=True)


def run_steps(options: argparse.Namespace) -> None:
    """Run the prior after gradient steps on the sets that SetFit is run on."""
    chosen = [load_tasks(name) for name in references(side(read_split(), "test"), options.data)]
    results = compare(
        (f"{PRIOR}:{STEPS}-steps",),
        [task for tasks in chosen if suits_setfit(tasks) for task in tasks],
        options.out / "steps",
        protocol=Protocol(shots=SHOTS, draws=STEP_DRAWS, limit=LIMIT),
        workers=options.workers,
        texts=False,
        on_cell=lambda done, of, what: print(f"{done} of {of}: {what}", flush=True),
    )
    lines = [json.dumps(asdict(Score.from_draw(draw))) + "\n" for draw in results.draws]
    (options.out / "steps.jsonl").write_text("".join(lines), encoding="utf-8")


def suits_setfit(tasks: Sequence[Task]) -> bool:
    return all(not task.pair and len(task.label_names) <= MOST_LABELS for task in tasks)


def show(options: argparse.Namespace) -> None:
    """Print the tables: over all test sets, and over those draws that SetFit has done."""
    ours = [scored(draw) for draw in read_results(options.out / "results.json", "run this without --tables").draws]
    everything = tables_of(ours, read_split(), SHOTS, control=PRIOR)
    print_tables(everything)
    write(options.out / "tables.json", everything)
    draw_gains(ours, options.out / "gains.png")
    extra = by_learner(row for file in ("setfit.jsonl", "steps.jsonl") for row in read_rows(options.out / file))
    groups = [[name] for name in extra] + [[STEPPED, name] for name in extra if STEPPED in extra and name != STEPPED]
    for group in groups:
        done = set.intersection(*({place(row) for row in extra[name]} for name in group))
        rows = [row for name in group for row in extra[name] if place(row) in done]
        for shots in sorted({row.shots for row in rows}):
            print(f"\n# The sets and draws of {' and of '.join(group)}, {shots} shots")
            print_tables(beside(ours, [row for row in rows if row.shots == shots], group[0]))


def draw_gains(rows: Iterable[Scored], file: Path) -> None:
    """Draw the gain of the prior over the linear probe on each data set, at the fewest and at the most shots."""
    few, many = min(SHOTS), max(SHOTS)
    gains = gains_by_task(rows)
    order = sorted(gains[few], key=lambda task: gains[few][task])
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    axes.barh(order, [gains[few][task] for task in order], color="#4477aa", label=f"{few} examples per class")
    most = [task for task in order if task in gains[many]]
    axes.plot([gains[many][task] for task in most], most, "o", color="#cc6677", label=f"{many} examples per class")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("gain over a linear probe on the untouched encoder, in points of accuracy")
    axes.set_title(f"{len(order)} data sets that no training saw")
    axes.legend(loc="lower right")
    figure.savefig(file, dpi=110)


def gains_by_task(rows: Iterable[Scored]) -> dict[int, dict[str, float]]:
    """Return the gain of the prior over the linear probe, in points, by shots and task."""
    means: dict[tuple[str, str, int], list[float]] = {}
    for row in rows:
        means.setdefault((row.learner, row.task, row.shots), []).append(100 * row.score)
    return {
        k: {
            task: statistics.mean(scores) - statistics.mean(means[PROBE, task, shots])
            for (learner, task, shots), scores in means.items()
            if learner == PRIOR and shots == k
        }
        for k in SHOTS
    }


def beside(ours: Iterable[Scored], rows: Sequence[Scored], first: str) -> Tables:
    """Return the tables over the tasks, shots and draws that other learners have, and over no others.

    Gains are those over the prior after gradient steps, if that comes first, and else over the prior.
    """
    done = {place(row) for row in rows}
    shots = sorted({row.shots for row in rows})
    same = [row for row in ours if place(row) in done]
    return tables_of([*same, *rows], read_split(), shots, control=first if first == STEPPED else PRIOR)


def place(row: Scored) -> tuple[str, int, int]:
    return row.task, row.shots, row.draw


def read_rows(log: Path) -> list[Scored]:
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [scored(row) for row in scores([json.loads(line) for line in lines])]


def scored(row: Draw | Score) -> Scored:
    score = row.score if isinstance(row, Draw) else row.main_score
    return Scored(row.learner, row.task, int(row.shots), row.draw, score)


def by_learner(rows: Iterable[Scored]) -> dict[str, list[Scored]]:
    grouped: dict[str, list[Scored]] = {}
    for row in rows:
        grouped.setdefault(row.learner, []).append(row)
    return grouped


if __name__ == "__main__":
    main()
