"""Cut: a model that runs in two parts, below and above one of its layers.

The cut works for any model. The lower part is the model whose top layers are replaced by recorders, which keep the
arguments that they are called with. The upper part calls the top layers with these arguments. When a cut is made, it
is compared with the whole model on a small input.
"""

import copy
import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quickstudy.errors import RecipeError

Params = dict[str, Tensor]
_Call = tuple[tuple[object, ...], dict[str, object]]

# The errors that a model raises if one of its modules needs more than it is given.
UNFIT = AttributeError, IndexError, RuntimeError, TypeError, ValueError


def layer_stack(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Return the name and the list of the transformer layers: the longest module list of the model.

    Raises:
        RecipeError: The model has no module list.
    """
    stacks = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.ModuleList)]
    if not stacks:
        raise RecipeError("this encoder has no stack of layers", fix="Use 'all', or for what adapts 'head' or 'bias'.")
    return max(stacks, key=lambda stack: len(stack[1]))


def probe(model: nn.Module) -> dict[str, Tensor]:
    """Return a small input, to compare ways to run a model: two sequences, one of them padded."""
    device = next(model.parameters()).device
    inputs = {"input_ids": torch.full((2, 5), 5, device=device), "attention_mask": torch.ones(2, 5, device=device)}
    inputs["attention_mask"][1, 3:] = 0
    return inputs


def replaced(model: nn.Module, modules: Mapping[str, nn.Module]) -> nn.Module:
    """Return the model with some modules, by name, replaced. All others are shared; the model itself is unchanged."""
    root = _shallow_copy(model)
    copies = {"": root}
    for name, module in modules.items():
        *path, last = name.split(".")
        parent, place = root, ""
        for child in path:
            place = f"{place}.{child}"
            if place not in copies:
                parent._modules[child] = copies[place] = _shallow_copy(cast(nn.Module, parent._modules[child]))
            parent = copies[place]
        parent._modules[last] = module
    return root


def _shallow_copy(module: nn.Module) -> nn.Module:
    shallow = copy.copy(module)
    shallow._modules = dict(shallow._modules)
    return shallow


class Cut:
    """A model cut below its top m layers.

    Attributes:
        layer_fraction: The layers above the cut, as a fraction of all.
    """

    def __init__(self, model: nn.Module, top: int, outputs: int) -> None:
        stack, layers = layer_stack(model)
        self._first = len(layers) - top
        self._stack = stack
        self.layer_fraction = top / len(layers)
        self._calls: list[_Call] = []
        recorders = {i: _Recorder(layers[i], self._calls, outputs) for i in range(self._first, len(layers))}
        self._below = replaced(model, {f"{stack}.{i}": recorder for i, recorder in recorders.items()})
        final = dict(model.named_children()).get("final_norm", nn.Identity())  # ModernBERT's; others have none
        self._above = _Top(list(layers[self._first :]), final)

    @staticmethod
    def find(model: nn.Module, names: frozenset[str]) -> "Cut | None":
        """Return the highest exact cut below all adapted parameters; None if there is none."""
        if not names:
            return None
        stack, layers = layer_stack(model)
        places = [re.match(rf"{re.escape(stack)}\.(\d+)\.", name) for name in names]
        if any(place is None for place in places):
            return None
        first = min(int(place[1]) for place in places if place)
        inputs = probe(model)
        outputs: list[int] = []
        hook = layers[-1].register_forward_hook(
            lambda _m, _a, out: outputs.append(len(out) if isinstance(out, tuple) else 0)
        )
        with torch.no_grad():
            whole = model(**inputs).last_hidden_state
            hook.remove()
            try:
                cut = Cut(model, len(layers) - first, outputs[0])
                same = torch.equal(cut.above({}, cut.below(inputs)), whole)
            except UNFIT:
                return None
        return cut if same else None

    def below(self, inputs: Mapping[str, Tensor]) -> list[_Call]:
        """Run the lower part; return the calls of the layers above it. One thread at a time."""
        self._calls.clear()  # left by a run that was broken off
        self._below(**inputs)
        calls = list(self._calls)
        self._calls.clear()
        return calls

    def above(self, params: Params, calls: list[_Call]) -> Tensor:
        """Run the upper part with parameters by their names in the model. Return token states, (B, T, D)."""
        renamed = {}
        for name, value in params.items():
            number, rest = name.removeprefix(f"{self._stack}.").split(".", 1)
            renamed[f"layers.{int(number) - self._first}.{rest}"] = value
        return cast(Tensor, functional_call(self._above, renamed, (calls,)))


class _Recorder(nn.Module):
    """Stands in for a layer: it keeps its arguments and passes the hidden states through."""

    def __init__(self, layer: nn.Module, calls: list[_Call], outputs: int) -> None:
        super().__init__()
        self._layer = (layer,)  # in a tuple, so that it is not registered as a submodule
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
