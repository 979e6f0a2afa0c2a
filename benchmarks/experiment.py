"""Experiment: what benchmarks that meta-train many runs share: a process and a budget for each, and figures that stay.

    OUT/logs, OUT/runs, OUT/comparison    what is worked on; nothing of it is needed once a run is finished
    FIGURES/<run>.json                    the figures of a finished run (by default in OUT/figures)

An experiment has named runs, and a function that computes one and leaves its figures. Runs whose figures are there are
not computed again. So an experiment that was stopped goes on with `--resume`, on another machine too if FIGURES is
there. Figures from several commits, or of runs that were asked for differently, are not put together.

A budget is processor time, spent on the outer loop alone (`training.budget`): rates warm up and fall over the budget,
and what a run really took may differ by 3 % at most. Each run is a process of its own on one thread, `--jobs` of them
side by side. Of a run that was under way when an experiment was stopped, nothing is kept.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from records import read, write
from split import Split, read_split, references, side
from tournament_tables import PROBE, Scored, print_tables, tables_of

import quickstudy
from quickstudy.comparison.cell import plan_cells
from quickstudy.comparison.learner import LearnerSpec, trained_learner
from quickstudy.comparison.plan import Plan
from quickstudy.comparison.pool import run_missing
from quickstudy.config import Recipe, dump_recipe, load_recipe
from quickstudy.data.reference import load_tasks
from quickstudy.errors import QuickstudyError, RunError
from quickstudy.evaluation.draws import most_shots
from quickstudy.evaluation.hashing import hash_of
from quickstudy.evaluation.plan import plan_tasks
from quickstudy.evaluation.protocol import Protocol
from quickstudy.evaluation.record import Draw
from quickstudy.evaluation.results import Learner
from quickstudy.evaluation.results_file import CELLS
from quickstudy.pretraining import start_run
from quickstudy.runs import Run
from quickstudy.storage.files import write_text
from quickstudy.storage.layout import RunFiles
from quickstudy.tasks.task import Task
from quickstudy.training.budget import CoreSeconds

UNTRAINED = "baselines"  # the run that meta-trains nothing
TOLERANCE = 0.03
PER_KIND = 2  # validation sets of each kind that are scored
MOST_LABELS = 20  # of a validation set that is scored, for its time


@dataclass(frozen=True)
class Spent:
    """What one run took: processor seconds of its outer loop and of its evaluation, and the outer steps.

    A budget of 0 stands for none: the run took as many steps as it was told to.
    """

    method: str
    seed: int
    budget: float
    core_seconds: float
    outer_steps: int
    evaluation_core_seconds: float

    @property
    def equal(self) -> bool:
        """Whether the run took its budget, within the tolerance."""
        return not self.budget or abs(self.core_seconds / self.budget - 1) <= TOLERANCE


@dataclass(frozen=True)
class Figures:
    """All that is kept of a run: its learners, and their draws without texts and confusion matrices.

    Attributes:
        commit: Of the code that computed it.
        spent: What it took.
        learners: By name.
        draws: Their scores.
        asked: Hash of what was asked for.
        perplexity: Of masked-language modelling on held-out text at the end; None without it.
    """

    commit: str
    spent: Spent
    learners: dict[str, Learner]
    draws: tuple[Draw, ...]
    asked: str | None = None
    perplexity: float | None = None


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser of what all experiments can be asked."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--core-seconds", type=float, default=300)
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0])
    parser.add_argument("--sets", type=int, help="Score only so many sets, to try things out.")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--nice", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figures", type=Path, help="Folder of the figures of finished runs.")
    parser.add_argument("--resume", action="store_true", help="Go on with an experiment that was stopped.")
    parser.add_argument("--tables", action="store_true", help="Compute nothing; put together what there is.")
    parser.add_argument("--single", help=argparse.SUPPRESS)  # what this process is for
    return parser


def add_scoring(parser: argparse.ArgumentParser, *, shots: tuple[int, ...], draws: int, limit: int = 150) -> None:
    """Let a parser take how learners are scored."""
    parser.add_argument("--shots", type=lambda text: tuple(int(k) for k in text.split(",")), default=shots)
    parser.add_argument("--draws", type=int, default=draws)
    parser.add_argument("--limit", type=int, default=limit, help="Scored rows of a set.")


def protocol(options: argparse.Namespace) -> Protocol:
    """Return how learners are scored."""
    return Protocol(shots=options.shots, draws=options.draws, limit=options.limit)


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return what was asked, with whole paths."""
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"{options.data} is no folder: give that of the data sets of split.json")
    options.figures = (options.figures or options.out / "figures").resolve()
    options.data, options.out = options.data.resolve(), options.out.resolve()
    return options


