"""Sick numbers and SIGTERM: a task whose gradient is NaN is left out and named; a training that is ended is saved."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from conftest import tiny_encoder, word_task, write_task
from quickstudy.errors import RunError, TerminatedError
from quickstudy.evaluation.episodic import episodic_score
from quickstudy.methods.base import MetaLearner, MetaLoss
from quickstudy.methods.catalog import make
from quickstudy.models.batch import EncodedEpisode, encode_episode
from quickstudy.runs import Run
from quickstudy.settings import OuterSettings
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.training.checkpoint import load_checkpoint
from quickstudy.training.outer import train
from quickstudy.training.record import StepRecord, append_record, read_log
from quickstudy.training.stop import noted_sigterm

TASKS = [word_task(f"task{number}", seed=number) for number in range(8)]
SETTINGS = OuterSettings(outer_steps=24, outer_lr=1e-2, meta_batch_size=4, warmup_steps=2, validate_every=4)

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def plant(monkeypatch: pytest.MonkeyPatch, tasks: set[str], value: float, where: str = "loss") -> None:
    """Let the loss, or only the gradient, of the episodes of some tasks be NaN or infinite."""
    kind = type(make("protonet", tiny_encoder()))
    healthy = kind.meta_loss

    def meta_loss(self: MetaLearner, episodes: list[EncodedEpisode], progress: float = 1.0) -> MetaLoss:
        result = healthy(self, episodes, progress)  # type: ignore[arg-type]
        if not tasks & {episode.task for episode in episodes}:
            return result
        if where == "loss":
            return replace(result, loss=result.loss * value)
        zero = next(p for p in self.parameters() if p.requires_grad).sum() * 0
        return replace(result, loss=result.loss + (zero.sqrt() if math.isnan(value) else zero.sqrt() * 1e38 * 1e38))

    monkeypatch.setattr(kind, "meta_loss", meta_loss)


def trained(folder: Path, settings: OuterSettings = SETTINGS, **more: Any) -> tuple[MetaLearner, list[StepRecord]]:
    learner, told = make("protonet", tiny_encoder(), {"scale": 2.0}), list[StepRecord]()
    sampler = EpisodeSampler(TASKS, EpisodeSpec(2, 3, 6), seed=0)
    train(learner, sampler, settings, accelerator=Accelerator(cpu=True), folder=folder, on_step=told.append, **more)
    return learner, told


def score(learner: MetaLearner) -> float:
    unseen = EpisodeSampler([word_task("unseen", seed=99)], EpisodeSpec(2, 3, 6), seed=9)
    return episodic_score(unseen, 40)(learner)


@pytest.mark.parametrize(("value", "where"), [(math.nan, "loss"), (math.inf, "loss"), (math.nan, "gradient")])
def test_one_sick_task_of_eight_is_left_out_and_named_and_the_rest_is_learned(
    value: float, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clean = score(trained(tmp_path / "clean")[0])
    plant(monkeypatch, {"task3"}, value, where)
    learner, told = trained(tmp_path / "sick")
    drawn = EpisodeSampler(TASKS, EpisodeSpec(2, 3, 6), seed=0)
    expected = [("task3",) * [drawn[4 * s + i].task for i in range(4)].count("task3") for s in range(24)]
    assert [record.left_out for record in told] == expected
    assert 4 <= sum(map(len, expected)) <= 24
    assert all(math.isfinite(record.loss) and math.isfinite(record.grad_norm) for record in told)
    assert all(parameter.isfinite().all() for parameter in learner.parameters())
    assert "task 'task3': an episode is left out" in caplog.text
    assert score(learner) > clean - 0.1  # 40 episodes of 12 examples: two standard errors are 0.05 and less


def test_the_meta_gradient_is_the_mean_over_the_episodes_that_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step with one sick episode of four is the step with the other three."""
    sampler = EpisodeSampler(TASKS, EpisodeSpec(2, 3, 6), seed=0)
    names = [sampler[i].task for i in range(4)]
    sick = next(name for name in names if names.count(name) == 1)
    learner = make("protonet", tiny_encoder(), {"scale": 2.0})
    episodes = [encode_episode(learner.encoder, sampler[i]) for i in range(4) if sampler[i].task != sick]
    loss = torch.stack([learner.meta_loss([episode]).loss for episode in episodes]).mean()
    trainable = [p for n, p in learner.named_parameters() if "encoder.layer" in n or "rule" in n]
    wanted = torch.cat([g.flatten() for g in torch.autograd.grad(loss, trainable)]).norm()
    plant(monkeypatch, {sick}, math.nan)
    _, (record, *_) = trained(tmp_path, replace(SETTINGS, outer_steps=1, warmup_steps=0))
    assert record.left_out == (sick,)
    assert record.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    assert record.grad_norm == pytest.approx(float(wanted), rel=1e-4)


