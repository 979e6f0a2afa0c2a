"""Described: how often a class is found of which only the name is known, beside classes that have examples.

    python benchmarks/described.py DATA            # a few minutes; prints a table and writes described.json

On the validation sets of split.json with single texts and 3 to 60 labels, each of the first four labels in turn keeps
none, one, two or all of its K examples; the other labels keep theirs. Rows are weighted so that all labels that have
examples count alike. The prior learns from them and labels the same texts each time. "Found" is the share of the texts
of that label that get it.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from records import write
from split import read_split, references, side

from quickstudy.adaptation.weights import row_weights
from quickstudy.data.reference import load_tasks
from quickstudy.evaluation.draws import draw_trials, most_shots
from quickstudy.evaluation.protocol import Protocol
from quickstudy.evaluation.trial import Trial
from quickstudy.methods.base import MetaLearner
from quickstudy.models.batch import encode_set
from quickstudy.models.feature_cache import FeatureCaches
from quickstudy.models.target import Target, make_target
from quickstudy.prior import load_prior
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Task

SHOTS, LIMIT = (4, 8, 16), 150
FEWEST, MOST = 3, 60  # labels of a set
LABELS = 4  # of a set, that lose their examples in turn
SCORED = 3  # texts of a label at least


@dataclass(frozen=True)
class Found:
    """What one label of one set came to: `kept` of its `shots` examples were known.

    `found` is the share of its texts that got it, `given` the share of all texts that did, `accuracy` that over all.
    """

    task: str
    label: str
    shots: int
    kept: int
    found: float
    given: float
    accuracy: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    learner = load_prior()
    names = references(side(read_split(), "validation"), options.data)
    rows = [row for name in names for task in load_tasks(name) if suits(task) for row in score(learner, task)]
    write(options.out, rows)
    show(rows)


def suits(task: Task) -> bool:
    return task.kind == "classification" and not task.pair and FEWEST <= len(task.label_names) <= MOST


@torch.no_grad()
def score(learner: MetaLearner, task: Task) -> Iterator[Found]:
    """Yield what each of the first labels comes to, at each number of shots that the set has (one draw)."""
    caches, target = FeatureCaches(), make_target(task.kind, task.label_names, task.label_texts)
    shots = tuple(k for k in SHOTS if k <= most_shots(task))
    for trial in draw_trials(Protocol(shots=shots, draws=1, limit=LIMIT), task) if shots else ():
        labels = positions(trial.tests)
        for label, name in enumerate(task.label_names[:LABELS]):
            if (labels == label).sum() < SCORED:
                continue
            for kept in (0, 1, 2, int(trial.shots)):
                answers = predict(learner, target, trial, label, kept, caches)
                right, given = answers == labels, answers == label
                figures = (float(x.mean()) for x in (given[labels == label], given, right))
                yield Found(task.name, name, int(trial.shots), kept, *figures)


def predict(
    learner: MetaLearner, target: Target, trial: Trial, label: int, kept: int, caches: FeatureCaches
) -> np.ndarray:
    """Return the labels of the test texts, (Q,), if a label keeps so many of its examples."""
    own = [example for example in trial.support if example.label == label][:kept]
    few = [example for example in trial.support if example.label != label] + own
    weights = row_weights(positions(few), target.label_names, "balanced", None)
    support = encode_set(learner.encoder, few, weights)
    chosen = learner.for_support(support, target, caches)
    encoder, cache = chosen.encoder, caches.of(chosen.encoder)
    model = chosen.adapt(support, target, cache=cache)
    features = encoder(encoder.tokenize(trial.tests), cache=cache)
    return model.head(features).argmax(-1).numpy()


def positions(examples: Iterable[Example]) -> np.ndarray:
    return np.array([int(example.label or 0) for example in examples])


def show(rows: list[Found]) -> None:
    """Print the mean over the sets of the mean over their labels."""
    cells: dict[tuple[int, str], dict[str, list[tuple[float, ...]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        kept = "all" if row.kept == row.shots else str(row.kept)
        cells[row.shots, kept][row.task].append((row.found, row.given, row.accuracy))
    print("shots  examples kept   found %   given %   accuracy %   sets")
    for (shots, kept), tasks in sorted(cells.items()):
        found, given, accuracy = (100 * mean(mean(x[i] for x in each) for each in tasks.values()) for i in range(3))
        print(f"{shots:5}  {kept:>13}  {found:8.1f}  {given:8.1f}  {accuracy:11.1f}  {len(tasks):5}")


if __name__ == "__main__":
    main()
