"""Way: the cheapest exact way to run an encoder whose adapted parameters are given from outside.

    top m layers adapt           the layers below them run once per episode; every inner step runs the top m    Cut
    word embeddings adapt too    every inner step runs the whole encoder on the embedding rows in use           Rows
    anything else                every inner step runs the whole encoder

All ways give the same features and the same gradients; only the work differs. Each way is compared with the whole
model on a small input when it is made. If it does not give the same states, it is not taken.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn
from torch.func import functional_call

from quickstudy.models.cut import Cut, Params
from quickstudy.models.rows import Rows


@dataclass(frozen=True)
class Way:
    """How a model runs under adapted parameters.

    Attributes:
        model: The Hugging Face model.
        cut: The model cut below all that adapts; None if there is no such cut.
        rows: The model on the embedding rows in use; None if the word embeddings do not adapt, or cannot be split.
    """

    model: nn.Module
    cut: Cut | None
    rows: Rows | None

    @property
    def layer_fraction(self) -> float:
        """The layers that run at every inner step, as a fraction of all."""
        return self.cut.layer_fraction if self.cut else 1.0

    def start(self, inputs: Mapping[str, Tensor]) -> Any:
        """Run what does not depend on the adapted parameters; return what `finish` goes on from."""
        return self.cut.below(inputs) if self.cut else inputs

    def finish(self, params: Params, started: Any, place: Tensor | None) -> Tensor:
        """Return token states, (B, T, D).

        Args:
            params: The adapted parameters by name, and no others.
            started: What `start` returned.
            place: From `Rows.place`, if the table of word embeddings is given by its rows in use.
        """
        if self.cut:
            return self.cut.above(params, started)
        if self.rows and place is not None:
            return self.rows.run(params, place, started)
        return cast(Tensor, functional_call(self.model, params, kwargs=started).last_hidden_state)


def choose_way(model: nn.Module, names: frozenset[str]) -> Way:
    """Return the cheapest exact way to run a model of which the named parameters adapt."""
    return Way(model, Cut.find(model, names), Rows.find(model, names))
