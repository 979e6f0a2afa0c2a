"""Evaluate: learners × tasks × trials → one row of metrics and costs each, and a summary with intervals.

Every learner sees the same support sets and the same test texts. What does not depend on the draw runs once per encoder and task,
not per draw: all of the encoder where only the head adapts (for support sets too), its lower layers on the test texts where the
top ones do. Costs are those of a user who has nothing encoded yet: where features are there already, encoding a few test texts is
measured apart, once per encoder and task, and added per token.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quickstudy.cost import Cost, measure
from quickstudy.errors import RunError
from quickstudy.evaluation.metrics import calibration, classes, main_metric, score
from quickstudy.evaluation.protocol import Protocol, Shots, Trial, plan
from quickstudy.evaluation.statistics import summarize
from quickstudy.methods.base import MetaLearner
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import encode_set
from quickstudy.models.feature_cache import FeatureCache
from quickstudy.models.partition import Prefix
from quickstudy.models.target import make_target
from quickstudy.models.tokens import Sequences
from quickstudy.tasks.split import Example, readable
from quickstudy.tasks.task import Task

Row = dict[str, Any]

# What a row holds beside its figures: these differ from run to run.
COSTS = ("seconds_adapt", "seconds_predict", "seconds_predict_1000", "adapt_peak_mib", "predict_peak_mib")

_CHUNK = 512  # test texts per encoder pass
_KEEP_TOKENS = 400_000  # prefixes of up to so many tokens are kept between draws (0.6 GB at D = 384)
_TIMED = 64  # test texts whose encoding is timed
_WRONG = 20  # wrong predictions that are kept, of the first draw


def evaluate_learners(
    learners: Mapping[str, MetaLearner],
    tasks: Sequence[Task],
    protocol: Protocol = Protocol(),
    *,
    only: Collection[tuple[str, Shots]] | None = None,
    texts: bool = False,
    on_row: Callable[[Row], None] = lambda _: None,
) -> list[Row]:
    """Evaluate learners on tasks.

    Args:
        learners: By the name they have in the table.
        tasks: Held-out tasks.
        protocol: What they adapt to and are scored on; any but `full`, which has no learner.
        only: Learners and numbers of shots to score; texts of the others are encoded all the same, so that what is encoded
            together, and with it the last digits of a figure, does not depend on this choice. None for all.
        texts: Give the first draw of each number of shots the most confident of its `wrong` predictions.
        on_row: Told of every row as it is made.

    Returns:
        One row per (task, learner, shots, draw): metrics, confusion matrix, calibration and costs.

    Raises:
        DataError: Too few examples for the shots asked for; nothing to score.
    """
    plans = plan(protocol, tasks)
    rows = []
    for task in tasks:
        planned = plans[task.name]
        work: dict[tuple[int, str], _Work] = {}  # learners that run one encoder in one way share it
        caches = {id(learner.encoder): FeatureCache(learner.encoder) for learner in learners.values()}
        for name, learner in learners.items():
            wanted = [trial for trial in planned if only is None or (name, trial.shots) in only]
            key = id(learner.encoder), learner.partition.adapts
            if key not in work:
                work[key] = _Work(learner, planned, caches[id(learner.encoder)])
            for row in _evaluate_one(name, learner, task, work[key], wanted, texts=texts):
                rows.append(row)
                on_row(row)
    return rows


def _evaluate_one(
    name: str, learner: MetaLearner, task: Task, work: "_Work", wanted: Sequence[Trial], *, texts: bool
) -> Iterable[Row]:
    seen: set[Shots] = set()
    for trial in wanted:
        support = encode_set(learner.encoder, trial.support)
        with measure(learner.encoder.device) as adapting:
            model = learner.adapt(support, make_target(task.kind, trial.label_names), cache=work.cache)
        apart = work.encode_support(support.sequences) if learner.reads_support else Cost()
        prefixes = work.prefixes(trial)
        with measure(learner.encoder.device) as predicting:
            scores = prefixes.scores(model)
        yield {
            **row_of(name, task, trial, scores, show_wrong=texts and trial.shots not in seen),
            **sizes(learner, model),
            "seconds_adapt": adapting.seconds + apart.seconds,
            "seconds_predict": predicting.seconds,
            "seconds_predict_1000": 1000 * (predicting.seconds / len(trial.tests) + prefixes.cost.seconds),
            "adapt_peak_mib": _most(adapting, apart),
            "predict_peak_mib": _most(predicting, prefixes.cost),
        }
        seen.add(trial.shots)


def row_of(learner: str, task: Task, trial: Trial, scores: Tensor, *, show_wrong: bool) -> Row:
    """Return the figures of one trial.

    Args:
        learner: Its name in the table.
        task: Says which metrics apply.
        trial: With the test rows.
        scores: (B, N) logits, or (B, 1) numbers, of the test rows.
        show_wrong: Whether to list wrong predictions.

    Raises:
        RunError: A score is not finite.
    """
    if not scores.isfinite().all():
        raise RunError(
            f"{learner} gives scores of {task.name!r} that are not finite ({trial.shots} shots, draw {trial.draw})",
            fix="Leave it out, or lower its inner_lr or head_lr.",
        )
    labels = np.array([example.label for example in trial.tests])
    main = "metric" if trial.shots == "all" else main_metric(task)
    found: Row = {"task": task.name, "domain": task.domain, "kind": task.kind, "learner": learner}
    found |= {"shots": trial.shots, "draw": trial.draw, "n_test": len(labels), "main": main}
    if task.kind == "regression":
        return found | score(task, labels, scores[:, 0].numpy())
    probabilities = torch.softmax(scores.double(), dim=-1).numpy()
    predicted = probabilities.argmax(-1)
    place = np.array([task.label_names.index(name) for name in trial.label_names])  # an episode has some of the labels
    found |= score(replace(task, label_names=trial.label_names), labels, predicted)
    found["metric"] = score(task, place[labels], place[predicted])["metric"]  # F1 of one label of the task
    found |= calibration(labels, probabilities) | classes(place[labels], place[predicted], len(task.label_names), place)
    if show_wrong:
        wrong = np.flatnonzero(predicted != labels)
        worst = wrong[np.argsort(-probabilities.max(-1)[wrong], kind="stable")][:_WRONG]
        found["wrong"] = [
            {
                **readable(trial.tests[i], trial.label_names),
                "predicted": trial.label_names[predicted[i]],
                "probability": round(float(probabilities[i].max()), 4),
            }
            for i in worst
        ]
    return found


def sizes(learner: MetaLearner, model: AdaptedModel) -> dict[str, Any]:
    """Return where a learner computes, its `parameters`, those of one task alone, and the bytes that a saved model takes."""
    return {
        "device": model.partition.encoder.device.type,
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in learner.parameters()),
        "adapted_parameters": model.size,
        "bytes_saved": model.nbytes,
    }


def _most(*costs: Cost) -> float | None:
    known = [cost.peak_mib for cost in costs if cost.peak_mib is not None]
    return max(known, default=None)


class _Work:
    """The texts of a task as one encoder runs them in one way: what does not depend on the draw is done once."""

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
            texts = [*(e for of in tests for e in of), *(e for trial in planned for e in trial.support)]
            with torch.no_grad():
                learner.encoder.vectors(learner.encoder.tokenize(texts), cache=cache)

    def encode_support(self, support: Sequences) -> Cost:
        """Return what encoding a support set takes, if it is not a part of adapting because the features are there."""
        return replace(self._apart, seconds=self._apart.seconds * _tokens(support)) if self._frozen else Cost()

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


def summarize_rows(rows: Sequence[Row], *, reference: str) -> list[Row]:
    """Return mean, sd and 95 % interval per (task, shots, learner), and of the average over tasks.

    Args:
        rows: From `evaluate_learners`.
        reference: The learner whose paired difference to each other one is given (`difference`, on identical draws).

    Returns:
        Summary rows; the task `average` is the mean over the tasks that have draws of that many shots.
    """
    value = {(r["task"], r["shots"], r["learner"], r["draw"]): r[r["main"]] for r in rows}
    tasks = list(dict.fromkeys(r["task"] for r in rows))
    learners = list(dict.fromkeys(r["learner"] for r in rows))
    summary: list[Row] = []
    for k in sorted({r["shots"] for r in rows}):
        present = [task for task in tasks if any(key[:2] == (task, k) for key in value)]
        groups = [(task, [task]) for task in present]
        if len(present) > 1:
            groups.append(("average", present))
        for title, members in groups:
            draws = sorted(set.intersection(*({key[3] for key in value if key[:2] == (m, k)} for m in members)))
            if not draws:  # published draws of several tasks may have no number in common: no average then
                continue

            def mean(learner: str, draw: int, members: list[str] = members, k: int = k) -> float:
                return float(np.mean([value[m, k, learner, draw] for m in members]))

            for learner in learners:
                own = [mean(learner, d) for d in draws]
                line: Row = {"task": title, "shots": k, "learner": learner, **summarize(own)}
                if learner != reference and reference in learners:
                    line["difference"] = summarize([mean(reference, d) - v for d, v in zip(draws, own, strict=True)])
                summary.append(line)
    return summary
