"""Partition: which encoder parameters adapt inside an episode, and the cheapest exact way to run the encoder for it.

    nothing adapts ("head")      features once:  f is computed once per episode, every inner step is a matrix product
    top m layers ("layers:-m")   prefix once:    layers 1..L-m run once per episode, every inner step runs the top m
    anything else                every inner step runs the whole encoder; of its word embeddings only the rows in play adapt

All give the same features and the same gradients; only the work differs. Each way is checked on a probe against the whole
model when it is made, and where it does not reproduce it the whole encoder runs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from quickstudy.errors import RecipeError, RunError
from quickstudy.models.cut import Cut, Params, layer_stack
from quickstudy.models.encoder import Encoder, in_order
from quickstudy.models.rows import Rows
from quickstudy.models.tokens import Batch, Sequences

# The linear layer that ends a residual branch (attention, feed-forward), in the families that we know.
_BRANCH_END = re.compile(r"\.(output\.dense|out_lin|lin2|attn\.o|Wo)\.(weight|bias)$")
_LAYERS = re.compile(r"layers:-(\d+)")
_LORA, _RANK = re.compile(r"lora(?::([1-9]\d*))?"), 4


@dataclass(frozen=True, slots=True)
class Prefix:
    """What of some examples need not run again: one entry per batch of similar length.

    Attributes:
        parts: The recorded calls of the top layers, or plain model inputs; the vectors of all sequences where nothing adapts.
        batches: The batches; none where nothing adapts.
        pairs: Whether the sequences are separate pairs.
        place: (V,) where each token's word embedding is among the rows in play; None if the whole table is there.
    """

    parts: list[Any]
    batches: list[Batch]
    pairs: bool
    place: Tensor | None = None


def select(model: nn.Module, which: str) -> frozenset[str]:
    """Return the names of the encoder parameters that adapt.

    Args:
        model: The Hugging Face model.
        which: `head` (none), `all`, `bias`, `layers:-m` (the top m layers), `branches` (the linear layers
            that end residual branches), `lora` or `lora:r` (the weights of all linear layers, see `LowRank`).

    Raises:
        RecipeError: An unknown filter, or more than there is: layers beyond the last, biases of a model that has none.
    """
    names = [name for name, _ in model.named_parameters()]
    if which == "head":
        return frozenset()
    if which == "all":
        return frozenset(names)
    if which == "bias":
        if biases := frozenset(name for name in names if name.endswith("bias")):
            return biases
        raise RecipeError("this encoder has no biases", fix="Use adapts = 'head', 'layers:-m' or 'all'.")
    if which == "branches":
        stack, _ = layer_stack(model)
        if branches := frozenset(n for n in names if n.startswith(f"{stack}.") and _BRANCH_END.search(n)):
            return branches
        raise RecipeError("the ends of this encoder's residual branches are not known", fix="Choose another method.")
    if rank_of(which):
        stack, layers = layer_stack(model)
        linear = [name for name, module in layers.named_modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise RecipeError("this encoder has no linear layers to correct", fix="Use layers:-m or all.")
        return frozenset(f"{stack}.{name}.weight" for name in linear)
    if match := _LAYERS.fullmatch(which):
        stack, layers = layer_stack(model)
        top = int(match[1])
        if not 1 <= top <= len(layers):
            raise RecipeError(f"{which!r}: the encoder has {len(layers)} layers", fix=f"Choose 1 to {len(layers)}.")
        chosen = tuple(f"{stack}.{i}." for i in range(len(layers) - top, len(layers)))
        return frozenset(name for name in names if name.startswith(chosen))
    raise RecipeError(
        f"there is no parameter filter {which!r}",
        fix="Choose head, all, bias, layers:-m (the top m layers) or lora:r (corrections of rank r).",
    )


def shapes(model: nn.Module, which: str) -> dict[str, tuple[int, ...]]:
    """Return the shape of every encoder parameter of the inner loop, by name; see `select` and `LowRank`."""
    names = select(model, which)
    own = {name: tuple(p.shape) for name, p in model.named_parameters() if name in names}
    if not (rank := rank_of(which)):
        return own
    found: dict[str, tuple[int, ...]] = {}
    for name, (outputs, inputs) in own.items():
        most = min(rank, outputs, inputs)  # a higher rank could say no more
        found |= {f"{name}.a": (most, inputs), f"{name}.b": (outputs, most)}
    return found


def rank_of(which: str) -> int:
    """Return the rank that a parameter filter `lora` or `lora:r` asks for, 0 if it is another.

    >>> rank_of("lora:8"), rank_of("lora"), rank_of("layers:-2")
    (8, 4, 0)
    """
    match = _LORA.fullmatch(which)
    return int(match[1] or _RANK) if match else 0


class Partition:
    """Runs an encoder whose adapted parameters are given from outside.

    Args:
        encoder: The encoder; its own parameters are never changed.
        which: See `select`.
    """

    def __init__(self, encoder: Encoder, which: str) -> None:
        self.encoder, self.which = encoder, which
        self.names = select(encoder.model, which)
        self._cut = Cut.find(encoder.model, self.names)
        self._rows = Rows.find(encoder.model, self.names)

    def in_play(self, *parts: Sequences) -> Tensor | None:
        """Return the tokens, (U,), whose word embeddings adapt in an episode of these sequences; None if no table does."""
        return self._rows.in_play(parts, self.encoder.device) if self._rows else None

    @property
    def layer_fraction(self) -> float:
        """The layers that run at every inner step, as a share of all."""
        return 0.0 if not self.names else self._cut.layer_fraction if self._cut else 1.0

    def initial(self, tokens: Tensor | None = None) -> Params:
        """Return the adapted parameters' values θ, by name: meta-parameters in the graph, others as leaves of their own.

        Args:
            tokens: From `in_play`: the table of word embeddings has these rows alone.
        """
        theta: Params = {name: p for name, p in self.encoder.model.named_parameters() if name in self.names}
        if self._rows and tokens is not None:
            theta[self._rows.name] = theta[self._rows.name][tokens]
        return {name: p if p.requires_grad else p.detach().requires_grad_() for name, p in theta.items()}

    def whole(self, params: Params, tokens: Tensor | None) -> Params:
        """Return adapted parameters with the whole table of word embeddings in the place of its rows in play."""
        if self._rows is None or tokens is None:
            return params
        table = self.encoder.model.get_parameter(self._rows.name)
        return params | {self._rows.name: table.detach().index_copy(0, tokens, params[self._rows.name])}

    def prefix(self, sequences: Sequences, tokens: Tensor | None = None) -> Prefix:
        """Run what need not run again.

        Args:
            sequences: What the features will be of.
            tokens: From `in_play`, if parameters will be given by the rows in play.

        Raises:
            RunError: The model's own gradient checkpointing is on.
        """
        model = self.encoder.model
        # The flag of transformers' layers; the model's own properties for it have changed names.
        if model.training and any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
            # Recomputation runs when the model's own weights are back in place: the meta-gradient would be wrong, silently.
            raise RunError(
                "the model's own gradient checkpointing would recompute with weights that are not the adapted ones",
                fix="Leave it off.",
            )
        if not self.names:
            return Prefix([self.encoder.vectors(sequences)], [], sequences.pairs)
        place = self._rows.place(tokens) if self._rows and tokens is not None else None
        prefix = Prefix([], [], sequences.pairs, place)
        for batch in self.encoder.batches(sequences):
            prefix.parts.append(self._cut.below(batch.inputs) if self._cut else batch.inputs)
            prefix.batches.append(batch)
        return prefix

    def features(self, params: Mapping[str, Tensor], prefix: Prefix) -> Tensor:
        """Return the features, (B, F), under adapted parameters `params` (others in the mapping are ignored)."""
        if not self.names:
            return self.encoder.join(prefix.parts[0], pairs=prefix.pairs)
        own = {name: params[name] for name in self.names}
        pooled = []
        for part, batch in zip(prefix.parts, prefix.batches, strict=True):
            if self._cut:
                states = self._cut.above(own, part)
            elif self._rows and prefix.place is not None:
                states = self._rows.run(own, prefix.place, part)
            else:
                states = functional_call(self.encoder.model, own, kwargs=part).last_hidden_state
            pooled.append(self.encoder.pool(batch.states(states), batch.mask))
        return self.encoder.join(in_order(pooled, [batch.rows for batch in prefix.batches]), pairs=prefix.pairs)
