"""Multi-task pre-training: the baseline that trains on many tasks and does not learn to learn.

    loss = mean over support and query examples of CE(s (W_t f(x) + b_t), y)        each task t has a head W_t, b_t

Every example counts as in ordinary training, and nothing adapts inside an episode. A new task gets a linear probe on
the features. The baseline lacks only the inner loop of the meta-learners, so the difference between them is what
learning to learn is worth. Caruana 1997; for language encoders Liu et al. 2019, arXiv:1901.11504. Scores are
standardised by the mean and the standard deviation of their task.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quickstudy.errors import RecipeError
from quickstudy.methods.base import EpisodeLoss, MetaLearner
from quickstudy.methods.linear_probe import LinearProbe
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedEpisode, EncodedSet
from quickstudy.models.encoder import Encoder
from quickstudy.models.feature_cache import FeatureCache
from quickstudy.models.head import LinearHead
from quickstudy.models.scale import Scale
from quickstudy.models.target import Target, make_target
from quickstudy.tasks.task import Task


@dataclass(frozen=True)
class _Known:
    """A meta-train task: the position of its head, what it asks for, and the scale of its labels."""

    position: int
    target: Target
    scale: Scale


class MultiTask(MetaLearner):
    """Trains the encoder under one head per meta-train task.

    Args:
        encoder: The encoder.
        scale: Factor s of the logits. Features have unit length, so heads would grow slowly without it.
        c: Inverse penalty of the linear probe; see `LinearProbe`.
        name: It goes into saved models.
    """

    def __init__(self, encoder: Encoder, *, scale: float = 10.0, c: float = 10.0, name: str = "multi-task") -> None:
        super().__init__(encoder, "head", name)
        self.scale = scale
        self._probe = (LinearProbe(encoder, c=c, name=name),)  # in a tuple: its encoder is registered here already
        self.heads = nn.ParameterList()
        self._tasks: dict[str, _Known] = {}

    def prepare(self, tasks: Sequence[Task]) -> None:
        like = next(self.encoder.model.parameters())
        for task in tasks:
            target = make_target(task.kind, task.label_names)
            scale = target.scale(torch.from_numpy(task.train_split.labels))
            self._tasks[task.name] = _Known(len(self.heads), target, scale)
            self.heads.append(nn.Parameter(like.new_zeros(target.size, self.encoder.feature_size(pair=task.pair) + 1)))

    def episode_loss(self, episode: EncodedEpisode, progress: float) -> EpisodeLoss:
        known = self._find(episode.task)
        features = [self.encoder(examples.sequences) for examples in (episode.support, episode.query)]
        labels = torch.cat([episode.support.labels, episode.query.labels])
        labels = known.target.translate(known.scale.standardise(labels), episode.target)
        rows: Tensor = self.scale * self.heads[known.position]
        scores = LinearHead(rows[:, :-1], rows[:, -1])(torch.cat(features))
        return EpisodeLoss.measure(known.target, scores, labels)

    def adapt(self, support: EncodedSet, target: Target, *, cache: FeatureCache | None = None) -> AdaptedModel:
        return self._probe[0].adapt(support, target, cache=cache)

    def _find(self, task: str) -> _Known:
        if task not in self._tasks:
            raise RecipeError(
                f"multi-task training has no head for the task {task!r}", fix="Call prepare(tasks) first."
            )
        return self._tasks[task]
