"""Time to a classifier: adapt MiniLM to 4 classes from 8 examples each, then label 100 texts.

    python benchmarks/adapt_predict.py [--run runs/demo] [--repeat 7] [--out benchmarks/adapt_predict.json]

Without --run, each method works on the untouched encoder, because the time does not depend on the weights. The methods
take turns in one process. The first round warms up. The table gives the median and the range over the other rounds.
The time that loading the encoder takes is given separately.
"""

import argparse
import time
from pathlib import Path

import torch
from records import AdaptPredict, AdaptPredictRow, Spread, write

from quickstudy.adaptation.few import adapt_task
from quickstudy.data.reference import load_tasks
from quickstudy.evaluation.draws import support_sets
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import make
from quickstudy.models.encoder import Encoder
from quickstudy.runs import Run
from quickstudy.tasks.split import ListSplit
from quickstudy.tasks.task import Task
from quickstudy.versions import versions

CASES: dict[str, tuple[str, dict[str, str | int]]] = {
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
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()

    tick = time.perf_counter()
    encoder = Encoder.load("minilm")
    loading = time.perf_counter() - tick
    learners = {case: make(name, encoder, settings) for case, (name, settings) in CASES.items()}
    if options.run:
        learners["the run"] = Run.open(options.run).learner()
    result = AdaptPredict(
        versions(), torch.get_num_threads(), loading, options.repeat, measure(learners, options.repeat)
    )
    write(options.out, result)
    show(result)


def measure(learners: dict[str, MetaLearner], repeat: int) -> tuple[AdaptPredictRow, ...]:
    """Let all learners adapt and predict in turn; the first round warms up and does not count."""
    source = load_tasks("samples:fin_complaint_type")[0]
    task = Task("complaints", {"train": ListSplit(support_sets(source, 8, 1, seed=0)[0])}, source.label_names)
    texts = [source.train_split[i % len(source.train_split)] for i in range(100)]
    adapting: dict[str, list[float]] = {case: [] for case in learners}
    predicting: dict[str, list[float]] = {case: [] for case in learners}
    for _ in range(repeat + 1):
        for case, learner in learners.items():
            start = time.perf_counter()
            model = adapt_task(learner, task)
            adapted = time.perf_counter()
            model.predict_proba(texts)
            predicting[case].append(time.perf_counter() - adapted)
            adapting[case].append(adapted - start)
    return tuple(
        AdaptPredictRow(case, Spread.over(adapting[case][1:]), Spread.over(predicting[case][1:])) for case in learners
    )


def show(result: AdaptPredict) -> None:
    print(
        f"8 examples of each of 4 classes, then 100 texts; {result.threads} threads; "
        f"loading the encoder takes {result.load_encoder_s:.2f} s"
    )
    print(f"{'method':18} {'adapt s: median (min to max)':28} predict 100 s: median (min to max)")
    for row in result.rows:
        print(f"{row.method:18} {row.adapt_s.text(3):28} {row.predict_100_s.text(3)}")


if __name__ == "__main__":
    main()
