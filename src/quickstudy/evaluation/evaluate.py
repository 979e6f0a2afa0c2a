"""Evaluate: learners × planned tasks × trials → one `Draw` each, with its scores and its costs.

Every learner sees the same support sets and the same test texts. Work that does not depend on the draw is done once
per encoder and task: where only the head adapts, all texts are encoded once; where the top layers adapt, the layers
below run once on the test texts.

Costs are those of a user who has nothing encoded yet. Where the features are known already, encoding is timed on a few
test texts, once per encoder and task, and added per token. The tokenizer's work is not counted; it is the same for all
learners.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quickstudy.cost import Cost, measure
from quickstudy.errors import RunError
from quickstudy.evaluation.metrics import figures, main_metric, score
from quickstudy.evaluation.record import Costs, Draw, Footprint, Mistake, RowScores, Shots
from quickstudy.evaluation.rows import grouped_rows, right_rows
from quickstudy.evaluation.trial import PlannedTask, Trial
from quickstudy.methods.base import MetaLearner
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import encode_set
from quickstudy.models.feature_cache import FeatureCache, FeatureCaches
from quickstudy.models.partition import Prefix
from quickstudy.models.target import Target, make_target
from quickstudy.models.tokens import Sequences, concatenate
from quickstudy.tasks.label_text import NameReading, label_texts, read_texts
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Task

_CHUNK = 512  # test texts per encoder pass
_KEEP_TOKENS = 400_000  # prefixes of up to so many tokens are kept between draws (0.6 GB at D = 384)
_TIMED = 64  # test texts whose encoding is timed
_MOST_MISTAKES = 20  # wrong predictions that are kept, of the first draw of each number of shots


def evaluate_learners(
    learners: Mapping[str, MetaLearner],
    tasks: Sequence[PlannedTask],
    *,
    names: Mapping[str, NameReading] = MappingProxyType({}),
    only: Collection[tuple[str, Shots]] | None = None,
    on_draw: Callable[[Draw], None] = lambda _: None,
) -> list[Draw]:
    """Evaluate learners on tasks.

    Args:
        learners: By the name they have in tables.
        tasks: Held-out tasks with their trials; those of any protocol but `full`, which has no learner.
        names: How learners read label names, by their name in tables; those that are not listed read true names.
        only: Learners and numbers of shots to score; None for all. The texts of all the others are encoded too. The
            last digits of a figure depend on which texts are encoded together, so this choice changes no figure.
        on_draw: Told of every draw as it is finished.

    Returns:
        One record per (task, learner, shots, draw).

    Raises:
        RunError: A learner's scores are not finite.
    """
    draws = []
    for planned in tasks:
        texts: dict[_Reading, _TaskTexts] = {}
        caches = FeatureCaches()
        for name, learner in learners.items():
            targets = [_target(planned.task, trial, names.get(name, "true")) for trial in planned.trials]
            for each in learner.alternatives(targets[0]) if targets else ():
                if _reading(each) not in texts:
                    texts[_reading(each)] = _TaskTexts(each, planned.trials, caches.of(each.encoder))
                texts[_reading(each)].encode_names(each, planned.task, targets)
            asked = zip(planned.trials, targets, strict=True)
            wanted = [(trial, target) for trial, target in asked if only is None or (name, trial.shots) in only]
            for draw in _evaluate_one(name, learner, planned.task, texts, caches, wanted):
                draws.append(draw)
                on_draw(draw)
    return draws


_Reading = tuple[int, str]


def _reading(learner: MetaLearner) -> _Reading:
    """Return what learners have in common that run one encoder in one way."""
    return id(learner.encoder), learner.partition.adapts


def _evaluate_one(
    name: str,
    learner: MetaLearner,
    task: Task,
    texts: Mapping[_Reading, "_TaskTexts"],
    caches: FeatureCaches,
    trials: Sequence[tuple[Trial, Target]],
) -> Iterator[Draw]:
    begun: set[Shots] = set()
    for trial, target in trials:
        support = encode_set(learner.encoder, trial.support)
        with measure(learner.encoder.device) as adapting:
            chosen = learner.for_support(support, target, caches)
            # What a learner encodes in place of the support set, it would find in the cache from the second draw on.
            cache = caches.of(chosen.encoder) if learner.reads_support else None
            model = chosen.adapt(support, target, cache=cache)
        read = [support.sequences]
        if learner.reads_names:
            read.append(target.encode_names(learner.encoder, pair=support.pair))
        may_read = learner.alternatives(target) if learner.reads_support else ()
        encoded = [texts[_reading(each)].encode_apart(read) for each in may_read]
        apart = Cost(sum(cost.seconds for cost in encoded), _most(*encoded))
        prefixes = texts[_reading(chosen)].prefixes(trial)
        with measure(learner.encoder.device) as predicting:
            scores = prefixes.scores(model)
        seconds = predicting.seconds + prefixes.cost.seconds * len(trial.tests)
        costs = Costs(
            seconds_adapt=adapting.seconds + apart.seconds,
            seconds_predict=seconds,
            seconds_predict_1000=1000 * seconds / len(trial.tests),
            adapt_peak_mib=_most(adapting, apart),
            predict_peak_mib=_most(predicting, prefixes.cost),
        )
        first = trial.shots not in begun
        yield scored_draw(name, task, trial, scores, footprint(chosen, model), costs, with_mistakes=first)
        begun.add(trial.shots)


def _target(task: Task, trial: Trial, names: NameReading) -> Target:
    """Return what a trial asks for, with what may be read of its labels."""
    texts = label_texts(trial.label_names, task.label_descriptions)
    return make_target(task.kind, trial.label_names, read_texts(texts, names, trial.draw))


def scored_draw(
    learner: str, task: Task, trial: Trial, scores: Tensor, size: Footprint, costs: Costs, *, with_mistakes: bool
) -> Draw:
    """Return the record of one trial.

    Args:
        learner: Its name in tables.
        task: Says which metrics apply.
        trial: With the test rows.
        scores: (B, N) logits, or (B, 1) numbers, of the test rows.
        size: Where the learner computed, and how large it is.
        costs: What it took.
        with_mistakes: Whether to list wrong predictions.

    Raises:
        RunError: A score is not finite.
    """
    if not scores.isfinite().all():
        raise RunError(
            f"{learner} gives scores of {task.name!r} that are not finite ({trial.shots} shots, draw {trial.draw})",
            fix="Leave it out, or lower its inner_lr or head_lr.",
        )
    truth = np.array([example.label for example in trial.tests])
    classes = task.kind == "classification"
    outputs = torch.softmax(scores.double(), dim=-1).numpy() if classes else scores[:, 0].numpy()
    measured = figures(task, trial.label_names, truth, outputs)
    main = "metric" if trial.shots == "all" else main_metric(task)
    return Draw(
        task=task.name,
        domain=task.domain,
        kind=task.kind,
        learner=learner,
        shots=trial.shots,
        draw=trial.draw,
        n_test=len(truth),
        main=main,
        scores=measured.scores,
        calibration=measured.calibration,
        labels=measured.labels,
        mistakes=_mistakes(trial, truth, outputs) if with_mistakes and classes else None,
        footprint=size,
        costs=costs,
        rows=_rows(task, trial, truth, outputs, main),
    )


def footprint(learner: MetaLearner, model: AdaptedModel) -> Footprint:
    """Return where a learner computes, and its size and that of a model it made."""
    return Footprint(
        device=model.partition.encoder.device.type,
        threads=torch.get_num_threads(),
        parameters=sum(p.numel() for p in learner.parameters()),
        adapted_parameters=model.size,
        bytes_saved=model.nbytes,
    )


def _rows(
    task: Task, trial: Trial, truth: NDArray[np.int64], outputs: NDArray[np.float64], main: str
) -> RowScores | None:
    """Return what each test row gives to the main score."""
    if task.kind == "classification" and "accuracy" in (main, task.metric):
        return right_rows(trial.tests, outputs.argmax(-1) == truth)

    predictions = outputs.argmax(-1) if task.kind == "classification" else outputs
    return grouped_rows(trial.tests, lambda kept: score(task, truth[kept], predictions[kept])[main])


def _mistakes(trial: Trial, truth: NDArray[np.int64], probabilities: NDArray[np.float64]) -> tuple[Mistake, ...]:
    """Return the wrong predictions, the surest first."""
    predicted, confidence = probabilities.argmax(-1), probabilities.max(-1)
    wrong = np.flatnonzero(predicted != truth)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MOST_MISTAKES]
    return tuple(
        Mistake(int(row), trial.label_names[predicted[row]], round(float(confidence[row]), 4)) for row in surest
    )


def _most(*costs: Cost) -> float | None:
    known = [cost.peak_mib for cost in costs if cost.peak_mib is not None]
    return max(known, default=None)


class _TaskTexts:
    """The texts of a task as one encoder runs them in one way. What does not depend on the draw is done once."""

    def __init__(self, learner: MetaLearner, planned: Sequence[Trial], cache: FeatureCache) -> None:
        self._learner, self.cache = learner, cache
        self._prefixes: dict[int, _Prefixes] = {}
        self._frozen = not learner.partition.names
        if self._frozen and planned:
            sample = learner.encoder.tokenize(planned[0].tests[:_TIMED])
            empty = FeatureCache(learner.encoder)  # no feature is there already
            with torch.no_grad(), measure(learner.encoder.device) as self._apart:
                learner.encoder.vectors(sample, cache=empty)
            self._apart.seconds /= _tokens(sample)
            # All draws in one pass: long batches are faster than many short ones.
            tests = {id(trial.tests): trial.tests for trial in planned}.values()
            texts = [*chain.from_iterable(tests), *chain.from_iterable(trial.support for trial in planned)]
            with torch.no_grad():
                learner.encoder.vectors(learner.encoder.tokenize(texts), cache=cache)

    @torch.no_grad()
    def encode_names(self, learner: MetaLearner, task: Task, targets: Sequence[Target]) -> None:
        """Encode the label names of all draws in one pass, for a learner that reads them beside the support set."""
        if self._frozen and learner.reads_names and learner.reads_support:
            names = [target.encode_names(learner.encoder, pair=task.pair) for target in targets]
            if wanted := [sequences for sequences in names if len(sequences)]:
                learner.encoder.vectors(concatenate(wanted), cache=self.cache)

    def encode_apart(self, read: Sequence[Sequences]) -> Cost:
        """Return what encoding these texts takes, if it is not a part of adapting because the features are there."""
        tokens = sum(map(_tokens, read))
        return replace(self._apart, seconds=self._apart.seconds * tokens) if self._frozen else Cost()

    def prefixes(self, trial: Trial) -> "_Prefixes":
        """Return the test texts of a trial, run as far as they are the same for every draw."""
        key = id(trial.tests)
        if key not in self._prefixes:
            # Episodes do not share theirs: keep the last.
            self._prefixes = {key: _Prefixes(self._learner, trial.tests, self.cache)}
            if self._frozen:
                tests = self._learner.encoder.tokenize(trial.tests)
                self._prefixes[key].cost = replace(
                    self._apart, seconds=self._apart.seconds * _tokens(tests) / len(tests)
                )
        return self._prefixes[key]


def _tokens(sequences: Sequences) -> int:
    return sum(map(len, sequences.ids))


class _Prefixes:
    """Runs models on test texts, keeping what does not depend on the draw if it fits.

    Attributes:
        cost: Of what is kept: seconds per text, and memory.
    """

    def __init__(self, learner: MetaLearner, tests: Sequence[Example], cache: FeatureCache) -> None:
        self._learner, self._cache = learner, cache
        self._chunks = [tests[i : i + _CHUNK] for i in range(0, len(tests), _CHUNK)]
        keep = _tokens(learner.encoder.tokenize(tests)) <= _KEEP_TOKENS
        with measure(learner.encoder.device) as self.cost:
            self._kept = [self._prefix(chunk) for chunk in self._chunks] if keep else None
        self.cost.seconds /= len(tests)

    @torch.no_grad()
    def scores(self, model: AdaptedModel) -> Tensor:
        """Return the scores of the test texts, (B, N), or (B, 1) for regression."""
        prefixes = self._kept or (self._prefix(chunk) for chunk in self._chunks)
        return torch.cat([model.scores(prefix) for prefix in prefixes]).cpu()

    @torch.no_grad()
    def _prefix(self, chunk: Sequence[Example]) -> Prefix:
        return self._learner.partition.prefix(self._learner.encoder.tokenize(chunk), cache=self._cache)
