"""Contracts: what every task, sampler, inner optimizer and meta-learner must keep, as functions that raise errors.

    from quickstudy.testing import check_meta_learner
    check_meta_learner(lambda encoder: MyMethod(encoder))

Each raises `AssertionError` with the part of the contract that is broken. They run on tiny random encoders and small
synthetic tasks, in seconds, without a network.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from quickstudy.inner.optimizer import InnerOptimizer, Params
from quickstudy.inner.unroll import unroll
from quickstudy.methods.base import MetaLearner
from quickstudy.models.batch import EncodedEpisode, encode_episode, encode_set
from quickstudy.models.encoder import Encoder
from quickstudy.models.target import Target, make_target
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Task
from quickstudy.testing.tiny import score_task, tiny_encoder, word_task

Make = Callable[[Encoder], MetaLearner]


def check_meta_learner(
    make: Make, *, claims: Callable[[str], bool] = lambda name: "pooler" not in name, by_position: bool = False
) -> None:
    """Check a meta-learner.

    Args:
        make: Makes it on an encoder; it is called several times. What it starts with at random is drawn from PyTorch's
            global generator, which is seeded before each call. Nothing may be random after that.
        claims: Says whether the method claims to learn the meta-parameter of a name. The default is all of them, except
            for a pooler, which may be unused.
        by_position: Whether the method has learned something for each label position. Then its answers may depend on
            the order of the labels.

    Raises:
        AssertionError: With the part of the contract that is broken.
    """
    make = _seeded(make)
    for n_way in (2, 3, 20):
        _check_adapting(make, word_task(rows=3 * n_way, n_way=n_way))
    _check_adapting(make, word_task("pairs", rows=8, pair=True))
    _check_adapting(make, score_task(rows=8))
    _check_determinism(make)
    if not by_position:
        _check_renaming(make)
    if make(tiny_encoder()).meta_trains:
        _check_gradients(make, claims)
        _check_learning(make)


def _seeded(make: Make) -> Make:
    """Return a function that makes the same learner each time, and leaves the global generator as it is."""

    def make_again(encoder: Encoder) -> MetaLearner:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return make(encoder)

    return make_again


def _check_adapting(make: Make, task: Task) -> None:
    learner, target = make(tiny_encoder()), _target(task)
    before = {name: p.detach().clone() for name, p in learner.named_parameters()}
    model = learner.adapt(encode_set(learner.encoder, _rows(task, "train")), target)
    tests = _rows(task, "test")
    answers = target.answer(model.logits(tests))
    assert answers.shape == (len(tests), target.size), f"{task.name}: answers of shape {tuple(answers.shape)}"
    assert answers.isfinite().all(), f"{task.name}: a prediction is not finite"
    if target.label_names:
        assert torch.allclose(answers.sum(-1), torch.ones(len(tests)), atol=1e-5), "probabilities do not add up to 1"
    for name, p in learner.named_parameters():
        assert torch.equal(p, before[name]), f"adapting changed the meta-parameter {name}"
    alone = target.answer(model.logits(tests[:1]))
    assert torch.allclose(alone, answers[:1], atol=1e-4), "a prediction depends on what else is predicted"


def _check_determinism(make: Make) -> None:
    task = word_task()
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)  # there must be no hidden dependence on the global state
        learner = _prepared(make, [task])
        loss = learner.meta_loss([_episode(learner.encoder, task)]).loss
        model = learner.adapt(encode_set(learner.encoder, _rows(task, "train")[:8]), _target(task))
        results.append((loss, model.predict_proba(_rows(task, "test")[:8])))
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second), "two learners made in the same way differ"


def _check_renaming(make: Make) -> None:
    task, order = word_task(n_way=3), torch.tensor([2, 0, 1])
    rows = _rows(task, "train")[:9]
    renamed = [replace(row, label=int(order[int(row.label or 0)])) for row in rows]
    texts = [task.label_texts[position] for position in order.argsort()]  # a text goes where its label goes
    probabilities = []
    for support, label_texts in ((rows, task.label_texts), (renamed, texts)):
        learner = make(tiny_encoder(dtype=torch.float64)).double()
        target = make_target(task.kind, task.label_names, label_texts)
        model = learner.adapt(encode_set(learner.encoder, support), target)
        probabilities.append(model.predict_proba(_rows(task, "test")[:9]))
    before, after = probabilities
    assert torch.allclose(before, after[:, order], atol=1e-4), "renaming labels does not rename predictions"


def _check_gradients(make: Make, claims: Callable[[str], bool]) -> None:
    tasks = [word_task(n_way=3), word_task("pairs", pair=True), score_task()]
    learner = _prepared(make, tasks)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in learner.named_parameters():
            if not name.startswith("encoder."):  # at a start of zero, parts of a method have no influence
                p.add_(0.1 * torch.randn(p.shape, generator=random))
    reached: set[str] = set()
    named = dict(learner.named_parameters())
    for task in tasks:
        for progress in (0.0, 1.0):
            loss = learner.meta_loss([_episode(learner.encoder, task)], progress).loss
            assert loss.shape == (), f"the meta-loss has the shape {tuple(loss.shape)}"
            assert torch.isfinite(loss), "the meta-loss is not finite"
            grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            reached |= {n for n, g in zip(named, grads, strict=True) if g is not None and bool(g.abs().max() > 0)}
    missing = sorted(name for name, p in named.items() if p.requires_grad and claims(name) and name not in reached)
    assert not missing, f"no gradient reaches {', '.join(missing[:5])}"


def _check_learning(make: Make, steps: int = 60) -> None:
    sampler = EpisodeSampler([word_task(), word_task("other", n_way=4, seed=1)], EpisodeSpec((2, 3), 3, 4), seed=0)
    learner = _prepared(make, sampler.tasks, tiny_encoder(normalize=True))
    unseen = [encode_episode(learner.encoder, sampler[10_000 + i]) for i in range(12)]
    optimizer = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], 3e-3)
    before = _mean_loss(learner, unseen)
    for step in range(steps):
        episodes = [encode_episode(learner.encoder, sampler[2 * step + i]) for i in range(2)]
        optimizer.zero_grad()
        torch.autograd.backward(learner.meta_loss(episodes, step / steps).loss)
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
    after = _mean_loss(learner, unseen)
    assert after < before, f"meta-training did not lower the meta-loss: {before:.3f} before, {after:.3f} after"


def _prepared(make: Make, tasks: Sequence[Task], encoder: Encoder | None = None) -> MetaLearner:
    learner = make(encoder or tiny_encoder())
    learner.prepare(tasks)
    return learner


def _mean_loss(learner: MetaLearner, episodes: list[EncodedEpisode]) -> float:
    return sum(float(learner.meta_loss([episode]).loss.detach()) for episode in episodes) / len(episodes)


def check_inner_optimizer(make: Callable[[], InnerOptimizer]) -> None:
    """Check an update rule that needs no names in advance.

    The rule must be pure, keep shapes, have an exact meta-gradient, and lower a convex loss.

    Args:
        make: Makes the rule.

    Raises:
        AssertionError: With the part of the contract that is broken.
    """
    rule = make().double()
    random = torch.Generator().manual_seed(0)
    theta = {
        "a": torch.randn(3, 2, generator=random, dtype=torch.float64),
        "head.b": torch.randn(2, generator=random, dtype=torch.float64),
    }
    _check_purity(rule, theta)

    def loss_fn(params: Params) -> Tensor:
        return torch.stack([((p - 1) ** 2).sum() + (p**4).sum() / 40 for p in params.values()]).sum()

    def loss_after_steps(a: Tensor, b: Tensor) -> Tensor:
        return loss_fn(unroll(loss_fn, {"a": a, "head.b": b}, rule, steps=3, order="second"))

    leaves = tuple(p.clone().requires_grad_() for p in theta.values())
    assert torch.autograd.gradcheck(loss_after_steps, leaves, atol=1e-5), "the meta-gradient is not exact"
    assert loss_after_steps(*leaves) < loss_fn(theta), "three steps do not lower a convex loss"
    with torch.no_grad():
        for p in rule.parameters():  # at a start of zero, parts of a rule have no influence
            p.add_(0.3 * torch.randn(p.shape, generator=random, dtype=p.dtype))
    exact = torch.autograd.gradcheck(loss_after_steps, leaves, atol=1e-5)
    assert exact, "the meta-gradient is not exact once the rule has learned"


def _check_purity(rule: InnerOptimizer, theta: Params) -> None:
    params = {name: p.clone() for name, p in theta.items()}
    grads = {name: torch.ones_like(p) for name, p in theta.items()}
    state, loss = rule.init(params), torch.tensor(1.0, dtype=torch.float64)
    first, _ = rule.update(grads, state, params, loss=loss)
    second, _ = rule.update(grads, state, params, loss=loss)
    for name, p in theta.items():
        assert torch.equal(params[name], p), f"update changed its input {name} in place"
        assert first[name].shape == p.shape, f"update changed the shape of {name}"
        assert torch.equal(first[name], second[name]), "update depends on something beside its arguments"


def check_sampler(sampler: EpisodeSampler, *, episodes: int = 50) -> None:
    """Check that a sampler is a pure function of the index, and that its episodes are well formed.

    Raises:
        AssertionError: With the part of the contract that is broken.
    """
    forwards = [sampler[i] for i in range(episodes)]
    backwards = [sampler[i] for i in reversed(range(episodes))]
    assert forwards == backwards[::-1], "an episode depends on the order in which episodes are asked for"
    assert len({repr(e) for e in forwards}) > 1, "all episodes are the same"
    for episode in forwards:
        support, query = set(episode.support), set(episode.query)
        assert episode.support, "an empty support set"
        assert episode.query, "an empty query set"
        assert not support & query, f"{episode.task}: support and query set share an example"
        if positions := set(range(len(episode.label_names))):
            assert {e.label for e in support} == positions, f"{episode.task}: a label without support"
            assert {e.label for e in query} <= positions, f"{episode.task}: a query label out of range"


def check_task(task: Task) -> None:
    """Check the rows of a task: texts are there, labels are in range, and pairs are pairs.

    Raises:
        AssertionError: With the part of the contract that is broken.
    """
    assert task.splits, "a task without splits"
    for name, split in task.splits.items():
        for i in range(len(split)):
            row, place = split[i], f"{task.name}, {name}[{i}]"
            assert row.text.strip(), f"{place}: an empty text"
            assert (row.text_pair is not None) == task.pair, f"{place}: the second text"
            if task.label_names:
                assert row.label in range(len(task.label_names)), f"{place}: the label {row.label!r}"
            else:
                assert isinstance(row.label, float), f"{place}: the score {row.label!r}"


def _target(task: Task) -> Target:
    return make_target(task.kind, task.label_names, task.label_texts)


def _rows(task: Task, split: str) -> list[Example]:
    rows = task.split(split)
    return [rows[i] for i in range(len(rows))]


def _episode(encoder: Encoder, task: Task) -> EncodedEpisode:
    return encode_episode(encoder, EpisodeSampler([task], EpisodeSpec((2, 3), 3, 2), seed=0)[0])
