"""Tournament: all methods with equal processor time, meta-trained on many data sets and scored on others.

    python benchmarks/tournament.py DATA --stage first --core-seconds 300 --out FOLDER
    python benchmarks/tournament.py DATA --stage final --core-seconds 600 --out FOLDER --seeds 0,1,2
    python benchmarks/tournament.py DATA --stage final --core-seconds 600 --out FOLDER --seeds 0,1,2 --tables

The last prints what there is, and `--publish FOLDER` writes it where it can be shown. The figures of each finished run
are one small file in `--figures` (by default FOLDER/figures). They are all that the tables need, so a tournament can go
on with `--resume` on another machine, from the same commit. Where no figures are, `--tables` prints those of the
tournament that is published in tournament/ beside this file. `quickstudy report benchmarks/tournament` makes its page.

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
import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

from experiment import (
    UNTRAINED,
    Spent,
    agree,
    begin,
    call,
    collect,
    finish,
    make_parser,
    meta_train,
    parse,
    run_all,
    score,
    scored_tasks,
)
from records import read, write
from split import read_split, references, side
from tournament_tables import Tables, choose, print_tables, tables_of

from quickstudy.comparison.collect import results_of
from quickstudy.comparison.plan import Plan, plan_comparison
from quickstudy.config import Recipe, check_recipe, dump_recipe, load_recipe
from quickstudy.evaluation.hashing import hash_of
from quickstudy.evaluation.plan import plan_tasks
from quickstudy.evaluation.protocol import Protocol
from quickstudy.methods.catalog import METHODS
from quickstudy.report.comparison.page import write_comparison
from quickstudy.storage.files import write_text
from quickstudy.tasks.task import Task
from quickstudy.testing import tiny_encoder

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
SCORED = {"first": "validation", "final": "test"}
GO_ON = 8
PUBLISHED = Path(__file__).with_suffix("")
HEAD = """# Methods side by side, with the same processor time

