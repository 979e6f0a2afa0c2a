"""Plain: a learner at random weights, an episode, and what the papers' equations need, without the library's own code.

The Hugging Face model runs by `functional_call`, and pooling and losses are written out. A reference that is made from
these knows the names of the meta-parameters and nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from conftest import score_task, tiny_encoder, word_task
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import make
from quickstudy.models.batch import encode_episode
from quickstudy.tasks.episode import Episode, EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.tasks.split import Example

Values = dict[str, Tensor]
Head = Callable[[Tensor], Tensor]  # features (B, F) to logits (B, N), or to scores (B, 1)

N_WAY, SIZE = 3, 16


@dataclass(frozen=True)
class Case:
    """A learner at random weights, and an episode of texts with classes or scores."""

    learner: MetaLearner
    episode: Episode

    @property
    def meta(self) -> Values:
        """All meta-parameters by name."""
        return dict(self.learner.named_parameters())

    @property
    def theta(self) -> Values:
        """The encoder's parameters, by their names in the Hugging Face model."""
        return dict(self.learner.encoder.model.named_parameters())

    @property
    def scores(self) -> bool:
        """Whether the labels are scores."""
        return not self.episode.label_names

    def features(self, rows: tuple[Example, ...], values: Values | None = None) -> Tensor:
        """Return the mean of the token states of each text, with some of the encoder's weights replaced."""
        encoder = self.learner.encoder
        tokens = encoder.tokenizer([row.text for row in rows], padding=True, return_tensors="pt")
        replaced = {name: value for name, value in (values or {}).items() if name in self.theta}
        inputs = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
        states = functional_call(encoder.model, replaced, kwargs=inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(1) / mask.sum(1)

    def labels(self, rows: tuple[Example, ...]) -> Tensor:
        """Return label positions, or scores in units of the support set's mean and deviation."""
        if not self.scores:
            return torch.tensor([int(row.label or 0) for row in rows])
        known = torch.tensor([row.label for row in self.episode.support], dtype=torch.float64)
        given = torch.tensor([row.label for row in rows], dtype=torch.float64)
        return (given - known.mean()) / known.std(correction=0)

    def loss(self, answers: Tensor, rows: tuple[Example, ...]) -> Tensor:
        """Return the mean cross-entropy, or the mean squared error."""
        labels = self.labels(rows)
        return (answers[:, 0] - labels).square().mean() if self.scores else cross_entropy(answers, labels)

    def support(self) -> tuple[Tensor, Tensor]:
        """Return the support set's features (B, F) and labels (B,)."""
        return self.features(self.episode.support), self.labels(self.episode.support)

    def query_loss(self, head: Head) -> Tensor:
        """Return the query loss of a head on the features of the encoder as it is."""
        return self.loss(head(self.features(self.episode.query)), self.episode.query)


def make_case(
    method: str, settings: dict[str, Any], *, scores: bool = False, seed: int = 3, noise: float = 1.0
) -> Case:
    """Return a method on the tiny encoder. All that it learns is random, also what usually starts at zero or one."""
    learner = make(method, tiny_encoder("bert", torch.float64), settings).double()
    task = score_task() if scores else word_task(n_way=4)
    learner.prepare([word_task("other"), task])
    randomise(learner, seed, noise)
    return Case(learner, _uneven(EpisodeSampler([task], EpisodeSpec(N_WAY, 3, 3), seed=seed)[0]))


def randomise(learner: MetaLearner, seed: int = 3, noise: float = 1.0) -> None:
    """Add normal noise to every parameter that a learner learns, less of it to the encoder's."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in learner.named_parameters():
            p.add_((0.05 if name.startswith("encoder.") else noise) * torch.randn(p.shape, generator=random).to(p))


def _uneven(episode: Episode) -> Episode:
    """Leave out examples: labels have 3, 2 and 1 support examples and 1, 3 and 1 query examples, in no order."""
    if not episode.label_names:
        return replace(episode, query=episode.query[:-1])
    support, query = (
        tuple(row for n in range(N_WAY) for row in [r for r in rows if r.label == n][: counts[n]])
        for rows, counts in ((episode.support, (3, 2, 1)), (episode.query, (1, 3, 1)))
    )
    return replace(episode, support=tuple(sorted(support, key=lambda row: row.text)), query=query[::-1])


def compare(case: Case, wanted: Tensor, tolerance: float = 1e-8) -> None:
    """Check that the meta-loss and its gradient in every meta-parameter are those of a reference."""
    found = case.learner.meta_loss([encode_episode(case.learner.encoder, case.episode)]).loss
    assert found.item() == pytest.approx(wanted.item(), rel=tolerance)
    names, values = zip(*((n, p) for n, p in case.meta.items() if p.requires_grad), strict=True)
    mine, theirs = (torch.autograd.grad(x, values, allow_unused=True, materialize_grads=True) for x in (found, wanted))
    largest = max(float(g.abs().max()) for g in theirs)
    assert largest > 1e-4
    for name, a, b in zip(names, mine, theirs, strict=True):
        scale = max(float(b.abs().max()), 1e-4 * largest)
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * scale, msg=lambda m, n=name: f"{n}: {m}")
