"""NameMix: in which share of the episodes label texts are missing, wrong, or say nothing.

    dropped      no label has a text
    shuffled     each label has the text of another one
    coded        each label has a code that says nothing ("B", "label 7")

Some users have labels that say nothing. A method that always meets true texts in meta-training would trust any text.
With a mix it learns from the support set how far texts can be trusted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quickstudy.errors import RecipeError
from quickstudy.tasks.label_text import draw_codes

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class NameMix:
    """Shares of the episodes, each 0 or more; together they are at most 1.

    Attributes:
        dropped: The share in which no label has a text.
        shuffled: The share in which each label has the text of another one.
        coded: The share in which each label has a code.

    Raises:
        RecipeError: The shares are not possible.
    """

    dropped: float = 0.0
    shuffled: float = 0.0
    coded: float = 0.0

    def __post_init__(self) -> None:
        shares = {"dropped": self.dropped, "shuffled": self.shuffled, "coded": self.coded}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise RecipeError(f"{name} = {share} is not possible", fix="Give a share from 0 to 1.")
        if sum(shares.values()) > 1 + _ROUNDING:
            raise RecipeError(
                f"dropped, shuffled and coded are {sum(shares.values()):g} together",
                fix="They are shares of all episodes: together they are at most 1.",
            )

    def draw(self, texts: Sequence[str], random: np.random.Generator) -> tuple[str, ...]:
        """Return the label texts of an episode: as they are, none, shuffled, or codes.

        Args:
            texts: The true texts.
            random: Decides, and is drawn from in the same way whatever the texts are.

        >>> from quickstudy.seeding import rng
        >>> NameMix(dropped=1.0).draw(["good", "bad"], rng(0, "names")), NameMix().draw(["good"], rng(0, "names"))
        ((), ('good',))
        """
        point = random.random()
        if point < self.dropped:
            return ()
        if point < self.dropped + self.shuffled:
            return shuffle_texts(texts, random)
        if point < self.dropped + self.shuffled + self.coded:
            return draw_codes(len(texts), random)
        return tuple(texts)


def shuffle_texts(texts: Sequence[str], random: np.random.Generator) -> tuple[str, ...]:
    """Return the texts in an order in which none is at its place; a single text stays.

    The labels stand in a random circle, and each gets the text of the next one.

    >>> from quickstudy.seeding import rng
    >>> shuffle_texts(["a", "b"], rng(0, "names"))
    ('b', 'a')
    """
    circle = random.permutation(len(texts))
    moved = dict(zip(circle, np.roll(circle, -1), strict=True))
    return tuple(texts[moved[position]] for position in range(len(texts)))