`benchmarks/tournament.py` says how this was measured, and `dev/LOG.md` what it says. A method's score is the mean over
its meta-training seeds. Intervals are over data sets; of fewer than three sets there is none. p is that of the paired
test, after Holm's correction for the number of methods.
"""


@dataclass(frozen=True)
class Budgets:
    """What all runs took."""

    runs: tuple[Spent, ...]


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
    if options.tables and options.stage == "final" and not options.figures.exists():
        print(f"{options.figures} is not there: these are the tables of {PUBLISHED}", file=sys.stderr)
        print_tables(read(PUBLISHED / "tables.json", Tables))
        return
    entries = [f"{method} {seed}" for method in methods(options) for seed in options.seeds]
    if not options.tables:
        asked = {
            "core seconds": options.core_seconds,
            "outer": outer_of(options.stage),
            "sets": options.sets,
            "split": hash_of(repr(read_split())),
        }
        begin(options)
        agree(options, asked)
        write_text(options.out / "finetune.toml", dump_recipe(recipe_of(options.data, "finetune", 0, options.stage)))
        run_all(options, [UNTRAINED, *entries])
    merge(options, entries)


def parse_options() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--stage", choices=tuple(SCORED), required=True)
    parser.add_argument("--methods", type=lambda text: text.split(","), help="Default: all, or those that go on.")
    parser.add_argument("--publish", type=Path, help="Write results, page and tables there too, without large details.")
    options = parse(parser)
    options.figures, options.out = options.figures / options.stage, options.out / options.stage
    return options


def methods(options: argparse.Namespace) -> list[str]:
    """Return the methods of a stage: those given, those that the first stage chose, or all that meta-train."""
    if options.methods:
        return list(options.methods)
    if options.stage == "first":
        return [name for name, make in METHODS.items() if make(tiny_encoder()).meta_trains]
    chosen = read(verdict_file(options), Verdict).methods
    return [*chosen, *([] if CONTROL in chosen else [CONTROL])]


def verdict_file(options: argparse.Namespace) -> Path:
    """Return where the first stage says which methods go on."""
    return Path(options.figures.parent / "first" / "verdict.json")


def work(options: argparse.Namespace, name: str) -> None:
    """Meta-train and evaluate one method with one seed, or evaluate the baselines."""
    if name == UNTRAINED:
        score(options, name, plan(options, baselines(options)))
        return
    method, seed = name.rsplit(" ", 1)
    folder, recipe = options.out / "runs" / name, recipe_of(options.data, method, int(seed), options.stage)
    _, spent = meta_train(recipe, folder, options.core_seconds, method=method, seed=int(seed))
    score(options, name, plan(options, [str(folder)]), spent)


def plan(options: argparse.Namespace, learners: Sequence[str]) -> Plan:
    """Return the plan of what learners are scored on."""
    return plan_comparison(learners, tasks_of(options), options.out / "comparison", protocol(), "minilm")


def baselines(options: argparse.Namespace) -> list[str]:
    """Return what the methods are compared with; ordinary fine-tuning only in the final, for its time."""
    return [*BASELINES, *([str(options.out / "finetune.toml")] if options.stage == "final" else [])]


def protocol() -> Protocol:
    return Protocol(shots=SHOTS, draws=DRAWS, limit=LIMIT)


def tasks_of(options: argparse.Namespace) -> list[Task]:
    """Return the tasks that a stage scores."""
    return scored_tasks(options.data, SCORED[options.stage], SHOTS, options.sets)


def recipe_of(data: Path, method: str, seed: int, stage: str) -> Recipe:
    """Return the recipe of a method: its own settings and rate, and the rest as for all methods."""
    file = RECIPES / f"{method.replace('-', '_').replace('+', 'p')}_samples.toml"
    own = load_recipe(file) if file.exists() else None
    settings = own.method.model_dump() if own else FINE_TUNING if method == "finetune" else {"name": method}
    outer = {name: value for name, value in asdict(own.outer).items() if name in OF_METHOD} if own else {}
    train = references(side(read_split(), "train"), data)
    return check_recipe(
        {
            "name": method,
            "seed": seed,
            "method": settings,
            "tasks": {"train": train},
            "episodes": EPISODES,
            "outer": outer_of(stage) | outer,
        }
    )


def outer_of(stage: str) -> dict[str, object]:
    """Return the settings of the outer loop that are the same for all methods of a stage."""
    return OUTER | (IN_FINAL if stage == "final" else {})


def merge(options: argparse.Namespace, entries: Sequence[str]) -> None:
    """Put together what there is: results, page, tables, and of the first stage the verdict."""
    there = collect(options, [UNTRAINED, *entries])
    took = [figures.spent for name, figures in there.items() if name != UNTRAINED]
    learners = {name: learner for figures in there.values() for name, learner in figures.learners.items()}
    draws = [draw for figures in there.values() for draw in figures.draws]
    planned = plan_tasks(protocol(), tasks_of(options))
    results = results_of(protocol(), learners, planned, draws, texts=False)
    tables = tables_of(results.draws, read_split(), SHOTS, control=CONTROL)
    write(options.out / "tables.json", tables)
    write(options.out / "spent.json", Budgets(tuple(took)))
    print_tables(tables)
    if options.publish:
        write_comparison(options.publish, results)
        for file in ("tables.json", "spent.json"):
            shutil.copy(options.out / file, options.publish)
        with (options.publish / "README.md").open("w", encoding="utf-8") as page, redirect_stdout(page):
            print(HEAD)
            print_tables(tables)
    if options.stage == "first":
        means = choose(tables, [spent.method for spent in took])
        best = tuple(method for method in means if method != CONTROL)[:GO_ON]
        write(verdict_file(options), Verdict(best, means))
        print(f"\nThese go on: {', '.join(best)}")
    finish(there, entries)


if __name__ == "__main__":
    call(main)
