"""Every method with an equal budget: meta-train each for the same time from MiniLM, then adapt to held-out tasks.

    python benchmarks/methods.py --seconds 360 [--methods maml,protonet] [--train REF ...] [--tasks REF ...] [--out FOLDER]

What a method learns and at which rates comes from recipes/<method>_samples.toml; tasks, episodes, meta-batch and the encoder's
outer rate are the same for all. The number of outer steps follows from a trial of a tenth of the budget, so that warm-up and
decay fit it. One JSON file per method is written as it finishes and a method that has its file is skipped, so the benchmark can
be stopped and goes on. `--table` prints what is there.

The budget is processor time, so that it does not depend on what else the machine does: `--seconds 360` on 2 threads are 720 core
seconds, as are `--seconds 720` with OMP_NUM_THREADS=1, which lets two methods run side by side. It includes nothing but the outer
steps. Peak memory is that of the process, so each method gets its own.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

import quickstudy
from quickstudy.build import build
from quickstudy.config import check_recipe, load_recipe
from quickstudy.data.reference import load_tasks
from quickstudy.evaluation.draws import most_shots
from quickstudy.evaluation.evaluate import evaluate_learners
from quickstudy.evaluation.plan import plan_tasks
from quickstudy.evaluation.protocol import Protocol
from quickstudy.evaluation.results_file import figure_rows
from quickstudy.methods.catalog import METHODS, make
from quickstudy.models.encoder import Encoder
from quickstudy.storage.files import write_json
from quickstudy.training.outer import train
from quickstudy.training.record import StepRecord

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
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.one:
        write_json(options.out / f"{options.one}.json", measure(options.one, options))
        return
    for method in () if options.table else options.methods.split(","):
        if not (options.out / f"{method}.json").exists():
            print(f"{time.strftime('%H:%M:%S')} {method}", flush=True)
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--one", method], check=True)
    print_table([json.loads(file.read_text()) for file in sorted(options.out.glob("*.json"))])


def measure(method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Meta-train one method within the budget and evaluate it."""
    file = RECIPES / f"{method.replace('-', '_').replace('+', 'p')}_samples.toml"
    steps: list[float] = []
    if file.exists():
        recipe = load_recipe(file)
        values = recipe.model_dump(exclude_none=True) | {"episodes": EPISODES, "tasks": {"train": options.train}}
        values["outer"] = OUTER | {"method_lr": recipe.outer.method_lr}
        learner, steps = _train(values, options.seconds * torch.get_num_threads())
    else:
        learner = make(method, Encoder.load("minilm"))
    trained_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tasks = [task for reference in options.tasks for task in load_tasks(reference)]
    shots = [int(k) for k in options.shots.split(",")]
    draws = []
    for task in tasks:
        possible = tuple(k for k in shots if k <= most_shots(task))
        protocol = Protocol(shots=possible, draws=options.draws, limit=options.limit)
        draws += evaluate_learners({method: learner}, plan_tasks(protocol, [task]))
    return {
        "method": method,
        "settings": {} if not file.exists() else recipe.method.settings,
        "quickstudy": quickstudy.__version__,
        "threads": torch.get_num_threads(),
        "outer_steps": len(steps),
        "core_seconds": sum(steps),
        "core_seconds_per_step": statistics.median(steps) if steps else None,
        "peak_mib": trained_memory,
        "seconds_adapt": statistics.median(draw.costs.seconds_adapt or 0.0 for draw in draws if draw.shots == shots[0]),
        "rows": figure_rows(draws),
    }


def _train(values: dict[str, Any], budget: float) -> tuple[Any, list[float]]:
    """Train for a budget of core seconds; return the learner and the core seconds of each outer step."""
    times: list[float] = []
    tick = time.process_time()

    def on_step(_: StepRecord) -> None:
        nonlocal tick
        times.append(time.process_time() - tick)
        tick = time.process_time()

    def run(count: int) -> Any:
        nonlocal tick
        built = build(check_recipe(values))
        settings = replace(built.outer, outer_steps=count, warmup_steps=count // 10)
        times.clear()
        tick = time.process_time()
        with tempfile.TemporaryDirectory() as scratch:
            train(
                built.learner, built.sampler, settings, accelerator=accelerator, folder=Path(scratch), on_step=on_step
            )
        return built.learner

    accelerator = Accelerator()
    run(FIRST)
    run(max(FIRST, round(0.1 * budget / statistics.mean(times[1:]))))  # the first step is slower than the others
    learner = run(max(1, round(budget / statistics.mean(times))))
    return learner, times


def print_table(found: list[dict[str, Any]]) -> None:
    """Print one line per method: cost, then the mean score of each group of tasks and number of shots."""
    groups = sorted({(_group(row), row["shots"]) for one in found for row in one["rows"]})
    heads = [f"{group} {k}" for group, k in groups]
    print(f"| method | outer steps | core s | core s / step | peak MiB | s / adaptation | {' | '.join(heads)} |")
    print(f"|---|{'---|' * (5 + len(heads))}")
    for one in sorted(found, key=lambda one: [*METHODS, "setfit"].index(one["method"])):
        cells = []
        for group in groups:
            by_task: dict[str, list[float]] = {}
            for row in one["rows"]:
                if (_group(row), row["shots"]) == group:
                    by_task.setdefault(row["task"], []).append(row[row["main"]])
            cells.append(f"{100 * statistics.mean(map(statistics.mean, by_task.values())):.1f}" if by_task else "-")
        per = f"{one['core_seconds_per_step']:.2f}" if one["outer_steps"] else "-"
        cost = [
            f"{one['outer_steps']} | {one['core_seconds']:.0f} | {per} | {one['peak_mib']:.0f}",
            f"{one['seconds_adapt']:.3f}",
        ]
        print(f"| {one['method']} | {' | '.join([*cost, *cells])} |")


def _group(row: dict[str, Any]) -> str:
    """Return the collection a task is from; of the bundled tasks their domain."""
    collection = str(row["task"].partition("/")[0].partition(":")[0])
    return str(row["domain"]) if collection == "samples" else collection


if __name__ == "__main__":
    main()
