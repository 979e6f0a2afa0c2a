"""Rows: only the embedding rows of tokens that occur in the episode are adapted.

    e_v ← e_v - α ∂L/∂e_v,      ∂L/∂e_v = 0 unless v is a token of the support set

A table of word embeddings has tens of thousands of rows, and an episode uses hundreds. The rows in use are gathered
once per episode. An inner step then computes the gradient of these rows alone, updates them alone and keeps them
alone. The adapted parameters are the same as with the whole table. This holds for update rules that leave an entry
without a gradient as it is.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quickstudy.models.cut import UNFIT, Params, probe, replaced
from quickstudy.models.tokens import Sequences


class Rows:
    """A model whose table of word embeddings is given by the rows in use.

    Args:
        model: The Hugging Face model; it is never changed.
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
        module = next((name for name, candidate in model.named_modules() if candidate is table), "")
        plain = type(table) is nn.Embedding and table.max_norm is None and not table.scale_grad_by_freq
        shared = sum(p is table.weight for _, p in model.named_parameters(remove_duplicate=False)) > 1
        if not plain or shared or f"{module}.weight" not in names:
            return None
        inputs, rows = probe(model), Rows(model, module)
        used = torch.tensor([0, 5], device=table.weight.device)  # the token of the probe, and another
        with torch.no_grad():
            whole = model(**inputs).last_hidden_state
            try:
                same = torch.equal(rows.run({rows.name: table.weight[used]}, rows.place(used), inputs), whole)
            except UNFIT:
                return None
        return rows if same else None

    def tokens_in_use(self, sets: Sequence[Sequences], device: torch.device) -> Tensor:
        """Return the tokens of some sequences, (U,); the padding token, which must not adapt, comes first."""
        padding = set() if self._padding is None else {self._padding}
        used = {token for sequences in sets for ids in sequences.ids for token in ids}
        return torch.tensor([*padding, *sorted(used - padding)], device=device)

    def place(self, tokens: Tensor) -> Tensor:
        """Return the position of each token's row, (V,), among the rows of the tokens in use."""
        place = torch.zeros(self._size, dtype=torch.long, device=tokens.device)
        place[tokens] = torch.arange(len(tokens), device=tokens.device)
        return place

    def run(self, params: Params, place: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the token states, (B, T, D), under adapted parameters whose table consists of the rows in use."""
        replacements = params | {f"{self._module}.place": place}
        states: Tensor = functional_call(self._model, replacements, kwargs=dict(inputs)).last_hidden_state
        return states


class _Table(nn.Module):
    """Stands in for an embedding table; its rows come with each call."""

    place: Tensor

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.padding_idx = table.padding_idx
        self.weight = nn.Parameter(torch.empty(0))
        self.register_buffer("place", torch.empty(0, dtype=torch.long))

    def forward(self, tokens: Tensor) -> Tensor:
        return nn.functional.embedding(self.place[tokens], self.weight, None if self.padding_idx is None else 0)
