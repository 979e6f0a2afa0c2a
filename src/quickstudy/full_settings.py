"""Settings of full fine-tuning. They check themselves: the command line, which shows them, starts without pydantic."""

import math
from dataclasses import dataclass

from quickstudy.errors import RecipeError


@dataclass(frozen=True, slots=True)
class FullSettings:
    """Settings of full fine-tuning.

    Attributes:
        epochs: Passes over the train split; above 0.
        lr: Peak learning rate, which rises over the first tenth of the updates and then falls to zero; 0 or more.
        batch_size: Examples per update; 1 or more.
        seed: The order of the examples and the start of the head.

    Raises:
        RecipeError: A value out of its range.

    >>> FullSettings(epochs=2.0).batch_size
    32
    """

    epochs: float = 3.0
    lr: float = 5e-5
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        number = (int, float)
        if not isinstance(self.epochs, number) or not 0 < self.epochs < math.inf:
            raise RecipeError(f"epochs = {self.epochs!r} is not possible", fix="Give a number above 0.")
        if not isinstance(self.lr, number) or not 0 <= self.lr < math.inf:
            raise RecipeError(f"lr = {self.lr!r} is not possible", fix="Give 0 or a number above 0.")
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise RecipeError(f"batch_size = {self.batch_size!r} is not possible", fix="Give a whole number above 0.")
        if not isinstance(self.seed, int):
            raise RecipeError(f"seed = {self.seed!r} is not possible", fix="Give a whole number.")
