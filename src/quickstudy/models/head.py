"""Head: features to scores; built from the support set, because labels differ from task to task.

    LinearHead    s = W f + b                                          (logits, or one number for regression)
    KernelHead    s = sum_i softmax_i(-scale ||f - f_i||^2) y_i        (regression by the labels of near support examples)

`KernelHead` is the Nadaraya-Watson estimator: what a prototypical network is when labels are numbers and every support
example is its own prototype. Heads are plain tensors: they are saved as safetensors, never pickled.
"""

from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor


class Head(Protocol):
    """Gives scores of features."""

    def __call__(self, features: Tensor) -> Tensor:
        """Return (B, N) logits, or (B, 1) numbers for regression, of features (B, F)."""
        ...


@dataclass(frozen=True, slots=True)
class LinearHead:
    """An affine head: `weight` (N, F), `bias` (N,)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        return torch.nn.functional.linear(features, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class KernelHead:
    """A kernel regressor: `points` (B, F), `values` (B,), `scale` ()."""

    points: Tensor
    values: Tensor
    scale: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        weights = torch.softmax(-self.scale * squared_distances(features, self.points), dim=-1)
        return weights @ self.values.unsqueeze(-1)


HEADS: dict[str, type[LinearHead] | type[KernelHead]] = {"linear": LinearHead, "kernel": KernelHead}


def head_tensors(head: LinearHead | KernelHead) -> dict[str, Tensor]:
    """Return a head's tensors by field name, detached, ready to be saved."""
    return {f.name: getattr(head, f.name).detach().contiguous() for f in fields(head)}


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return ||a_i - b_j||^2, (A, B), of a (A, F) and b (B, F), without the square root that has no gradient at 0."""
    return a.square().sum(-1, keepdim=True) - 2 * a @ b.T + b.square().sum(-1)


def ridge(features: Tensor, targets: Tensor, penalty: Tensor) -> Tensor:
    """Return W (O, F) that minimises ||X W^T - Y||^2 + penalty ||W||^2, of features X (B, F) and targets Y (B, O).

    Solved in the B examples, which are fewer than the F features (Woodbury): W^T = X^T (X X^T + penalty I)^-1 Y.
    """
    gram = features @ features.T + penalty * torch.eye(len(features), dtype=features.dtype, device=features.device)
    weight: Tensor = torch.linalg.solve(gram, targets).T @ features
    return weight


def class_means(features: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Return the mean feature of each label, (N, F), of features (B, F) and labels (B,)."""
    one_hot = torch.nn.functional.one_hot(labels, n_way).to(features.dtype)
    return (one_hot.T @ features) / one_hot.sum(0).unsqueeze(-1)
