"""Episode: one support-query draw from a task, as plain texts and numbers.

The labels of an episode are positions 0..N-1 in its own `label_names`. In the next episode the same class can be at
another position, so that no method can learn the order of the labels by heart. A regression episode carries floats
and no label names.
"""

from dataclasses import dataclass

from quickstudy.errors import RecipeError
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Kind


@dataclass(frozen=True, slots=True)
class Episode:
    """One support-query draw.

    Attributes:
        task: Name of the task it was drawn from.
        label_names: N names; an episode's label is a position in them. Empty for regression.
        support: Labelled examples to adapt on.
        query: Labelled examples to score on; no example is in both.
        kind: `classification` or `regression`.
        label_texts: What a method may read of each label, in their order; empty if nothing may be read.
    """

    task: str
    label_names: tuple[str, ...]
    support: tuple[Example, ...]
    query: tuple[Example, ...]
    kind: Kind = "classification"
    label_texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EpisodeSpec:
    """How large episodes are. Each number is fixed (`4`), or a range that includes both ends (`(2, 5)`).

    Attributes:
        n_way: Labels of an episode (N); never more than the task has.
        k_shot: Support examples per label (K). A regression episode has N K of them, with N from `n_way`.
        n_query: Query examples per label (Q). A regression episode has N Q of them.
    """

    n_way: int | tuple[int, int] = (2, 5)
    k_shot: int | tuple[int, int] = (2, 8)
    n_query: int | tuple[int, int] = 8

    def __post_init__(self) -> None:
        for name, least in (("n_way", 2), ("k_shot", 1), ("n_query", 1)):
            low, high = bounds(getattr(self, name))
            if low < least or high < low:
                raise RecipeError(
                    f"{name} = {getattr(self, name)} is not possible",
                    fix=f"Give a whole number of at least {least}, or a range [low, high] with low <= high.",
                )


def bounds(value: int | tuple[int, int]) -> tuple[int, int]:
    """Return (low, high) of a number or a range.

    >>> bounds(4), bounds((2, 5))
    ((4, 4), (2, 5))
    """
    return (value, value) if isinstance(value, int) else (value[0], value[1])
