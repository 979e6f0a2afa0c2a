"""SupportRows: what a rule reads of a support set: features, labels, and how much each row counts.

    c_n = sum_{i: y_i = n} w_i f_i / sum_{i: y_i = n} w_i          a row of weight 2 is the same row given twice

Most rows are examples, and each of them counts once. A user can give weights to examples, and a label name can be a
further row with a weight (see `methods.name_gate`). A rule that cannot weigh refuses weights that differ.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from quickstudy.errors import DataError


@dataclass(frozen=True, slots=True)
class SupportRows:
    """The rows of a support set.

    Attributes:
        features: (B, F).
        labels: (B,) label positions, or standardised scores.
        weights: (B,) how often each row counts, 0 or more; None if each counts once.

    >>> import torch
    >>> SupportRows(torch.zeros(2, 3), torch.tensor([0, 1])).counts.tolist()
    [1.0, 1.0]
    """

    features: Tensor
    labels: Tensor
    weights: Tensor | None = None

    @property
    def counts(self) -> Tensor:
        """(B,) how often each row counts: the weights, or ones."""
        return self.features.new_ones(len(self.features)) if self.weights is None else self.weights


def class_means(rows: SupportRows, n_way: int) -> Tensor:
    """Return the mean feature of each label, (N, F).

    >>> import torch
    >>> rows = SupportRows(torch.tensor([[0.0], [3.0], [5.0]]), torch.tensor([0, 0, 1]), torch.tensor([2.0, 1.0, 1.0]))
    >>> class_means(rows, 2).tolist()
    [[1.0], [5.0]]
    """
    return column_means(rows.features, nn.functional.one_hot(rows.labels, n_way), rows.weights)


def column_means(features: Tensor, columns: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean feature of each label, (N, F), given features (B, F), one-hot columns (B, N) and weights (B,)."""
    counts = columns.to(features.dtype)
    if weights is not None:
        counts = weights.unsqueeze(-1) * counts
    return (counts.T @ features) / counts.sum(0).unsqueeze(-1)


def add_log_weights(scores: Tensor, weights: Tensor | None) -> Tensor:
    """Return attention scores (..., B) plus log w_i: under a softmax, a row of weight 2 then counts twice."""
    return scores if weights is None else scores + weights.log()


def refuse_weights(weights: Tensor | None, method: str) -> None:
    """Raise `DataError` if weights (B,) differ: the method of that name cannot weigh examples."""
    if weights is not None and not bool((weights == weights[0]).all()):
        raise DataError(
            f"{method} cannot give examples different weights",
            fix="Leave the weights out, or use another method, e.g. protonet or linear-probe.",
        )
