"""Parameter filter: a word that says which parameters of an encoder adapt inside an episode.

    head            none of the encoder; only the head adapts
    layers:-m       those of the top m layers
    bias            all biases
    branches        the linear layers that end a residual branch (attention, feed-forward)
    lora, lora:r    low-rank corrections of the weights of all linear layers, of rank r (see `LowRank`)
    all             all of them

The head always adapts beside them, unless the method says otherwise.
"""

import re

from torch import nn

from quickstudy.errors import RecipeError
from quickstudy.models.cut import layer_stack

# The linear layer that ends a residual branch, in the families that we know.
_BRANCH_END = re.compile(r"\.(output\.dense|out_lin|lin2|attn\.o|Wo)\.(weight|bias)$")
_LAYERS = re.compile(r"layers:-(\d+)")
_LORA, _DEFAULT_RANK = re.compile(r"lora(?::([1-9]\d*))?"), 4


def select(model: nn.Module, adapts: str) -> frozenset[str]:
    """Return the names of the encoder parameters that adapt.

    Args:
        model: The Hugging Face model.
        adapts: The filter. For `lora` the names are those of the weights that are corrected.

    Raises:
        RecipeError: The filter is unknown, or the model does not have what it names.
    """
    names = [name for name, _ in model.named_parameters()]
    if adapts == "head":
        return frozenset()
    if adapts == "all":
        return frozenset(names)
    if adapts == "bias":
        return _biases(names)
    if adapts == "branches":
        return _branches(model, names)
    if read_rank(adapts):
        return _linear_weights(model)
    if match := _LAYERS.fullmatch(adapts):
        return _top_layers(model, names, int(match[1]))
    raise RecipeError(
        f"there is no parameter filter {adapts!r}",
        fix="Choose head, all, bias, layers:-m (the top m layers) or lora:r (corrections of rank r).",
    )


def read_rank(adapts: str) -> int:
    """Return the rank that a filter `lora` or `lora:r` asks for, 0 for any other filter.

    >>> read_rank("lora:8"), read_rank("lora"), read_rank("layers:-2")
    (8, 4, 0)
    """
    match = _LORA.fullmatch(adapts)
    return int(match[1] or _DEFAULT_RANK) if match else 0


def list_shapes(model: nn.Module, adapts: str) -> dict[str, tuple[int, ...]]:
    """Return the shape of every encoder parameter of the inner loop, by name; see `select` and `LowRank`."""
    names = select(model, adapts)
    selected = {name: tuple(p.shape) for name, p in model.named_parameters() if name in names}
    if not (rank := read_rank(adapts)):
        return selected
    corrections: dict[str, tuple[int, ...]] = {}
    for name, (outputs, inputs) in selected.items():
        highest = min(rank, outputs, inputs)  # a higher rank would add nothing
        corrections |= {f"{name}.a": (highest, inputs), f"{name}.b": (outputs, highest)}
    return corrections


def _biases(names: list[str]) -> frozenset[str]:
    if biases := frozenset(name for name in names if name.endswith("bias")):
        return biases
    raise RecipeError("this encoder has no biases", fix="Use adapts = 'head', 'layers:-m' or 'all'.")


def _branches(model: nn.Module, names: list[str]) -> frozenset[str]:
    stack, _ = layer_stack(model)
    if branches := frozenset(n for n in names if n.startswith(f"{stack}.") and _BRANCH_END.search(n)):
        return branches
    raise RecipeError("the ends of this encoder's residual branches are not known", fix="Choose another method.")


def _linear_weights(model: nn.Module) -> frozenset[str]:
    stack, layers = layer_stack(model)
    linear = [name for name, module in layers.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise RecipeError("this encoder has no linear layers to correct", fix="Use layers:-m or all.")
    return frozenset(f"{stack}.{name}.weight" for name in linear)


def _top_layers(model: nn.Module, names: list[str], count: int) -> frozenset[str]:
    stack, layers = layer_stack(model)
    if not 1 <= count <= len(layers):
        raise RecipeError(f"'layers:-{count}': the encoder has {len(layers)} layers", fix=f"Choose 1 to {len(layers)}.")
    chosen = tuple(f"{stack}.{i}." for i in range(len(layers) - count, len(layers)))
    return frozenset(name for name in names if name.startswith(chosen))
