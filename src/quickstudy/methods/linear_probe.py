"""Linear probe: logistic regression on the features of an encoder that does not change.

    min_{W,b}  C sum_i CE(W f_i + b, y_i) + ||W||^2 / 2            f scaled to a mean length of 1

The baseline to beat: nothing is learned across tasks. scikit-learn fits it (L-BFGS); for regression it is ridge regression
with penalty 1 / C.
"""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from quickstudy.methods.base import MetaLearner, MetaLoss, accuracy, task_loss
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedEpisode, EncodedSet
from quickstudy.models.encoder import Encoder
from quickstudy.models.head import LinearHead
from quickstudy.tasks.task import Kind


class LinearProbe(MetaLearner):
    """Logistic regression on features.

    Args:
        encoder: The encoder.
        c: Inverse penalty C.
        name: Goes into saved models.
    """

    def __init__(self, encoder: Encoder, *, c: float = 10.0, name: str = "linear-probe") -> None:
        super().__init__(encoder, "head", name, meta_trains=False)
        self.c = c

    @torch.no_grad()
    def meta_loss(self, episodes: Sequence[EncodedEpisode], progress: float = 1.0) -> MetaLoss:
        """Return the query loss; it is differentiable in nothing, as there is nothing to learn across tasks."""
        losses, counts = [], []
        for episode in episodes:
            names = [str(label) for label in range(episode.n_way)] if episode.kind == "classification" else []
            model = self.adapt(episode.support, names, episode.kind)
            scores = model.scores(self.partition.prefix(episode.query.sequences))
            losses.append(task_loss(scores, episode.query.labels, episode.kind))
            if episode.kind == "classification":
                counts.append((scores, episode.query.labels))
        return MetaLoss(torch.stack(losses).mean(), accuracy(counts))

    @torch.no_grad()
    def adapt(self, support: EncodedSet, label_names: Sequence[str], kind: Kind) -> AdaptedModel:
        features = self.encoder(support.sequences)
        # One scale for all, so that C means the same for every encoder; it is put back into the weights.
        length = features.norm(dim=-1, keepdim=True).mean()
        x = (features / length).double().cpu().numpy()
        y = support.labels.cpu().numpy()
        weight, bias = (self._ridge if kind == "regression" else self._logistic)(x, y)
        as_tensor = {"device": features.device, "dtype": features.dtype}
        head = LinearHead(torch.tensor(weight, **as_tensor) / length, torch.tensor(bias, **as_tensor))
        return AdaptedModel(self.partition, {}, head, tuple(label_names), kind, support.pair, self.name)

    def _logistic(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        fitted = LogisticRegression(C=self.c, max_iter=2000).fit(x, y)
        if len(fitted.classes_) > 2:
            return fitted.coef_, fitted.intercept_
        # Two labels have one row; half of it each way gives the same probabilities from a softmax.
        return np.concatenate([-fitted.coef_, fitted.coef_]) / 2, np.concatenate(
            [-fitted.intercept_, fitted.intercept_]
        ) / 2

    def _ridge(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        fitted = Ridge(alpha=1 / self.c).fit(x, y)
        return fitted.coef_[None], np.array([fitted.intercept_])
