"""Label names: what is possible without a single labelled example; a reference, not a method.

    p(y=n | x) = softmax_n(-scale ||f(x) - f(name of n)||^2)

The support set is not looked at, so the figures are the same at every number of shots: labelled examples are worth what a method
has above them. Chang et al. 2008, "Importance of semantic representation: dataless classification". Where names say nothing
("0", "1"), or for scores and pairs, it is no better than chance.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch

from quickstudy.errors import RecipeError
from quickstudy.methods.base import MetaLearner, MetaLoss
from quickstudy.methods.protonet import prototype_head
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedEpisode, EncodedSet
from quickstudy.models.encoder import Encoder
from quickstudy.models.head import LinearHead
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Kind


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

    def meta_loss(self, episodes: Sequence[EncodedEpisode], progress: float = 1.0) -> MetaLoss:
        raise RecipeError("label-names has nothing to meta-train", fix="It is a reference for: quickstudy compare")

    @torch.no_grad()
    def adapt(self, support: EncodedSet, label_names: Sequence[str], kind: Kind) -> AdaptedModel:
        if kind == "regression":
            size = self.encoder.feature_size(pair=support.pair)
            head = LinearHead(support.labels.new_zeros(1, size), support.labels.new_zeros(1))
        else:
            # Second texts are left empty, as everywhere where single texts and pairs share features.
            second = "" if support.pair else None
            names = [Example(name.replace("_", " "), second) for name in label_names]
            head = prototype_head(self.encoder(self.encoder.tokenize(names)), torch.tensor(self._scale))
        return AdaptedModel(self.partition, {}, head, tuple(label_names), kind, support.pair, self.name)
