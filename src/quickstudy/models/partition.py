"""Partition: which encoder parameters adapt inside an episode, and the cheapest exact way to run the encoder for it.

    nothing adapts ("head")      features once:  f is computed once per episode, every inner step is a matrix product
    top m layers ("layers:-m")   prefix once:    layers 1..L-m run once per episode, every inner step runs the top m
    anything else                every inner step runs the whole encoder

All three give the same features and the same gradients; only the work differs. The prefix is cut generically, by running
the model with the top layers replaced by recorders that keep the arguments they are called with. The cut is checked on a
probe against the whole model when it is made, and where it does not reproduce it the whole encoder runs.
"""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quickstudy.errors import RecipeError, RunError
from quickstudy.models.encoder import Encoder, in_order
from quickstudy.models.tokens import Sequences, batches

Params = dict[str, Tensor]

# The linear layer that ends a residual branch (attention, feed-forward), in the families that we know.
_BRANCH_END = re.compile(r"\.(output\.dense|out_lin|lin2|attn\.o|Wo)\.(weight|bias)$")
_LAYERS = re.compile(r"layers:-(\d+)")
_LORA, _RANK = re.compile(r"lora(?::([1-9]\d*))?"), 4


@dataclass(frozen=True, slots=True)
class Prefix:
    """What of some examples need not run again: one entry per batch of similar length.

    Attributes:
        parts: The recorded calls of the top layers, or plain model inputs; the vectors of all sequences where nothing adapts.
        masks: (B, T) attention masks.
        rows: (B,) positions in the original order.
        pairs: Whether the sequences are separate pairs.
    """

    parts: list[Any]
    masks: list[Tensor]
    rows: list[Tensor]
    pairs: bool


