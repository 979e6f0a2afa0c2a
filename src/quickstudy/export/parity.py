"""Parity: how near an exported model is to the model that it was made from."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Parity:
    """The largest difference of the logits, or numbers, of some texts.

    Attributes:
        difference: The largest difference.
        allowed: The largest difference that counts as equal.
    """

    difference: float
    allowed: float

    @classmethod
    def between(cls, exported: Tensor, wanted: Tensor, tolerance: float) -> "Parity":
        """Compare logits, (B, N).

        Args:
            exported: Those of the exported model.
            wanted: Those of the model that it was made from.
            tolerance: What is allowed, relative to the largest logit if that is above 1.

        >>> import torch
        >>> Parity.between(torch.tensor([[4.0, 1.0]]), torch.tensor([[4.0, 1.5]]), 0.25)
        Parity(difference=0.5, allowed=1.0)
        """
        largest = max(1.0, float(wanted.abs().max()))
        return cls(float((exported - wanted).abs().max()), tolerance * largest)

    @property
    def holds(self) -> bool:
        """Whether the two count as equal; NaN does not."""
        return self.difference <= self.allowed

    def __or__(self, other: "Parity") -> "Parity":
        """Return the worse of two comparisons."""
        mine, others = self.difference / self.allowed, other.difference / other.allowed
        return self if not mine <= others else other
