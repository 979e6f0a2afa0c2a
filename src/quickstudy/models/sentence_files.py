"""Sentence files: an encoder and a head in the layout of sentence-transformers, beside the weights.

    encoder/modules.json                 transformer → 1_Pooling → (2_Dense: the pooler) → (2_Normalize)
    encoder/sentence_bert_config.json    the length
    modules.json                         all of encoder/modules.json → dense_1, (dense_2, dense_3): the head

`SentenceTransformer(encoder folder)` then gives the features that quickstudy gives for single texts, and
`SentenceTransformer(model folder)` the logits of a head that is made of linear layers. How quickstudy reads the texts
of a pair separately is not part of that layout. Reimers and Gurevych 2019, arXiv:1908.10084.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from quickstudy.storage.files import save_tensors, write_json

_MODULES = "modules.json"
_KIND = "sentence_transformers.models"  # the name that versions 2 to 6 understand
_TANH, _IDENTITY = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer, `weight` (O, I) and `bias` (O,), with tanh or nothing after it."""

    weight: Tensor
    bias: Tensor
    tanh: bool = False


def write_sentence_files(
    folder: Path,
    *,
    size: int,
    pooling: Literal["mean", "cls", "pooler"],
    pooler: nn.Module | None,
    normalize: bool,
    max_length: int,
) -> bool:
    """Write the files, and return whether there are any; the layout knows no other pooler than dense and tanh.

    Args:
        folder: The encoder's folder, which holds its weights and its tokenizer.
        size: D, the size of token states.
        pooling: How token states become one vector.
        pooler: The module that `pooling = "pooler"` applies to the first token's state.
        normalize: Whether the vector has unit length.
        max_length: Tokens per text.
    """
    dense = _dense_of(pooler) if pooling == "pooler" else None
    if pooling == "pooler" and dense is None:
        return False
    _write_pooling(folder / "1_Pooling", size, mean=pooling == "mean")
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    if dense is not None:
        _write_dense(folder / "2_Dense", Dense(dense.weight, dense.bias, tanh=True))
        modules.append(("2_Dense", "Dense"))
    if normalize:
        place = f"{len(modules)}_Normalize"
        (folder / place).mkdir(exist_ok=True)
        write_json(folder / place / "config.json", {})  # an empty folder gets lost in git, in archives and on the Hub
        modules.append((place, "Normalize"))
    _write_modules(folder, modules)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    return True


def write_head_files(folder: Path, encoder: str, layers: Sequence[Dense]) -> list[str]:
    """Write a head as further modules of an encoder's layout.

    Args:
        folder: The folder of the model.
        encoder: The name of the encoder's folder in it.
        layers: The layers of the head.

    Returns:
        The names of what was written; none if the encoder does not have the layout.
    """
    listed = folder / encoder / _MODULES
    if not listed.is_file():
        return []
    below = json.loads(listed.read_text(encoding="utf-8"))
    modules = [(f"{encoder}/{m['path']}".rstrip("/"), m["type"].rpartition(".")[2]) for m in below]
    names = [f"dense_{i}" for i in range(1, len(layers) + 1)]
    for name, layer in zip(names, layers, strict=True):
        _write_dense(folder / name, layer)
    _write_modules(folder, [*modules, *((name, "Dense") for name in names)])
    return [_MODULES, *names]


def _write_modules(folder: Path, modules: Sequence[tuple[str, str]]) -> None:
    """Write the list of modules, each a path and a kind."""
    steps = [
        {"idx": i, "name": str(i), "path": path, "type": f"{_KIND}.{kind}"} for i, (path, kind) in enumerate(modules)
    ]
    write_json(folder / _MODULES, steps)


def _dense_of(pooler: nn.Module | None) -> nn.Linear | None:
    """Return the linear layer of a pooler tanh(W h_0 + b), which BERT and RoBERTa have; None for any other pooler."""
    layers: Mapping[str, nn.Module] = dict(pooler.named_children()) if pooler is not None else {}
    dense = layers.get("dense")
    plain = set(layers) == {"dense", "activation"} and isinstance(layers["activation"], nn.Tanh)
    return dense if plain and isinstance(dense, nn.Linear) else None


def _write_pooling(folder: Path, size: int, *, mean: bool) -> None:
    folder.mkdir(exist_ok=True)
    modes = {"pooling_mode_cls_token": not mean, "pooling_mode_mean_tokens": mean}
    others = {"pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False}
    write_json(folder / "config.json", {"word_embedding_dimension": size, **modes, **others})


def _write_dense(folder: Path, dense: Dense) -> None:
    folder.mkdir(exist_ok=True)
    size, inputs = dense.weight.shape
    sizes = {"in_features": inputs, "out_features": size}
    write_json(
        folder / "config.json", {**sizes, "bias": True, "activation_function": _TANH if dense.tanh else _IDENTITY}
    )
    tensors = {"linear.weight": dense.weight.detach().clone(), "linear.bias": dense.bias.detach().clone()}
    save_tensors(tensors, folder / "model.safetensors")
