"""The outer loop: it learns, a killed run goes on as if nothing had happened, and damage is never trained from."""

import itertools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from conftest import KilledError, score_task, tiny_encoder, word_task
from quickstudy.errors import RunError
from quickstudy.evaluation.episodic import episodic_score
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import make
from quickstudy.methods.convergence import Convergence, PoorConvergenceWarning, find_worst
from quickstudy.models.batch import encode_episode
from quickstudy.models.cut import layer_stack
from quickstudy.settings import OuterSettings
from quickstudy.tasks.episode import Episode, EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.tasks.split import Example, ListSplit
from quickstudy.tasks.task import Task
from quickstudy.training import meta_batch, outer
from quickstudy.training.checkpoint import TrainState, load_checkpoint, read_state, save_checkpoint
from quickstudy.training.kept import KeptStep, find_kept
from quickstudy.training.outer import schedule, train
from quickstudy.training.record import StepRecord, append_record, cut_log, read_log

GRADIENT = {"inner_lr": 0.03, "head_lr": 3.0, "inner_steps": 2}
METHODS = {"maml": GRADIENT, "fomaml": GRADIENT, "protonet": {"scale": 2.0}}
SHORT = OuterSettings(outer_steps=6, outer_lr=1e-3, meta_batch_size=2, warmup_steps=2, trains="all", validate_every=2)

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of a short run; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    _train(_learner("protonet"), folder, SHORT)
    return folder