def layer_stack(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Return the name and the list of the transformer layers: the longest module list of the model.

    Raises:
        RecipeError: The model has none.
    """
    stacks = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.ModuleList)]
    if not stacks:
        raise RecipeError("this encoder has no stack of layers", fix="Use 'all', or for what adapts 'head' or 'bias'.")
    return max(stacks, key=lambda stack: len(stack[1]))


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
        self._cut = _Cut.find(encoder.model, self.names)

    def initial(self) -> Params:
        """Return the adapted parameters' values θ, by name: meta-parameters in the graph, others as leaves of their own."""
        theta = {name: p for name, p in self.encoder.model.named_parameters() if name in self.names}
        return {name: p if p.requires_grad else p.detach().requires_grad_() for name, p in theta.items()}

    def prefix(self, sequences: Sequences) -> Prefix:
        """Run what need not run again.

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
            return Prefix([self.encoder.vectors(sequences)], [], [], sequences.pairs)
        prefix = Prefix([], [], [], sequences.pairs)
        for batch in batches(sequences, self.encoder.pad_id, self.encoder.device):
            prefix.parts.append(self._cut.below(batch.inputs) if self._cut else batch.inputs)
            prefix.masks.append(batch.inputs["attention_mask"])
            prefix.rows.append(batch.rows)
        return prefix

    def features(self, params: Mapping[str, Tensor], prefix: Prefix) -> Tensor:
        """Return the features, (B, F), under adapted parameters `params` (others in the mapping are ignored)."""
        if not self.names:
            return self.encoder.join(prefix.parts[0], pairs=prefix.pairs)
        own = {name: params[name] for name in self.names}
        pooled = []
        for part, mask in zip(prefix.parts, prefix.masks, strict=True):
            if self._cut:
                states = self._cut.above(own, part)
            else:
                states = functional_call(self.encoder.model, own, kwargs=part).last_hidden_state
            pooled.append(self.encoder.pool(states, mask))
        return self.encoder.join(in_order(pooled, prefix.rows), pairs=prefix.pairs)


_Call = tuple[tuple[Any, ...], dict[str, Any]]


class _Recorder(nn.Module):
    """Stands in for a layer: keeps its arguments, passes the hidden states through."""

    def __init__(self, layer: nn.Module, calls: list[_Call], outputs: int) -> None:
        super().__init__()
        self._layer = (layer,)  # in a tuple, so that it is not registered as a part of this module
        self._calls, self._outputs = calls, outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_layer"][0], name)  # some models ask their layers what attention they use

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        self._calls.append(((hidden, *args), kwargs))
        return hidden if self._outputs == 0 else (hidden, *[None] * (self._outputs - 1))


class _Top(nn.Module):
    """The top layers and the final norm, as one module."""

    def __init__(self, layers: list[nn.Module], final: nn.Module) -> None:
        super().__init__()
        self.layers, self.final = nn.ModuleList(layers), final

    def forward(self, calls: list[_Call]) -> Tensor:
        hidden = calls[0][0][0]
        for layer, (args, kwargs) in zip(self.layers, calls, strict=True):
            output = layer(hidden, *args[1:], **kwargs)
            hidden = output[0] if isinstance(output, tuple) else output
        return cast(Tensor, self.final(hidden))


class _Cut:
    """A model cut below its top m layers."""

    def __init__(self, model: nn.Module, top: int, outputs: int) -> None:
        stack, layers = layer_stack(model)
        self._first = len(layers) - top
        self._stack = stack
        self._calls: list[_Call] = []
        self._below = _with_recorders(model, stack, self._first, self._calls, outputs)
        final = dict(model.named_children()).get("final_norm", nn.Identity())  # ModernBERT's; others have none
        self._above = _Top(list(layers[self._first :]), final)

    @staticmethod
    def find(model: nn.Module, names: frozenset[str]) -> "_Cut | None":
        """Return the highest exact cut below all adapted parameters; None when there is none."""
        if not names:
            return None
        stack, layers = layer_stack(model)
        places = [re.match(rf"{re.escape(stack)}\.(\d+)\.", name) for name in names]
        if any(place is None for place in places):
            return None
        first = min(int(place[1]) for place in places if place)
        device = next(model.parameters()).device
        probe = {"input_ids": torch.full((2, 5), 5, device=device), "attention_mask": torch.ones(2, 5, device=device)}
        probe["attention_mask"][1, 3:] = 0
        outputs: list[int] = []
        hook = layers[-1].register_forward_hook(
            lambda _m, _a, out: outputs.append(len(out) if isinstance(out, tuple) else 0)
        )
        with torch.no_grad():
            whole = model(**probe).last_hidden_state
            hook.remove()
            try:
                cut = _Cut(model, len(layers) - first, outputs[0])
                same = torch.equal(cut.above({}, cut.below(probe)), whole)
            except (
                AttributeError,
                IndexError,
                RuntimeError,
                TypeError,
                ValueError,
            ):  # a layer that wants more than it was given
                return None
        return cut if same else None

    def below(self, inputs: Mapping[str, Tensor]) -> list[_Call]:
        self._below(**inputs)
        calls = list(self._calls)
        self._calls.clear()
        return calls

    def above(self, params: Params, calls: list[_Call]) -> Tensor:
        renamed = {}
        for name, value in params.items():
            number, rest = name.removeprefix(f"{self._stack}.").split(".", 1)
            renamed[f"layers.{int(number) - self._first}.{rest}"] = value
        return cast(Tensor, functional_call(self._above, renamed, (calls,)))


def _with_recorders(model: nn.Module, stack: str, first: int, calls: list[_Call], outputs: int) -> nn.Module:
    """Return the model with its layers from `first` on replaced; parameters are shared, the model is unchanged."""
    root = copy.copy(model)
    module = root
    for name in stack.split("."):
        module._modules = dict(module._modules)
        module._modules[name] = copy.copy(module._modules[name])
        module = cast(nn.Module, module._modules[name])
    module._modules = {
        name: layer if int(name) < first else _Recorder(cast(nn.Module, layer), calls, outputs)
        for name, layer in module._modules.items()
    }
    return root
