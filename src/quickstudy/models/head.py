"""Head: features to scores. A head is built from the support set, because labels differ between tasks.

    LinearHead    s = W f + b                                          (logits, or a number for regression)
    ProjectedHead s = W h(f) + b,  h(f) = tanh(V tanh(U f + u) + v)    (the same on features that a network projects)
    KernelHead    s = sum_i softmax_i(-scale ||f - f_i||^2 + log w_i) y_i        (regression by near support examples)
    MatchingHead  s = log sum_i softmax_i(scale cos(f, f_i) + log w_i) y_i       (attention over support examples)
    NetHead       s = prototypes + a net that reads the support set    (relation, in-context, lstm-reader)
    NearestHead   s_n = -min_{i: y_i = n} ||f - f_i||^2                (the nearest support example of each label)

`KernelHead` is the Nadaraya-Watson estimator. A prototypical network becomes this estimator when labels are numbers
and every support example is its own prototype. A weight w_i says how often example i counts; if no weight is given,
each counts once. Heads are plain tensors: they are saved as safetensors and never pickled.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from quickstudy.models.support_net import SUPPORT_NETS, SupportNet
from quickstudy.models.support_rows import add_log_weights, column_means

Layer = tuple[Tensor, Tensor, bool]


class Head(ABC):
    """Gives scores of features. Each head is a frozen dataclass of tensors."""

    @abstractmethod
    def __call__(self, features: Tensor) -> Tensor:
        """Return (B, N) logits, or (B, 1) numbers for regression, of features (B, F)."""

    @abstractmethod
    def rescaled(self, mean: Tensor, std: Tensor) -> "Head":
        """Return the head that gives scores in the task's units, given their mean and standard deviation, each ()."""


@dataclass(frozen=True, slots=True)
class LinearHead(Head):
    """An affine head: `weight` (N, F), `bias` (N,)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        return nn.functional.linear(features, self.weight, self.bias)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Its linear layers: weight, bias, and whether tanh follows."""
        return ((self.weight, self.bias, False),)

    def rescaled(self, mean: Tensor, std: Tensor) -> "LinearHead":
        return LinearHead(self.weight * std, self.bias * std + mean)


