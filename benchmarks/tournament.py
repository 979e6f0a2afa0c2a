"""Tournament: all methods with equal processor time, meta-trained on many data sets and scored on others.

    python benchmarks/tournament.py DATA --stage first --core-seconds 300 --out FOLDER
    python benchmarks/tournament.py DATA --stage final --core-seconds 600 --out FOLDER --seeds 0,1,2
    python benchmarks/tournament.py DATA --stage final --core-seconds 600 --out FOLDER --seeds 0,1,2 --tables

The last prints what there is, and `--publish FOLDER` writes it where it can be shown. The figures of each finished run
are one small file in `--figures` (by default FOLDER/figures). They are all that the tables need, so a tournament can go
on with `--resume` on another machine, from the same commit.

    first    all methods, one meta-training seed, scored on validation sets of every kind; it chooses the best eight
    final    those eight and the multi-task control, several seeds, scored on the test sets, which nobody looked at

Which sets are for what is in split.json (see split.py). The settings of a method come from its recipe,
recipes/<method>_samples.toml. Tasks, episodes, meta-batch and the outer rate of the encoder are the same for all. The
meta-training seed is the seed of the recipe: of the episodes, and of all that is random at the start.

A budget is processor time, spent on the outer loop alone (`training.budget`): rates warm up and fall over the budget,
and what a run really took may differ by 3 % at most. Each run is a process of its own on one thread, `--jobs` of them
side by side. Of a run that was under way when a tournament was stopped, nothing is kept. Results, page and tables are
those of `quickstudy compare`, with the tables by kind of tournament_tables.py beside them.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from records import read, write
from split import Split, read_split, references, side
from tournament_tables import choose, print_tables, tables_of

import quickstudy
from quickstudy.comparison.collect import results_of
from quickstudy.comparison.plan import Plan, plan_comparison
from quickstudy.comparison.pool import run_missing
from quickstudy.config import Recipe, check_recipe, dump_recipe, load_recipe
from quickstudy.data.reference import load_tasks
from quickstudy.evaluation.draws import most_shots
from quickstudy.evaluation.hashing import hash_of
from quickstudy.evaluation.plan import plan_tasks
from quickstudy.evaluation.protocol import Protocol
from quickstudy.evaluation.record import Draw
from quickstudy.evaluation.results import Learner
from quickstudy.evaluation.results_file import CELLS
from quickstudy.methods.catalog import METHODS
from quickstudy.pretraining import start_run
from quickstudy.report.comparison.page import write_comparison
from quickstudy.storage.files import write_text
from quickstudy.storage.layout import RunFiles
from quickstudy.tasks.task import Task
from quickstudy.testing import tiny_encoder
from quickstudy.training.budget import CoreSeconds

RECIPES = Path(__file__).parents[1] / "recipes"
EPISODES = {"n_way": (2, 6), "k_shot": (1, 8), "n_query": 4, "weighting": "temperature", "temperature": 3.0}
OUTER = {
    "outer_steps": 1000,  # the scale of the budget: the warm-up is its first twentieth
    "outer_lr": 3e-5,
    "meta_batch_size": 4,
    "validate_every": 1_000_000,
    "keep": "last",
}
IN_FINAL = {"outer_lr": 5e-5, "mixed_precision": "bf16", "max_length": 64}  # more steps in the same time; for all
OF_METHOD = ("method_lr", "schedule")  # settings of the outer loop that belong to a method
BASELINES = ("majority", "nearest-neighbour", "linear-probe", "protonet")
CONTROL = "multi-task"
FINE_TUNING = {"name": "finetune", "adapts": "layers:-1"}
SHOTS = (4, 16)
LIMIT = 150  # scored rows of a task
DRAWS = 2
PER_KIND = 2  # validation sets of each kind that the first stage scores
MOST_LABELS = 20  # of a set that the first stage scores, for its time
GO_ON = 8
TOLERANCE = 0.03


@dataclass(frozen=True)
class Spent:
    """What one run took: processor seconds of its outer loop and of its evaluation, and the outer steps."""

    method: str
    seed: int
    budget: float
    core_seconds: float
    outer_steps: int
    evaluation_core_seconds: float

    @property
    def equal(self) -> bool:
        """Whether the run took its budget, within the tolerance."""
        return abs(self.core_seconds / self.budget - 1) <= TOLERANCE


@dataclass(frozen=True)
class Budgets:
    """What all runs took."""

    runs: tuple[Spent, ...]


@dataclass(frozen=True)
class Figures:
    """All that is kept of a run: its learners, and their draws without texts and confusion matrices."""

    commit: str
    spent: Spent
    learners: dict[str, Learner]
    draws: tuple[Draw, ...]


@dataclass(frozen=True)
class Verdict:
    """Which methods go on, best first, with the mean of each over the validation tasks and both numbers of shots."""

    methods: tuple[str, ...]
    means: dict[str, float]


def main() -> None:
    options = parse_options()
    if options.single:
        work(options, options.single)
        return
    entries = [f"{method} {seed}" for method in methods(options) for seed in options.seeds]
    if not options.tables:
        prepare(options)
        missing = [name for name in ("baselines", *entries) if not figures_file(options, name).exists()]
        run_all(options, missing)
    merge(options, entries)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--stage", choices=("first", "final"), required=True)
    parser.add_argument("--core-seconds", type=float, default=300)
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0])
    parser.add_argument("--methods", type=lambda text: text.split(","), help="Default: all, or those that go on.")
    parser.add_argument("--sets", type=int, help="Score only so many sets, to try things out.")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--nice", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figures", type=Path, help="Folder of the figures of finished runs.")
    parser.add_argument("--resume", action="store_true", help="Go on with a tournament that was stopped.")
    parser.add_argument("--tables", action="store_true", help="Compute nothing; put together what there is.")
    parser.add_argument("--publish", type=Path, help="Write results, page and tables there too, without large details.")
    parser.add_argument("--single", help=argparse.SUPPRESS)  # what this process is for
    options = parser.parse_args()
    options.figures = (options.figures or options.out / "figures").resolve() / options.stage
    options.data, options.out = options.data.resolve(), options.out.resolve() / options.stage
    return options


def methods(options: argparse.Namespace) -> list[str]:
    """Return the methods of a stage: those given, those that the first stage chose, or all that meta-train."""
    if options.methods:
        return list(options.methods)
    if options.stage == "first":
        return [name for name, make in METHODS.items() if make(tiny_encoder()).meta_trains]
    chosen = read(verdict_file(options), Verdict).methods
    return [*chosen, *([] if CONTROL in chosen else [CONTROL])]


def prepare(options: argparse.Namespace) -> None:
    """Make the folder of a stage; one that is there must be gone on with, in the same way."""
    if options.out.exists() and not options.resume:
        raise SystemExit(f"{options.out} is there already: go on with --resume, or choose another --out")
    (options.out / "logs").mkdir(parents=True, exist_ok=True)
    (options.out / "runs").mkdir(exist_ok=True)
    options.figures.mkdir(parents=True, exist_ok=True)
    asked = {
        "core seconds": options.core_seconds,
        "outer": common(options),
        "sets": options.sets,
        "split": hash_of(repr(read_split())),
    }
    file = options.out / "asked.json"
    if file.exists() and json.loads(file.read_text(encoding="utf-8")) != asked:
        raise SystemExit(f"{file} says that this tournament has another budget, rate or split")
    write_text(file, json.dumps(asked))
    recipe = recipe_of(options, "finetune", 0)
    write_text(options.out / "finetune.toml", dump_recipe(recipe))


def run_all(options: argparse.Namespace, names: Sequence[str]) -> None:
    """Run each name in a process of its own, several side by side; a process that fails does not stop the others."""
    waiting, running = list(names), dict[str, subprocess.Popen[bytes]]()
    while waiting or running:
        while waiting and len(running) < options.jobs:
            name = waiting.pop(0)
            running[name] = start(options, name)
            print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
        time.sleep(1)
        for name in [name for name, process in running.items() if process.poll() is not None]:
            if running.pop(name).returncode:
                print(f"{time.strftime('%H:%M:%S')} {name} FAILED: see {log_file(options, name)}", flush=True)


def start(options: argparse.Namespace, name: str) -> "subprocess.Popen[bytes]":
    command = ["nice", "-n", str(options.nice), sys.executable, __file__, *sys.argv[1:], "--single", name]
    with log_file(options, name).open("wb") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def log_file(options: argparse.Namespace, name: str) -> Path:
    return Path(options.out / "logs" / f"{name}.log")


def figures_file(options: argparse.Namespace, name: str) -> Path:
    return Path(options.figures / f"{name.replace(' ', '-')}.json")


def verdict_file(options: argparse.Namespace) -> Path:
    """Return where the first stage says which methods go on."""
    return Path(options.figures.parent / "first" / "verdict.json")


def work(options: argparse.Namespace, name: str) -> None:
    """Meta-train and evaluate one method with one seed, or evaluate the baselines."""
    if name == "baselines":
        score(options, baselines(options), write_to=Spent(name, 0, 0.0, 0.0, 0, 0.0))
        return
    method, seed = name.rsplit(" ", 1)
    folder = options.out / "runs" / name
    if folder.exists():  # it was stopped before it had been evaluated; the budget counts one process only
        shutil.rmtree(folder)
    recipe = recipe_of(options, method, int(seed))
    budget = CoreSeconds(options.core_seconds, recipe.outer.outer_steps)
    run = start_run(recipe, folder, lambda record: print(record.to_json(), flush=True), budget=budget)
    shutil.rmtree(RunFiles(folder).checkpoints)  # nobody goes on with a finished run
    steps = run.metrics()[-1].step
    spent = Spent(method, int(seed), options.core_seconds, budget.spent, steps, 0.0)
    score(options, [folder], write_to=spent)


def score(options: argparse.Namespace, learners: Sequence[str | Path], *, write_to: Spent) -> None:
    """Compute the cells of learners, and write what that took."""
    began = time.process_time()
    tasks = scored_tasks(options)
    print(f"scored on {len(tasks)} tasks: {', '.join(task.name for task in tasks)}", flush=True)
    comparison = options.out / "comparison"
    (comparison / CELLS).mkdir(parents=True, exist_ok=True)
    plan = plan_comparison([str(name) for name in learners], tasks, comparison, protocol(), "minilm")
    run_missing(plan, 1, None, lambda done, of, what: print(f"{done} of {of}: {what}", flush=True))
    spent = replace(write_to, evaluation_core_seconds=time.process_time() - began)
    name = spent.method if spent.method == "baselines" else f"{spent.method} {spent.seed}"
    write(figures_file(options, name), figures_of(plan, spent))


def figures_of(plan: Plan, spent: Spent) -> Figures:
    """Return what is kept of a run whose cells are computed."""
    draws = [replace(draw, labels=None, mistakes=None) for cell in plan.cells for draw in cell.read()]
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(quickstudy.__file__).parent, capture_output=True, text=True, check=True
    )
    return Figures(commit.stdout.strip(), spent, dict(plan.learners), tuple(draws))


def baselines(options: argparse.Namespace) -> list[str]:
    """Return what the methods are compared with; ordinary fine-tuning only in the final, for its time."""
    return [*BASELINES, *([str(options.out / "finetune.toml")] if options.stage == "final" else [])]


def protocol() -> Protocol:
    return Protocol(shots=SHOTS, draws=DRAWS, limit=LIMIT)


def recipe_of(options: argparse.Namespace, method: str, seed: int) -> Recipe:
    """Return the recipe of a method: its own settings and rate, and the rest as for all methods."""
    file = RECIPES / f"{method.replace('-', '_').replace('+', 'p')}_samples.toml"
    own = load_recipe(file) if file.exists() else None
    settings = own.method.model_dump() if own else FINE_TUNING if method == "finetune" else {"name": method}
    outer = {name: value for name, value in asdict(own.outer).items() if name in OF_METHOD} if own else {}
    train = references(side(read_split(), "train"), options.data)
    return check_recipe(
        {
            "name": method,
            "seed": seed,
            "method": settings,
            "tasks": {"train": train},
            "episodes": EPISODES,
            "outer": common(options) | outer,
        }
    )


def common(options: argparse.Namespace) -> dict[str, object]:
    """Return the settings of the outer loop that are the same for all methods of a stage."""
    return OUTER | (IN_FINAL if options.stage == "final" else {})


def scored_tasks(options: argparse.Namespace) -> list[Task]:
    """Return the tasks that a stage scores.

    The first stage takes some validation sets of each kind: those first whose names are first, of those with few
    labels and enough examples. The final stage takes all test sets, as many shots as they have examples for.
    """
    split = read_split()
    if options.stage == "final":
        return load_tasks(references(side(split, "test")[: options.sets], options.data))
    return sample_of_kinds(split, options)[: options.sets]


def sample_of_kinds(split: Split, options: argparse.Namespace) -> list[Task]:
    tasks: list[Task] = []
    for kind in sorted({member.kind for member in split.values()}):
        names = [name for name in side(split, "validation") if split[name].kind == kind]
        groups = {split[name].kin: name for name in reversed(names)}  # one of each group of kin
        loaded = load_tasks(references(sorted(groups.values(), key=lambda name: hash_of(name)), options.data))
        tasks += [t for t in loaded if most_shots(t) >= max(SHOTS) and len(t.label_names) <= MOST_LABELS][:PER_KIND]
    return tasks


def merge(options: argparse.Namespace, entries: Sequence[str]) -> None:
    """Put together what there is: results, page, tables, and of the first stage the verdict."""
    files = {name: figures_file(options, name) for name in ("baselines", *entries)}
    there = {name: read(file, Figures) for name, file in files.items() if file.exists()}
    took = [figures.spent for name, figures in there.items() if name != "baselines"]
    assert len({figures.commit for figures in there.values()}) == 1, "these figures are not from one commit"
    learners = {name: learner for figures in there.values() for name, learner in figures.learners.items()}
    draws = [draw for figures in there.values() for draw in figures.draws]
    planned = plan_tasks(protocol(), scored_tasks(options))
    results = results_of(protocol(), learners, planned, draws, texts=False)
    tables = tables_of(results.draws, read_split(), SHOTS, control=CONTROL)
    write(options.out / "tables.json", tables)
    write(options.out / "spent.json", Budgets(tuple(took)))
    print_tables(tables)
    if options.publish:
        write_comparison(options.publish, results)
        for file in ("tables.json", "spent.json"):
            shutil.copy(options.out / file, options.publish)
    if options.stage == "first":
        means = choose(tables, [spent.method for spent in took])
        best = tuple(method for method in means if method != CONTROL)[:GO_ON]
        write(verdict_file(options), Verdict(best, means))
        print(f"\nThese go on: {', '.join(best)}")
    print_spent(took)
    if absent := [name for name in entries if name not in there]:
        raise SystemExit(f"\nnot finished: {', '.join(absent)}; go on with --resume")


def print_spent(took: Sequence[Spent]) -> None:
    """Print what the runs took, and fail if one is out of its budget."""
    print("\n| method | seed | outer steps | core s | core s for evaluation |\n|---|---|---|---|---|")
    for spent in took:
        cells = spent.outer_steps, f"{spent.core_seconds:.1f}", f"{spent.evaluation_core_seconds:.0f}"
        print(f"| {spent.method} | {spent.seed} | {' | '.join(map(str, cells))} |")
    unequal = [f"{spent.method} {spent.seed}" for spent in took if not spent.equal]
    assert not unequal, f"out of their budget by more than {TOLERANCE:.0%}: {', '.join(unequal)}"


if __name__ == "__main__":
    main()
