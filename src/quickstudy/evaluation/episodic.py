"""Episodic accuracy: adapt to fixed episodes and score their queries; what meta-validation uses.

The score is the mean over tasks of each task's mean query accuracy (for regression the Pearson correlation, at least
0). A task counts once, however often it was drawn.
"""

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch

from quickstudy.evaluation.constant import is_constant
from quickstudy.methods.base import MetaLearner
from quickstudy.models.batch import encode_episode
from quickstudy.tasks.sampler import EpisodeSampler


def episodic_score(sampler: EpisodeSampler, episodes: int) -> Callable[[MetaLearner], float]:
    """Return a function that scores a learner on the first `episodes` episodes of a sampler; higher is better."""

    def validate(learner: MetaLearner) -> float:
        by_task: dict[str, list[float]] = defaultdict(list)
        for index in range(episodes):
            episode = sampler[index]
            encoded = encode_episode(learner.encoder, episode)
            model = learner.adapt(encoded.support, encoded.target)
            with torch.no_grad():
                scores = model.scores(model.partition.prefix(encoded.query.sequences)).cpu()
            labels = encoded.query.labels.cpu()
            if episode.kind == "regression":
                by_task[episode.task].append(_correlation(scores.squeeze(-1).numpy(), labels.numpy()))
            else:
                by_task[episode.task].append(float((scores.argmax(-1) == labels).float().mean()))
        return float(np.mean([np.mean(values) for values in by_task.values()]))

    return validate


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if is_constant(a) or is_constant(b):
        return 0.0
    return max(0.0, float(np.corrcoef(a, b)[0, 1]))
