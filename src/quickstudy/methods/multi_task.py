"""Multi-task pre-training: the baseline that trains on many tasks and does not learn to learn.

    loss = mean over support and query examples of CE(s (W_t f(x) + b_t), y)        W_t, b_t a head of its own for every task t

Every example counts as in ordinary training: nothing adapts inside an episode. A new task gets a linear probe on the features.
What it lacks beside the meta-learners is the inner loop, so the difference to them is what learning to learn is worth.
Caruana 1997; for language encoders Liu et al. 2019, arXiv:1901.11504. Scores of regression tasks are standardised by their task's
mean and standard deviation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quickstudy.errors import RecipeError
from quickstudy.methods.base import MetaLearner, MetaLoss, accuracy, label_scale, task_loss
from quickstudy.methods.linear_probe import LinearProbe
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedEpisode, EncodedSet
from quickstudy.models.encoder import Encoder
from quickstudy.models.head import LinearHead
from quickstudy.tasks.task import Kind, Task


class MultiTask(MetaLearner):
    """Trains the encoder under one head per meta-train task.

    Args:
        encoder: The encoder.
        scale: Factor s of the logits: features have unit length, so heads would be slow to grow.
        c: Inverse penalty of the linear probe; see `LinearProbe`.
        name: Goes into saved models.
    """

    def __init__(self, encoder: Encoder, *, scale: float = 10.0, c: float = 10.0, name: str = "multi-task") -> None:
        super().__init__(encoder, "head", name)
        self.scale = scale
        self._probe = (LinearProbe(encoder, c=c, name=name),)  # in a tuple: its encoder is this module's own
        self.heads = nn.ParameterList()
        self._tasks: dict[str, tuple[int, tuple[str, ...]]] = {}  # place of its head, label names
        self._scores: dict[str, tuple[float, float]] = {}

    def prepare(self, tasks: Sequence[Task]) -> None:
        like = next(self.encoder.model.parameters())
        for task in tasks:
            rows, columns = len(task.label_names) or 1, self.encoder.feature_size(pair=task.pair) + 1
            self._tasks[task.name] = len(self.heads), task.label_names
            self.heads.append(nn.Parameter(like.new_zeros(rows, columns)))
            if task.kind == "regression":
                mean, std = label_scale(torch.from_numpy(task.train_split.labels))
                self._scores[task.name] = float(mean), float(std)

    def meta_loss(self, episodes: Sequence[EncodedEpisode], progress: float = 1.0) -> MetaLoss:
        losses, counts = [], []
        for episode in episodes:
            features = [self.encoder(part.sequences) for part in (episode.support, episode.query)]
            labels = torch.cat([episode.support.labels, episode.query.labels])
            head, names = self._head(episode.task)
            scores = head(torch.cat(features))
            if episode.kind == "regression":
                mean, std = self._scores[episode.task]
                labels = (labels - mean) / std
            else:
                labels = torch.tensor([names.index(n) for n in episode.label_names], device=labels.device)[labels]
                counts.append((scores, labels))
            losses.append(task_loss(scores, labels, episode.kind))
        return MetaLoss(torch.stack(losses).mean(), accuracy(counts))

    def adapt(self, support: EncodedSet, label_names: Sequence[str], kind: Kind) -> AdaptedModel:
        return self._probe[0].adapt(support, label_names, kind)

    def _head(self, task: str) -> tuple[LinearHead, tuple[str, ...]]:
        if task not in self._tasks:
            raise RecipeError(
                f"multi-task training has no head for the task {task!r}", fix="Call prepare(tasks) first."
            )
        place, names = self._tasks[task]
        rows: Tensor = self.scale * self.heads[place]
        return LinearHead(rows[:, :-1], rows[:, -1]), names
