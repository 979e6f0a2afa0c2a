"""Support nets: networks that read a support set and answer queries. What they learn holds for all tasks.

    relation       g(|f - c_n|, f ∘ c_n) for every label n
    in-context     self-attention over (x_i, y_i); then the query attends to the result
    lstm-reader    h_t = LSTM([x_t, y_{t-1}], h_{t-1}) over the support set, then one more step with the query

Labels differ in number and order between tasks, so a net answers for one label at a time: y_i is 1 if example i has
that label, and 0 otherwise, and the same weights serve every label. If labels are renamed, the answers are renamed,
and any number of labels is possible. For regression y_i is the score, and there is one answer. The last layer starts
at zero, so at first a net adds nothing. Features of single texts and of pairs differ in size, and there is an input
layer for each size.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from quickstudy.errors import RecipeError
from quickstudy.lstm import LSTMCell, LSTMState
from quickstudy.models.reading_order import ORDERS, reading_orders
from quickstudy.models.support_rows import add_log_weights, column_means


class SupportNet(nn.Module, ABC):
    """Answers queries from a support set.

    Attributes:
        kind: Its name in saved models.
        weighs: Whether it can give examples different weights.
    """

    kind: ClassVar[str]
    weighs: ClassVar[bool] = True

    def __init__(self, sizes: Iterable[int], hidden: int) -> None:
        super().__init__()
        self.sizes, self.hidden = sorted(set(sizes)), hidden

    @abstractmethod
    def forward(self, query: Tensor, support: Tensor, values: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return answers, (Q, N).

        Args:
            query: (Q, F) features.
            support: (B, F) features.
            values: (B, N) one-hot labels, N at least 2, or (B, 1) standardised scores.
            weights: (B,) how often each example counts; None if each counts once.
        """

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Return the net that has these parameters."""
        shapes = [t.shape for name, t in tensors.items() if name.startswith("project.") and name.endswith("weight")]
        with torch.random.fork_rng(devices=[]):
            net = cls([cls.feature_size(shape[1]) for shape in shapes], shapes[0][0])
        net.load_state_dict(dict(tensors))
        return net

    @staticmethod
    def feature_size(columns: int) -> int:
        """Return the feature size F that belongs to a number of columns of an input layer."""
        return columns


class Relation(SupportNet):
    """A relation network."""

    kind = "relation"

    def __init__(self, sizes: Iterable[int], hidden: int = 64) -> None:
        super().__init__(sizes, hidden)
        self.project = nn.ModuleDict({str(f): nn.Linear(2 * f, hidden) for f in self.sizes})
        self.answer = _zero(nn.Linear(hidden, 1))

    @staticmethod
    def feature_size(columns: int) -> int:
        return columns // 2

    def forward(self, query: Tensor, support: Tensor, values: Tensor, weights: Tensor | None = None) -> Tensor:
        if values.shape[-1] == 1:  # relations to examples weigh their scores; they are equal at first: the answer is 0
            return torch.softmax(add_log_weights(self._relations(query, support), weights), dim=-1) @ values
        return self._relations(query, column_means(support, values, weights))

    def _relations(self, query: Tensor, points: Tensor) -> Tensor:
        f, c = query.unsqueeze(1), points.unsqueeze(0)
        both = torch.cat([(f - c).abs(), f * c * query.shape[-1] ** 0.5], dim=-1)
        relations: Tensor = self.answer(torch.relu(self.project[str(query.shape[-1])](both)))
        return relations.squeeze(-1)


class InContext(SupportNet):
    """A set transformer with a self-attention and a cross-attention block, and without positions, so without order."""

    kind = "in-context"

    def __init__(self, sizes: Iterable[int], hidden: int = 64) -> None:
        super().__init__(sizes, hidden)
        self.project = nn.ModuleDict({str(f): nn.Linear(f, hidden) for f in self.sizes})
        self.label = nn.Linear(1, hidden)
        self.read, self.ask = _Attention(hidden), _Attention(hidden)
        self.answer = _zero(nn.Linear(hidden, 1))

    def forward(self, query: Tensor, support: Tensor, values: Tensor, weights: Tensor | None = None) -> Tensor:
        project = self.project[str(query.shape[-1])]
        n_way = values.shape[-1]
        # (N, B, D): the support set is read once for every label, with the same weights.
        examples = project(support).unsqueeze(0) + self.label(values.T.unsqueeze(-1))
        examples = self.read(examples, examples, weights)
        asked = self.ask(project(query).unsqueeze(0).expand(n_way, -1, -1), examples, weights)
        answers: Tensor = self.answer(asked)
        return answers.squeeze(-1).T


class LSTMReader(SupportNet):
    """An LSTM that reads the support set example by example, in several orders, and answers with the mean.

    A label comes one step after its text, so that the LSTM answers a text before it is told (Santoro et al. 2016).
    """

    kind = "lstm-reader"
    weighs = False

    def __init__(self, sizes: Iterable[int], hidden: int = 64) -> None:
        super().__init__(sizes, hidden)
        self.project = nn.ModuleDict({str(f): nn.Linear(f, hidden) for f in self.sizes})
        self.cell = LSTMCell(hidden + 2, hidden)
        self.answer = _zero(nn.Linear(hidden, 1))

    def forward(self, query: Tensor, support: Tensor, values: Tensor, weights: Tensor | None = None) -> Tensor:
        q, n = len(query), values.shape[-1]
        _, state, told = self._read(support, values)
        asked = self.project[str(query.shape[-1])](query)[None, :, None].expand(ORDERS, -1, n, -1)
        h, _ = self.cell(
            torch.cat([asked, told[:, None].expand(-1, q, -1, -1)], dim=-1),
            (state[0][:, None].expand(-1, q, -1, -1), state[1][:, None].expand(-1, q, -1, -1)),
        )
        answers: Tensor = self.answer(h)
        return answers.squeeze(-1).mean(0)

    def answer_support(self, support: Tensor, values: Tensor) -> Tensor:
        """Return what the LSTM answers for each support example before it is told its label, (R, B, N), R orders.

        Args:
            support: (B, F) features.
            values: (B, N) one-hot labels, or (B, 1) standardised scores.
        """
        outputs, _, _ = self._read(support, values)
        back = reading_orders(len(support), support.device).argsort(1)  # from the order of reading to that of the set
        answers: Tensor = self.answer(torch.stack(outputs, 1))
        return answers.squeeze(-1).gather(1, back[..., None].expand(-1, -1, values.shape[-1]))

    def _read(self, support: Tensor, values: Tensor) -> tuple[list[Tensor], LSTMState, Tensor]:
        """Read a support set; return the outputs (R, N, H) of its B steps, the last state, and the last label told."""
        orders = reading_orders(len(support), support.device)
        texts = self.project[str(support.shape[-1])](support)[orders]  # (R, B, D)
        labels = values[orders]  # (R, B, N)
        n, outputs = values.shape[-1], []
        state = self.cell.start(support, ORDERS, n)
        told = support.new_zeros(ORDERS, n, 2)  # the label of the example before, and whether there is such an example
        for t in range(len(support)):
            state = self.cell(torch.cat([texts[:, t, None].expand(-1, n, -1), told], dim=-1), state)
            told = torch.stack([labels[:, t], torch.ones_like(labels[:, t])], dim=-1)
            outputs.append(state[0])
        return outputs, state, told


class _Attention(nn.Module):
    """An attention block with layer norms first, and a feed-forward part."""

    def __init__(self, hidden: int, heads: int = 4) -> None:
        super().__init__()
        if hidden % heads:
            raise RecipeError(
                f"hidden = {hidden} does not divide among {heads} attention heads", fix="Give a multiple of 4."
            )
        self.norms = nn.ModuleList([nn.LayerNorm(hidden) for _ in range(3)])
        self.attend = nn.MultiheadAttention(hidden, heads, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden))

    def forward(self, asking: Tensor, read: Tensor, weights: Tensor | None) -> Tensor:
        """Return what is asked after attention to what is read, (N, Q, D); `weights` (B,) are those of the keys."""
        keys = self.norms[1](read)
        bias = None if weights is None else weights.log().expand(asking.shape[1], -1)
        x = asking + self.attend(self.norms[0](asking), keys, keys, attn_mask=bias, need_weights=False)[0]
        output: Tensor = x + self.feed(self.norms[2](x))
        return output


SUPPORT_NETS: dict[str, type[SupportNet]] = {net.kind: net for net in (Relation, InContext, LSTMReader)}


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