def test_where_all_tasks_are_sick_nothing_is_updated_and_the_run_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, {task.name for task in TASKS}, math.nan)
    learner, told = make("protonet", tiny_encoder(), {"scale": 2.0}), list[StepRecord]()
    before = {name: value.clone() for name, value in learner.named_parameters()}
    sampler, accelerator = EpisodeSampler(TASKS, EpisodeSpec(2, 3, 6), seed=0), Accelerator(cpu=True)
    with pytest.raises(RunError, match=r"24 episodes of 6 outer steps were left out.*in outer step 6") as caught:
        train(learner, sampler, SETTINGS, accelerator=accelerator, folder=tmp_path, on_step=told.append)
    assert "Lower inner_lr" in str(caught.value)
    assert [(record.step, len(record.left_out)) for record in told] == [(step, 4) for step in range(1, 6)]
    assert all(torch.equal(before[name], value) for name, value in learner.named_parameters())


def test_the_share_that_is_left_out_is_counted_across_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, {"task3"}, math.nan)
    settings = replace(SETTINGS, max_left_out=0.0, validate_every=1)
    with pytest.raises(RunError, match="were left out") as whole:
        trained(tmp_path / "whole", settings)
    lenient = replace(settings, max_left_out=1.0)

    class StopError(Exception):
        pass

    learner = make("protonet", tiny_encoder(), {"scale": 2.0})
    sampler = EpisodeSampler(TASKS, EpisodeSpec(2, 3, 6), seed=0)
    step = int(str(whole.value).split("outer step ")[1].split("\n")[0])

    def stop(record: StepRecord) -> None:
        if record.step == step + 2:
            raise StopError

    with pytest.raises(StopError):
        train(learner, sampler, lenient, accelerator=Accelerator(cpu=True), folder=tmp_path / "cut", on_step=stop)
    state = load_checkpoint(tmp_path / "cut" / "last", learner)
    assert state is not None
    assert sum(state.left_out) >= 1
    assert len(state.left_out) == min(10, state.step)


def test_a_record_names_what_was_left_out(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    records = [StepRecord(1, loss=0.5), StepRecord(2, loss=math.nan, left_out=("tone", "größe"))]
    for record in records:
        append_record(log, record)
    assert "left_out" not in log.read_text(encoding="utf-8").splitlines()[0]
    assert [record.left_out for record in read_log(log)] == [(), ("tone", "größe")]
    log.write_text('{"step": 1, "left_out": [1]}\n')
    with pytest.raises(RunError, match="left_out holds no names"):
        read_log(log)


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_sigterm_saves_the_step_and_the_resumed_run_is_the_same(tmp_path: Path) -> None:
    whole, _ = trained(tmp_path / "whole", validate=score)

    def terminate(record: StepRecord) -> None:
        if record.step == 6:  # no checkpoint is due
            os.kill(os.getpid(), signal.SIGTERM)

    learner = make("protonet", tiny_encoder(), {"scale": 2.0})
    sampler = EpisodeSampler(TASKS, EpisodeSpec(2, 3, 6), seed=0)
    options: dict[str, Any] = {"accelerator": Accelerator(cpu=True), "folder": tmp_path / "cut", "validate": score}
    with pytest.raises(TerminatedError) as caught:
        train(learner, sampler, SETTINGS, on_step=terminate, **options)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    state = load_checkpoint(tmp_path / "cut" / "last", make("protonet", tiny_encoder(), {"scale": 2.0}))
    assert state is not None
    assert state.step == 7
    again, told = trained(tmp_path / "cut", validate=score)
    assert told[0].step == 8
    parameters = dict(whole.named_parameters())
    assert all(torch.equal(parameters[name], value) for name, value in again.named_parameters())


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_a_terminated_command_says_how_to_go_on(tiny_folder: Path, tmp_path: Path) -> None:
    write_task(word_task("tone"), tmp_path / "tone")
    recipe = f"""
        encoder.name = "{tiny_folder}"
        tasks.train = ["{tmp_path}/tone"]
        episodes = {{ n_way = 2, k_shot = 2, n_query = 2 }}
        outer = {{ outer_steps = 100000, meta_batch_size = 1, validate_every = 100000 }}
    """
    (tmp_path / "recipe.toml").write_text(recipe, encoding="utf-8")
    run = tmp_path / "run"
    words = [sys.executable, "-m", "quickstudy", "pretrain", str(tmp_path / "recipe.toml"), "--out", str(run)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("step 2/"):
                process.terminate()
                break
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert said == f"terminated, and saved; go on with: quickstudy pretrain {run} --resume\n"
    state = json.loads((run / "checkpoints" / "last" / "state.json").read_text())
    assert [record.step for record in Run.open(run).metrics()] == list(range(1, state["step"] + 1))
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


def test_a_handler_of_the_program_and_other_threads_are_left_alone() -> None:
    def mine(*_: object) -> None: ...

    signal.signal(signal.SIGTERM, mine)
    try:
        with noted_sigterm():
            assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    seen = []

    def other() -> None:
        with noted_sigterm() as wish:
            seen.append((wish.asked, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [(False, signal.SIG_DFL)]
