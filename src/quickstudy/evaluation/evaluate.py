"""Evaluate: learners × tasks × shots × draws → one row of metrics each, and a summary with intervals.

Every learner sees the same support sets and the same test texts. What does not depend on the draw runs once per encoder and task,
not per draw: all of the encoder where only the head adapts (for support sets too), its lower layers on the test texts where the
top ones do. Where features are there already, seconds to adapt are measured apart, on the first draw of each number of shots.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quickstudy.errors import DataError
from quickstudy.evaluation.draws import support_sets, test_examples, with_test_split
from quickstudy.evaluation.metrics import calibration, main_metric, score
from quickstudy.evaluation.statistics import summarize
from quickstudy.methods.adapted import AdaptedModel
from quickstudy.methods.base import MetaLearner
from quickstudy.models.batch import encode_set
from quickstudy.models.encoder import Encoder
from quickstudy.models.partition import Prefix
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Task

Row = dict[str, Any]

_CHUNK = 512  # test texts per encoder pass
_KEEP_TOKENS = 400_000  # prefixes of up to so many tokens are kept between draws (0.6 GB at D = 384)


def evaluate_learners(
    learners: Mapping[str, MetaLearner],
    tasks: Sequence[Task],
    *,
    shots: Sequence[int] = (4, 8, 16),
    draws: int = 10,
    seed: int = 0,
    limit: int | None = None,
    only: Collection[int] | None = None,
    on_row: Callable[[Row], None] = lambda _: None,
) -> list[Row]:
    """Evaluate learners on tasks.

    Args:
        learners: By the name they have in the table.
        tasks: Held-out tasks.
        shots: Labelled examples per class (K), several values.
        draws: Support sets per K.
        seed: Which support sets, and which rows when there is a limit.
        limit: Score at most so many test rows, a fixed random sample; None for all.
        only: The numbers of shots to score; texts of the others are encoded all the same, so that what is encoded together, and
            with it the last digits of a figure, does not depend on this choice. None for all.
        on_row: Told of every row as it is made.

    Returns:
        One row per (task, learner, shots, draw), with the metrics, seconds to adapt and to predict.

    Raises:
        DataError: Too few examples for the shots asked for; nothing to score.
    """
    plans = []
    for task in (with_test_split(task, seed) for task in tasks):
        sets = {k: support_sets(task, k, draws, seed) for k in shots}
        tests = test_examples(task, limit, seed)
        if not tests:
            raise DataError(
                f"task {task.name!r} has no row left to score",
                fix="Add a test file, or more rows: half of those of each label are held out.",
            )
        plans.append((task, tests, {k: s for k, s in sets.items() if s}))
    if not any(sets for _, _, sets in plans):
        raise DataError(f"no task has draws of {', '.join(map(str, shots))} shots", fix="Use other --shots.")
    rows = []
    encoders = {id(learner.encoder): learner.encoder for learner in learners.values()}
    for task, tests, sets in plans:
        wanted = {k: draws_of for k, draws_of in sets.items() if only is None or k in only}
        shared: dict[tuple[int, str], _Prefixes] = {}  # learners that run one encoder in one way share its work
        with ExitStack() as stack:
            for encoder in encoders.values():
                stack.enter_context(encoder.frozen())
            for name, learner in learners.items():
                if not learner.partition.names:  # all draws in one pass: long batches are faster than many short ones
                    _warm(learner.encoder, [*tests, *(e for draws in sets.values() for s in draws.values() for e in s)])
                key = id(learner.encoder), learner.partition.which
                shared[key] = prefixes = shared.get(key) or _Prefixes(learner, tests)
                for row in _evaluate_one(name, learner, task, prefixes, wanted):
                    rows.append(row)
                    on_row(row)
    return rows


@torch.no_grad()
def _warm(encoder: Encoder, examples: Sequence[Example]) -> None:
    encoder.vectors(encoder.tokenize(examples))


def _evaluate_one(
    name: str,
    learner: MetaLearner,
    task: Task,
    prefixes: "_Prefixes",
    sets: Mapping[int, Mapping[int, Sequence[Example]]],
) -> Iterable[Row]:
    for k, draws in sets.items():
        apart = None if learner.partition.names else _seconds_to_adapt(learner, task, next(iter(draws.values())))
        for draw, examples in draws.items():
            start = time.perf_counter()
            model = learner.adapt(encode_set(learner.encoder, examples), task.label_names, task.kind)
            tick = time.perf_counter()
            scores = prefixes.scores(model)
            predicted = time.perf_counter()
            if task.kind == "regression":
                measured = score(task, prefixes.labels, scores[:, 0].numpy())
            else:
                measured = score(task, prefixes.labels, scores.argmax(-1).numpy())
                measured |= calibration(prefixes.labels, torch.softmax(scores, dim=-1).numpy())
            yield {
                "task": task.name,
                "domain": task.domain,
                "kind": task.kind,
                "learner": name,
                "shots": k,
                "draw": draw,
                "n_test": len(prefixes.labels),
                "main": main_metric(task),
                **measured,
                "seconds_adapt": tick - start if apart is None else apart,
                "seconds_predict": predicted - tick,
            }


def _seconds_to_adapt(learner: MetaLearner, task: Task, support: Sequence[Example]) -> float:
    with learner.encoder.frozen():  # no feature is there already
        tick = time.perf_counter()
        learner.adapt(encode_set(learner.encoder, support), task.label_names, task.kind)
        return time.perf_counter() - tick


class _Prefixes:
    """Runs models on the test texts, keeping what does not depend on the draw if it fits."""

    def __init__(self, learner: MetaLearner, tests: Sequence[Example]) -> None:
        self._learner = learner
        encoded = encode_set(learner.encoder, tests)
        self.labels = encoded.labels.cpu().numpy()
        self._chunks = [tests[i : i + _CHUNK] for i in range(0, len(tests), _CHUNK)]
        keep = sum(map(len, encoded.sequences.ids)) <= _KEEP_TOKENS
        self._kept = [self._prefix(chunk) for chunk in self._chunks] if keep else None

    @torch.no_grad()
    def scores(self, model: AdaptedModel) -> Tensor:
        """Return the scores of the test texts, (B, N), or (B, 1) for regression."""
        prefixes = self._kept or (self._prefix(chunk) for chunk in self._chunks)
        return torch.cat([model.scores(prefix) for prefix in prefixes]).cpu()

    @torch.no_grad()
    def _prefix(self, chunk: Sequence[Example]) -> Prefix:
        return self._learner.partition.prefix(self._learner.encoder.tokenize(chunk))


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