def call(main: Callable[[], None]) -> None:
    """Call the main function of a script; what is wrong with its input ends it with a message and the code 2."""
    try:
        main()
    except QuickstudyError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def begin(options: argparse.Namespace) -> None:
    """Make the folder of an experiment; one that is there must be gone on with."""
    if options.out.exists() and not options.resume:
        fix = "Go on with --resume, or choose another --out."
        raise RunError("this experiment is there already", where=str(options.out), fix=fix)
    for folder in (options.out / "logs", options.out / "runs", options.figures):
        folder.mkdir(parents=True, exist_ok=True)


def agree(options: argparse.Namespace, asked: Mapping[str, object]) -> None:
    """Keep what was asked for, or check that it is what was asked for before."""
    file, text = options.out / "asked.json", json.dumps(asked)
    if file.exists() and json.loads(file.read_text(encoding="utf-8")) != json.loads(text):
        fix = f"Ask for what {file.name} says, or choose another --out."
        raise RunError("this experiment was asked for in another way", where=str(file), fix=fix)
    write_text(file, text)


def run_all(options: argparse.Namespace, names: Iterable[str]) -> None:
    """Compute the runs that have no figures, each in a process of its own; one that fails does not stop the others."""
    waiting, running = [n for n in names if not figures_file(options, n).exists()], dict[str, subprocess.Popen[bytes]]()
    while waiting or running:
        while waiting and len(running) < options.jobs:
            name = waiting.pop(0)
            running[name] = _start(options, name)
            print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
        time.sleep(1)
        for name in [name for name, process in running.items() if process.poll() is not None]:
            if running.pop(name).returncode:
                print(f"{time.strftime('%H:%M:%S')} {name} FAILED: see {_log_file(options, name)}", flush=True)


def _start(options: argparse.Namespace, name: str) -> "subprocess.Popen[bytes]":
    command = ["nice", "-n", str(options.nice), sys.executable, *sys.argv, "--single", name]
    with _log_file(options, name).open("wb") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def _log_file(options: argparse.Namespace, name: str) -> Path:
    return Path(options.out / "logs" / f"{name}.log")


def figures_file(options: argparse.Namespace, name: str) -> Path:
    """Return where the figures of a run are, or will be."""
    return Path(options.figures / f"{name.replace(' ', '-')}.json")


def meta_train(recipe: Recipe, folder: Path, core_seconds: float, *, method: str, seed: int) -> tuple[Run, Spent]:
    """Meta-train a recipe for so many processor seconds, and return the run and what it took."""
    if folder.exists():  # it was stopped before it had been evaluated; the budget counts one process only
        shutil.rmtree(folder)
    budget = CoreSeconds(core_seconds, recipe.outer.outer_steps)
    run = start_run(recipe, folder, lambda record: print(record.to_json(), flush=True), budget=budget)
    shutil.rmtree(RunFiles(folder).checkpoints)  # nobody goes on with a finished run
    return run, Spent(method, seed, core_seconds, budget.spent, run.metrics()[-1].step, 0.0)


def last_perplexity(run: Run) -> float | None:
    """Return the perplexity that a run ended with."""
    measured = [record.perplexity for record in run.metrics() if record.perplexity is not None]
    return measured[-1] if measured else None


def plan_of(options: argparse.Namespace, specs: Sequence[LearnerSpec], tasks: Sequence[Task]) -> Plan:
    """Return the plan of what one run scores."""
    how, folder = protocol(options), options.out / "comparison"
    learners, planned = {spec.name: spec.describe() for spec in specs}, plan_tasks(how, tasks)
    return Plan(folder, how, tuple(specs), learners, planned, plan_cells(folder, learners, planned))


def learners_after(folder: Path, arm: str, seed: int) -> list[LearnerSpec]:
    """Return the learners on the encoder of a run: the method of its recipe, and a linear probe."""
    probe, recipe = folder / "probe.toml", load_recipe(folder)
    encoder = recipe.encoder.model_copy(update={"name": str(RunFiles(folder).encoder), "from_scratch": None})
    write_text(probe, dump_recipe(recipe.model_copy(update={"encoder": encoder})))
    return [trained_learner(folder, f"{arm} {seed}"), LearnerSpec(f"{arm} probe {seed}", recipe=probe, method=PROBE)]


