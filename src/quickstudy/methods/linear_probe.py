"""Linear probe: logistic regression on the features of an encoder that does not change.

    min_{W,b}  C sum_i w_i CE(W f_i + b, y_i) + ||W||^2 / 2            f is scaled to a mean length of 1

The baseline to beat: nothing is learned across tasks. scikit-learn fits it (L-BFGS). For scores it is ridge
regression with penalty 1 / C, in the units of the task. The weights w_i are 1 unless the user gives others.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from quickstudy.methods.base import EpisodeLoss, MetaLearner
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedEpisode, EncodedSet
from quickstudy.models.encoder import Encoder
from quickstudy.models.feature_cache import FeatureCache
from quickstudy.models.head import LinearHead
from quickstudy.models.support_rows import SupportRows
from quickstudy.models.target import Target


class LinearProbe(MetaLearner):
    """Logistic regression on features.

    Args:
        encoder: The encoder.
        c: Inverse penalty C.
        name: It goes into saved models.
    """

    def __init__(self, encoder: Encoder, *, c: float = 10.0, name: str = "linear-probe") -> None:
        super().__init__(encoder, "head", name, meta_trains=False)
        self.c = c

    @torch.no_grad()
    def episode_loss(self, episode: EncodedEpisode, progress: float) -> EpisodeLoss:
        """Return the query loss. It has no gradient, because there is nothing to learn across tasks."""
        model = self.adapt(episode.support, episode.target)
        scores = model.scores(self.partition.prefix(episode.query.sequences))
        return EpisodeLoss.measure(episode.target, scores, episode.query.labels)

    @torch.no_grad()
    def adapt(self, support: EncodedSet, target: Target, *, cache: FeatureCache | None = None) -> AdaptedModel:
        features = self.encoder(support.sequences, cache=cache)
        # There is one scale for all features, so that C means the same for every encoder; it is put back into W.
        lengths = features.norm(dim=-1)
        length = lengths.mean() if support.weights is None else support.weights @ lengths / support.weights.sum()
        weight, bias = target.apply(self, SupportRows(features / length, support.labels, support.weights))
        like = {"device": features.device, "dtype": features.dtype}
        head = LinearHead(torch.tensor(weight, **like) / length, torch.tensor(bias, **like))
        return self.make_model(support, target, head)

    def for_classes(self, rows: SupportRows, n_way: int) -> tuple[NDArray[np.float64], ...]:
        """Return W (N, F) and b (N,) of a logistic regression."""
        from sklearn.linear_model import LogisticRegression  # it takes long, and the other methods do without

        fitted = LogisticRegression(C=self.c, max_iter=2000).fit(*_arrays(rows))
        if len(fitted.classes_) > 2:
            return fitted.coef_, fitted.intercept_
        # Two labels have one row. Half of it for each label, with opposite signs, gives the same probabilities.
        weight = np.concatenate([-fitted.coef_, fitted.coef_]) / 2
        return weight, np.concatenate([-fitted.intercept_, fitted.intercept_]) / 2

    def for_scores(self, rows: SupportRows) -> tuple[NDArray[np.float64], ...]:
        """Return W (1, F) and b (1,) of a ridge regression."""
        from sklearn.linear_model import Ridge

        fitted = Ridge(alpha=1 / self.c).fit(*_arrays(rows))
        return fitted.coef_[None], np.array([fitted.intercept_])


def _arrays(rows: SupportRows) -> tuple[NDArray[np.float64], NDArray[np.generic], NDArray[np.float64] | None]:
    """Return features, labels and weights as scikit-learn takes them."""
    weights = None if rows.weights is None else rows.weights.double().cpu().numpy()
    return rows.features.double().cpu().numpy(), rows.labels.cpu().numpy(), weights
