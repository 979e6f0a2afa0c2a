"""Sentence files: an encoder's pooling and length in the layout of sentence-transformers, beside the weights.

    modules.json                 transformer → 1_Pooling → (2_Dense: the pooler) → (2_Normalize)
    sentence_bert_config.json    the length

`SentenceTransformer(folder)` then gives the features that quickstudy gives for single texts. How quickstudy reads
pairs is not part of that layout. Reimers and Gurevych 2019, arXiv:1908.10084.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from torch import nn

from quickstudy.storage.files import save_tensors, write_json

_KIND = "sentence_transformers.models"  # the name that versions 2 to 6 understand
_TANH = "torch.nn.modules.activation.Tanh"


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
        _write_dense(folder / "2_Dense", dense)
        modules.append(("2_Dense", "Dense"))
    if normalize:
        (folder / f"{len(modules)}_Normalize").mkdir(exist_ok=True)
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
    steps = [
        {"idx": i, "name": str(i), "path": path, "type": f"{_KIND}.{kind}"} for i, (path, kind) in enumerate(modules)
    ]
    write_json(folder / "modules.json", steps)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    return True


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


def _write_dense(folder: Path, dense: nn.Linear) -> None:
    folder.mkdir(exist_ok=True)
    sizes = {"in_features": dense.in_features, "out_features": dense.out_features}
    write_json(folder / "config.json", {**sizes, "bias": True, "activation_function": _TANH})
    tensors = {f"linear.{name}": tensor.detach().clone() for name, tensor in dense.named_parameters()}
    save_tensors(tensors, folder / "model.safetensors")