def score(
    options: argparse.Namespace, name: str, plan: Plan, spent: Spent | None = None, perplexity: float | None = None
) -> None:
    """Compute the cells of a plan, and write the figures of a run; without `spent`, of one that trained nothing."""
    began = time.process_time()
    print(f"scored on {len(plan.tasks)} tasks: {', '.join(task.name for task in plan.tasks)}", flush=True)
    (plan.folder / CELLS).mkdir(parents=True, exist_ok=True)
    run_missing(plan, 1, None, lambda done, cells, what: print(f"{done} of {cells}: {what}", flush=True))
    draws = [replace(draw, labels=None, mistakes=None) for cell in plan.cells for draw in cell.read()]
    spent = replace(spent or Spent(name, 0, 0.0, 0.0, 0, 0.0), evaluation_core_seconds=time.process_time() - began)
    keep(options, name, Figures(commit(), spent, dict(plan.learners), tuple(draws), perplexity=perplexity))


def keep(options: argparse.Namespace, name: str, figures: Figures) -> None:
    """Write the figures of a run."""
    asked = hash_of((options.out / "asked.json").read_text(encoding="utf-8"))
    write(figures_file(options, name), replace(figures, asked=asked))


def commit() -> str:
    """Return the commit of the code that runs."""
    folder = Path(quickstudy.__file__).parent
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def collect(options: argparse.Namespace, names: Iterable[str]) -> dict[str, Figures]:
    """Return the figures that are there, by run; they must be from one commit, and asked for in one way."""
    files = {name: figures_file(options, name) for name in names}
    there = {name: read(file, Figures) for name, file in files.items() if file.exists()}
    if not there:
        raise RunError("there are no figures", where=str(options.figures), fix="See the logs of the runs, in OUT/logs.")
    assert len({figures.commit for figures in there.values()}) == 1, "these figures are not from one commit"
    assert len({figures.asked for figures in there.values()}) == 1, "these figures were asked for in several ways"
    return there


def show_tables(options: argparse.Namespace, draws: Sequence[Scored], control: str) -> None:
    """Print the gains over the linear probe and over a control, by kind of task, and keep them in OUT."""
    tables = tables_of(draws, read_split(), options.shots, control=control)
    write(options.out / "tables.json", tables)
    print_tables(tables)


def finish(there: Mapping[str, Figures], names: Iterable[str]) -> None:
    """Print what the runs took; fail if one is out of its budget, or if some are not finished."""
    print("\n| run | seed | outer steps | core s | core s for evaluation | perplexity |\n|---|---|---|---|---|---|")
    for figures in there.values():
        spent = figures.spent
        cells = (spent.outer_steps, f"{spent.core_seconds:.1f}", f"{spent.evaluation_core_seconds:.0f}")
        perplexity = "" if figures.perplexity is None else f"{figures.perplexity:.1f}"
        print(f"| {spent.method} | {spent.seed} | {' | '.join(map(str, cells))} | {perplexity} |")
    unequal = [f"{figures.spent.method} {figures.spent.seed}" for figures in there.values() if not figures.spent.equal]
    assert not unequal, f"out of their budget by more than {TOLERANCE:.0%}: {', '.join(unequal)}"
    if absent := [name for name in names if name not in there]:
        raise SystemExit(f"\nnot finished: {', '.join(absent)}; go on with --resume")


def scored_tasks(data: Path, wanted: str, shots: Sequence[int], sets: int | None = None) -> list[Task]:
    """Return the tasks that are scored.

    For `validation` these are some sets of each kind: those first whose names are first, of those with few labels and
    enough examples. For `test` they are all test sets, as many shots as they have examples for.
    """
    split = read_split()
    if wanted == "test":
        return load_tasks(references(side(split, "test")[:sets], data))
    return _sample_of_kinds(split, data, shots)[:sets]


def _sample_of_kinds(split: Split, data: Path, shots: Sequence[int]) -> list[Task]:
    tasks: list[Task] = []
    for kind in sorted({member.kind for member in split.values()}):
        names = [name for name in side(split, "validation") if split[name].kind == kind]
        groups = {split[name].kin: name for name in reversed(names)}  # one of each group of kin
        loaded = load_tasks(references(sorted(groups.values(), key=lambda name: hash_of(name)), data))
        tasks += [t for t in loaded if most_shots(t) >= max(shots) and len(t.label_names) <= MOST_LABELS][:PER_KIND]
    return tasks
