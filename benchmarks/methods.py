"""Methods: each meta-trained from MiniLM with the same budget, then adapted to held-out tasks.

    python benchmarks/methods.py --seconds 360 [--methods maml,protonet] [--train REF ...] [--tasks REF ...]

The settings and the rates of a method come from recipes/<method>_samples.toml. Tasks, episodes, meta-batch and the
outer rate of the encoder are the same for all methods. A trial with a tenth of the budget tells how many outer steps
the budget allows, so that warm-up and decay fit. The JSON file of a method is written when the method has finished. A
method that has its file is skipped, so that the benchmark can be stopped and started again. `--table` prints what
there is.

The budget is processor time, which does not depend on what else the machine does. `--seconds 360` on 2 threads are 720
core seconds. `--seconds 720` with OMP_NUM_THREADS=1 are as many, and two methods can then run side by side. The budget
is spent on outer steps alone. Each method runs in a process of its own, because peak memory is that of the process.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from accelerate import Accelerator
from records import MethodResult, Score, read, scores, write

import quickstudy
from quickstudy.build import build
from quickstudy.config import Recipe, check_recipe, load_recipe
from quickstudy.data.reference import load_tasks
from quickstudy.evaluation.draws import most_shots
from quickstudy.evaluation.evaluate import evaluate_learners
from quickstudy.evaluation.protocol import Protocol
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import METHODS, make
from quickstudy.models.encoder import Encoder
from quickstudy.training.outer import StepRecord, train

RECIPES = Path(__file__).parents[1] / "recipes"
EPISODES = {"n_way": (2, 5), "k_shot": (2, 4), "n_query": 4, "weighting": "temperature", "temperature": 3.0}
OUTER = {"outer_lr": 3e-5, "meta_batch_size": 4, "validate_every": 1_000_000, "keep": "last"}
FIRST = 3  # outer steps that tell how long the trial may be


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=360)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--train", nargs="+", default=["samples:meta-train"])
    parser.add_argument("--tasks", nargs="+", default=["samples:meta-test"])
    parser.add_argument("--shots", default="4,16")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "methods")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--single", help=argparse.SUPPRESS)  # the method that this process is for
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.single:
        write(options.out / f"{options.single}.json", measure(options.single, options))
        return
    for method in () if options.table else options.methods.split(","):
        if not (options.out / f"{method}.json").exists():
            print(f"{time.strftime('%H:%M:%S')} {method}", flush=True)
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--single", method], check=True)
    print_table([read(file, MethodResult) for file in sorted(options.out.glob("*.json"))])


def measure(method: str, options: argparse.Namespace) -> MethodResult:
    """Meta-train one method within the budget and evaluate it; a method without a recipe is a baseline."""
    file = RECIPES / f"{method.replace('-', '_').replace('+', 'p')}_samples.toml"
    recipe = load_recipe(file) if file.exists() else None
    seconds: list[float] = []
    if recipe:
        learner, seconds = train_within(recipe, options.train, options.seconds * torch.get_num_threads())
    else:
        learner = make(method, Encoder.load("minilm"))
    trained_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = evaluate(method, learner, options)
    fewest_shots = min(row.shots for row in rows)
    return MethodResult(
        method,
        recipe.method.settings if recipe else {},
        quickstudy.__version__,
        torch.get_num_threads(),
        len(seconds),
        sum(seconds),
        statistics.median(seconds) if seconds else None,
        trained_memory,
        statistics.median(row.seconds_adapt for row in rows if row.shots == fewest_shots),
        rows,
    )


def evaluate(method: str, learner: MetaLearner, options: argparse.Namespace) -> tuple[Score, ...]:
    """Evaluate on each task with those numbers of shots that it has examples for."""
    rows: list[Score] = []
    for task in (task for reference in options.tasks for task in load_tasks(reference)):
        shots = tuple(k for k in map(int, options.shots.split(",")) if k <= most_shots(task))
        protocol = Protocol(shots=shots, draws=options.draws, limit=options.limit)
        rows += scores(evaluate_learners({method: learner}, [task], protocol))
    return tuple(rows)


def train_within(recipe: Recipe, tasks: list[str], budget: float) -> tuple[MetaLearner, list[float]]:
    """Train for a budget of core seconds; return the learner and the core seconds of each outer step."""
    values = recipe.model_dump(exclude_none=True) | {"episodes": EPISODES, "tasks": {"train": tasks}}
    fixed = check_recipe(values | {"outer": OUTER | {"method_lr": recipe.outer.method_lr}})
    _, seconds = train_steps(fixed, FIRST)
    per_step = statistics.mean(seconds[1:])  # the first step is slower than the others
    _, seconds = train_steps(fixed, max(FIRST, round(0.1 * budget / per_step)))
    return train_steps(fixed, max(1, round(budget / statistics.mean(seconds))))


def train_steps(recipe: Recipe, count: int) -> tuple[MetaLearner, list[float]]:
    """Train anew for so many outer steps."""
    built = build(recipe)
    settings = replace(built.outer, outer_steps=count, warmup_steps=count // 10)
    accelerator = Accelerator()
    clock = [time.process_time()]

    def on_step(_: StepRecord) -> None:
        clock.append(time.process_time())

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        train(built.learner, built.sampler, settings, accelerator=accelerator, folder=folder, on_step=on_step)
    return built.learner, [after - before for before, after in pairwise(clock)]


def print_table(results: list[MethodResult]) -> None:
    """Print one line per method: cost, then the mean score of each group of tasks and number of shots."""
    columns = sorted({(group(row), row.shots) for result in results for row in result.rows})
    heads = [f"{name} {shots}" for name, shots in columns]
    print(f"| method | outer steps | core s | core s / step | peak MiB | s / adaptation | {' | '.join(heads)} |")
    print(f"|---|{'---|' * (5 + len(heads))}")
    order = [*METHODS, "setfit"]
    for result in sorted(results, key=lambda result: order.index(result.method)):
        per_step = "-" if result.core_seconds_per_step is None else f"{result.core_seconds_per_step:.2f}"
        cells = [
            f"{result.outer_steps} | {result.core_seconds:.0f} | {per_step} | {result.peak_mib:.0f}",
            f"{result.seconds_adapt:.3f}",
            *(mean_score(result, column) for column in columns),
        ]
        print(f"| {result.method} | {' | '.join(cells)} |")


def mean_score(result: MethodResult, column: tuple[str, int]) -> str:
    """Return the mean over tasks, in %, of the mean over draws."""
    by_task: dict[str, list[float]] = {}
    for row in result.rows:
        if (group(row), row.shots) == column:
            by_task.setdefault(row.task, []).append(row.main_score)
    return f"{100 * statistics.mean(map(statistics.mean, by_task.values())):.1f}" if by_task else "-"


def group(row: Score) -> str:
    """Return the collection a task is from; of the bundled tasks their domain."""
    collection = row.task.partition("/")[0].partition(":")[0]
    return row.domain if collection == "samples" else collection


if __name__ == "__main__":
    main()
