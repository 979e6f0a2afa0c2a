"""Frozen evaluation: the time that evaluating a frozen encoder takes, beside the floor: encoding every text once.

    python benchmarks/frozen_evaluation.py --tasks FOLDER [--learner protonet] [--shots 4,8,16] [--draws 10]

For each task, all texts of the test rows and of all support sets go through the encoder once. Then the task is
evaluated as a whole, with its costs and its figures. Prints a table and writes frozen_evaluation.json.
"""

import argparse
import time
from pathlib import Path

import torch
from records import FrozenEvaluation, FrozenRow, write

from quickstudy.data.reference import load_tasks
from quickstudy.evaluation.evaluate import evaluate_learners
from quickstudy.evaluation.protocol import Protocol, trials
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import make
from quickstudy.models.encoder import Encoder
from quickstudy.tasks.task import Task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["samples:meta-test"])
    parser.add_argument("--learner", default="protonet")
    parser.add_argument("--shots", default="4,8,16")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    protocol = Protocol(shots=tuple(map(int, options.shots.split(","))), draws=options.draws, limit=options.limit)
    learner = make(options.learner, Encoder.load("minilm"))
    rows = [measure(learner, task, protocol) for task in load_tasks(options.tasks)]
    encode = sum(row.encode_seconds for row in rows)
    evaluate = sum(row.evaluate_seconds for row in rows)
    rows.append(FrozenRow("all", None, None, encode, evaluate, evaluate / encode))
    write(options.out, FrozenEvaluation(options.learner, torch.get_num_threads(), options.limit, tuple(rows)))
    show(rows)


def measure(learner: MetaLearner, task: Task, protocol: Protocol) -> FrozenRow:
    """Encode all texts of a task once, then evaluate on it."""
    encoder = learner.encoder
    texts = {example for trial in trials(protocol, task) for example in (*trial.support, *trial.tests)}
    start = time.perf_counter()
    with torch.no_grad(), encoder.frozen():
        encoder.vectors(encoder.tokenize(list(texts)))
    encode = time.perf_counter() - start
    start = time.perf_counter()
    figures = evaluate_learners({learner.name: learner}, [task], protocol)
    evaluate = time.perf_counter() - start
    return FrozenRow(task.name, len(texts), len(figures), encode, evaluate, evaluate / encode)


def show(rows: list[FrozenRow]) -> None:
    print("| task | texts | draws | encode once, s | evaluate, s | ratio |\n|---|---|---|---|---|---|")
    for row in rows:
        seconds = f"{row.encode_seconds:.1f} | {row.evaluate_seconds:.1f} | {row.ratio:.2f}"
        print(f"| {row.task} | {row.texts or ''} | {row.draws or ''} | {seconds} |")


if __name__ == "__main__":
    main()
