"""Practice: from a file of labelled texts to a classifier, with figures: the defaults beside what one tries first.

    python benchmarks/practice.py my.csv --save model/     # a file of your own: half of it is scored, all of it is kept
    python benchmarks/practice.py DATA/tasks/banking77 --out finance.json
    python benchmarks/practice.py --open-sets DATA --limit 200 --out sets.json      # the test sets of split.json
    python benchmarks/practice.py --open-sets DATA --limit 200 --rare --out rare.json
    python benchmarks/practice.py --tables finance.json    # compute nothing

    quickstudy      FewShotClassifier(), as it comes
    linear probe    logistic regression (C = 10) on the vectors of MiniLM before meta-training
    TF-IDF          logistic regression (C = 10) on words and pairs of words

Each learns from K texts of each label, for several K and several draws, and labels rows that it did not learn from. The
draws are those of `leaderboard.py`. With `--rare`, the label with most rows has 10 K texts and all others K, on sets of
at most 20 labels. Each learner then runs with class weights ("balanced", the default of quickstudy) and without.
Seconds are wall time. Test texts are encoded once per set, which is counted in full for each draw.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from practice_tables import RARE_TIMES, Practice, PracticeDraw, print_tables, read_practice
from records import write
from scipy.special import softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from split import read_split, references, side
from torch import Tensor

from quickstudy import FewShotClassifier
from quickstudy.adaptation.few import adapt_task
from quickstudy.adaptation.weights import row_weights
from quickstudy.data.reference import load_tasks
from quickstudy.errors import DataError, QuickstudyError
from quickstudy.evaluation.draws import draw_trials, most_shots, with_test_split
from quickstudy.evaluation.metrics import figures
from quickstudy.evaluation.protocol import Protocol
from quickstudy.evaluation.rows import right_rows
from quickstudy.evaluation.trial import Trial
from quickstudy.methods.catalog import make
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.encoder import Encoder
from quickstudy.models.partition import Partition, Prefix
from quickstudy.models.target import make_target
from quickstudy.prior import load_prior
from quickstudy.seeding import rng
from quickstudy.storage.files import refuse_existing
from quickstudy.tasks.split import Example, ListSplit
from quickstudy.tasks.task import Task
from quickstudy.versions import versions

SEED, MOST_ROWS = 0, 2000
MOST_RARE = 20  # labels of a set that `--rare` takes
Weighting = Literal["balanced"] | None
Array = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", help="Files or folders of labelled texts.")
    parser.add_argument("--open-sets", type=Path, metavar="DATA", help="The test sets of split.json, in this folder.")
    parser.add_argument("--shots", default="4,8,16")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--limit", type=int, default=1000, help="Rows that are scored.")
    parser.add_argument("--rare", action="store_true", help="One label has ten times as many examples as the others.")
    parser.add_argument("--out", type=Path, help="Keep the figures in this file (JSON).")
    parser.add_argument("--save", type=Path, help="Keep a classifier of all rows in this new folder.")
    parser.add_argument("--tables", type=Path, help="Print the tables of a file of figures.")
    options = parser.parse_args()
    if not (options.tables or options.data or options.open_sets):
        parser.error("give a file of labelled texts")
    try:
        run(options)
    except QuickstudyError as error:
        parser.exit(2, f"error: {error}\n")


def run(options: argparse.Namespace) -> None:
    """Do what the options say."""
    if options.tables:
        print_tables(read_practice(options.tables))
        return
    tasks = load_tasks(options.data or references(side(read_split(), "test"), options.open_sets))
    refuse(tasks, options.save)
    labels = {task.name: task.label_names for task in tasks}
    done: list[PracticeDraw] = []
    for task in tasks:
        done += measure(task, [int(k) for k in options.shots.split(",")], options)
        practice = Practice(versions(), torch.get_num_threads(), options.limit, options.rare, labels, tuple(done))
        if options.out:
            write(options.out, practice)
    if not done:
        raise DataError(f"no label has enough examples for --shots {options.shots}", fix="Use fewer, or add examples.")
    print_tables(practice)
    if options.save:
        save(tasks, options.save)


def refuse(tasks: Sequence[Task], folder: Path | None) -> None:
    """Refuse what this script cannot do, before it begins."""
    if scores := next((task.name for task in tasks if task.kind != "classification"), None):
        raise DataError(f"{scores!r} has numbers for labels", fix="This script is for classes.")
    if folder:
        refuse_existing(folder)
    if folder and len(tasks) != 1:
        raise DataError(
            f"--save is for one file, and these are {len(tasks)}", fix="Give one file, or leave out --save."
        )


def measure(task: Task, shots: Sequence[int], options: argparse.Namespace) -> Iterator[PracticeDraw]:
    """Yield the figures of all learners on one task."""
    if options.rare and len(task.label_names) > MOST_RARE:
        print(
            f"{task.name}: of {len(task.label_names)} labels one with more rows says little; it is left out", flush=True
        )
        return
    possible = [k for k in shots if k <= most_shots(task)]
    if not possible:
        print(f"{task.name}: a label has too few examples for {min(shots)} shots; it is left out", flush=True)
        return
    protocol = Protocol(shots=tuple(possible), draws=options.draws, limit=options.limit, seed=SEED)
    trials = draw_trials(replace(protocol, name="few-shot") if options.rare else protocol, task)
    if options.rare:
        trials = [more for trial in trials if (more := unbalance(with_test_split(task, SEED), trial))]
    if trials:
        learners = Learners(task, trials[0].tests)
        for trial in trials:
            for weighting in ("balanced", None) if options.rare else ("balanced",):
                yield from learners.draw(trial, weighting)
    print(f"{task.name}: {len(trials)} draws", flush=True)


def unbalance(task: Task, trial: Trial) -> Trial | None:
    """Give the label with most rows ten times as many examples; None if it has not so many."""
    counts = [len(task.rows_of("train", label)) for label in range(len(task.label_names))]
    large, shots = int(np.argmax(counts)), int(trial.shots)
    if counts[large] < RARE_TIMES * shots:
        return None
    known = {example.text for example in trial.support}
    order = rng(SEED, "rare", task.name, shots, trial.draw).permutation(task.rows_of("train", large))
    rows = (task.train_split[int(row)] for row in order)
    more = [row for row in rows if row.text not in known][: (RARE_TIMES - 1) * shots]
    return replace(trial, support=(*trial.support, *more))


class Learners:
    """The three learners on one task."""

    def __init__(self, task: Task, tests: Sequence[Example]) -> None:
        self.task, self.tests = task, tests
        self.truth = np.array([example.label for example in tests])
        self.counts = np.bincount(self.truth, minlength=len(task.label_names))
        self.probe = make("linear-probe", Encoder.load("minilm"))
        ours = load_prior().alternatives(make_target(task.kind, task.label_names))
        encoders = (each.partition for each in (*ours, self.probe))
        self.encoded = {id(partition.encoder): Encoded(partition, tests) for partition in encoders}

    def draw(self, trial: Trial, weighting: Weighting) -> Iterator[PracticeDraw]:
        """Yield the figures of each learner on one support set."""
        for name, learn in (("quickstudy", self._quickstudy), ("linear probe", self._probe), ("TF-IDF", self._tfidf)):
            probabilities, fit, predict = learn(trial, weighting)
            measured = figures(self.task, trial.label_names, self.truth, probabilities)
            assert measured.labels is not None
            assert measured.calibration is not None
            yield PracticeDraw(
                task=self.task.name,
                learner=name if weighting else f"{name}, no class weights",
                shots=int(trial.shots),
                draw=trial.draw,
                n_test=len(self.tests),
                accuracy=round(measured.scores["accuracy"], 4),
                f1=round(measured.scores["f1"], 4),
                ece=round(measured.calibration.ece, 4),
                recall=tuple(
                    round(value or 0.0, 3) if self.counts[label] else None
                    for label, value in enumerate(measured.labels.per_class.recall)
                ),
                seconds_fit=round(fit, 3),
                seconds_predict_1000=round(1000 * predict / len(self.tests), 3),
                rows=right_rows(self.tests, probabilities.argmax(-1) == self.truth),
            )

    def _quickstudy(self, trial: Trial, weighting: Weighting) -> tuple[Array, float, float]:
        names = self.task.label_names
        classifier = FewShotClassifier(label_descriptions=self.task.label_descriptions, class_weight=weighting)
        tick = time.perf_counter()
        classifier.fit(inputs(trial.support), [names[int(example.label or 0)] for example in trial.support])
        fit = time.perf_counter() - tick
        logits, predict = self._scores(classifier.model_)
        places = [list(classifier.classes_).index(name) for name in names]
        return softmax(logits[:, places], axis=-1), fit, predict

    def _probe(self, trial: Trial, weighting: Weighting) -> tuple[Array, float, float]:
        labels = np.array([example.label for example in trial.support])
        task = replace(self.task, splits={"train": ListSplit(list(trial.support))}, fixed_draws={})
        tick = time.perf_counter()
        weights = row_weights(labels, task.label_names, weighting, None)
        model = adapt_task(self.probe, task, "none", weights=weights)
        fit = time.perf_counter() - tick
        logits, predict = self._scores(model)
        return softmax(logits, axis=-1), fit, predict

    def _scores(self, model: AdaptedModel) -> tuple[Array, float]:
        """Return logits of the test texts (B, N) and the seconds that predicting takes."""
        return self.encoded[id(model.partition.encoder)].scores(model.scores)

    def _tfidf(self, trial: Trial, weighting: Weighting) -> tuple[Array, float, float]:
        tick = time.perf_counter()
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        words.fit([text for e in trial.support for text in (e.text, e.text_pair) if text is not None])
        regression = LogisticRegression(C=10, class_weight=weighting, max_iter=1000)
        regression.fit(bags(words, trial.support), [int(example.label or 0) for example in trial.support])
        tock = time.perf_counter()
        probabilities = regression.predict_proba(bags(words, self.tests))
        return probabilities, tock - tick, time.perf_counter() - tock


class Encoded:
    """The test texts as vectors of an encoder that adapting does not change, and what encoding them took."""

    def __init__(self, partition: Partition, tests: Sequence[Example]) -> None:
        tokenize = partition.encoder.tokenize
        with torch.no_grad():
            partition.prefix(tokenize(tests[:4]))  # the first pass is slower than all others
            tick = time.perf_counter()
            self.prefix = partition.prefix(tokenize(tests))
            self.seconds = time.perf_counter() - tick

    def scores(self, head: Callable[[Prefix], Tensor]) -> tuple[Array, float]:
        """Return logits (B, N) and the seconds that predicting takes."""
        tick = time.perf_counter()
        logits: Array = head(self.prefix).double().numpy()
        return logits, self.seconds + time.perf_counter() - tick


def inputs(examples: Sequence[Example]) -> list[str] | list[tuple[str, str]]:
    """Return texts, or pairs, as a user would give them."""
    if examples[0].text_pair is None:
        return [example.text for example in examples]
    return [(example.text, example.text_pair or "") for example in examples]


def bags(words: TfidfVectorizer, examples: Sequence[Example]) -> sp.csr_matrix:
    """Return weighted words of texts, (B, V); of pairs [a, b, |a - b|, a · b], as the linear probe has them."""
    first = words.transform([example.text for example in examples])
    if examples[0].text_pair is None:
        return first
    second = words.transform([example.text_pair or "" for example in examples])
    return sp.hstack([first, second, abs(first - second), first.multiply(second)]).tocsr()


def save(tasks: Sequence[Task], folder: Path) -> None:
    """Write a classifier of all rows of a file, and say what it learned from."""
    (task,) = tasks
    rows = [task.train_split[i] for i in range(len(task.train_split))][:MOST_ROWS]
    classifier = FewShotClassifier(label_descriptions=task.label_descriptions)
    classifier.fit(inputs(rows), [task.label_names[int(row.label or 0)] for row in rows])
    classifier.save(folder)
    print(f"\n{folder}:", *(classifier.summary_.lines() if classifier.summary_ else ()), sep="\n  ")
    print(f"next: quickstudy predict {folder} new.csv --out labelled.csv")


if __name__ == "__main__":
    main()
