"""EncodedEpisode: an episode after the tokenizer, with token ids and label tensors, ready for a meta-learner."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.errors import DataError
from quickstudy.models.encoder import Encoder
from quickstudy.models.target import Target, make_target
from quickstudy.models.tokens import NO_SEQUENCES, Sequences
from quickstudy.tasks.episode import Episode
from quickstudy.tasks.split import Example


@dataclass(frozen=True, slots=True)
class EncodedSet:
    """A support or query set.

    Attributes:
        sequences: Token ids of B examples.
        labels: (B,) int64 label positions, or floating-point scores.
        pair: Whether the examples carry two texts.
        weights: (B,) how often each example counts, 0 or more; None if each counts once.
    """

    sequences: Sequences
    labels: Tensor
    pair: bool
    weights: Tensor | None = None

    @property
    def total(self) -> float:
        """How many examples there are, each counted by its weight."""
        return len(self.labels) if self.weights is None else float(self.weights.sum())

    def select(self, rows: Sequence[int]) -> "EncodedSet":
        """Return some of the examples, given their positions."""
        weights = None if self.weights is None else self.weights[list(rows)]
        return EncodedSet(self.sequences.select(rows), self.labels[list(rows)], self.pair, weights)


@dataclass(frozen=True, slots=True)
class EncodedEpisode:
    """An episode in tokens.

    Attributes:
        task: Name of its task.
        target: What its task asks for.
        support: The examples to adapt to.
        query: The examples to score on.
        names: What may be read of the labels, one example per label; no examples if nothing may be read.
    """

    task: str
    target: Target
    support: EncodedSet
    query: EncodedSet
    names: Sequences = NO_SEQUENCES


def encode_set(encoder: Encoder, examples: Sequence[Example], weights: Sequence[float] | None = None) -> EncodedSet:
    """Tokenise labelled examples.

    Args:
        encoder: Gives the tokenizer, and says where tensors are.
        examples: With labels.
        weights: How often each of them counts; None if each counts once.

    Raises:
        DataError: There is not one weight for each example, a weight is not a number of 0 or more, or all together are
            too large.
    """
    like = next(encoder.model.parameters())
    labels = torch.tensor([example.label for example in examples], device=encoder.device)
    if labels.is_floating_point():
        labels = labels.to(like.dtype)
    pair = examples[0].text_pair is not None
    return EncodedSet(encoder.tokenize(examples), labels, pair, _parse_weights(weights, len(examples), like))


def encode_episode(encoder: Encoder, episode: Episode) -> EncodedEpisode:
    """Tokenise an episode."""
    support, query = (encode_set(encoder, examples) for examples in (episode.support, episode.query))
    target = make_target(episode.kind, episode.label_names, episode.label_texts)
    return EncodedEpisode(episode.task, target, support, query, target.encode_names(encoder, pair=support.pair))


def _parse_weights(weights: Sequence[float] | None, count: int, like: Tensor) -> Tensor | None:
    """Return the weights of so many examples as a tensor of the type and device of `like`."""
    if weights is None:
        return None
    if len(weights) != count:
        raise DataError(f"{count} examples but {len(weights)} weights", fix="Give one weight per example.")
    for i, weight in enumerate(weights):
        if not 0 <= weight < math.inf:
            fix = "A weight says how often an example counts: give a finite number of 0 or more."
            raise DataError(f"the weight {weight!r} is not possible", where=f"weights[{i}]", fix=fix)
    if sum(weights) > torch.finfo(like.dtype).max ** 0.5:  # products of them must be finite too
        fix = "A weight says how often an example counts: divide all of them by a number."
        raise DataError(f"the weights are too large: their sum is {sum(weights):.3g}", fix=fix)
    return torch.tensor([float(weight) for weight in weights], dtype=like.dtype, device=like.device)
