"""Time to a classifier: SetFit's default training and our adaptation, on the same support sets, encoder and machine.

    python benchmarks/setfit_speed.py [--tasks samples:meta-test] [--shots 8] [--draws 1] [--runs runs/demo ...]

In turn on every support set: a prototypical network, ANIL, MAML of the top layer and of all layers; the meta-trained encoders
of --runs; and SetFit (default training, from the same MiniLM). Seconds are from the support set to a ready
classifier, of ours with the encoder loaded before; accuracy is on the same test rows. Single texts only. Needs the extra `bench`.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from setfit_baseline import measure

from quickstudy.data.reference import load_tasks
from quickstudy.evaluation import draws
from quickstudy.evaluation.metrics import main_metric, score
from quickstudy.methods.catalog import make
from quickstudy.models.batch import encode_set
from quickstudy.models.encoder import Encoder
from quickstudy.models.target import Classes
from quickstudy.runs import Run
from quickstudy.storage.files import write_json
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Task
from quickstudy.versions import versions

SEED = 0
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "protonet": ("protonet", {}),
    "anil": ("anil", {}),
    "maml, top layer": ("maml", {"adapts": "layers:-1"}),
    "maml, all layers": ("maml", {"adapts": "all"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["samples:meta-test"])
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--runs", nargs="*", type=Path, default=[])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    encoder = Encoder.load("minilm")
    learners = {case: make(name, encoder, settings) for case, (name, settings) in CASES.items()}
    for run in map(Run.open, options.runs):
        learners[f"{run.recipe.method.name}, meta-trained"] = run.learner()
    rows: list[dict[str, Any]] = []
    for task in (draws.with_test_split(t, SEED) for reference in options.tasks for t in load_tasks(reference)):
        if task.pair or task.kind == "regression" or draws.most_shots(task) < options.shots:
            continue
        tests = draws.scored_examples(task, options.limit, SEED)
        for draw, support in draws.support_sets(task, options.shots, options.draws, SEED).items():
            found = {case: adapt(learner, task, support, tests) for case, learner in learners.items()}
            found["setfit"] = measure(task, support, tests, draw)
            about = {"task": task.name, "draw": draw, "n_way": len(task.label_names)}
            rows += [{"name": name, **about, **row} for name, row in found.items()]
    write_json(
        options.out, {"shots": options.shots, "versions": versions("setfit", "sentence-transformers"), "rows": rows}
    )
    show(rows)


def adapt(learner: Any, task: Task, support: tuple[Example, ...], tests: tuple[Example, ...]) -> dict[str, Any]:
    tick = time.perf_counter()
    model = learner.adapt(encode_set(learner.encoder, support), Classes(task.label_names))
    seconds = time.perf_counter() - tick
    names = {name: i for i, name in enumerate(task.label_names)}
    predicted = [names[name] for name in model.predict(tests)]
    found = score(task, [int(e.label or 0) for e in tests], predicted)
    return {"seconds_adapt": seconds, "main": main_metric(task), **found}


def show(rows: list[dict[str, Any]]) -> None:
    print("| | seconds | SetFit's time over ours: median (range) | mean score, % |\n|---|---|---|---|")
    setfit = {(row["task"], row["draw"]): row["seconds_adapt"] for row in rows if row["name"] == "setfit"}
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        ratios = [setfit[row["task"], row["draw"]] / row["seconds_adapt"] for row in own]
        seconds = statistics.median(row["seconds_adapt"] for row in own)
        mean = 100 * statistics.mean(row[row["main"]] for row in own)
        print(
            f"| {name} | {seconds:.2f} | {statistics.median(ratios):.0f} ({min(ratios):.0f} to {max(ratios):.0f}) | {mean:.1f} |"
        )


if __name__ == "__main__":
    main()