@pytest.fixture
def mine(trained: Path, tmp_path: Path) -> Path:
    """A copy of them, to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "mine"))


@pytest.mark.parametrize("method", METHODS)
def test_the_meta_loss_falls_and_unseen_tasks_get_easier(method: str, tmp_path: Path) -> None:
    settings = OuterSettings(
        outer_steps=24, outer_lr=1e-2, meta_batch_size=3, warmup_steps=2, trains="all", validate_every=1000
    )
    learner = _learner(method)
    unseen = EpisodeSampler([word_task("unseen", seed=1)], EpisodeSpec(2, 3, 6), seed=9)
    validate = episodic_score(unseen, 20)
    before = validate(learner)
    records = _train(learner, tmp_path, settings)
    losses = [record.loss for record in records]
    assert [record.step for record in records] == list(range(1, 25))
    assert sum(losses[-6:]) < 0.75 * sum(losses[:6])
    assert validate(learner) > before + 0.1


@pytest.mark.parametrize(
    ("method", "killed_in"), [("protonet", 1), ("protonet", 2), ("protonet", 5), ("fomaml", 5), ("maml", 5)]
)
def test_a_killed_run_goes_on_bit_for_bit(method: str, killed_in: int, tmp_path: Path) -> None:
    whole, records = _learner(method), []
    train_on(whole, tmp_path / "whole", SHORT, records.append, validate=_score)

    def kill(record: StepRecord) -> None:
        if record.step == killed_in:
            raise KilledError

    with pytest.raises(KilledError):
        train_on(_learner(method), tmp_path / "cut", SHORT, kill, validate=_score)
    resumed, again = _learner(method), []
    train_on(resumed, tmp_path / "cut", SHORT, again.append, validate=_score)

    assert _same(whole, resumed)
    assert [_facts(r) for r in again] == [_facts(r) for r in records][-len(again) :]
    done = (killed_in - 1) // 2 * 2  # steps in the last checkpoint: one every two, written after the step was told
    assert again[0].step == (done + 1 if done else 0)
    for name in ("last", "best"):
        for file in ("meta_parameters.safetensors", "optimizer.safetensors"):
            a, b = (tmp_path / run / name / file for run in ("whole", "cut"))
            assert a.exists() == b.exists() == (name == "last" or file == "meta_parameters.safetensors")
            assert not a.exists() or a.read_bytes() == b.read_bytes()


def test_a_run_that_had_ended_early_stays_ended(tmp_path: Path) -> None:
    settings = OuterSettings(outer_steps=9, outer_lr=1e-3, meta_batch_size=1, validate_every=1, patience=1)
    first, told = _learner("protonet"), []
    train_on(first, tmp_path, settings, told.append, validate=_falling())
    assert [record.step for record in told] == [0, 1]
    again, more = _learner("protonet"), []
    train_on(again, tmp_path, settings, more.append, validate=_falling())
    assert more == []
    assert _same(first, again)


@pytest.mark.parametrize("file", ["meta_parameters.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_checkpoint_is_refused(file: str, damage: str, mine: Path) -> None:
    target = mine / "last" / file
    content = target.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0x80
    target.write_bytes({"flip": bytes(flipped), "cut": content[: len(content) // 2], "empty": b""}[damage])
    learner = _learner("protonet")
    before = _copy(learner)
    with pytest.raises(RunError, match="damaged") as caught:
        _train(learner, mine, SHORT)
    assert str(caught.value).startswith(str(target))
    assert _equal(before, _copy(learner))


@pytest.mark.parametrize("text", ["{}", "[]", '{"step": 2, "sha256": {}, "colour": 1}', '{"step": 2, "sha256": 3}'])
def test_a_state_file_that_holds_something_else_is_refused(text: str, mine: Path) -> None:
    (mine / "last" / "state.json").write_text(text)
    with pytest.raises(RunError, match="damaged"):
        _train(_learner("protonet"), mine, SHORT)


@pytest.mark.parametrize("file", ["meta_parameters.safetensors", "optimizer.safetensors"])
def test_a_checkpoint_with_a_missing_file_is_refused(file: str, mine: Path) -> None:
    (mine / "last" / file).unlink()
    with pytest.raises(RunError, match="damaged"):
        _train(_learner("protonet"), mine, SHORT)


def test_a_half_written_checkpoint_does_not_hide_the_whole_one(tmp_path: Path) -> None:
    learner = _learner("protonet")
    optimizer = torch.optim.AdamW(learner.parameters())
    folder = tmp_path / "last"
    assert load_checkpoint(folder, learner) is None
    save_checkpoint(folder, learner, TrainState(2, 0.5, 1, 3.0), optimizer)
    # KilledError while the files were written: an unfinished folder of another name lies about.
    (tmp_path / ".last.new.abc").mkdir()
    (tmp_path / ".last.new.abc" / "meta_parameters.safetensors").write_bytes(b"half")
    assert load_checkpoint(folder, learner, optimizer) == TrainState(2, 0.5, 1, 3.0)
    # KilledError between the two renames: the old one has moved away, the new one is whole but not yet in its place.
    folder.replace(tmp_path / "last.old")
    save_checkpoint(tmp_path / "last", learner, TrainState(4), optimizer)
    folder.replace(tmp_path / "last.new")
    state = load_checkpoint(folder, learner, optimizer)
    assert state is not None
    assert state.step == 4
    # The next one is written as ever.
    save_checkpoint(folder, learner, TrainState(6), optimizer)
    save_checkpoint(folder, learner, TrainState(8), optimizer)
    state = load_checkpoint(folder, learner, optimizer)
    assert state is not None
    assert state.step == 8
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".")) == ["last"]


def test_a_checkpoint_of_a_method_that_learned_less_is_refused(tmp_path: Path) -> None:
    """Before the start of the head was learned, checkpoints had none."""
    learner = make("maml", tiny_encoder(), GRADIENT | {"start": "zero"})
    save_checkpoint(tmp_path / "last", learner, TrainState(2), torch.optim.AdamW(learner.parameters()))
    with pytest.raises(RunError, match=r"does not fit the method, which learns 'start\.tables\.16'") as caught:
        _train(_learner("maml"), tmp_path, SHORT)
    assert "start a new run" in str(caught.value)


def test_a_checkpoint_holds_safetensors_and_json_only(tmp_path: Path) -> None:
    _train(_learner("maml"), tmp_path, SHORT)
    files = {file.name for file in (tmp_path / "last").iterdir()}
    assert files == {"meta_parameters.safetensors", "optimizer.safetensors", "state.json"}
    state = json.loads((tmp_path / "last" / "state.json").read_text())
    assert state["step"] == 6
    assert set(state["sha256"]) == {"meta_parameters.safetensors", "optimizer.safetensors"}


@pytest.mark.parametrize(
    ("scores", "patience", "steps", "kept"),
    [
        ([0.5, 0.6, 0.9, 0.9, 0.8], 2, 4, 2),  # no better twice: a tie is not better
        ([0.5, 0.4, 0.3, 0.2], 3, 3, 0),  # never better than the untouched start
        ([0.5, 0.4, 0.6, 0.5, 0.7, 0.6, 0.1], 2, 6, 4),  # one worse score in between does not count
        ([0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1], 0, 6, 0),  # patience 0 never stops
    ],
)
def test_early_stopping_stops_and_the_best_parameters_are_kept(
    scores: list[float], patience: int, steps: int, kept: int, tmp_path: Path
) -> None:
    settings = OuterSettings(outer_steps=6, outer_lr=1e-2, meta_batch_size=1, validate_every=1, patience=patience)
    seen: list[dict[str, Tensor]] = []

    def validate(learner: MetaLearner) -> float:
        seen.append(_copy(learner))
        return scores[len(seen) - 1]

    learner = _learner("protonet")
    records = _train(learner, tmp_path, settings, validate=validate)
    assert [record.step for record in records] == list(range(steps + 1))
    assert [record.validation for record in records] == scores[: steps + 1]
    assert (records[0].lr, records[0].seconds > 0, math.isnan(records[0].loss)) == (0.0, True, True)
    assert find_kept(records, "best") == KeptStep(kept, steps, scores[kept])
    assert find_kept(records, "last") == KeptStep(steps, steps, scores[steps])
    assert _equal(seen[kept], _copy(learner))
    assert not any(_equal(seen[kept], other) for i, other in enumerate(seen) if i != kept)


def test_a_record_of_a_step_has_every_figure(tmp_path: Path) -> None:
    _, *records = _train(_learner("protonet"), tmp_path, SHORT)
    for record in records:
        figures = (
            record.loss,
            record.accuracy,
            record.lr,
            record.grad_norm,
            record.seconds,
            record.episodes_per_second,
        )
        assert all(map(math.isfinite, figures)), record
        assert record.grad_norm > 0
    assert StepRecord(0).waited == 0


def test_without_validation_the_last_parameters_are_kept(tmp_path: Path) -> None:
    learner, other = _learner("protonet"), _learner("protonet")
    records = _train(learner, tmp_path, SHORT)
    assert [record.validation for record in records] == [None] * 6
    assert not (tmp_path / "best").exists()
    load_checkpoint(tmp_path / "last", other)
    assert _same(learner, other)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
def test_training_the_layers_leaves_the_embeddings_bit_for_bit(method: str, family: str, tmp_path: Path) -> None:
    learner = make(method, tiny_encoder(family, normalize=True), METHODS[method])
    before = _copy(learner.encoder.model)
    _train(learner, tmp_path, OuterSettings(outer_steps=2, outer_lr=1e-2, meta_batch_size=1, trains="layers"))
    after, stack = _copy(learner.encoder.model), layer_stack(learner.encoder.model)[0]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(f"{stack}.") for name in changed)
    assert any("embed" in name for name in before)


def test_training_all_changes_the_embeddings_too(tmp_path: Path) -> None:
    learner = _learner("protonet")
    before = _copy(learner)
    _train(learner, tmp_path, OuterSettings(outer_steps=2, outer_lr=1e-2, meta_batch_size=1, trains="all"))
    after = _copy(learner)
    assert not torch.equal(*(c["encoder.model.embeddings.word_embeddings.weight"] for c in (before, after)))
    assert not torch.equal(before["rule.log_scale"], after["rule.log_scale"])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_and_the_last_checkpoint_stays(value: float, tmp_path: Path) -> None:
    learner, told = _learner("protonet"), []

    def poison(record: StepRecord) -> None:
        told.append(record.step)
        if record.step == 3:
            with torch.no_grad():
                learner.rule.log_scale.fill_(value)

    with pytest.raises(RunError, match="in outer step 4"):
        train_on(learner, tmp_path, SHORT, poison)
    assert told == [1, 2, 3]
    good = _learner("protonet")
    state = load_checkpoint(tmp_path / "last", good)
    assert state is not None
    assert state.step == 2
    assert all(p.isfinite().all() for p in good.parameters())


@pytest.mark.parametrize(("steps", "warmup"), [(10, 0), (10, 1), (10, 4), (3, 3), (5, 20)])
def test_the_rate_warms_up_and_falls_linearly(steps: int, warmup: int, tmp_path: Path) -> None:
    settings = OuterSettings(outer_steps=steps, warmup_steps=warmup, outer_lr=1e-4, meta_batch_size=1)
    factors = [schedule(step, settings) for step in range(steps)]
    assert factors == [min(1.0, (t + 1) / max(1, warmup)) * (1 - t / steps) for t in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    records = _train(_learner("protonet"), tmp_path, settings)
    assert [record.lr for record in records] == pytest.approx([1e-4 * factor for factor in factors], rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_micro_batches_give_the_gradient_of_the_whole_meta_batch(method: str, tmp_path: Path) -> None:
    settings = OuterSettings(outer_steps=1, meta_batch_size=5, clip_norm=1e9, trains="all")
    tasks = [word_task("a"), word_task("b", n_way=3, pair=True), score_task()]
    sampler = EpisodeSampler(tasks, EpisodeSpec((2, 3), (1, 3), 2), seed=3)
    gradients: list[list[Tensor]] = []

    def keep(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        params = [p for group in optimizer.param_groups for p in group["params"]]
        gradients.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in params])

    hook = register_optimizer_step_pre_hook(keep)
    losses = []
    for size in (None, 1, 2):
        learner = _learner(method, torch.float64)
        learner.episodes_at_once = size  # type: ignore[misc]
        losses += [r.loss for r in _train(learner, tmp_path / str(size), settings, sampler=sampler)]
    hook.remove()
    learner = _learner(method, torch.float64)
    episodes = [encode_episode(learner.encoder, sampler[i]) for i in range(5)]
    assert {e.target.kind for e in episodes} == {"classification", "regression"}
    loss = learner.meta_loss(episodes).loss
    beside = [p for name, p in learner.named_parameters() if not name.startswith("encoder.")]
    params = [*learner.encoder.model.parameters(), *beside]
    wanted = torch.autograd.grad(loss, params, allow_unused=True, materialize_grads=True)
    assert losses == pytest.approx([loss.item()] * 3, rel=1e-6)  # the log is kept in float32
    assert sum(g.abs().sum() for g in wanted) > 0.1
    for grads in gradients:
        for grad, expected in zip(grads, wanted, strict=True):
            torch.testing.assert_close(grad, expected, rtol=1e-9, atol=1e-12)


def test_the_gradient_is_scaled_down_to_the_norm_limit_and_its_own_norm_is_told(tmp_path: Path) -> None:
    norms: list[float] = []

    def keep(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(float(torch.cat([g.reshape(-1) for g in grads]).norm()))

    hook = register_optimizer_step_pre_hook(keep)
    free, tight = (
        _train(
            _learner("protonet", torch.float64), tmp_path / str(limit), OuterSettings(outer_steps=1, clip_norm=limit)
        )
        for limit in (1e9, 1e-3)
    )
    hook.remove()
    assert norms == pytest.approx([free[0].grad_norm, 1e-3], rel=1e-3)
    assert tight[0].grad_norm == pytest.approx(free[0].grad_norm, rel=1e-12)
    assert free[0].grad_norm > 1e-2


def test_a_step_is_adamw_s_and_only_the_encoder_decays(tmp_path: Path) -> None:
    learner, grads = _learner("protonet", torch.float64), []
    before = _copy(learner)

    def keep(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        grads.extend(None if p.grad is None else p.grad.clone() for g in optimizer.param_groups for p in g["params"])

    hook = register_optimizer_step_pre_hook(keep)
    settings = OuterSettings(
        outer_steps=1, outer_lr=1e-3, method_lr=1e-2, warmup_steps=4, weight_decay=0.5, trains="all"
    )
    _train(learner, tmp_path, settings)
    hook.remove()
    names = [name for name, _ in learner.named_parameters() if name.startswith("encoder.")]
    names += [name for name in before if name not in names and name in dict(learner.named_parameters())]
    assert names[-1] == "rule.log_scale"
    after = dict(learner.named_parameters())
    for name, grad in zip(names, grads, strict=True):
        if grad is None:  # the pooler
            assert torch.equal(after[name], before[name])
            continue
        rate, decay = (1e-2, 0.0) if name == "rule.log_scale" else (1e-3, 0.5)
        rate /= 4  # the first of four steps of warm-up
        wanted = before[name] * (1 - rate * decay) - rate * grad / (grad.abs() + 1e-8)  # both moments: of this gradient
        torch.testing.assert_close(after[name].detach(), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("bad_after", "saved"), [(1, False), (2, True), (3, True)])
def test_an_error_speaks_of_a_checkpoint_only_if_there_is_one(bad_after: int, saved: bool, tmp_path: Path) -> None:
    learner = _learner("protonet")

    def poison(record: StepRecord) -> None:
        if record.step == bad_after:
            with torch.no_grad():
                learner.rule.log_scale.fill_(math.nan)

    with pytest.raises(RunError) as caught:
        train_on(learner, tmp_path, SHORT, poison)
    assert ("last good checkpoint" in str(caught.value)) == saved == (bad_after >= SHORT.validate_every)


def test_step_t_draws_the_episodes_from_t_times_m(tmp_path: Path) -> None:
    class Counting(EpisodeSampler):
        asked: list[int]

        def __getitem__(self, index: int) -> Any:
            self.asked.append(index)
            return super().__getitem__(index)

    sampler = Counting([word_task()], EpisodeSpec(2, 2, 2), seed=0)
    sampler.asked = []
    settings = OuterSettings(outer_steps=3, meta_batch_size=2, trains="all")
    _train(_learner("fomaml"), tmp_path, settings, sampler=sampler)
    assert sampler.asked == [0, 1, 2, 3, 4, 5]


def test_the_times_of_a_step_are_those_of_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (outer, meta_batch):  # clocks that go on by a second whenever they are read
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=itertools.count(100.0).__next__))
    records = _train(_learner("protonet"), tmp_path, SHORT)
    assert [record.seconds for record in records] == [3.0 * step for step in range(1, 7)]
    assert [record.episodes_per_second for record in records] == [SHORT.meta_batch_size / 1.0] * 6
    assert [record.waited for record in records] == [1.0] * 6
    assert all(record.peak_mib is None or record.peak_mib > 100 for record in records)


def test_a_resumed_run_counts_its_seconds_on(mine: Path) -> None:
    file = mine / "last" / "state.json"
    state = {key: value for key, value in json.loads(file.read_text()).items() if key != "seal"}
    file.write_text(json.dumps(state | {"step": 4, "seconds": 5000.0}))
    records = _train(_learner("protonet"), mine, SHORT)
    assert [record.step for record in records] == [5, 6]
    assert all(5000 < record.seconds < 6000 for record in records)
    last = read_state(mine / "last")
    assert last is not None
    assert (last.step, last.seconds) == (6, records[-1].seconds)


def test_an_all_regression_meta_batch_has_no_accuracy_but_a_loss(tmp_path: Path) -> None:
    sampler = EpisodeSampler([score_task()], EpisodeSpec(2, 3, 3), seed=0)
    records = _train(_learner("protonet"), tmp_path, SHORT, sampler=sampler)
    assert all(math.isnan(record.accuracy) and math.isfinite(record.loss) for record in records)


@pytest.mark.parametrize("method", METHODS)
def test_a_support_set_of_one_score_only_gives_a_loss_of_ordinary_size(method: str) -> None:
    support = tuple(Example(text, label=2.0) for text in ("good film", "bad film", "new film"))
    query = (Example("old film", label=1.0), Example("fine film", label=5.0))
    learner = _learner(method)
    loss = learner.meta_loss([encode_episode(learner.encoder, Episode("flat", (), support, query, "regression"))]).loss
    # There is no deviation to scale by. A prediction is the mean, up to what a random start of the head adds.
    assert loss.item() == pytest.approx(((1 - 2) ** 2 + (5 - 2) ** 2) / 2, rel=1e-6 if method == "protonet" else 0.1)


def test_a_log_is_read_back_and_cut_to_a_step(tmp_path: Path) -> None:
    log, records = tmp_path / "metrics.jsonl", _train(_learner("protonet"), tmp_path, SHORT, validate=_score)
    assert read_log(log) == []
    for record in records:
        append_record(log, record)
    assert [repr(record) for record in read_log(log)] == [repr(record) for record in records]  # NaN is not equal to NaN
    with log.open("a") as file:
        file.write('{"step": 7, "lo')  # cut off when the process was killed
    assert len(read_log(log)) == len(records)
    cut_log(log, 3)
    assert [record.step for record in read_log(log)] == [0, 1, 2, 3]
    assert log.read_text().endswith("}\n")


def test_a_log_of_an_older_version_is_read(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1, "loss": 0.5, "accuracy": null, "tasks_per_second": 2.5, "validation": null}\n')
    (record,) = read_log(log)
    assert (record.step, record.loss, record.episodes_per_second) == (1, 0.5, 2.5)
    assert (record.validation, record.peak_mib) == (None, None)
    assert math.isnan(record.accuracy)
    assert math.isnan(record.lr)


def test_the_log_says_how_well_imaml_solved_its_problem_and_one_warning_says_that_it_did_not(tmp_path: Path) -> None:
    """One small step is far from the minimum."""
    settings = {"inner_lr": 0.01, "head_lr": 0.01, "inner_steps": 1, "strength": 0.1, "cg_steps": 1}
    outer = OuterSettings(outer_steps=3, meta_batch_size=2, warmup_steps=0)
    with pytest.warns(PoorConvergenceWarning, match=r"method\.strength") as warned:
        records = _train(make("imaml", tiny_encoder(), settings), tmp_path, outer)
    assert len(warned) == 1
    for record in records:
        assert record.inner_residual is not None
        assert record.inner_residual > 0.2
        assert record.solve_residual is not None
        assert 0 < record.solve_residual < 1
        append_record(tmp_path / "metrics.jsonl", record)
    assert read_log(tmp_path / "metrics.jsonl") == records
    assert [r.inner_residual for r in _train(_learner("maml"), tmp_path / "maml", outer)] == [None] * 3


def test_the_worst_of_several_episodes_is_what_counts() -> None:
    assert [Convergence(a, b).is_poor for a, b in [(0.2, 0.2), (0.21, 0), (0, 0.21), (math.nan, 0), (0, math.nan)]] == [
        False,
        True,
        True,
        True,
        True,
    ]
    settings = GRADIENT | {"inner_steps": 1, "strength": 0.5, "cg_steps": 1}
    learner = make("imaml", tiny_encoder(), settings)
    sampler = EpisodeSampler([word_task(n_way=4)], EpisodeSpec(3, 2, 2), seed=0)
    several = [learner.meta_loss([encode_episode(learner.encoder, sampler[i])]).convergence for i in range(3)]
    assert len({c.inner for c in several if c}) == 3
    batch = meta_batch.MetaBatch(learner, sampler, 3, 1, Accelerator(cpu=True))
    for at_once in (3, 2, 1):
        batch.at_once = at_once
        batch.add(torch.zeros(3), 0)
        worst = find_worst(several)
        assert worst
        assert batch.convergence
        assert (batch.convergence.inner, batch.convergence.solve) == pytest.approx((worst.inner, worst.solve), rel=1e-4)


@pytest.mark.parametrize("line", ["{", "3", "{}", '{"step": 1.5}', '{"step": 2, "loss": "low"}', '{"step": true}'])
def test_a_damaged_log_is_refused_with_its_line(line: str, tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(RunError, match="this line of the log is damaged") as caught:
        read_log(log)
    assert caught.value.where == f"{log}:2"


def test_the_validation_score_counts_each_task_once() -> None:
    clear = Task("clear", {"train": _fixed_texts("good", "bad")}, ("no", "yes"))  # always right
    blind = Task("blind", {"train": _fixed_texts("film", "film")}, ("no", "yes"))  # one constant label: half right
    sampler = EpisodeSampler([clear, blind], EpisodeSpec(2, 2, 3), seed=0)
    drawn = [sampler[i].task for i in range(7)]
    assert drawn.count("clear") != drawn.count("blind")
    assert episodic_score(sampler, 7)(_learner("protonet")) == pytest.approx(0.75, abs=1e-7)


def test_the_validation_score_of_scores_is_their_correlation_and_never_below_0() -> None:
    task, learner, values = score_task(), _learner("protonet"), []
    sampler = EpisodeSampler([task], EpisodeSpec(2, 4, 5), seed=1)
    for index in range(8):
        episode = encode_episode(learner.encoder, sampler[index])
        model = learner.adapt(episode.support, episode.target)
        predicted = model.predict(sampler[index].query)
        values.append(float(np.corrcoef(predicted, [e.label for e in sampler[index].query])[0, 1]))
    assert min(values) < 0 < max(values)  # each case is there
    wanted = np.mean([max(0.0, value) for value in values])
    assert episodic_score(sampler, 8)(learner) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("method", ["protonet", "majority"])
def test_scores_that_have_no_correlation_count_0(method: str) -> None:
    flat = ListSplit(Example(f"{word} film", label=2.0) for word in ("good", "bad", "new", "old", "fine", "poor") * 3)
    task = (
        Task("flat", {"train": flat}, (), kind="regression", metric="pearson") if method == "protonet" else score_task()
    )
    sampler = EpisodeSampler([task], EpisodeSpec(2, 3, 3), seed=0)
    assert episodic_score(sampler, 3)(make(method, tiny_encoder())) == 0.0


def train_on(
    learner: MetaLearner,
    folder: Path,
    settings: OuterSettings,
    on_step: Callable[[StepRecord], None],
    *,
    validate: Callable[[MetaLearner], float] | None = None,
    sampler: EpisodeSampler | None = None,
) -> None:
    tasks = [word_task("tone"), word_task("colour", n_way=3)]
    sampler = sampler or EpisodeSampler(tasks, EpisodeSpec((2, 3), 3, 4), seed=0)
    train(
        learner,
        sampler,
        settings,
        accelerator=Accelerator(cpu=True),
        folder=folder,
        on_step=on_step,
        validate=validate,
    )


def test_what_no_gradient_reaches_does_not_decay(tmp_path: Path) -> None:
    settings = {"adapts": "layers:-1", "inner_lr": 0.1, "head_lr": 1.0, "inner_steps": 2}
    learner = make("reptile", tiny_encoder(), settings)  # trains what adapts, the top layer
    before = {name: p.detach().clone() for name, p in learner.named_parameters()}
    _train(learner, tmp_path, OuterSettings(outer_steps=2, meta_batch_size=1, weight_decay=0.5, outer_lr=1e-2))
    moved = {name for name, p in learner.named_parameters() if not torch.equal(p, before[name])}
    assert any(".layer.1." in name for name in moved)
    assert all(".layer.1." in name or name.startswith("start.tables") for name in moved)


def _train(learner: MetaLearner, folder: Path, settings: OuterSettings, **more: Any) -> list[StepRecord]:
    records: list[StepRecord] = []
    train_on(learner, folder, settings, records.append, **more)
    return records


def _learner(method: str, dtype: torch.dtype = torch.float32) -> MetaLearner:
    return make(method, tiny_encoder(normalize=True), METHODS[method]).to(dtype)


def _score(learner: MetaLearner) -> float:
    """A validation score that goes up and down: some number of the parameters."""
    return float(next(learner.encoder.model.encoder.parameters()).detach().double().sum().sin())


def _falling() -> Callable[[MetaLearner], float]:
    scores = iter((0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0))
    return lambda _: next(scores)


def _facts(record: StepRecord) -> tuple[Any, ...]:
    """What of a record does not depend on the clock; NaN made comparable."""
    values = (record.step, record.loss, record.accuracy, record.lr, record.grad_norm, record.validation)
    return tuple(None if value != value else value for value in values)


def _fixed_texts(*texts: str) -> ListSplit:
    return ListSplit(Example(text, label=label) for label, text in enumerate(texts) for _ in range(10))


def _copy(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _same(a: MetaLearner, b: MetaLearner) -> bool:
    return _equal(_copy(a), _copy(b))
