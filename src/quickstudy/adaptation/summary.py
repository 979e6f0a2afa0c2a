"""Summary: what a learner was adapted from, and its leave-one-out accuracy.

    accuracy = mean over rows i of [label that the head made without row i gives to row i = y_i]

The head is made anew for each row, from features that are stored. So no text passes the encoder a second time. The
interval is Wilson's (1927), which is honest for few rows. Rows that are alike (the same text twice) make the accuracy
look better than it is on new texts. It can also look worse: without a row its class is the smaller one, so a method
that has learned nothing of classes of equal size labels all rows wrongly. A row that is the only example of its class
cannot be left out.
"""

import math
import time
from collections import defaultdict

import torch

from quickstudy.methods.base import MetaLearner
from quickstudy.models.batch import EncodedSet
from quickstudy.models.feature_cache import FeatureCache
from quickstudy.models.learned import Learned, LeaveOneOut
from quickstudy.models.target import Target
from quickstudy.tasks.task import Task

_MOST_ROWS = 300
_MOST_SECONDS = 10.0  # of processor time
_NORMAL_97_5 = 1.959963984540054  # 97.5 % of a normal distribution is below so many standard deviations


def summarise(
    learner: MetaLearner, task: Task, support: EncodedSet, target: Target, cache: FeatureCache, prior: str
) -> Learned:
    """Return what a learner was adapted from.

    Args:
        learner: The learner.
        task: The task.
        support: The rows that it was adapted to.
        target: What the task asks for.
        cache: Vectors of the learner's encoder, which knows those of the support set.
        prior: What the learner is called.
    """
    encoder, rows = learner.encoder, task.train_split
    examples = [rows[i] for i in range(len(rows))]
    labels = defaultdict(set)
    for example in examples:
        labels[example.text, example.text_pair].add(example.label)
    counts = {name: int((support.labels == label).sum()) for label, name in enumerate(target.label_names)}
    tried = _leave_one_out(learner, support, target, cache)
    left_out, why_not = (tried, "") if isinstance(tried, LeaveOneOut) else (None, tried)
    return Learned(
        method=learner.name,
        prior=prior,
        rows=len(support.labels),
        rows_per_class=counts,
        conflicts=sum(len(different) > 1 for different in labels.values()) if counts else 0,
        cut=encoder.count_cut(examples),
        max_length=encoder.settings.max_length,
        leave_one_out=left_out,
        why_not=why_not,
        chosen=learner.chosen,
    )


@torch.no_grad()
def _leave_one_out(learner: MetaLearner, support: EncodedSet, target: Target, cache: FeatureCache) -> LeaveOneOut | str:
    """Return the leave-one-out accuracy, or why it is not measured."""
    if not target.label_names:
        return "the labels are numbers"
    if learner.partition.names:
        return f"{learner.name} adapts the encoder, which would have to be adapted once for each row"
    if len(support.labels) > _MOST_ROWS:
        return f"more than {_MOST_ROWS} rows; hold some of them out and predict them"
    counts = torch.bincount(support.labels, minlength=target.size)
    left_out = (counts[support.labels] > 1).nonzero().flatten().tolist()
    if not left_out:
        return "each class has a single example"
    right, began = 0, time.thread_time()  # other work on the machine does not count
    for row in left_out:
        rest = support.select([other for other in range(len(support.labels)) if other != row])
        with torch.enable_grad():
            model = learner.adapt(rest, target, cache=cache)
        prefix = model.partition.prefix(support.select([row]).sequences, cache=cache)
        right += int(model.scores(prefix).argmax()) == int(support.labels[row])
        if time.thread_time() - began > _MOST_SECONDS:
            return (
                f"a head of {learner.name} for each row takes more than {_MOST_SECONDS:g} processor seconds; "
                "hold some rows out and predict them"
            )
    return LeaveOneOut(right, len(left_out), *_wilson(right, len(left_out)))


def _wilson(right: int, rows: int) -> tuple[float, float]:
    """Return the 95 % interval of a fraction.

    >>> [round(end, 3) for end in _wilson(9, 10)]
    [0.596, 0.982]
    """
    share, z = right / rows, _NORMAL_97_5
    twice = 2 * (rows + z**2)
    centre = (2 * rows * share + z**2) / twice
    half = z / twice * math.sqrt(4 * rows * share * (1 - share) + z**2)
    return (centre - half if right else 0.0), (centre + half if right < rows else 1.0)
