"""Rows: of an embedding table only the rows whose tokens occur in an episode are in play.

    e_v ← e_v - α ∂L/∂e_v,      ∂L/∂e_v = 0 unless v is a token of the support set

A table has tens of thousands of rows and an episode uses hundreds. Gathered once per episode, they are all that an inner step
computes a gradient of, updates and keeps: the adapted parameters are the same, with as many operations as there are rows in play.
It holds for update rules that leave an entry without a gradient where it is.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quickstudy.models.cut import UNFIT, Params, probe, replaced
from quickstudy.models.tokens import Sequences


class Rows:
    """A model whose table of word embeddings is given by the rows in play.

    Args:
        model: The Hugging Face model; never changed.
        module: Name of the table's module.

    Attributes:
        name: Name of the table's parameter.
    """

    def __init__(self, model: nn.Module, module: str) -> None:
        table = model.get_submodule(module)
        assert isinstance(table, nn.Embedding)
        self.name = f"{module}.weight"
        self._module, self._size, self._padding = module, table.num_embeddings, table.padding_idx
        self._model = replaced(model, {module: _Table(table)})

    @staticmethod
    def find(model: nn.Module, names: frozenset[str]) -> "Rows | None":
        """Return the rows of the word embeddings if these adapt and the model runs on rows alone; else None."""
        table = model.get_input_embeddings()  # type: ignore[operator]
        module = next((name for name, own in model.named_modules() if own is table), "")
        plain = type(table) is nn.Embedding and table.max_norm is None and not table.scale_grad_by_freq
        shared = sum(p is table.weight for _, p in model.named_parameters(remove_duplicate=False)) > 1
        if not plain or shared or f"{module}.weight" not in names:
            return None
        inputs, rows = probe(model), Rows(model, module)
        used = torch.tensor([0, 5], device=table.weight.device)  # the token of the probe, and one beside
        with torch.no_grad():
            whole = model(**inputs).last_hidden_state
            try:
                same = torch.equal(rows.run({rows.name: table.weight[used]}, rows.place(used), inputs), whole)
            except UNFIT:
                return None
        return rows if same else None

    def in_play(self, parts: Sequence[Sequences], device: torch.device) -> Tensor:
        """Return the tokens of some sequences, (U,); the padding token, which must not adapt, comes first."""
        padding = set() if self._padding is None else {self._padding}
        used = {token for part in parts for ids in part.ids for token in ids}
        return torch.tensor([*padding, *sorted(used - padding)], device=device)

    def place(self, tokens: Tensor) -> Tensor:
        """Return where each token's row is, (V,), of the tokens in play."""
        place = torch.zeros(self._size, dtype=torch.long, device=tokens.device)
        place[tokens] = torch.arange(len(tokens), device=tokens.device)
        return place

    def run(self, params: Params, place: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the token states, (B, T, D), under adapted parameters of which the table is given by its rows in play."""
        own = params | {f"{self._module}.place": place}
        states: Tensor = functional_call(self._model, own, kwargs=dict(inputs)).last_hidden_state
        return states


class _Table(nn.Module):
    """Stands in for an embedding table; what it holds comes with each call."""

    place: Tensor

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.padding_idx = table.padding_idx
        self.weight = nn.Parameter(torch.empty(0))
        self.register_buffer("place", torch.empty(0, dtype=torch.long))

    def forward(self, tokens: Tensor) -> Tensor:
        return nn.functional.embedding(self.place[tokens], self.weight, None if self.padding_idx is None else 0)
