"""The public contracts: update rules, tasks and samplers keep them, and broken ones are caught."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import score_task, tiny_encoder, word_task
from quickstudy.data.reference import load_tasks
from quickstudy.inner.lstm_optimizer import LearnedOptimizer, LSTMOptimizer
from quickstudy.inner.optimizer import SGD, Adam, InnerOptimizer, Params, State
from quickstudy.methods.base import MetaLoss
from quickstudy.methods.feature import FeatureMetaLearner
from quickstudy.methods.protonet import Prototypes
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedEpisode, EncodedSet
from quickstudy.models.encoder import Encoder
from quickstudy.models.support_rows import SupportRows
from quickstudy.models.target import Target
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.tasks.split import Example, ListSplit
from quickstudy.tasks.task import Task
from quickstudy.testing import check_inner_optimizer, check_meta_learner, check_sampler, check_task


class _Forgetful(FeatureMetaLearner):
    """Adapting moves a meta-parameter."""

    def adapt(self, support: EncodedSet, target: Target, **options: Any) -> AdaptedModel:
        with torch.no_grad():
            self.rule.log_scale += 0.01  # type: ignore[operator]
        return super().adapt(support, target, **options)


class _Noisy(FeatureMetaLearner):
    """Its loss depends on the global random state."""

    def meta_loss(self, episodes: Sequence[EncodedEpisode], progress: float = 1.0) -> MetaLoss:
        found = super().meta_loss(episodes, progress)
        return replace(found, loss=found.loss * (1 + torch.rand(())))


class _Deaf(FeatureMetaLearner):
    """Its loss has lost the encoder."""

    def _encode(self, episodes: Sequence[EncodedEpisode]) -> Any:
        return [replace(f, support=f.support.detach(), query=f.query.detach()) for f in super()._encode(episodes)]


class _Biased(Prototypes):
    """Prefers the first label."""

    def for_classes(self, rows: SupportRows, n_way: int) -> Any:
        head: Any = super().for_classes(rows, n_way)
        head.bias.data[0] += 5.0
        return head


@pytest.mark.parametrize(
    ("learner", "rule", "message"),
    [
        (_Forgetful, Prototypes, "adapting changed the meta-parameter rule.log_scale"),
        (_Noisy, Prototypes, "two learners made in the same way differ"),
        (_Deaf, Prototypes, "no gradient reaches encoder"),
        (FeatureMetaLearner, _Biased, "renaming labels does not rename predictions"),
    ],
)
def test_a_broken_method_is_caught(learner: type[FeatureMetaLearner], rule: type[Prototypes], message: str) -> None:
    def broken(encoder: Encoder) -> FeatureMetaLearner:
        return learner(encoder, rule(1.0), name="broken")

    with pytest.raises(AssertionError, match=message):
        check_meta_learner(broken)


@pytest.mark.parametrize(
    "rule",
    [
        lambda: SGD(0.05),
        lambda: SGD(0.05, 0.1),
        lambda: Adam(0.05),
        lambda: LSTMOptimizer(0.05),
        lambda: LearnedOptimizer(0.05),
    ],
)
def test_every_update_rule_keeps_the_contract(rule: Any) -> None:
    check_inner_optimizer(rule)


class _InPlace(SGD):
    def update(self, grads: Params, state: State, params: Params, *, loss: Tensor) -> tuple[Params, State]:
        with torch.no_grad():
            params["a"] -= 1.0
        return super().update(grads, state, params, loss=loss)


class _Detached(SGD):
    def update(self, grads: Params, state: State, params: Params, *, loss: Tensor) -> tuple[Params, State]:
        return super().update({name: g.detach() for name, g in grads.items()}, state, params, loss=loss)


@pytest.mark.parametrize(
    ("rule", "error"),
    [(_InPlace, "changed its input a in place"), (_Detached, "Jacobian mismatch"), (None, "do not lower")],
)
def test_a_broken_update_rule_is_caught(rule: type[InnerOptimizer] | None, error: str) -> None:
    with pytest.raises((AssertionError, RuntimeError), match=error):
        check_inner_optimizer(lambda: rule(0.05) if rule else SGD(-0.05))  # type: ignore[call-arg]


def test_tasks_and_samplers_keep_the_contract() -> None:
    tasks = [word_task(), word_task("pairs", pair=True), score_task(), *load_tasks("samples:meta-test")]
    for task in tasks:
        check_task(task)
    check_sampler(EpisodeSampler(tasks, EpisodeSpec((2, 3), (1, 4), 2), seed=3))


def test_a_broken_task_is_caught() -> None:
    with pytest.raises(AssertionError, match=r"train\[1\]: the label 7"):
        check_task(Task("t", {"train": ListSplit([Example("a", label=0), Example("b", label=7)])}, ("x", "y")))


def test_the_contract_runs_on_every_encoder_that_a_user_gives() -> None:
    assert tiny_encoder("modernbert").feature_size(pair=False) == 16