@dataclass(frozen=True, slots=True)
class ProjectedHead(Head):
    """An affine head on projected features: `weight` (N, P), `bias` (N,); the projection has two layers with tanh.

    `lower_weight` (H, F), `lower_bias` (H,), `upper_weight` (P, H), `upper_bias` (P,).
    """

    weight: Tensor
    bias: Tensor
    lower_weight: Tensor
    lower_bias: Tensor
    upper_weight: Tensor
    upper_bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        return nn.functional.linear(self.project(features), self.weight, self.bias)

    def project(self, features: Tensor) -> Tensor:
        """Return h(f), (B, P), of features (B, F)."""
        hidden = torch.tanh(nn.functional.linear(features, self.lower_weight, self.lower_bias))
        return torch.tanh(nn.functional.linear(hidden, self.upper_weight, self.upper_bias))

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Its linear layers: weight, bias, and whether tanh follows."""
        lower, upper = (self.lower_weight, self.lower_bias, True), (self.upper_weight, self.upper_bias, True)
        return lower, upper, (self.weight, self.bias, False)

    def rescaled(self, mean: Tensor, std: Tensor) -> "ProjectedHead":
        return replace(self, weight=self.weight * std, bias=self.bias * std + mean)


@dataclass(frozen=True, slots=True)
class KernelHead(Head):
    """A kernel regressor: `points` (B, F), `values` (B,), `scale` (), `weights` (B,)."""

    points: Tensor
    values: Tensor
    scale: Tensor
    weights: Tensor | None = None

    def __call__(self, features: Tensor) -> Tensor:
        scores = -self.scale * squared_distances(features, self.points)
        return torch.softmax(add_log_weights(scores, self.weights), dim=-1) @ self.values.unsqueeze(-1)

    def rescaled(self, mean: Tensor, std: Tensor) -> "KernelHead":
        return replace(self, values=self.values * std + mean)


@dataclass(frozen=True, slots=True)
class MatchingHead(Head):
    """Attention: `points` (B, F), `values` (B, N) one-hot or (B, 1) scores, `scale` (), `weights` (B,)."""

    points: Tensor
    values: Tensor
    scale: Tensor
    weights: Tensor | None = None

    def __call__(self, features: Tensor) -> Tensor:
        normalize = nn.functional.normalize
        cosines = normalize(features, dim=-1) @ normalize(self.points, dim=-1).T
        scores = add_log_weights(self.scale * cosines, self.weights)
        if self.values.shape[-1] == 1:
            return torch.softmax(scores, dim=-1) @ self.values
        attention = torch.log_softmax(scores, dim=-1)
        return torch.logsumexp(attention.unsqueeze(-1) + self.values.log(), dim=1)

    def rescaled(self, mean: Tensor, std: Tensor) -> "MatchingHead":
        return replace(self, values=self.values * std + mean)


@dataclass(frozen=True, slots=True)
class NearestHead(Head):
    """The nearest example: `points` (B, F), `values` (B, N) one-hot or (B, 1) scores."""

    points: Tensor
    values: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        distances = squared_distances(features, self.points)
        if self.values.shape[-1] == 1:
            return self.values[distances.argmin(-1)]
        others = torch.where(
            self.values.bool(), 0.0, torch.inf
        )  # the distance to a label is that to its nearest example
        return -(distances.unsqueeze(-1) + others).amin(1)

    def rescaled(self, mean: Tensor, std: Tensor) -> "NearestHead":
        return replace(self, values=self.values * std + mean)


@dataclass(frozen=True, slots=True)
class NetHead(Head):
    """A net that reads the support set, added to a prototypical network of scale `prior` ().

    `points` (B, F), `values` (B, N) one-hot or (B, 1) standardised scores, `mean` () and `std` () of the scores, and
    `weights` (B,).
    """

    points: Tensor
    values: Tensor
    prior: Tensor
    mean: Tensor
    std: Tensor
    net: SupportNet
    weights: Tensor | None = None

    def __call__(self, features: Tensor) -> Tensor:
        answers: Tensor = self._prior(features) + self.net(features, self.points, self.values, self.weights)
        return answers * self.std + self.mean if self.values.shape[-1] == 1 else answers

    def rescaled(self, mean: Tensor, std: Tensor) -> "NetHead":
        return replace(self, mean=mean, std=std)

    def _prior(self, features: Tensor) -> Tensor:
        if self.values.shape[-1] == 1:
            return KernelHead(self.points, self.values[:, 0], self.prior, self.weights)(features)
        return -self.prior * squared_distances(features, column_means(self.points, self.values, self.weights))


HEADS: dict[str, type[Head]] = {
    "linear": LinearHead,
    "projected": ProjectedHead,
    "kernel": KernelHead,
    "matching": MatchingHead,
    "nearest": NearestHead,
    "net": NetHead,
}


def head_name(head: Head) -> str:
    """Return the kind of a head in `HEADS`, which saved models name."""
    return next(name for name, kind in HEADS.items() if isinstance(head, kind))


def head_tensors(head: Head) -> dict[str, Tensor]:
    """Return a head's tensors by field name, detached and ready to be saved; those of a net as `net.<kind>.<name>`."""
    tensors: dict[str, Tensor] = {}
    for field in fields(head):  # type: ignore[arg-type]
        value = getattr(head, field.name)
        if isinstance(value, SupportNet):
            tensors |= {f"net.{value.kind}.{name}": t for name, t in value.state_dict().items()}
        elif value is not None:  # a head has weights only if its support set had some
            tensors[field.name] = value
    return {name: t.detach().clone().contiguous() for name, t in tensors.items()}


def head_of(name: str, tensors: Mapping[str, Tensor]) -> Head:
    """Return the head of a kind in `HEADS` that has these tensors, as `head_tensors` gives them."""
    values: dict[str, object] = {key: t for key, t in tensors.items() if not key.startswith("net.")}
    if nets := {key.split(".", 2)[1] for key in tensors if key.startswith("net.")}:
        (kind,) = nets
        start = f"net.{kind}."
        weights = {key.removeprefix(start): t for key, t in tensors.items() if key.startswith(start)}
        values["net"] = SUPPORT_NETS[kind].restore(weights)
    return HEADS[name](**values)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return ||a_i - b_j||^2, (A, B), for a (A, F) and b (B, F).

    There is no square root on the way, whose gradient would be infinite at 0.
    """
    return a.square().sum(-1, keepdim=True) - 2 * a @ b.T + b.square().sum(-1)


def ridge(features: Tensor, targets: Tensor, penalty: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return W (O, F) that minimises sum_i w_i ||x_i W^T - y_i||^2 + penalty ||W||^2.

    The system that is solved is as large as the B examples, which are fewer than the F features (Woodbury):
    W^T = X^T (D X X^T + penalty I)^-1 D Y, where D holds the weights. It has a gradient at weights of 0 too.

    Args:
        features: X, (B, F).
        targets: Y, (B, O).
        penalty: ().
        weights: w, (B,); None if each example counts once.
    """
    gram = features @ features.T
    if weights is not None:
        gram, targets = weights.unsqueeze(-1) * gram, weights.unsqueeze(-1) * targets
    gram = gram + penalty * torch.eye(len(features), dtype=features.dtype, device=features.device)
    weight: Tensor = torch.linalg.solve(gram, targets).T @ features
    return weight
