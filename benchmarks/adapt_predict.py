"""Time to a classifier: adapt MiniLM to 4 classes from 8 examples each, then label 100 texts.

    python benchmarks/adapt_predict.py [--run runs/demo] [--repeat 7] [--out benchmarks/adapt_predict.json]

Without --run, each method works on the untouched encoder: the time does not depend on what the weights are. Times are of warm
calls in one process (loading the encoder is given apart), median and range over the repeats, methods interleaved.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from quickstudy.adaptation.few import adapt_task
from quickstudy.data.reference import load_tasks
from quickstudy.evaluation.draws import support_sets
from quickstudy.methods.catalog import make
from quickstudy.models.encoder import Encoder
from quickstudy.runs import Run
from quickstudy.tasks.split import ListSplit
from quickstudy.tasks.task import Task
from quickstudy.versions import versions

CASES = {
    "protonet": ("protonet", {}),
    "linear-probe": ("linear-probe", {}),
    "maml, head": ("maml", {"adapts": "head", "adapt_steps": 10}),
    "maml, top layer": ("maml", {"adapts": "layers:-1", "adapt_steps": 10}),
    "maml, all": ("maml", {"adapts": "all", "adapt_steps": 5}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/adapt_predict.json"))
    options = parser.parse_args()

    tick = time.perf_counter()
    encoder = Encoder.load("minilm")
    loading = time.perf_counter() - tick
    source = load_tasks("samples:fin_complaint_type")[0]
    few = ListSplit(support_sets(source, 8, 1, seed=0)[0])
    task = Task("complaints", {"train": few}, source.label_names)
    texts = [source.train_split[i % len(source.train_split)] for i in range(100)]
    learners = {case: make(name, encoder, settings) for case, (name, settings) in CASES.items()}
    if options.run:
        learners["the run"] = Run.open(options.run).learner()

    times: dict[str, list[tuple[float, float]]] = {case: [] for case in learners}
    for _ in range(options.repeat + 1):
        for case, learner in learners.items():
            start = time.perf_counter()
            model = adapt_task(learner, task)
            adapted = time.perf_counter()
            model.predict_proba(texts)
            times[case].append((adapted - start, time.perf_counter() - adapted))
    rows = []
    for case, found in times.items():
        adapting, predicting = zip(*found[1:], strict=True)  # the first round warms up
        rows.append({"method": case, "adapt_s": _spread(adapting), "predict_100_s": _spread(predicting)})
    result = {
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "load_encoder_s": loading,
        "repeat": options.repeat,
        "rows": rows,
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(
        f"8 examples of each of 4 classes, then 100 texts; {torch.get_num_threads()} threads; loading {loading:.2f} s"
    )
    print(f"{'method':18} {'adapt s: median (min-max)':28} predict 100 s: median (min-max)")
    for row in rows:
        print(f"{row['method']:18} {_show(row['adapt_s']):28} {_show(row['predict_100_s'])}")


def _spread(values: tuple[float, ...]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _show(spread: dict[str, float]) -> str:
    return f"{spread['median']:.3f} ({spread['min']:.3f}-{spread['max']:.3f})"


if __name__ == "__main__":
    main()
