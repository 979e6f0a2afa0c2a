"""Mix: how often an episode is drawn from each of several groups of tasks, and how that changes in the training.

    share of group g at episode i  =  (1 - t) · start_g + t · end_g,      t = min(1, i / episodes), shares add up to 1

A group is what a reference of the recipe names: a corpus of text, or some labelled tasks. Within a group, tasks are
drawn as the weighting says. The shares follow from the number of the episode alone, so a mix has no state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quickstudy.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of groups of tasks.

    Attributes:
        sizes: How many tasks each group has, in the order of the tasks.
        start: Weight of each group in the first episode; 0 or more.
        end: Weight of each group in the last episode; None: as in the first.
        episodes: After how many episodes the weights of the end are reached.

    Raises:
        RecipeError: There is not one weight per group, one is below 0, or all are 0.

    >>> mix = Mix((2, 1), (3.0, 1.0), (1.0, 3.0), episodes=100)
    >>> mix.shares(0).tolist(), mix.shares(50).tolist(), mix.shares(200).tolist()
    ([0.75, 0.25], [0.5, 0.5], [0.25, 0.75])
    """

    sizes: tuple[int, ...]
    start: tuple[float, ...]
    end: tuple[float, ...] | None = None
    episodes: int = 1

    def __post_init__(self) -> None:
        for weights in (self.start, self.start if self.end is None else self.end):
            if len(weights) != len(self.sizes):
                raise RecipeError(
                    f"{len(weights)} weights for {len(self.sizes)} references in tasks.train",
                    fix="Give a weight for each reference, in their order.",
                )
            if min(weights) < 0 or max(weights) == 0:
                raise RecipeError(
                    f"the weights {list(weights)} are not possible", fix="Give numbers of 0 or more, not all of them 0."
                )

    def shares(self, index: int) -> NDArray[np.float64]:
        """Return the share of each group at an episode, (G,)."""
        start, end = (_normed(weights) for weights in (self.start, self.end or self.start))
        done = min(1.0, index / self.episodes)
        return (1 - done) * start + done * end

    def weights(self, within: NDArray[np.float64], index: int) -> NDArray[np.float64]:
        """Return how likely each task is at an episode, (T,).

        Args:
            within: How the tasks of each group compare with each other, (T,).
            index: Number of the episode.
        """
        groups = np.repeat(np.arange(len(self.sizes)), self.sizes)
        totals = np.bincount(groups, weights=within, minlength=len(self.sizes))
        weights = within / totals[groups] * self.shares(index)[groups]
        return np.asarray(weights / weights.sum())


def _normed(weights: Sequence[float]) -> NDArray[np.float64]:
    return np.asarray(weights, dtype=np.float64) / sum(weights)
