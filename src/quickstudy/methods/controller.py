"""LSTM controller: the structure of the encoder follows the task.

    h = LSTM over the support set of P [f(x_t), label-aware part],    gates g_l = 2 σ(w_l h),    shifts s_l = V_l h
    every residual branch l of the encoder:   branch_l(x) → g_l branch_l(x) + s_l;       then prototypes

A gate of 0 switches a branch off (the attention or the feed-forward part of a layer), and a shift moves its features.
This is feature-wise modulation in the manner of FiLM (Perez et al. 2018, arXiv:1709.07871) and CNAPs (Requeima et al.
2019, arXiv:1906.07697), with an LSTM that reads the support set. Gates start at 1 and shifts at 0, so the method
starts as a prototypical network.

A branch ends in a linear layer, so a gated branch is a linear layer with other weights: W' = g W, b' = g b + s. What
adapts are therefore ordinary parameters, and an adapted model is saved and opened like any other. The label-aware
part is the mean feature of the example's label, or the example's score. It does not depend on the order of the
labels.
"""

import torch
from torch import Tensor, nn

from quickstudy.lstm import LSTMCell
from quickstudy.methods.base import EpisodeLoss, MetaLearner
from quickstudy.methods.passes import EncoderPasses
from quickstudy.methods.protonet import Prototypes
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedEpisode, EncodedSet
from quickstudy.models.cut import Params
from quickstudy.models.encoder import Encoder
from quickstudy.models.feature_cache import FeatureCache
from quickstudy.models.head import Head
from quickstudy.models.reading_order import ORDERS, reading_orders
from quickstudy.models.support_rows import SupportRows, class_means, refuse_weights
from quickstudy.models.target import Target


class Controller(MetaLearner):
    """The LSTM that gates and shifts the branches of the encoder.

    Args:
        encoder: The encoder.
        hidden: Hidden units of the LSTM.
        scale: Scale of the prototypes; see `Prototypes`.
        name: It goes into saved models.
    """

    def __init__(
        self, encoder: Encoder, *, hidden: int = 64, scale: float = 10.0, name: str = "lstm-controller"
    ) -> None:
        super().__init__(encoder, "branches", name)
        self.rule = Prototypes(scale)
        theta = self.partition.initial()
        self._weights = sorted(n for n in theta if n.endswith("weight"))
        shifts = [len(theta[n]) if _bias(n) in theta else 0 for n in self._weights]
        self._sizes = [1 + shift for shift in shifts]
        self.project = nn.ModuleDict({str(f): nn.Linear(2 * f, hidden) for f in sorted(encoder.feature_sizes)})
        self.cell = LSTMCell(hidden, hidden)
        self.out = nn.Linear(hidden, sum(self._sizes))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    @property
    def weighs(self) -> bool:
        return False

    def episode_loss(self, episode: EncodedEpisode, progress: float) -> EpisodeLoss:
        scale = episode.target.scale(episode.support.labels)
        phi, head = self._adapted(episode.support, scale.standardise(episode.support.labels), episode.target)
        scores = head(self.partition.features(phi, self.partition.prefix(episode.query.sequences)))
        return EpisodeLoss.measure(episode.target, scores, scale.standardise(episode.query.labels))

    @torch.no_grad()
    def adapt(self, support: EncodedSet, target: Target, *, cache: FeatureCache | None = None) -> AdaptedModel:
        scale = target.scale(support.labels)
        phi, head = self._adapted(support, scale.standardise(support.labels), target)
        return self.make_model(support, target, scale.rescale(head), phi)

    def encoder_passes(self) -> EncoderPasses:
        return EncoderPasses(
            "whole encoder twice", "every layer has a branch that adapts", (3, 6), (3, 3), copies=1, held=2
        )

    def _adapted(self, support: EncodedSet, labels: Tensor, target: Target) -> tuple[Params, Head]:
        refuse_weights(support.weights, self.name)
        prefix = self.partition.prefix(support.sequences)
        theta = self.partition.initial()
        rows = SupportRows(self.partition.features(theta, prefix), labels)
        examples = torch.cat([rows.features, target.apply(_LabelAware(), rows)], dim=-1)
        phi = self._controlled(theta, self._read(examples))
        return phi, self.rule.head(SupportRows(self.partition.features(phi, prefix), labels), target)

    def _read(self, examples: Tensor) -> Tensor:
        """Return the LSTM's last state, (H,), the mean over several orders of the examples (B, 2F)."""
        inputs = self.project[str(examples.shape[-1] // 2)](examples)
        state = self.cell.start(inputs, ORDERS)
        for x in inputs[reading_orders(len(examples), examples.device)].unbind(1):
            state = self.cell(x, state)
        return state[0].mean(0)

    def _controlled(self, theta: Params, h: Tensor) -> Params:
        """Return the gated and shifted parameters φ, given a state of the LSTM (H,)."""
        phi = {}
        for name, outputs in zip(self._weights, self.out(h).split(self._sizes), strict=True):
            gate = 2 * torch.sigmoid(outputs[0])
            phi[name] = gate * theta[name]
            if _bias(name) in theta:
                phi[_bias(name)] = gate * theta[_bias(name)] + outputs[1:]
        return phi


class _LabelAware:
    """What the LSTM is told of each example's label, (B, F)."""

    def for_classes(self, rows: SupportRows, n_way: int) -> Tensor:
        return class_means(rows, n_way)[rows.labels]

    def for_scores(self, rows: SupportRows) -> Tensor:
        return rows.labels.unsqueeze(-1).expand_as(rows.features)


def _bias(weight: str) -> str:
    return weight.removesuffix("weight") + "bias"
