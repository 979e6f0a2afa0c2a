"""Leakage cost: the seconds and the memory that one search for seen texts takes, by whatever quickstudy is imported.

    python benchmarks/leakage_cost.py TRAINED < texts.jsonl

Reads texts, one a line, of which the first TRAINED are trained and the others scored. Prints the core seconds, and the
MiB that the search needed beside the texts. `leakage.py` runs it for this code and for that of an earlier commit.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from quickstudy.evaluation.trial import PlannedTask, Trial
from quickstudy.tasks.split import Example, ListSplit
from quickstudy.tasks.task import Task

FindOverlap = Callable[[Sequence[Task], Sequence[PlannedTask]], object]


def main() -> None:
    count = int(sys.argv[1])
    rows = [Example(json.loads(line), label=0) for line in sys.stdin]
    trained, held = (Task(name, {"train": ListSplit(each)}, ("a", "b")) for name, each in _halves(rows, count))
    planned = PlannedTask(held, (Trial(1, 0, held.label_names, (), tuple(rows[count:])),))
    find_overlap = load_search()
    memory, start = _peak_memory(), time.process_time()
    find_overlap([trained], [planned])
    print(json.dumps([time.process_time() - start, _peak_memory() - memory]))


def load_search() -> FindOverlap:
    """Return the search, which was in another module once."""
    package = importlib.import_module("quickstudy.evaluation.leakage")
    module = importlib.import_module("quickstudy.evaluation.leakage.find") if vars(package).get("__path__") else package
    return module.find_overlap  # type: ignore[no-any-return]


def _halves(rows: list[Example], count: int) -> list[tuple[str, list[Example]]]:
    return [("seen", rows[:count]), ("held", rows[count:])]


def _peak_memory() -> float:
    """Return the most memory of this process until now, in MiB. What getrusage says of it begins with its parent's."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(dict(line.split(":", 1) for line in lines)["VmHWM"].split()[0]) / 1024


if __name__ == "__main__":
    main()
