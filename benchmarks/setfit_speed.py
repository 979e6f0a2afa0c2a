"""Time to a classifier: SetFit's default training and our adaptation, on the same support sets, encoder and machine.

    python benchmarks/setfit_speed.py [--tasks samples:meta-test] [--shots 8] [--draws 1] [--runs runs/demo ...]

All of these adapt to every support set in turn: a prototypical network, ANIL, MAML of the top layer and of all layers;
the meta-trained encoders of --runs; and SetFit (default training, from the same MiniLM). Seconds are the time from the
support set to a classifier that can predict; every encoder is loaded before the clock starts. Accuracy is on the same
test rows. Single texts only. Needs the extra `bench`.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from records import SetFitSpeed, SpeedRow, write
from setfit_baseline import Examples, Trial, measure

from quickstudy.data.reference import load_tasks
from quickstudy.evaluation import draws
from quickstudy.evaluation.metrics import main_metric, score
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import make
from quickstudy.models.batch import encode_set
from quickstudy.models.encoder import Encoder
from quickstudy.models.target import Classes
from quickstudy.runs import Run
from quickstudy.tasks.task import Task
from quickstudy.versions import versions

SEED = 0
CASES: dict[str, tuple[str, dict[str, str]]] = {
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
    rows: list[SpeedRow] = []
    for trial in trials(options):
        rows += (adapt(name, learner, trial) for name, learner in learners.items())
        setfit = measure(trial.task, trial.support, trial.tests, trial.draw)
        rows.append(row_of("setfit", trial, setfit.seconds_adapt, setfit.metrics))
    result = SetFitSpeed(options.shots, versions("setfit", "sentence-transformers"), tuple(rows))
    write(options.out, result)
    show(result)


def trials(options: argparse.Namespace) -> Iterator[Trial]:
    """Give the support sets of the tasks that have single texts, classes, and enough examples."""
    for task in (draws.with_test_split(task, SEED) for name in options.tasks for task in load_tasks(name)):
        if not task.pair and task.kind != "regression" and draws.most_shots(task) >= options.shots:
            tests = draws.scored_examples(task, options.limit, SEED)
            for draw, support in draws.support_sets(task, options.shots, options.draws, SEED).items():
                yield Trial(task, options.shots, draw, support, tests)


def adapt(name: str, learner: MetaLearner, trial: Trial) -> SpeedRow:
    tick = time.perf_counter()
    model = learner.adapt(encode_set(learner.encoder, trial.support), Classes(trial.task.label_names))
    seconds = time.perf_counter() - tick
    positions = {label: i for i, label in enumerate(trial.task.label_names)}
    predicted = [positions[str(label)] for label in model.predict(trial.tests)]
    return row_of(name, trial, seconds, figures(trial.task, trial.tests, predicted))


def figures(task: Task, tests: Examples, predicted: list[int]) -> dict[str, float]:
    return score(task, [int(e.label or 0) for e in tests], predicted)


def row_of(name: str, trial: Trial, seconds: float, metrics: dict[str, float]) -> SpeedRow:
    task = trial.task
    return SpeedRow(name, task.name, trial.draw, len(task.label_names), seconds, main_metric(task), **metrics)


def show(result: SetFitSpeed) -> None:
    print("| | seconds | SetFit's time over ours: median (range) | mean score, % |\n|---|---|---|---|")
    for name, rows in result.by_name().items():
        seconds = statistics.median(row.seconds_adapt for row in rows)
        mean = 100 * statistics.mean(row.main_score for row in rows)
        print(f"| {name} | {seconds:.2f} | {result.times_as_fast(name).text(0)} | {mean:.1f} |")


if __name__ == "__main__":
    main()
