"""The MAML family: identities and closed forms of every member's meta-gradient, in float64."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from conftest import score_task, tiny_encoder, word_task
from quickstudy.errors import RecipeError
from quickstudy.inner.optimizer import SGD, Params
from quickstudy.inner.rates import LearnedRates
from quickstudy.inner.unroll import unroll
from quickstudy.methods import objective
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import make
from quickstudy.methods.gradient import GradientMetaLearner
from quickstudy.methods.inner_loop import InnerLoop
from quickstudy.methods.start import HeadStart
from quickstudy.models.batch import EncodedEpisode, encode_episode
from quickstudy.models.encoder import Encoder
from quickstudy.models.head import LinearHead, ridge
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.tasks.task import Kind

_TOP = {"adapts": "layers:-1", "inner_lr": 0.3, "inner_steps": 2}


@pytest.mark.proves("identity", "maml")
def test_truncation_keeps_the_last_steps_exact() -> None:
    settings = _TOP | {"head_lr": 1.0, "inner_steps": 3}
    episodes = _episodes(_encoder(), "classification")
    found = {k: _gradient(make("maml", _encoder(), settings | {"exact_steps": k}), episodes) for k in (0, 1, 3)}
    assert _distance(found[3], _gradient(make("maml", _encoder(), settings), episodes)) < 1e-12
    assert _distance(found[0], _gradient(make("fomaml", _encoder(), settings), episodes)) < 1e-12
    assert min(_distance(found[1], found[0]), _distance(found[1], found[3])) > 1e-6


@pytest.mark.proves("identity")
@pytest.mark.parametrize("method", ["lstm-optimizer", "learned-optimizer"])
def test_the_lstm_rules_start_as_gradient_descent(method: str) -> None:
    settings = _TOP | {"head_lr": 1.0}
    episodes = _episodes(_encoder(), "classification", n_query=3)
    learner = make(method, _encoder(), settings).double()
    learner.objective = objective.query  # type: ignore[assignment]
    wanted = make("fomaml", _encoder(), settings).meta_loss(episodes).loss.item()
    assert learner.meta_loss(episodes).loss.item() == pytest.approx(wanted, abs=2e-3)  # the forget gate is almost 1


@pytest.mark.proves("identity", "lstm-controller")
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_the_controller_starts_as_protonet(kind: Kind) -> None:
    learner = make("lstm-controller", _encoder(), {"hidden": 4, "scale": 0.5}).double()
    episodes = _episodes(learner.encoder, kind)
    plain = make("protonet", learner.encoder, {"scale": 0.5}).double()
    assert learner.meta_loss(episodes).loss.item() == pytest.approx(plain.meta_loss(episodes).loss.item(), abs=1e-10)


@pytest.mark.proves("identity", "lstm-controller")
def test_a_gate_of_zero_takes_a_branch_out() -> None:
    encoder = _encoder()
    learner = make("lstm-controller", encoder, {"hidden": 4}).double()
    places, start = {}, 0
    for name, size in zip(learner._weights, learner._sizes, strict=True):  # type: ignore[arg-type]
        places[name], start = start, start + size
    chosen = "encoder.layer.1.output.dense.weight"
    with torch.no_grad():
        learner.out.bias[places[chosen]] = -100.0  # type: ignore[index, union-attr]
    episode = _episodes(encoder, "classification")[0]
    model = learner.adapt(episode.support, episode.target)
    assert max(model.params[n].abs().max() for n in (chosen, chosen.replace("weight", "bias"))) < 1e-30
    other = "encoder.layer.0.output.dense.weight"
    assert torch.equal(model.params[other], dict(encoder.model.named_parameters())[other])


@pytest.mark.proves("identity", "meta-sgd")
@pytest.mark.parametrize("rates", ["entry", "layer", "layer-step"])
def test_equal_learned_rates_are_maml(rates: str) -> None:
    settings = _TOP | {"head_lr": 1.0}
    episodes = _episodes(_encoder(), "classification", n_query=3)
    learner = make("meta-sgd", _encoder(), settings | {"rates": rates}).double()
    wanted = _gradient(make("maml", _encoder(), settings), episodes)
    found = {name: g for name, g in _gradient(learner, episodes).items() if name in wanted}
    assert _distance(found, wanted) < 1e-12


@pytest.mark.proves("identity", "proto-maml", "boil", "protonet", "maml")
def test_without_inner_steps_proto_maml_and_boil_have_the_gradient_of_protonet_and_maml_that_of_a_zero_head() -> None:
    episodes = _episodes(_encoder(), "classification", n_query=3)
    wanted = _gradient(make("protonet", _encoder(), {"scale": 0.5}).double(), episodes)
    for method in ("proto-maml", "boil"):
        learner = make(method, _encoder(), _TOP | {"inner_steps": 0, "scale": 0.5}).double()
        found = {name.replace("start.", "rule."): g for name, g in _gradient(learner, episodes).items()}
        assert _distance(found, wanted) < 1e-10
    nothing = _gradient(make("maml", _encoder(), _TOP | {"inner_steps": 0}), episodes)
    assert max(g.abs().max() for g in nothing.values()) == 0  # the head is zero: no signal reaches the encoder


@pytest.mark.proves("identity", "fomaml")
def test_first_order_maml_of_one_step_has_the_query_gradient_at_phi() -> None:
    encoder = _encoder()
    learner = make("fomaml", encoder, {"adapts": "all", "inner_lr": 0.3, "head_lr": 1.0, "inner_steps": 1})
    episode = _episodes(encoder, "classification", n_query=3)[0]
    found = _gradient(learner, [episode])
    model = learner.adapt(episode.support, episode.target)
    phi = {name: p.clone().requires_grad_() for name, p in model.params.items()}
    assert isinstance(model.head, LinearHead)
    scores = model.head(learner.partition.features(phi, learner.partition.prefix(episode.query.sequences)))
    at_phi = torch.autograd.grad(
        cross_entropy(scores, episode.query.labels), list(phi.values()), materialize_grads=True
    )
    wanted = {f"encoder.model.{name}": g for name, g in zip(phi, at_phi, strict=True)}
    assert _distance(found, wanted) < 1e-12


@pytest.mark.proves("identity", "reptile")
def test_reptile_moves_towards_what_the_inner_loop_finds_on_all_examples() -> None:
    encoder = _encoder()
    learner = make("reptile", encoder, {"adapts": "all", "inner_lr": 0.3, "head_lr": 1.0, "inner_steps": 3})
    episode = _episodes(encoder, "classification", n_query=1)[0]  # as many query as support examples
    found = _gradient(learner, [episode])
    both = [episode.support, episode.query]

    def loss(params: Params) -> Tensor:
        head = LinearHead(params["head.weight"], params["head.bias"])
        parts = [
            cross_entropy(
                head(learner.partition.features(params, learner.partition.prefix(part.sequences))),
                part.labels,
            )
            for part in both
        ]
        return torch.stack(parts).mean()

    zero = {"head.weight": torch.zeros(2, 16), "head.bias": torch.zeros(2)}
    theta = learner.partition.initial() | {n: p.double().requires_grad_() for n, p in zero.items()}
    phi = unroll(loss, theta, SGD(0.3, 1.0), steps=3, order="first")
    wanted = {f"encoder.model.{n}": (theta[n] - phi[n]).detach() for n in learner.partition.names}
    assert _distance(found, wanted) < 1e-12
    with torch.no_grad():
        wanted_value = cross_entropy(
            LinearHead(phi["head.weight"], phi["head.bias"])(
                learner.partition.features(phi, learner.partition.prefix(episode.query.sequences))
            ),
            episode.query.labels,
        )
    assert learner.meta_loss([episode]).loss.item() == pytest.approx(wanted_value.item(), abs=1e-12)


@pytest.mark.proves("identity", "imaml")
def test_imaml_agrees_with_the_closed_form_on_a_quadratic() -> None:
    random = torch.Generator().manual_seed(0)
    a = torch.randn(6, 6, generator=random, dtype=torch.float64)
    a = a @ a.T / 6
    b, c = (torch.randn(6, generator=random, dtype=torch.float64) for _ in range(2))
    theta = torch.randn(6, generator=random, dtype=torch.float64).requires_grad_()
    psi = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)  # a meta-parameter that does not adapt
    strength = 0.5

    def support(p: Params) -> Tensor:
        return p["w"] @ a @ p["w"] / 2 - psi * b @ p["w"]

    def query(p: Params) -> Tensor:
        return (p["w"] - c).square().sum() / 2 + psi

    episode = objective.InnerProblem({"w": theta}, support, query, 0.5, SGD(0.2), 2000, "second", None, 1.0)
    loss = objective.implicit(strength=strength, cg_steps=12)(episode)
    found = torch.autograd.grad(loss, [theta, psi])
    system = a + strength * torch.eye(6, dtype=torch.float64)
    star = torch.linalg.solve(system, strength * theta + psi * b)
    closed = (star - c).square().sum() / 2 + psi
    wanted = torch.autograd.grad(closed, [theta, psi])
    assert loss.item() == pytest.approx(closed.item(), abs=1e-10)
    for mine, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, exact, rtol=0, atol=1e-10)


@pytest.mark.proves("identity", "imaml")
def test_imaml_is_the_limit_of_differentiating_through_the_regularised_inner_loop() -> None:
    encoder, strength = _encoder(), 2.0
    episode = _episodes(encoder, "classification", n_query=3)[0]
    settings = {"adapts": "layers:-1", "inner_lr": 0.2, "head_lr": 0.2, "inner_steps": 80}
    found = _gradient(make("imaml", encoder, settings | {"strength": strength, "cg_steps": 40}), [episode])
    learner = make("maml", encoder, {"adapts": "layers:-1"})

    def unrolled(e: objective.InnerProblem) -> Tensor:
        def loss(p: Params) -> Tensor:
            return e.support_loss(p) + strength / 2 * sum((p[n] - e.theta[n]).square().sum() for n in p)

        return e.query_loss(unroll(loss, e.theta, SGD(0.2), steps=80, order="second"))

    learner.objective = unrolled  # type: ignore[assignment]
    wanted = _gradient(learner, [episode])
    assert max(g.abs().max() for g in wanted.values()) > 1e-3
    assert _distance(found, wanted) < 1e-6


def test_conjugate_gradients_solve_a_system_of_several_tensors() -> None:
    random = torch.Generator().manual_seed(1)
    a = torch.randn(7, 7, generator=random, dtype=torch.float64)
    a = a @ a.T + torch.eye(7, dtype=torch.float64)
    b = torch.randn(7, generator=random, dtype=torch.float64)

    def product(x: objective.Vectors) -> objective.Vectors:
        image = a @ torch.cat([x[0].flatten(), x[1]])
        return image[:4].view(2, 2), image[4:]

    found = objective.conjugate_gradient(product, (b[:4].view(2, 2), b[4:]), steps=20)
    torch.testing.assert_close(torch.cat([found[0].flatten(), found[1]]), torch.linalg.solve(a, b), rtol=0, atol=1e-9)


@pytest.mark.proves("identity", "anil")
def test_anil_equals_the_loop_that_runs_the_encoder_at_every_step() -> None:
    encoder = _encoder()
    episode = _episodes(encoder, "classification", n_query=3)[0]
    found = _gradient(make("anil", encoder, {"head_lr": 1.0, "inner_steps": 3}), [episode])

    def scores(params: Params, part: Any) -> Tensor:
        return LinearHead(params["w"], params["b"])(encoder(part.sequences))

    theta = {"w": torch.zeros(2, 16).double().requires_grad_(), "b": torch.zeros(2).double().requires_grad_()}
    phi = unroll(
        lambda p: cross_entropy(scores(p, episode.support), episode.support.labels),
        theta,
        SGD(1.0),
        steps=3,
        order="second",
    )
    loss = cross_entropy(scores(phi, episode.query), episode.query.labels)
    named = dict(encoder.named_parameters())
    grads = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
    assert _distance(found, {f"encoder.{n}": g for n, g in zip(named, grads, strict=True)}) < 1e-8


def test_ridge_equals_the_normal_equations() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(5, 9, generator=random, dtype=torch.float64)
    y = torch.randn(5, 3, generator=random, dtype=torch.float64)
    wanted = torch.linalg.solve(x.T @ x + 0.3 * torch.eye(9, dtype=torch.float64), x.T @ y).T
    torch.testing.assert_close(ridge(x, y, torch.tensor(0.3, dtype=torch.float64)), wanted, rtol=0, atol=1e-10)


def test_steps_beyond_the_trained_ones_use_the_last_rates() -> None:
    rule = LearnedRates(0.5, None, {"w": (1,)}, "layer-step", steps=2)
    with torch.no_grad():
        rule.multiples["w"].copy_(torch.tensor([1.0, 3.0]))
    params, state = {"w": torch.zeros(1)}, rule.init({})
    moved = []
    for _ in range(3):
        new, state = rule.update({"w": torch.ones(1)}, state, params, loss=torch.zeros(()))
        moved.append(new["w"].item())
    assert moved == [-0.5, -1.5, -1.5]


def test_boil_without_layers_to_adapt_is_refused() -> None:
    with pytest.raises(RecipeError, match="boil adapts the encoder"):
        make("boil", _encoder(), {"adapts": "head"})


@pytest.mark.proves("identity", "maml++")
def test_mamlpp_begins_as_the_mean_loss_over_steps_in_first_order_and_ends_as_maml() -> None:
    settings = _TOP | {"head_lr": 1.0, "inner_steps": 3}
    episodes = _episodes(_encoder(), "classification", n_query=3)

    def shared(found: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: g for name, g in found.items() if name.startswith("encoder.")}

    found = shared(_gradient(make("maml++", _encoder(), settings).double(), episodes, progress=0.0))
    steps = [_gradient(make("fomaml", _encoder(), settings | {"inner_steps": s}), episodes) for s in (1, 2, 3)]
    assert _distance(found, {n: torch.stack([g[n] for g in steps]).mean(0) for n in found}) < 1e-12
    found = shared(_gradient(make("maml++", _encoder(), settings).double(), episodes, progress=1.0))
    assert _distance(found, _gradient(make("maml", _encoder(), settings), episodes)) < 1e-12


@pytest.mark.proves("identity", "leopard")
def test_leopard_with_a_generator_of_zero_is_proto_maml() -> None:
    settings = _TOP | {"head_lr": 0.1, "scale": 0.5, "order": "second"}
    episodes = _episodes(_encoder(), "classification", n_query=3)
    leopard = _gradient(make("leopard", _encoder(), settings | {"hidden": 4}).double(), episodes)
    wanted = _gradient(make("proto-maml", _encoder(), settings).double(), episodes)
    found = {name.replace("start.prototypes", "start"): g for name, g in leopard.items()}
    assert _distance({name: g for name, g in found.items() if name in wanted}, wanted) < 1e-12


@pytest.mark.proves("identity", "maml-lora")
@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
def test_low_rank_corrections_are_those_of_peft(family: str) -> None:
    peft = pytest.importorskip("peft", reason="peft is in the extra 'bench'")

    encoder = tiny_encoder(family, torch.float64)
    learner: Any = make("maml-lora", encoder, {"adapts": "lora:3", "inner_lr": 0.5, "head_lr": 1.0}).double()
    episode = _episodes(encoder, "classification", n_query=3)[0]
    before = encoder(episode.query.sequences)
    theta = learner.low_rank.initial()
    prefix = learner.partition.prefix(episode.query.sequences)
    torch.testing.assert_close(learner.partition.features(learner.low_rank.weights(theta), prefix), before)
    random = torch.Generator().manual_seed(0)
    params = {n: p.detach() + 0.1 * torch.randn(p.shape, generator=random).double() for n, p in theta.items()}
    found = learner.partition.features(learner.low_rank.weights(params), prefix)
    layers = {name.removesuffix(".weight") for name in learner.partition.names}
    config = peft.LoraConfig(r=3, lora_alpha=6, target_modules=sorted(layers))
    theirs = peft.inject_adapter_in_model(config, encoder.model).double()
    modules = dict(theirs.named_modules())
    with torch.no_grad():
        for layer in layers:
            modules[layer].lora_A["default"].weight.copy_(params[f"{layer}.weight.a"])
            modules[layer].lora_B["default"].weight.copy_(params[f"{layer}.weight.b"])
    torch.testing.assert_close(found, encoder(episode.query.sequences), rtol=0, atol=1e-10)
    assert float((found - before).detach().abs().max()) > 1e-3


@pytest.mark.proves("identity", "maml-lora")
def test_low_rank_adapts_what_a_hand_written_loop_does_and_the_meta_gradient_is_the_same() -> None:
    """Gradient descent on A and B, written out on the weights they correct."""
    encoder, episode = _encoder(), _episodes(_encoder(), "classification", n_query=3)[0]
    learner: Any = make(
        "maml-lora", encoder, {"adapts": "lora:2", "inner_lr": 0.3, "head_lr": 1.0, "inner_steps": 2}
    ).double()
    for seed, p in enumerate(learner.low_rank.parts):
        p.data += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)).double()
    found = _gradient(learner, [episode])
    own, names = dict(encoder.model.named_parameters()), sorted(learner.partition.names)
    a = {n: learner.low_rank.initial()[f"{n}.a"] for n in names}
    b = {n: learner.low_rank.initial()[f"{n}.b"] for n in names}
    w, c = torch.zeros(2, 16).double().requires_grad_(), torch.zeros(2).double().requires_grad_()

    def loss(part: Any) -> Tensor:
        weights = {f"model.{n}": own[n] + 2 * b[n] @ a[n] for n in names}
        with sdpa_kernel(SDPBackend.MATH):
            features = functional_call(encoder, weights, (part.sequences,))
        return cross_entropy(features @ w.T + c, part.labels)

    for _ in range(2):
        leaves = [*a.values(), *b.values(), w, c]
        grads = iter(torch.autograd.grad(loss(episode.support), leaves, create_graph=True))
        a = {n: a[n] - 0.3 * next(grads) for n in names}
        b = {n: b[n] - 0.3 * next(grads) for n in names}
        w, c = w - next(grads), c - next(grads)
    named = dict(learner.named_parameters())
    wanted = torch.autograd.grad(loss(episode.query), list(named.values()), materialize_grads=True)
    assert max(float(g.abs().max()) for n, g in found.items() if n.startswith("low_rank")) > 1e-4
    assert _distance(found, dict(zip(named, wanted, strict=True))) < 1e-10


@pytest.mark.proves("identity", "multi-task")
def test_without_inner_steps_maml_from_the_task_s_head_has_the_gradient_of_multi_task_training() -> None:
    encoder, task = _encoder(), word_task()
    learner: Any = make("multi-task", encoder, {"scale": 1.0}).double()
    learner.prepare([word_task("other", n_way=3), task])
    random = torch.Generator().manual_seed(0)
    learner.heads[1].data = torch.randn(2, 17, generator=random, dtype=torch.float64)
    episode = _episodes(encoder, "classification", n_query=3)[0]
    both = replace(episode, support=episode.query)  # multi-task training makes no difference between the two sets
    found = _gradient(learner, [both])
    order = [task.label_names.index(name) for name in episode.target.label_names]

    class Given(HeadStart):
        reads_features = False

        def head(self, *_: Any, **__: Any) -> LinearHead:
            rows = learner.heads[1][order]
            return LinearHead(rows[:, :-1], rows[:, -1])

    maml = GradientMetaLearner(encoder, InnerLoop(inner_lr=0.3, inner_steps=0), start=Given())
    named = dict(learner.named_parameters())
    wanted = torch.autograd.grad(maml.meta_loss([episode]).loss, list(named.values()), materialize_grads=True)
    assert _distance(found, dict(zip(named, wanted, strict=True))) < 1e-12
    assert float(found["heads.1"].abs().max()) > 1e-3


@pytest.mark.proves("identity", "finetune")
def test_fine_tuning_is_torchs_adam_on_the_support_set() -> None:
    encoder = _encoder()
    episode = _episodes(encoder, "classification")[0]
    model = make("finetune", encoder, {"lr": 1e-3, "head_lr": 0.05, "steps": 4}).adapt(episode.support, episode.target)
    own, head = copy.deepcopy(encoder), torch.nn.Linear(16, 2).double()
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    groups = [{"params": list(own.parameters()), "lr": 1e-3}, {"params": list(head.parameters()), "lr": 0.05}]
    optimizer = torch.optim.Adam(groups)
    for _ in range(4):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(own(episode.support.sequences)), episode.support.labels).backward()
        optimizer.step()
    assert isinstance(model.head, LinearHead)
    torch.testing.assert_close(model.head.weight, head.weight, rtol=0, atol=1e-9)
    adapted = dict(own.model.named_parameters())
    for name, p in model.params.items():
        if "pooler" not in name and "embeddings" not in name:
            torch.testing.assert_close(p, adapted[name], rtol=0, atol=1e-9)


def test_an_unknown_word_for_a_setting_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"rates = 'layers'.*\n.*layer"):
        make("meta-sgd", _encoder(), {"rates": "layers"})


@pytest.mark.parametrize(
    ("method", "key", "value", "message"),
    [
        *(
            ("metaoptnet", key, 0, f"{key} = 0 is not possible\n  Give a number above 0.")
            for key in ("c", "penalty", "scale")
        ),
        ("lstm-reader", "hidden", 0, "hidden = 0 is not possible\n  Give a number above 0."),
        ("in-context", "hidden", 6, "hidden = 6 does not divide among 4 attention heads\n  Give a multiple of 4."),
        (
            "maml-lora",
            "adapts",
            "all",
            "maml-lora cannot adapt 'all'\n  Use lora or lora:r; method maml has the others.",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(method: str, key: str, value: object, message: str) -> None:
    with pytest.raises(RecipeError) as raised:
        make(method, _encoder(), {key: value})
    assert str(raised.value) == message


def _encoder() -> Encoder:
    return tiny_encoder("bert", torch.float64)


def _episodes(encoder: Encoder, kind: Kind, *, n_query: int = 1) -> list[EncodedEpisode]:
    regression = kind == "regression"
    task = score_task() if regression else word_task()
    sampler = EpisodeSampler([task], EpisodeSpec(3 if regression else 2, 1, n_query), seed=1)
    return [encode_episode(encoder, sampler[0])]


def _gradient(learner: MetaLearner, episodes: Sequence[EncodedEpisode], progress: float = 1.0) -> dict[str, Tensor]:
    named = dict(learner.named_parameters())
    loss = learner.meta_loss(episodes, progress).loss
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), materialize_grads=True), strict=True))


def _distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)
