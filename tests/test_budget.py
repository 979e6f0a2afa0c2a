"""Budgets: a training that counts steps is as it was, and one that counts time ends where its budget does."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from conftest import tiny_encoder, word_task
from quickstudy.methods.base import MetaLearner, MetaLoss
from quickstudy.methods.catalog import make
from quickstudy.models.batch import EncodedEpisode
from quickstudy.settings import OuterSettings
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.training.budget import Budget, CoreSeconds, Steps
from quickstudy.training.outer import LAST, train
from quickstudy.training.record import StepRecord

SETTINGS = OuterSettings(outer_steps=100, outer_lr=1e-3, meta_batch_size=1, warmup_steps=20, validate_every=1000)


class Ticks:
    """A clock that stands still until the first step, and goes on by so many seconds in each."""

    def __init__(self, tick: float) -> None:
        self.tick, self.asked = tick, 0

    def __call__(self) -> float:
        self.asked += 1  # at the begin, before step 0, and then after each step
        return self.tick * max(0, self.asked - 2)


@pytest.mark.parametrize(("tick", "steps"), [(1.0, 10), (3.0, 3), (3.9, 3), (4.5, 2), (6.0, 2), (40.0, 1)])
def test_a_training_ends_where_it_comes_closest_to_its_seconds(tick: float, steps: int, tmp_path: Path) -> None:
    budget = CoreSeconds(10.0, SETTINGS.outer_steps, Ticks(tick))
    assert len(_train(budget, tmp_path)) == steps
    assert budget.spent == pytest.approx(steps * tick)
    assert (tmp_path / LAST).is_dir()  # the last step is saved, whatever its number


def test_a_long_step_that_was_seen_ends_the_training_earlier() -> None:
    times = iter([0.0, 0.0, 1.0, 5.0, 6.0, 7.0, 8.0])
    budget = CoreSeconds(10.0, 100, lambda: next(times))
    budget.begin()
    assert [budget.position(step) for step in range(6)] == [0, 10, 50, 60, 70, 100]


def test_the_rate_follows_the_fraction_of_the_budget(tmp_path: Path) -> None:
    records = _train(CoreSeconds(10.0, SETTINGS.outer_steps, Ticks(1.0)), tmp_path)
    expected = [min(1, (10 * t + 1) / 20) * (1 - t / 10) * 1e-3 for t in range(10)]
    assert [record.lr for record in records] == pytest.approx(expected)


def test_what_methods_anneal_follows_the_fraction_of_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, seen = make("protonet", tiny_encoder()), []
    meta_loss = learner.meta_loss

    def watched(episodes: Sequence[EncodedEpisode], progress: float = 1.0) -> MetaLoss:
        seen.append(progress)
        return meta_loss(episodes, progress)

    monkeypatch.setattr(learner, "meta_loss", watched)
    _train(CoreSeconds(10.0, SETTINGS.outer_steps, Ticks(2.5)), tmp_path, learner=learner)
    assert seen == [0.0, 0.25, 0.5, 0.75]


def test_a_budget_of_steps_is_what_a_training_has_without_one(tmp_path: Path) -> None:
    settings = OuterSettings(outer_steps=4, outer_lr=1e-3, meta_batch_size=1)
    first = _train(None, tmp_path / "a", settings=settings)
    second = _train(Steps(), tmp_path / "b", settings=settings)
    assert [(r.step, r.loss, r.lr, r.grad_norm) for r in first] == [(r.step, r.loss, r.lr, r.grad_norm) for r in second]
    assert len(first) == 4


def _train(
    budget: Budget | None, folder: Path, *, settings: OuterSettings = SETTINGS, learner: MetaLearner | None = None
) -> list[StepRecord]:
    torch.manual_seed(0)
    records: list[StepRecord] = []
    sampler = EpisodeSampler([word_task()], EpisodeSpec(2, 2, 2), seed=0)
    learner = learner or make("protonet", tiny_encoder())
    train(learner, sampler, settings, accelerator=Accelerator(), folder=folder, on_step=records.append, budget=budget)
    return records
