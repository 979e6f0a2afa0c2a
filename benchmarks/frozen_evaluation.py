"""What evaluating a frozen encoder costs beside encoding every text once: the floor.

    python benchmarks/frozen_evaluation.py --tasks FOLDER [--learner protonet] [--shots 4,8,16] [--draws 10] [--limit 300]

Per task, in turn: all texts of the test rows and of all support sets once through the encoder, and the whole evaluation, costs
measured and figures computed. Prints a table and writes frozen_evaluation.json.
"""

import argparse
import time
from pathlib import Path

import torch

from quickstudy.data.reference import load_tasks
from quickstudy.evaluation.evaluate import evaluate_learners
from quickstudy.evaluation.plan import plan_tasks
from quickstudy.evaluation.protocol import Protocol
from quickstudy.methods.catalog import make
from quickstudy.models.encoder import Encoder
from quickstudy.models.feature_cache import FeatureCache
from quickstudy.storage.files import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["samples:meta-test"])
    parser.add_argument("--learner", default="protonet")
    parser.add_argument("--shots", default="4,8,16")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--limit", type=int, default=300)
    options = parser.parse_args()
    protocol = Protocol(shots=tuple(map(int, options.shots.split(","))), draws=options.draws, limit=options.limit)
    encoder = Encoder.load("minilm")
    learner = make(options.learner, encoder)
    rows = []
    for planned in plan_tasks(protocol, load_tasks(options.tasks)):
        texts = {e for trial in planned.trials for e in (*trial.support, *trial.tests)}
        tick = time.perf_counter()
        with torch.no_grad():
            encoder.vectors(encoder.tokenize(list(texts)), cache=FeatureCache(encoder))
        encoded = time.perf_counter()
        draws = evaluate_learners({options.learner: learner}, [planned])
        done = time.perf_counter()
        rows.append({"task": planned.name, "texts": len(texts), "draws": len(draws)})
        rows[-1] |= {"encode_seconds": encoded - tick, "evaluate_seconds": done - encoded}
        rows[-1]["ratio"] = (done - encoded) / (encoded - tick)
    once, whole = (sum(row[f"{what}_seconds"] for row in rows) for what in ("encode", "evaluate"))
    rows.append({"task": "all", "encode_seconds": once, "evaluate_seconds": whole, "ratio": whole / once})
    print("| task | texts | draws | encode once, s | evaluate, s | ratio |\n|---|---|---|---|---|---|")
    for row in rows:
        seconds = f"{row['encode_seconds']:.1f} | {row['evaluate_seconds']:.1f} | {row['ratio']:.2f}"
        print(f"| {row['task']} | {row.get('texts', '')} | {row.get('draws', '')} | {seconds} |")
    settings = {"learner": options.learner, "threads": torch.get_num_threads(), "limit": options.limit}
    write_json(Path(__file__).with_suffix(".json"), {**settings, "rows": rows})


if __name__ == "__main__":
    main()
