"""Target: what a task asks for. It owns everything that differs between classes and scores.

    Classes    one of N labels     loss  cross-entropy                              answer  softmax(s), (B, N)
    Scores     a number            loss  (s - z)^2  with  z = (y - mean) / std      answer  s, (B, 1)

Methods ask the target and never test which kind it is. A rule that works on labels as columns (`columns`) serves every
target as it is. A rule that differs has one method for each target, and `Target.apply` picks the right one.

A third target, for texts that carry several labels at once, would have to give the same members: `size` N, the binary
cross-entropy of each label as `loss`, `Unscaled` as `scale`, columns of zeros and ones with several ones in a row,
one entry per label in `mark_right`, the sigmoid as `answer`, a list of names per text from `decide`, and the names of
its labels from `encode_names`. `ByTarget` would get a third method for the rules that differ, and `make_target` a
third kind.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn

from quickstudy.errors import DataError
from quickstudy.models.encoder import Encoder
from quickstudy.models.scale import Scale, Unscaled, measure_scale
from quickstudy.models.support_rows import SupportRows
from quickstudy.models.tokens import NO_SEQUENCES, Sequences
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Kind

Result = TypeVar("Result", covariant=True)


class ByTarget(Protocol[Result]):
    """A rule that treats classes and scores differently; `Target.apply` picks one of its two methods."""

    def for_classes(self, rows: SupportRows, n_way: int) -> Result:
        """Return the result for rows whose labels are positions, and the number of labels N."""
        ...

    def for_scores(self, rows: SupportRows) -> Result:
        """Return the result for rows whose labels are standardised scores."""
        ...


class Target(ABC):
    """What a task asks for.

    Attributes:
        kind: Its name in tasks and in saved models.
        inner_weight: Factor of its loss in the inner loop, so that the same inner rates suit every target.
        label_names: The names of the labels, in their order; empty for scores.
    """

    kind: ClassVar[Kind]
    inner_weight: ClassVar[float]
    label_names: tuple[str, ...]

    @property
    @abstractmethod
    def size(self) -> int:
        """How many numbers a head gives per example: N for classes, 1 for scores."""

    @abstractmethod
    def scale(self, labels: Tensor, weights: Tensor | None = None) -> Scale:
        """Return the scale of a task, measured on the labels (B,) of its support set and their weights (B,)."""

    @abstractmethod
    def loss(self, scores: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the mean loss, (), of what a head gives.

        Args:
            scores: (B, N) or (B, 1).
            labels: (B,), in standard units.
            weights: (B,) weights w: the loss is Σ w_i l_i / Σ w_i. None for the plain mean.
        """

    @abstractmethod
    def columns(self, labels: Tensor, like: Tensor) -> Tensor:
        """Return labels (B,) as columns: one-hot, (B, N), of the type and device of `like`; or the scores, (B, 1)."""

    @abstractmethod
    def mark_right(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return which examples a head labels rightly, (B,) booleans; empty where there is no right and wrong."""

    @abstractmethod
    def translate(self, labels: Tensor, source: "Target") -> Tensor:
        """Return labels (B,) of another target as labels of this one: in an episode, a label has another position."""

    @abstractmethod
    def apply(self, rule: ByTarget[Result], rows: SupportRows) -> Result:
        """Return what a rule makes of the rows of a support set, by its method for this target."""

    @abstractmethod
    def encode_names(self, encoder: Encoder, *, pair: bool) -> Sequences:
        """Return what may be read of the labels as token ids, one example per label; no examples if there is nothing.

        Args:
            encoder: Gives the tokenizer, and says how pairs are read.
            pair: Whether the task's examples carry two texts. The second text of a label is then left empty.
        """

    @abstractmethod
    def answer(self, scores: Tensor) -> Tensor:
        """Return what a model answers, given what its head gives: probabilities (B, N), or numbers (B, 1)."""

    @abstractmethod
    def decide(self, answers: Tensor) -> list[str] | list[float]:
        """Return the most probable label name of each example, or its number."""

    @abstractmethod
    def check_probabilities(self) -> None:
        """Raise `DataError` if the answers are not probabilities of labels."""


@dataclass(frozen=True, slots=True)
class Classes(Target):
    """One of N labels.

    Attributes:
        label_names: N names; a label is a position in them.
        label_texts: N texts that a method may read in place of the names; empty if nothing may be read.

    >>> target = Classes(("no", "yes"))
    >>> scores, labels = torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([1, 1])
    >>> target.mark_right(scores, labels).tolist(), target.decide(target.answer(scores))
    ([True, False], ['yes', 'no'])
    """

    kind: ClassVar[Kind] = "classification"
    inner_weight: ClassVar[float] = 1.0
    label_names: tuple[str, ...]
    label_texts: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return len(self.label_names)

    def scale(self, labels: Tensor, weights: Tensor | None = None) -> Scale:
        return Unscaled()

    def loss(self, scores: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        if weights is None:
            return nn.functional.cross_entropy(scores, labels)
        return _weighted_mean(nn.functional.cross_entropy(scores, labels, reduction="none"), weights)

    def columns(self, labels: Tensor, like: Tensor) -> Tensor:
        return nn.functional.one_hot(labels, self.size).to(like)

    def mark_right(self, scores: Tensor, labels: Tensor) -> Tensor:
        return scores.detach().argmax(-1) == labels

    def translate(self, labels: Tensor, source: Target) -> Tensor:
        positions = [self.label_names.index(name) for name in source.label_names]
        return torch.tensor(positions, device=labels.device)[labels]

    def apply(self, rule: ByTarget[Result], rows: SupportRows) -> Result:
        return rule.for_classes(rows, self.size)

    def encode_names(self, encoder: Encoder, *, pair: bool) -> Sequences:
        if not self.label_texts:
            return NO_SEQUENCES
        return encoder.tokenize(Example(text, "" if pair else None) for text in self.label_texts)

    def answer(self, scores: Tensor) -> Tensor:
        return torch.softmax(scores, dim=-1)

    def decide(self, answers: Tensor) -> list[str] | list[float]:
        return [self.label_names[position] for position in answers.argmax(-1).tolist()]

    def check_probabilities(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Scores(Target):
    """A number, for regression.

    The squared error has curvature 2 (||f||^2 + 1), which is about 4, and gradient descent diverges above a rate of
    2 / curvature. Rates that suit cross-entropy are far above that, so the inner loss is scaled down.

    >>> target, labels = Scores(), torch.tensor([1.0, 3.0])
    >>> target.loss(torch.tensor([[-1.0], [2.0]]), target.scale(labels).standardise(labels)).item()
    0.5
    """

    kind: ClassVar[Kind] = "regression"
    inner_weight: ClassVar[float] = 0.1
    label_names: ClassVar[tuple[str, ...]] = ()  # type: ignore[misc]

    @property
    def size(self) -> int:
        return 1

    def scale(self, labels: Tensor, weights: Tensor | None = None) -> Scale:
        return measure_scale(labels, weights)

    def loss(self, scores: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        if weights is None:
            return nn.functional.mse_loss(scores.squeeze(-1), labels)
        return _weighted_mean((scores.squeeze(-1) - labels).square(), weights)

    def columns(self, labels: Tensor, like: Tensor) -> Tensor:
        return labels.unsqueeze(-1)

    def mark_right(self, scores: Tensor, labels: Tensor) -> Tensor:
        return labels.new_zeros(0, dtype=torch.bool)

    def translate(self, labels: Tensor, source: Target) -> Tensor:
        return labels

    def apply(self, rule: ByTarget[Result], rows: SupportRows) -> Result:
        return rule.for_scores(rows)

    def encode_names(self, encoder: Encoder, *, pair: bool) -> Sequences:
        return NO_SEQUENCES

    def answer(self, scores: Tensor) -> Tensor:
        return scores

    def decide(self, answers: Tensor) -> list[str] | list[float]:
        return [float(number) for number in answers.squeeze(-1)]

    def check_probabilities(self) -> None:
        raise DataError("a regression model has no label probabilities", fix="Use predict().")


def make_target(kind: Kind, label_names: Sequence[str], label_texts: Sequence[str] = ()) -> Target:
    """Return the target of a task.

    Args:
        kind: The task's kind.
        label_names: The names of its labels; empty for regression.
        label_texts: What a method may read of each label; empty if nothing may be read.
    """
    return Classes(tuple(label_names), tuple(label_texts)) if kind == "classification" else Scores()


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    return (weights * values).sum() / weights.sum()
