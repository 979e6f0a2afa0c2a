"""SetFit, through its own package, on the draws and test rows of `methods.py`: the row `setfit` of its table.

    python benchmarks/setfit_baseline.py [--tasks REF ...] [--shots 4,16] [--draws 5] [--limit 300] [--out FOLDER]

Default training of setfit (one epoch over the pairs of the support set, logistic regression on top) from the same MiniLM. It
knows no sentence pairs, so the two texts of a pair are joined by [SEP]. Rows are appended to setfit.jsonl as they are made, so it
can be stopped and goes on; when all are there, setfit.json is written. Needs the extra `bench`.
"""

import argparse
import json
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments

import quickstudy
from quickstudy.data.reference import load_tasks
from quickstudy.evaluation import draws
from quickstudy.evaluation.metrics import main_metric, score
from quickstudy.models.bundled import resolve
from quickstudy.storage.files import write_json
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Task

SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["samples:meta-test"])
    parser.add_argument("--shots", default="4,16")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "methods")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    log = options.out / "setfit.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["task"], row["shots"], row["draw"]) for row in rows}
    for reference in options.tasks:
        for task in (draws.with_test_split(task, SEED) for task in load_tasks(reference)):
            tests = draws.scored_examples(task, options.limit, SEED)
            for shots in map(int, options.shots.split(",")):
                if shots > draws.most_shots(task):
                    continue
                for draw, support in draws.support_sets(task, shots, options.draws, SEED).items():
                    if (task.name, shots, draw) not in done:
                        row = {"shots": shots, "draw": draw, **measure(task, support, tests, draw)}
                        rows.append(row)
                        with log.open("a") as file:
                            file.write(json.dumps(row) + "\n")
    least = min(row["shots"] for row in rows)
    result = {
        "method": "setfit",
        "settings": {},
        "quickstudy": quickstudy.__version__,
        "threads": torch.get_num_threads(),
        "outer_steps": 0,
        "core_seconds": 0,
        "core_seconds_per_step": None,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "seconds_adapt": statistics.median(row["seconds_adapt"] for row in rows if row["shots"] == least),
        "rows": rows,
    }
    write_json(options.out / "setfit.json", result)
    log.unlink()


def measure(task: Task, support: tuple[Example, ...], tests: tuple[Example, ...], seed: int) -> dict[str, Any]:
    """Train on one support set and score the test rows."""
    tick = time.perf_counter()
    model = SetFitModel.from_pretrained(resolve("minilm"))
    rows = {"text": [_text(e) for e in support], "label": [int(e.label or 0) for e in support]}
    arguments = TrainingArguments(seed=seed, report_to="none", save_strategy="no", show_progress_bar=False)
    Trainer(model=model, args=arguments, train_dataset=Dataset.from_dict(rows)).train()
    adapted = time.perf_counter()
    predicted = [int(p) for p in model.predict([_text(e) for e in tests])]
    return {
        "task": task.name,
        "domain": task.domain,
        "kind": task.kind,
        "learner": "setfit",
        "n_test": len(tests),
        "main": main_metric(task),
        **score(task, [int(e.label or 0) for e in tests], predicted),
        "seconds_adapt": adapted - tick,
        "seconds_predict": time.perf_counter() - adapted,
    }


def _text(example: Example) -> str:
    return example.text if example.text_pair is None else f"{example.text} [SEP] {example.text_pair}"


if __name__ == "__main__":
    main()
