"""Scale: brings the labels of a task to a common size, and a finished head back to the task's own units.

    z = (y - mean) / std            mean and std are those of the scores in the support set

A task that is scored from 0 to 5 and a task that is scored from 0 to 100 then weigh the same. A method fits its head
to the standardised scores z, and `rescale` turns that head into one that gives scores y. Labels of classes have no
units, so their scale changes nothing.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.models.head import Head

_SMALLEST = 1e-6  # scores that differ by less than this count as equal


class Scale(ABC):
    """How the labels of one task are scaled."""

    @abstractmethod
    def standardise(self, labels: Tensor) -> Tensor:
        """Return labels, (B,), in standard units."""

    @abstractmethod
    def rescale(self, head: Head) -> Head:
        """Return the head that answers in the task's own units, given one that answers in standard units."""


@dataclass(frozen=True, slots=True)
class Unscaled(Scale):
    """The scale of labels that have no units: nothing changes."""

    def standardise(self, labels: Tensor) -> Tensor:
        return labels

    def rescale(self, head: Head) -> Head:
        return head


@dataclass(frozen=True, slots=True)
class Standardised(Scale):
    """The scale of scores: a mean and a standard deviation, each of shape ()."""

    mean: Tensor
    std: Tensor

    def standardise(self, labels: Tensor) -> Tensor:
        return (labels - self.mean) / self.std

    def rescale(self, head: Head) -> Head:
        return head.rescaled(self.mean, self.std)


def measure_scale(scores: Tensor, weights: Tensor | None = None) -> Standardised:
    """Return the scale of scores (B,) with weights (B,). If they are all equal, the standard deviation counts as 1.

    >>> scale = measure_scale(torch.tensor([2.0, 4.0]))
    >>> scale.standardise(torch.tensor([2.0, 3.0, 5.0])).tolist()
    [-1.0, 0.0, 2.0]
    """
    if weights is None:
        mean, std = scores.mean(), scores.std(correction=0)
    else:
        share = weights / weights.sum()
        mean = share @ scores
        std = (share @ (scores - mean).square()).sqrt()
    return Standardised(mean, torch.where(std > _SMALLEST, std, 1.0))
