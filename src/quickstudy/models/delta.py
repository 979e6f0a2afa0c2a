"""Delta: a trained encoder as its difference to an untouched one, small enough to ship.

    W' = W + s B A        B A: the best approximation of rank r of the trained change, from its singular values

Eckart and Young 1936, doi:10.1007/BF02288367. Matrices are cut to rank r, and all that is smaller than its two factors
(biases, scales) is kept whole. Weights that did not change are left out. Everything is stored in half precision.
The strength s is 1 if the trained encoder is wanted as it is. A smaller one mixes it with the untouched encoder, which
gives back some of what training made it forget (Wortsman et al. 2022, arXiv:2109.01903).
A delta is only right on the weights that it was taken from, so it carries their hash.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from quickstudy.errors import RunError
from quickstudy.models.encoder import Encoder
from quickstudy.models.weights import find_not_finite
from quickstudy.storage.files import save_tensors

_BASE = "sha256 of the untouched weights"


@dataclass(frozen=True, slots=True)
class Delta:
    """A difference between two encoders of one architecture.

    Attributes:
        tensors: `<weight>.a` (r, I) and `<weight>.b` (O, r) of a matrix that was cut; `<weight>` of what is kept whole.
        base: SHA-256 of the untouched values of these weights.
    """

    tensors: Mapping[str, Tensor]
    base: str

    @classmethod
    def between(cls, untouched: Encoder, trained: Encoder, rank: int, strength: float = 1.0) -> "Delta":
        """Return the difference between two encoders, with matrices cut to a rank.

        Args:
            untouched: The encoder before it was trained.
            trained: The same encoder afterwards.
            rank: Rank r of the difference of a matrix, 1 or more.
            strength: Factor s of the difference.

        Raises:
            RunError: They differ in more than their values, or not at all, or by more than half precision holds.
        """
        if not math.isfinite(strength) or strength == 0:
            raise RunError(f"the strength {strength} is not possible", fix="Give a finite number other than 0, e.g. 1.")
        before, after = (dict(encoder.model.named_parameters()) for encoder in (untouched, trained))
        if {name: w.shape for name, w in before.items()} != {name: w.shape for name, w in after.items()}:
            raise RunError("the trained encoder has other weights than the untouched one", fix="Train it again.")
        with torch.no_grad():
            changes = {
                name: after[name] - before[name] for name in before if not torch.equal(before[name], after[name])
            }
        if not changes:
            raise RunError("the encoder was not changed by its training", fix="There is nothing to write.")
        tensors = {
            name: t.half().contiguous() for key, w in changes.items() for name, t in _cut(key, strength * w, rank)
        }
        if find_not_finite(tensors):
            raise RunError(f"{strength:g} times the change is too large for half precision", fix="Use a smaller one.")
        return cls(tensors, _hash(before, changes))

    def add_to(self, encoder: Encoder) -> None:
        """Add the difference to an untouched encoder.

        Raises:
            RunError: The encoder is not the one that the difference was taken from.
        """
        weights = dict(encoder.model.named_parameters())
        names = sorted({name.removesuffix(".a").removesuffix(".b") for name in self.tensors})
        if not set(names) <= set(weights) or _hash(weights, names) != self.base:
            raise RunError(
                "the encoder is not the one that was trained: its weights differ",
                fix="Load the encoder that the recipe names, unchanged.",
            )
        with torch.no_grad():
            for name in names:
                whole = self.tensors.get(name)
                change = (
                    self.tensors[f"{name}.b"].float() @ self.tensors[f"{name}.a"].float() if whole is None else whole
                )
                weights[name] += change.to(weights[name])

    def save(self, file: Path) -> None:
        """Write it as safetensors."""
        save_tensors(self.tensors, file, {_BASE: self.base})

    @classmethod
    def load(cls, file: Path) -> "Delta":
        """Read what `save` wrote.

        Raises:
            ValueError: It holds something else, or NaN or infinity.
        """
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no mapping)
            base = (opened.metadata() or {}).get(_BASE)
        if base is None or not tensors:
            raise ValueError("it is not the difference between two encoders")
        if broken := find_not_finite(tensors):
            raise ValueError(f"{broken[0]} holds NaN or infinity")
        return cls(tensors, base)


def _cut(name: str, change: Tensor, rank: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that stand for the change of a weight."""
    if change.dim() != 2 or rank * sum(change.shape) >= change.numel():
        yield name, change
        return
    u, s, v = torch.linalg.svd(change, full_matrices=False)
    root = s[:rank].sqrt()  # both factors are then of one size, which suits half precision
    yield f"{name}.a", root.unsqueeze(-1) * v[:rank]
    yield f"{name}.b", u[:, :rank] * root


def _hash(weights: Mapping[str, Tensor], names: Mapping[str, Tensor] | list[str]) -> str:
    digest = sha256()
    for name in sorted(names):
        digest.update(weights[name].detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()
