"""Start-up: how long commands take from the start of Python to its end, and where that time goes.

    python benchmarks/startup.py [--rounds 5] [--source NAME=FOLDER ...] [--only adapt] [--out benchmarks/startup.json]

Each command is a process of its own, with one thread; the commands take turns. A source is a folder with the package,
so that two versions can be compared: `--source before=old/src --source after=src`. The rows named `python: ...` say
what no change of quickstudy can save. The rows named `stage: ...` are parts of an adaptation with the prior that is
shipped, measured within one process. Seconds are given as wall time and as time on the processor, which does not
depend much on what runs beside it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from records import Spread, write

from quickstudy.versions import versions

ROOT = Path(__file__).parents[1]
DATA = ROOT / "examples" / "complaints.csv"  # 4 rows of each of 4 labels

BERT = "import transformers.models.bert.modeling_bert"
FLOORS = {"nothing": "pass", "import numpy": "import numpy", "import torch": "import torch", "import BERT": BERT}

FIT = (
    "import csv, quickstudy; rows = list(csv.DictReader(open('DATA')))\n"
    "quickstudy.FewShotClassifier().fit([r['text'] for r in rows], [r['label'] for r in rows])"
)

# What a command does, in the order in which it does it; each stage says its seconds when it ends.
STAGES = """
import json, time
from contextlib import contextmanager
from dataclasses import replace
taken = {}
@contextmanager
def stage(name):
    wall, processor = time.perf_counter(), time.process_time()
    yield
    taken[name] = time.perf_counter() - wall, time.process_time() - processor
with stage("imports"):
    import quickstudy
    quickstudy.adapt
from quickstudy.adaptation.few import learn_task
from quickstudy.models.encoder import Encoder
from quickstudy.runs import Run
load = Encoder.load
def load_encoder(*arguments, **choices):
    with stage("encoder"):
        return load(*arguments, **choices)
Encoder.load = load_encoder
with stage("prior"):
    learner = Run.open("prior").learner()
taken["prior"] = tuple(both - encoder for both, encoder in zip(taken["prior"], taken["encoder"]))
with stage("data"):
    task = quickstudy.load_tasks("DATA")[0]
with stage("adaptation"):
    model, learned = learn_task(learner, task)
with stage("leave-one-out"):
    model = replace(model, learned=learned())
with stage("saving"):
    model.save("OUT")
print(json.dumps(taken))
"""


@dataclass(frozen=True)
class StartUpRow:
    what: str
    source: str
    wall_s: Spread
    processor_s: Spread


@dataclass(frozen=True)
class StartUp:
    versions: dict[str, str]
    rounds: int
    cores: int
    load: float  # processes that ran or waited, on average over the last minute
    rows: tuple[StartUpRow, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--source", action="append", help="NAME=FOLDER of a version of the package")
    parser.add_argument("--only", action="append", help="measure the rows of this name alone")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    sources = dict(source.split("=", 1) for source in options.source or [f"src={ROOT / 'src'}"])
    seconds: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for number in range(options.rounds + 1):
        with TemporaryDirectory() as folder:
            for what, source, taken in one_round(sources, options.only or [], Path(folder)):
                if number:  # the first round reads the files of all packages from the disk
                    seconds[what, source].append(taken)
        rows = (
            StartUpRow(*key, *(Spread.over(column) for column in zip(*taken, strict=True)))
            for key, taken in seconds.items()
        )
        result = StartUp(versions(), number, os.cpu_count() or 1, os.getloadavg()[0], tuple(rows))
        if number:
            write(options.out, result)
    show(result)


def one_round(sources: dict[str, str], only: list[str], folder: Path) -> Iterator[tuple[str, str, tuple[float, float]]]:
    """Run each command once; yield its name, its source, and its seconds, wall and processor."""
    places = {"DATA": str(DATA), "OUT": str(folder / "model")}
    for name, code in FLOORS.items():
        if not only or name in only:
            yield f"python: {name}", "", run(["-c", code], next(iter(sources.values())))[0]
    for source, path in sources.items():
        model = str(folder / source)
        commands = {
            "help": ["-m", "quickstudy", "--help"],
            "adapt": ["-m", "quickstudy", "adapt", "--data", str(DATA), "--out", model],
            "predict": ["-m", "quickstudy", "predict", model, "I was charged twice"],
            "fit": ["-c", filled(FIT, places)],
        }
        for name, command in commands.items():
            if not only or name in only:
                yield name, source, run(command, path)[0]
        if not only or "stages" in only:
            _, answer = run(["-c", filled(STAGES, {**places, "OUT": f"{model}-stages"})], path)
            for name, taken in json.loads(answer).items():
                yield f"stage: {name}", source, tuple(taken)


def run(arguments: list[str], source: str) -> tuple[tuple[float, float], str]:
    """Run Python; return its seconds, wall and processor, and what it printed."""
    environment = os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    began, before = time.perf_counter(), os.times()
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - began, os.times()
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}\n{done.stderr}")
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return (wall, processor), done.stdout


def filled(code: str, places: dict[str, str]) -> str:
    for name, place in places.items():
        code = code.replace(name, place)
    return code


def show(result: StartUp) -> None:
    print(f"{result.rounds} rounds; {result.cores} cores, on which {result.load:.1f} processes ran or waited")
    print(f"{'what':24} {'source':10} {'processor, s: median (range)':30} wall, s")
    for row in result.rows:
        print(f"{row.what:24} {row.source:10} {row.processor_s.text():30} {row.wall_s.text()}")


if __name__ == "__main__":
    main()
