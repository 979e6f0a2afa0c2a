"""Label names: what is possible without a single labelled example. It is a reference, not a method.

    p(y=n | x) = softmax_n(-scale ||f(x) - f(name of n)||^2)

The support set is not looked at, so the figures are the same at every number of shots. What a method reaches above
them is what its labelled examples are worth. A description of a label takes the place of its name. If names say nothing
("0", "1"), and for scores and pairs, it is no better than chance. Chang et al. 2008, "Importance of semantic
representation: dataless classification".
"""

from typing import ClassVar

import torch
from torch import Tensor

from quickstudy.errors import RecipeError
from quickstudy.methods.base import EpisodeLoss, MetaLearner
from quickstudy.methods.protonet import prototype_head
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedEpisode, EncodedSet
from quickstudy.models.encoder import Encoder
from quickstudy.models.feature_cache import FeatureCache
from quickstudy.models.head import LinearHead
from quickstudy.models.target import Target


class LabelNames(MetaLearner):
    """Classifies by the nearest label name.

    Args:
        encoder: The encoder.
        scale: Factor of the squared distances.
    """

    reads_support: ClassVar[bool] = False

    def __init__(self, encoder: Encoder, *, scale: float = 10.0) -> None:
        super().__init__(encoder, "head", "label-names", meta_trains=False)
        self._scale = scale

    @property
    def reads_names(self) -> bool:
        return True

    def episode_loss(self, episode: EncodedEpisode, progress: float) -> EpisodeLoss:
        raise RecipeError("label-names has nothing to meta-train", fix="It is a reference for: quickstudy compare")

    @torch.no_grad()
    def adapt(self, support: EncodedSet, target: Target, *, cache: FeatureCache | None = None) -> AdaptedModel:
        names = target.encode_names(self.encoder, pair=support.pair)
        if len(names):
            head = prototype_head(self.encoder(names, cache=cache), torch.tensor(self._scale))
        else:
            head = self._answer_zero(target, support)
        return self.make_model(support, target, head)

    def _answer_zero(self, target: Target, support: EncodedSet) -> LinearHead:
        like: Tensor = next(self.encoder.model.parameters())
        zeros = like.new_zeros(target.size, self.encoder.feature_size(pair=support.pair))
        return LinearHead(zeros, like.new_zeros(target.size))
