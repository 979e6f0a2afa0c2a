"""Pooling layer: mean pooling, unit length and a linear head inside the standard classifier of BERT and RoBERTa.

`BertForSequenceClassification` computes  C tanh(P h_0 + p) + c  on the state h_0 of the first token. It has no mean
and no normalisation. A further layer of the same kind can compute both, exactly up to rounding:

    attention    queries of zero weigh all tokens alike:              m = mean_t h_t
    LayerNorm    of a vector x of mean 0 is  sqrt(D) x / ||x||:       x = κ Q m,  Q^T Q = I, 1^T Q = 0
    residual     the layer adds h_0 to x; κ is so large that it vanishes in rounding
    tanh         is the identity for small numbers:                   P = s I

Q needs one dimension more than m has, so the whole encoder is widened by E dimensions, which no layer reads. They may
not change what the LayerNorms of the encoder give, so they hold the mean of the others: the mean stays, and the
variance becomes D / (D + E) of what it was, which the LayerNorm's weights make up for. After a LayerNorm they must hold
the mean of its outputs, (1/D) Σ γ_i z_i + β_i. This sum is carried through the LayerNorm as a small deviation ± g from
the mean, half of the E dimensions with each sign. Feed-forward layers compute what is needed of their own input with
four more units, since  act(a) - act(-a) = a  for GELU, ReLU and SiLU.

Without normalisation the LayerNorm must not divide by the length of m. Then x holds the N logits beside large
constants, and LayerNorm divides by a constant, up to the square of the logits' relative size.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Weights = dict[str, Tensor]

_DEVIATION = 2.0**-6  # g, against the deviations of the other dimensions: small, so that the variance hardly changes
_LARGE = 2.0**30  # κ
_SMALL = 2.0**-12  # the largest input of tanh, whose relative error is a third of its square
_CONSTANT = 2.0**11  # the length of the constants, against the largest possible length of the logits


@dataclass(frozen=True, slots=True)
class Widths:
    """The sizes of an encoder and of the widened one.

    Attributes:
        hidden: D.
        heads: Attention heads.
        extra: E, the dimensions that are added: one or two for each head, so that they are an even number.
    """

    hidden: int
    heads: int

    @property
    def extra(self) -> int:
        """E."""
        return self.heads * (1 if self.heads % 2 == 0 else 2)

    @property
    def wide(self) -> int:
        """D + E."""
        return self.hidden + self.extra

    @property
    def signs(self) -> Tensor:
        """(E,) half of them 1, half of them -1."""
        return torch.ones(self.extra, dtype=torch.float64).index_fill(0, torch.arange(0, self.extra, 2), -1.0)


def widen(weights: Mapping[str, Tensor], widths: Widths, layers: int) -> Weights:
    """Return the weights of a widened encoder, in float64, by the same names.

    Args:
        weights: Those of a `BertModel` or `RobertaModel`; the pooler is left out.
        widths: Its sizes.
        layers: How many layers it has.
    """
    old = {name: tensor.double() for name, tensor in weights.items() if tensor.is_floating_point()}
    new: Weights = {}
    watched = _watchers(old["embeddings.LayerNorm.weight"], widths)
    for table in ("word", "position", "token_type"):
        name = f"embeddings.{table}_embeddings.weight"
        new[name] = torch.cat([old[name], old[name] @ watched.T], dim=1)
    new |= _watched_norm(old, "embeddings.LayerNorm", widths)
    for layer in range(layers):
        new |= _widened_layer(old, f"encoder.layer.{layer}.", widths)
    return new


def pooling_layer(name: str, widths: Widths, units: int) -> Weights:
    """Return a layer that does nothing but attend to all tokens alike; its output projection is still to be set.

    Args:
        name: The start of its names.
        widths: The sizes of the encoder.
        units: Units of its feed-forward part.
    """
    wide = widths.wide
    zero, norm = torch.zeros(wide, wide, dtype=torch.float64), torch.ones(wide, dtype=torch.float64)
    layer: Weights = {}
    for kind in ("query", "key"):
        layer |= _linear(f"{name}attention.self.{kind}", zero, norm * 0)
    layer |= _linear(f"{name}attention.self.value", torch.eye(wide, dtype=torch.float64), norm * 0)
    layer |= _linear(f"{name}intermediate.dense", zero.new_zeros(units, wide), zero.new_zeros(units))
    layer |= _linear(f"{name}output.dense", zero.new_zeros(wide, units), norm * 0)
    for norms in ("attention.output.LayerNorm", "output.LayerNorm"):
        layer |= _linear(f"{name}{norms}", norm, norm * 0)
    return layer


@dataclass(frozen=True, slots=True)
class Readout:
    """What the last layer and the classifier have to hold.

    Attributes:
        mix: (D + E, D + E) and (D + E,): the output projection of the attention of the pooling layer.
        pool: (D + E, D + E): the matrix before tanh.
        classify: (N, D + E): the matrix after it. The bias is that of the head.
    """

    mix: tuple[Tensor, Tensor]
    pool: Tensor
    classify: Tensor


def read_unit_length(weight: Tensor, widths: Widths) -> Readout:
    """Return the readout of W m / ||m||, given W (N, D)."""
    wide, hidden = widths.wide, widths.hidden
    basis = _zero_mean_basis(wide)[:, :hidden]
    mix = torch.zeros(wide, wide, dtype=torch.float64)
    mix[:, :hidden] = _LARGE * basis
    scale = _SMALL / wide**0.5
    classify = weight.double() @ basis.T / (wide**0.5 * scale)
    return Readout((mix, mix.new_zeros(wide)), scale * torch.eye(wide, dtype=torch.float64), classify)


def read_linear(weight: Tensor, longest: float, widths: Widths) -> Readout | None:
    """Return the readout of W m, given W (N, D) and the largest length of m; None if there are too many labels."""
    wide, ways = widths.wide, len(weight)
    constants = (wide - ways - 2) // 2 * 2
    if constants < wide // 2:
        return None
    largest = float(torch.linalg.matrix_norm(weight.double(), 2)) * longest * (ways + 1) ** 0.5 or 1.0
    mix = torch.zeros(wide, wide, dtype=torch.float64)
    mix[:ways, : widths.hidden] = _LARGE * weight.double()
    mix[ways] = -mix[:ways].sum(0)  # so that the mean is 0
    bias = mix.new_zeros(wide)
    height = _CONSTANT * largest / constants**0.5
    bias[wide - constants :: 2], bias[wide - constants + 1 :: 2] = height, -height
    deviation = height * (constants / wide) ** 0.5  # by which LayerNorm divides
    scale = _SMALL / wide**0.5
    classify = torch.eye(ways, wide, dtype=torch.float64)
    classify[:, ways + 1] = -1.0  # a number that is 0: the mean is not quite 0 in rounding, and cancels
    classify *= deviation / scale
    return Readout((mix, _LARGE * bias), scale * torch.eye(wide, dtype=torch.float64), classify)


def _widened_layer(old: Weights, name: str, widths: Widths) -> Weights:
    """Return the weights of a layer in which the new dimensions hold the mean of the others wherever one is taken."""
    new: Weights = {}
    size, wide_size = widths.hidden // widths.heads, widths.wide // widths.heads
    for kind in ("query", "key", "value"):
        weight, bias = old[f"{name}attention.self.{kind}.weight"], old[f"{name}attention.self.{kind}.bias"]
        factor = (wide_size / size) ** 0.5 if kind == "query" else 1.0  # scores are divided by the root of the size
        rows = _padded_heads(factor * torch.cat([weight, bias.unsqueeze(1)], dim=1), widths)
        new |= _linear(f"{name}attention.self.{kind}", _more_columns(rows[:, :-1], widths.extra), rows[:, -1])
    mean = torch.full((widths.extra, widths.hidden), 1 / widths.hidden, dtype=torch.float64)
    mixed, bias = old[f"{name}attention.output.dense.weight"], old[f"{name}attention.output.dense.bias"]
    columns = _padded_heads(mixed.T, widths).T
    rows, bias = torch.cat([columns, mean @ columns]), torch.cat([bias, mean @ bias])
    new |= _linear(f"{name}attention.output.dense", rows, bias)
    new |= _norm(old, f"{name}attention.output.LayerNorm", widths, torch.zeros(widths.extra), 0.0)
    watched = _watchers(old[f"{name}output.LayerNorm.weight"], widths)
    new |= _feed_forward(old, name, widths, watched)
    return new | _watched_norm(old, f"{name}output.LayerNorm", widths)


def _feed_forward(old: Weights, name: str, widths: Widths, watched: Tensor) -> Weights:
    """Return a feed-forward part that writes the watched sums of u + F(u) to the new dimensions; these are 0 in u."""
    first, first_bias = old[f"{name}intermediate.dense.weight"], old[f"{name}intermediate.dense.bias"]
    second, second_bias = old[f"{name}output.dense.weight"], old[f"{name}output.dense.bias"]
    sums = torch.stack([watched.mean(0), watched[widths.signs > 0][0] - watched.mean(0)])  # (2, D): mean and g
    rows = torch.cat([first, sums, -sums])
    bias = torch.cat([first_bias, first_bias.new_zeros(4)])
    back = torch.stack([torch.ones_like(widths.signs), widths.signs], dim=1)  # (E, 2)
    top = torch.cat([second, second.new_zeros(widths.hidden, 4)], dim=1)
    bottom = torch.cat([watched @ second, back, -back], dim=1)
    units = _linear(f"{name}intermediate.dense", _more_columns(rows, widths.extra), bias)
    return units | _linear(
        f"{name}output.dense", torch.cat([top, bottom]), torch.cat([second_bias, watched @ second_bias])
    )


def _watchers(gamma: Tensor, widths: Widths) -> Tensor:
    """Return the sums, (E, D), that the new dimensions hold before a LayerNorm: the mean, plus or minus g."""
    deviation = _DEVIATION * (gamma - gamma.mean()) / widths.hidden
    return 1 / widths.hidden + widths.signs.unsqueeze(1) * deviation


def _watched_norm(old: Weights, name: str, widths: Widths) -> Weights:
    """Return a LayerNorm after which the new dimensions hold the mean of its outputs."""
    return _norm(old, name, widths, widths.signs / _DEVIATION, float(old[f"{name}.bias"].mean()))


def _norm(old: Weights, name: str, widths: Widths, gamma: Tensor, beta: float) -> Weights:
    gamma = torch.cat([old[f"{name}.weight"], gamma.double()]) * (widths.hidden / widths.wide) ** 0.5
    return _linear(name, gamma, torch.cat([old[f"{name}.bias"], gamma.new_full((widths.extra,), beta)]))


def _padded_heads(rows: Tensor, widths: Widths) -> Tensor:
    """Return rows (D, ..) with rows of zeros after those of each head, (D + E, ..)."""
    heads = rows.view(widths.heads, widths.hidden // widths.heads, -1)
    added = heads.new_zeros(widths.heads, widths.extra // widths.heads, heads.shape[-1])
    return torch.cat([heads, added], dim=1).flatten(0, 1)


def _more_columns(weight: Tensor, count: int) -> Tensor:
    return torch.cat([weight, weight.new_zeros(len(weight), count)], dim=1)


def _linear(name: str, weight: Tensor, bias: Tensor) -> Weights:
    return {f"{name}.weight": weight, f"{name}.bias": bias}


def _zero_mean_basis(size: int) -> Tensor:
    """Return an orthonormal basis, (size, size - 1), of the vectors whose mean is 0."""
    square = torch.cat([torch.ones(size, 1), torch.eye(size)[:, :-1]], dim=1).double()
    basis: Tensor = torch.linalg.qr(square).Q[:, 1:]
    return basis
