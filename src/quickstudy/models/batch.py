"""EncodedEpisode: an episode after the tokenizer, with token ids and label tensors, ready for a meta-learner."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.models.encoder import Encoder
from quickstudy.models.target import Target, make_target
from quickstudy.models.tokens import Sequences
from quickstudy.tasks.episode import Episode
from quickstudy.tasks.split import Example


@dataclass(frozen=True, slots=True)
class EncodedSet:
    """A support or query set.

    Attributes:
        sequences: Token ids of B examples.
        labels: (B,) int64 label positions, or floating-point scores.
        pair: Whether the examples carry two texts.
    """

    sequences: Sequences
    labels: Tensor
    pair: bool


@dataclass(frozen=True, slots=True)
class EncodedEpisode:
    """An episode in tokens.

    Attributes:
        task: Name of its task.
        target: What its task asks for.
        support: The examples to adapt to.
        query: The examples to score on.
    """

    task: str
    target: Target
    support: EncodedSet
    query: EncodedSet


def encode_set(encoder: Encoder, examples: Sequence[Example]) -> EncodedSet:
    """Tokenise labelled examples."""
    labels = torch.tensor([example.label for example in examples], device=encoder.device)
    if labels.is_floating_point():
        labels = labels.to(next(encoder.model.parameters()).dtype)
    return EncodedSet(encoder.tokenize(examples), labels, examples[0].text_pair is not None)


def encode_episode(encoder: Encoder, episode: Episode) -> EncodedEpisode:
    """Tokenise an episode."""
    support, query = (encode_set(encoder, examples) for examples in (episode.support, episode.query))
    return EncodedEpisode(episode.task, make_target(episode.kind, episode.label_names), support, query)
