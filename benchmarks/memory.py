"""Memory: what every method takes at its peak in meta-training, beside what `pretrain --explain` foresees.

    python benchmarks/memory.py [--methods maml,protonet] [--out benchmarks/memory.json]

The settings of a method come from recipes/<method>_samples.toml, the encoder is MiniLM, and there are two shapes of
episodes. Methods that can are run once more with all layers adapting. Each case runs in a process of its own, forked
from one that has imported the libraries and computed nothing, on one thread: three outer steps, all on the meta-batch
that the estimate is made for. The peak is the resident memory at the end of the third step, before a checkpoint is
written, less what was held before the first step.
"""

import argparse
import json
import os
import tempfile
import time
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from records import read, write

from quickstudy.build import Built, build
from quickstudy.config import load_recipe
from quickstudy.cost import measure, peak_mib
from quickstudy.methods.catalog import METHODS
from quickstudy.tasks.episode import Episode
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.training.meta_batch import MetaBatch
from quickstudy.training.outer import meta_parameters, train
from quickstudy.training.plan import plan
from quickstudy.training.record import StepRecord
from quickstudy.versions import versions

RECIPES = Path(__file__).parents[1] / "recipes"
SHAPES = {
    "2 to 5 ways, 4 shots, 4 query": ("episodes.k_shot=[4,4]", "episodes.n_query=4"),
    "2 to 5 ways, 8 shots, 8 query": ("episodes.k_shot=[8,8]", "episodes.n_query=8"),
}
ALL_LAYERS = ("maml", "fomaml", "reptile", "proto-maml")
STEPS, META_BATCH = 3, 4


@dataclass(frozen=True)
class Row:
    """One case: memory in MiB beyond what was held before, as foreseen and as measured; and what was held before."""

    method: str
    adapts: str
    shape: str
    foreseen: float
    measured: float
    before: float

    @property
    def error(self) -> float:
        """By how much the foreseen memory is above the measured one, as a fraction of it."""
        return self.foreseen / self.measured - 1


@dataclass(frozen=True)
class Memory:
    versions: dict[str, str] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(name for name in METHODS if recipe_of(name).exists()))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--foresee", action="store_true", help="only make the estimates of the file again")
    options = parser.parse_args()
    torch.set_num_threads(1)
    first, second = SHAPES
    chosen = options.methods.split(",")
    cases: list[tuple[str, str, str | None]] = [(method, first, None) for method in chosen]
    cases += [(method, first, "all") for method in ALL_LAYERS if method in chosen]
    cases += [(method, second, None) for method in chosen]
    done = read(options.out, Memory).rows if options.out.exists() else ()
    if options.foresee:
        done = tuple(replace(row, foreseen=foresee(*prepare(row.method, row.shape, row.adapts))) for row in done)
        write(options.out, Memory(versions(), done))
        cases = []
    for method, shape, adapts in cases:
        if not any((row.method, row.shape, row.adapts == "all") == (method, shape, adapts == "all") for row in done):
            row = in_a_process(method, shape, adapts)
            done = (*done, row)
            write(options.out, Memory(versions(), done))
            print(f"{time.strftime('%H:%M:%S')} {row.method} {row.adapts} {row.error:+.0%}", flush=True)
    show(done)


def recipe_of(method: str) -> Path:
    return RECIPES / f"{method.replace('-', '_').replace('+', 'p')}_samples.toml"


def in_a_process(method: str, shape: str, adapts: str | None) -> Row:
    """Return what a child process measured."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = json.dumps(vars(measure_case(method, shape, adapts)))
        except BaseException:
            answer = traceback.format_exc()
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    if not answer.startswith("{"):
        raise SystemExit(f"{method}, {shape}: {answer}")
    return Row(**json.loads(answer))


def prepare(method: str, shape: str, adapts: str | None) -> tuple[Built, "Same"]:
    """Return what a recipe describes, and the episodes of its first meta-batch in every step."""
    outer = {"outer_steps": STEPS, "warmup_steps": 0, "validate_every": 1000, "meta_batch_size": META_BATCH}
    changes = [f"outer.{key}={value}" for key, value in outer.items()]
    changes += [*SHAPES[shape], 'outer.keep="last"', "tasks.validation=[]"]
    changes += [f'method.adapts="{adapts}"'] if adapts == "all" else []
    built = build(load_recipe(recipe_of(method), changes))
    meta_parameters(built.learner, built.outer.trains)
    return built, Same(built.sampler)


def foresee(built: Built, sampler: "Same") -> float:
    """Return the estimate, as `--explain` makes it."""
    batch = MetaBatch(built.learner, sampler, META_BATCH, STEPS, Accelerator(cpu=True), built.outer.max_length)
    return plan(built.learner, batch.episodes(0), batch.at_once).memory_mib


def measure_case(method: str, shape: str, adapts: str | None) -> Row:
    """Meta-train a method for a few steps on one meta-batch."""
    built, sampler = prepare(method, shape, adapts)
    learner, accelerator = built.learner, Accelerator(cpu=True)
    foreseen = foresee(built, sampler)
    records: list[StepRecord] = []
    with tempfile.TemporaryDirectory() as place, measure(accelerator.device):
        before = peak_mib(accelerator.device) or 0.0
        train(learner, sampler, built.outer, accelerator=accelerator, folder=Path(place), on_step=records.append)
    what = adapts or learner.partition.adapts
    return Row(method, what, shape, foreseen, (records[-1].peak_mib or 0.0) - before, before)


class Same(EpisodeSampler):
    """Gives the episodes of the first meta-batch in every step."""

    def __init__(self, sampler: EpisodeSampler) -> None:
        self._sampler, self.tasks = sampler, sampler.tasks

    def __getitem__(self, index: int) -> Episode:
        return self._sampler[index % META_BATCH]


def show(rows: tuple[Row, ...]) -> None:
    print("| method | adapts | episodes | foreseen, MiB | measured, MiB | error | with what was held before |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        whole = (row.before + row.foreseen) / (row.before + row.measured) - 1
        cells = f"{row.foreseen:.0f} | {row.measured:.0f} | {row.error:+.1%} | {whole:+.1%}"
        print(f"| {row.method} | {row.adapts} | {row.shape} | {cells} |")
    print(f"largest error: {max((row.error for row in rows), key=abs):+.1%}")


if __name__ == "__main__":
    main()
