"""LSTM controller: the structure of the encoder follows the task.

    h = LSTM over the support set of P [f(x_t), label-aware part],    gates g_l = 2 σ(w_l h),    shifts s_l = V_l h
    every residual branch l of the encoder:   branch_l(x) → g_l branch_l(x) + s_l;       then prototypes

A gate of 0 takes a branch (the attention or the feed-forward part of a layer) out, a shift moves its features: feature-wise
modulation in the manner of FiLM (Perez et al. 2018, arXiv:1709.07871) and CNAPs (Requeima et al. 2019, arXiv:1906.07697), with an
LSTM that reads the support set. Gates start at 1 and shifts at 0, so it starts as a prototypical network.

A branch ends in a linear layer, so a gated branch is a linear layer with other weights: W' = g W, b' = g b + s. What adapts are
therefore ordinary parameters, and an adapted model is saved and opened like any other. The label-aware part is the mean feature
of the example's label (for regression its score), which does not depend on how labels are named.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quickstudy.lstm import LSTMCell
from quickstudy.methods.base import MetaLearner, MetaLoss, accuracy, label_scale, task_loss
from quickstudy.methods.passes import EncoderPasses
from quickstudy.methods.protonet import Prototypes
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedEpisode, EncodedSet
from quickstudy.models.cut import Params
from quickstudy.models.encoder import Encoder
from quickstudy.models.head import Head, class_means
from quickstudy.tasks.task import Kind

_ORDERS = 4


class Controller(MetaLearner):
    """The LSTM that gates and shifts the encoder's branches.

    Args:
        encoder: The encoder.
        hidden: Hidden units of the LSTM.
        scale: Of the prototypes; see `Prototypes`.
        name: Goes into saved models.
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
        sizes = {encoder.feature_size(pair=pair) for pair in (False, True)}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # the same start every time, whatever ran before
            self.project = nn.ModuleDict({str(f): nn.Linear(2 * f, hidden) for f in sorted(sizes)})
            self.cell = LSTMCell(hidden, hidden)
            self.out = nn.Linear(hidden, sum(self._sizes))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def meta_loss(self, episodes: Sequence[EncodedEpisode], progress: float = 1.0) -> MetaLoss:
        losses, counts = [], []
        for episode in episodes:
            labels, wanted = episode.support.labels, episode.query.labels
            if episode.kind == "regression":
                mean, std = label_scale(labels)
                labels, wanted = (labels - mean) / std, (wanted - mean) / std
            phi, head = self._adapted(episode.support, labels, episode.n_way, episode.kind)
            scores = head(self.partition.features(phi, self.partition.prefix(episode.query.sequences)))
            losses.append(task_loss(scores, wanted, episode.kind))
            if episode.kind == "classification":
                counts.append((scores, wanted))
        return MetaLoss(torch.stack(losses).mean(), accuracy(counts))

    @torch.no_grad()
    def adapt(self, support: EncodedSet, label_names: Sequence[str], kind: Kind) -> AdaptedModel:
        if kind == "regression":
            mean, std = label_scale(support.labels)
            phi, head = self._adapted(support, (support.labels - mean) / std, 1, kind)
            head = head.rescaled(mean, std)
        else:
            phi, head = self._adapted(support, support.labels, len(label_names), kind)
        return AdaptedModel(self.partition, phi, head, tuple(label_names), kind, support.pair, self.name)

    def encoder_passes(self) -> EncoderPasses:
        return EncoderPasses("whole encoder twice", "every layer has a branch that adapts", (3, 6), (3, 3), copies=1)

    def _adapted(self, support: EncodedSet, labels: Tensor, n_way: int, kind: Kind) -> tuple[Params, Head]:
        prefix = self.partition.prefix(support.sequences)
        theta = self.partition.initial()
        features = self.partition.features(theta, prefix)
        about = (
            labels.unsqueeze(-1).expand_as(features)
            if kind == "regression"
            else class_means(features, labels, n_way)[labels]
        )
        phi = self._controlled(theta, self._read(torch.cat([features, about], dim=-1)))
        return phi, self.rule.head(self.partition.features(phi, prefix), labels, n_way, kind)

    def _read(self, examples: Tensor) -> Tensor:
        """Return the LSTM's last state, (H,), the mean over some fixed orders of the examples (B, 2F)."""
        inputs = self.project[str(examples.shape[-1] // 2)](examples)
        orders = torch.stack([_order(len(examples), seed) for seed in range(_ORDERS)]).to(examples.device)
        state = self.cell.start(inputs, _ORDERS)
        for x in inputs[orders].unbind(1):
            state = self.cell(x, state)
        return state[0].mean(0)

    def _controlled(self, theta: Params, h: Tensor) -> Params:
        phi = {}
        for name, raw in zip(self._weights, self.out(h).split(self._sizes), strict=True):
            gate = 2 * torch.sigmoid(raw[0])
            phi[name] = gate * theta[name]
            if _bias(name) in theta:
                phi[_bias(name)] = gate * theta[_bias(name)] + raw[1:]
        return phi


def _bias(weight: str) -> str:
    return weight.removesuffix("weight") + "bias"


def _order(size: int, seed: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed)) if seed else torch.arange(size)
