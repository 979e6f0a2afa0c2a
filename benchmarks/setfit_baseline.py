"""SetFit, through its own package, on the draws and test rows of `leaderboard.py`.

    python benchmarks/setfit_baseline.py [--tasks REF ...] [--shots 4,16] [--draws 5] [--limit 300] [--out FOLDER]

This is the default training of setfit: one epoch over the pairs of the support set, then logistic regression, from the
same MiniLM. With `--names`, the support set also has two sentences "This sentence is <label>" for each label, as setfit
adds them by default. SetFit reads no sentence pairs, so that the two texts of a pair are joined by [SEP].

All tasks have their first draw before any has its second. Rows are appended to setfit.jsonl as they are made, so that
the benchmark can be stopped and started again. Needs the extra `bench`.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from datasets import Dataset
from records import Score, scores
from setfit import SetFitModel, Trainer, TrainingArguments, get_templated_dataset

from quickstudy.data.reference import load_tasks
from quickstudy.evaluation import draws
from quickstudy.evaluation.metrics import main_metric, score
from quickstudy.models.bundled import resolve
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Task

SEED = 0
Examples = tuple[Example, ...]


@dataclass(frozen=True)
class SetFitDone:
    """What training SetFit on one support set and scoring the test rows gives."""

    metrics: dict[str, float]
    seconds_adapt: float
    seconds_predict: float


@dataclass(frozen=True)
class Trial:
    """One support set and what is scored."""

    task: Task
    shots: int
    draw: int
    support: Examples
    tests: Examples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["samples:meta-test"])
    parser.add_argument("--shots", default="4,16")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--names", action="store_true", help="Add sentences with the label names.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "leaderboard")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    log = options.out / "setfit.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    rows = list(scores([json.loads(line) for line in lines]))
    name = "setfit, label names" if options.names else "setfit"
    done = {(row.task, row.shots, row.draw) for row in rows if row.learner == name}
    for trial in sorted(trials(options), key=lambda trial: (trial.draw, trial.shots)):
        if (trial.task.name, trial.shots, trial.draw) not in done:
            result = measure(trial.task, trial.support, trial.tests, trial.draw, names=options.names)
            rows.append(row_of(name, trial, result))
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(rows[-1])) + "\n")


def trials(options: argparse.Namespace) -> Iterator[Trial]:
    """Give the draws of the other learners, of those numbers of shots that a task has examples for."""
    for task in (draws.with_test_split(task, SEED) for reference in options.tasks for task in load_tasks(reference)):
        tests = draws.scored_examples(task, options.limit, SEED)
        for shots in map(int, options.shots.split(",")):
            if shots <= draws.most_shots(task):
                for draw, support in draws.support_sets(task, shots, options.draws, SEED).items():
                    yield Trial(task, shots, draw, support, tests)


def measure(task: Task, support: Examples, tests: Examples, seed: int, *, names: bool = False) -> SetFitDone:
    """Train on one support set and score the test rows. Loading the encoder is not timed, as it is not for ours."""
    model = SetFitModel.from_pretrained(resolve("minilm"))
    tick = time.perf_counter()
    rows = {"text": [join_pair(e) for e in support], "label": [int(e.label or 0) for e in support]}
    dataset = Dataset.from_dict(rows)
    if names:
        dataset = get_templated_dataset(dataset, candidate_labels=list(task.label_texts))
    arguments = TrainingArguments(seed=seed, report_to="none", save_strategy="no", show_progress_bar=False)
    Trainer(model=model, args=arguments, train_dataset=dataset).train()
    adapted = time.perf_counter()
    predicted = [int(p) for p in model.predict([join_pair(e) for e in tests])]
    seconds_predict = time.perf_counter() - adapted
    return SetFitDone(score(task, [int(e.label or 0) for e in tests], predicted), adapted - tick, seconds_predict)


def join_pair(example: Example) -> str:
    return example.text if example.text_pair is None else f"{example.text} [SEP] {example.text_pair}"


def row_of(learner: str, trial: Trial, done: SetFitDone) -> Score:
    return Score(
        task=trial.task.name,
        domain=trial.task.domain,
        kind=trial.task.kind,
        learner=learner,
        shots=trial.shots,
        draw=trial.draw,
        n_test=len(trial.tests),
        main=main_metric(trial.task),
        seconds_adapt=done.seconds_adapt,
        seconds_predict=done.seconds_predict,
        **done.metrics,
    )


if __name__ == "__main__":
    main()
