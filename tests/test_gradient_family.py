"""The MAML family: every member's meta-gradient against gradcheck, an identity or a closed form, in float64."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError, gradcheck
from torch.func import functional_call

from conftest import score_task, tiny_encoder, word_task
from quickstudy.errors import RecipeError
from quickstudy.inner.optimizer import SGD, Params
from quickstudy.inner.rates import LearnedRates
from quickstudy.inner.unroll import unroll
from quickstudy.methods import objective
from quickstudy.methods.base import MetaLearner, task_loss
from quickstudy.methods.catalog import make
from quickstudy.models.batch import EncodedEpisode, encode_episode
from quickstudy.models.encoder import Encoder
from quickstudy.models.head import LinearHead, ridge
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.tasks.task import Kind

_TOP = {"adapts": "layers:-1", "inner_lr": 0.3, "inner_steps": 2}
_LAYER = "encoder.model.encoder.layer"
_CHECKED = (
    f"{_LAYER}.0.attention.self.query.weight",
    f"{_LAYER}.1.attention.self.value.weight",
    f"{_LAYER}.1.output.LayerNorm.weight",
)
EXACT: dict[str, dict[str, Any]] = {
    "anil": {"head_lr": 1.0, "inner_steps": 2},
    "boil": _TOP | {"scale": 0.1},
    "meta-sgd": _TOP | {"head_lr": 1.0},
    "maml++": _TOP | {"head_lr": 1.0, "first_order": 0.0},
    "proto-maml": _TOP | {"head_lr": 0.1, "scale": 0.1},
    "lstm-optimizer": _TOP | {"head_lr": 1.0, "hidden": 4, "order": "second"},
    "learned-optimizer": _TOP | {"head_lr": 1.0, "hidden": 4, "order": "second"},
    "leopard": _TOP | {"head_lr": 0.1, "scale": 0.1, "hidden": 4, "order": "second"},
}
_ALSO = {
    "boil": ("start.log_scale",),
    "meta-sgd": ("optimizer.multiples.encoder/layer/1/output/dense/weight", "optimizer.multiples.head/weight"),
    "maml++": ("optimizer.multiples.encoder/layer/1/output/dense/weight",),
    "proto-maml": ("start.log_scale",),
    "lstm-optimizer": ("optimizer.cell.gates.weight", "optimizer.forget.bias", "optimizer.input.weight"),
    "learned-optimizer": ("optimizer.lower.gates.weight", "optimizer.out.bias"),
    "leopard": ("start.prototypes.log_scale", "start.networks.16.0.weight", "start.networks.16.2.bias"),
}


@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize(
    ("method", "progress"), [*((method, 1.0) for method in EXACT), ("maml++", 0.0), ("maml++", 0.2)]
)
def test_the_meta_loss_passes_gradcheck(method: str, progress: float, kind: Kind) -> None:
    learner = make(method, _encoder(), EXACT[method]).double()
    if "optimizer" in method:  # past its start, where the LSTM has no influence yet
        for seed, parameter in enumerate(learner.optimizer.parameters()):  # type: ignore[union-attr]
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    also = [name for name in _ALSO.get(method, ()) if kind == "classification" or not name.startswith("start")]
    assert _gradcheck(learner, _episodes(learner.encoder, kind), also, progress)


@pytest.mark.parametrize("method", ["boil", "proto-maml", "leopard", "meta-sgd"])
def test_first_order_fails_the_same_gradcheck(method: str) -> None:
    learner = make(method, _encoder(), EXACT[method] | {"order": "first"}).double()
    with pytest.raises(GradcheckError, match="Jacobian mismatch"):
        _gradcheck(learner, _episodes(learner.encoder, "classification"))


def test_truncation_keeps_the_last_steps_exact_and_fails_gradcheck_otherwise() -> None:
    settings = _TOP | {"head_lr": 1.0, "inner_steps": 3}
    episodes = _episodes(_encoder(), "classification")
    found = {k: _gradient(make("maml", _encoder(), settings | {"exact_steps": k}), episodes) for k in (0, 1, 3)}
    assert _distance(found[3], _gradient(make("maml", _encoder(), settings), episodes)) < 1e-12
    assert _distance(found[0], _gradient(make("fomaml", _encoder(), settings), episodes)) < 1e-12
    assert min(_distance(found[1], found[0]), _distance(found[1], found[3])) > 1e-6
    with pytest.raises(GradcheckError, match="Jacobian mismatch"):
        _gradcheck(make("maml", _encoder(), settings | {"exact_steps": 1}), episodes)


@pytest.mark.parametrize("method", ["lstm-optimizer", "learned-optimizer"])
def test_the_lstm_rules_start_as_gradient_descent(method: str) -> None:
    settings = _TOP | {"head_lr": 1.0}
    episodes = _episodes(_encoder(), "classification", n_query=3)
    learner = make(method, _encoder(), settings).double()
    learner.objective = objective.query  # type: ignore[assignment]
    wanted = make("fomaml", _encoder(), settings).meta_loss(episodes).loss.item()
    assert learner.meta_loss(episodes).loss.item() == pytest.approx(wanted, abs=2e-3)  # the forget gate is almost 1


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_the_controller_passes_gradcheck_and_starts_as_protonet(kind: Kind) -> None:
    learner = make("lstm-controller", _encoder(), {"hidden": 4, "scale": 0.5}).double()
    episodes = _episodes(learner.encoder, kind)
    plain = make("protonet", learner.encoder, {"scale": 0.5}).double()
    assert learner.meta_loss(episodes).loss.item() == pytest.approx(plain.meta_loss(episodes).loss.item(), abs=1e-10)
    learner.out.weight.data.normal_(generator=torch.Generator().manual_seed(0))  # type: ignore[union-attr]
    assert _gradcheck(learner, episodes, ("cell.gates.weight", "out.bias", "rule.log_scale"))


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
    model = learner.adapt(episode.support, ("a", "b"), "classification")
    assert max(model.params[n].abs().max() for n in (chosen, chosen.replace("weight", "bias"))) < 1e-30
    other = "encoder.layer.0.output.dense.weight"
    assert torch.equal(model.params[other], dict(encoder.model.named_parameters())[other])


@pytest.mark.parametrize("rates", ["entry", "layer", "layer-step"])
def test_equal_learned_rates_are_maml(rates: str) -> None:
    settings = _TOP | {"head_lr": 1.0}
    episodes = _episodes(_encoder(), "classification", n_query=3)
    learner = make("meta-sgd", _encoder(), settings | {"rates": rates}).double()
    wanted = _gradient(make("maml", _encoder(), settings), episodes)
    found = {name: g for name, g in _gradient(learner, episodes).items() if name in wanted}
    assert _distance(found, wanted) < 1e-12


def test_without_inner_steps_proto_maml_has_the_gradient_of_protonet_and_maml_that_of_a_zero_head() -> None:
    episodes = _episodes(_encoder(), "classification", n_query=3)
    wanted = _gradient(make("protonet", _encoder(), {"scale": 0.5}).double(), episodes)
    proto = make("proto-maml", _encoder(), _TOP | {"inner_steps": 0, "scale": 0.5}).double()
    found = {name.replace("start.", "rule."): g for name, g in _gradient(proto, episodes).items()}
    assert _distance(found, wanted) < 1e-10
    nothing = _gradient(make("maml", _encoder(), _TOP | {"inner_steps": 0}), episodes)
    assert max(g.abs().max() for g in nothing.values()) == 0  # the head is zero: no signal reaches the encoder


def test_first_order_maml_of_one_step_has_the_query_gradient_at_phi() -> None:
    encoder = _encoder()
    learner = make("fomaml", encoder, {"adapts": "all", "inner_lr": 0.3, "head_lr": 1.0, "inner_steps": 1})
    episode = _episodes(encoder, "classification", n_query=3)[0]
    found = _gradient(learner, [episode])
    model = learner.adapt(episode.support, ("a", "b"), "classification")
    phi = {name: p.clone().requires_grad_() for name, p in model.params.items()}
    assert isinstance(model.head, LinearHead)
    scores = model.head(learner.partition.features(phi, learner.partition.prefix(episode.query.sequences)))
    at_phi = torch.autograd.grad(
        task_loss(scores, episode.query.labels, "classification"), list(phi.values()), materialize_grads=True
    )
    wanted = {f"encoder.model.{name}": g for name, g in zip(phi, at_phi, strict=True)}
    assert _distance(found, wanted) < 1e-12


def test_reptile_moves_towards_what_the_inner_loop_finds_on_all_examples() -> None:
    encoder = _encoder()
    learner = make("reptile", encoder, {"adapts": "all", "inner_lr": 0.3, "head_lr": 1.0, "inner_steps": 3})
    episode = _episodes(encoder, "classification", n_query=1)[0]  # as many query as support examples
    found = _gradient(learner, [episode])
    both = [episode.support, episode.query]

    def loss(params: Params) -> Tensor:
        head = LinearHead(params["head.weight"], params["head.bias"])
        parts = [
            task_loss(
                head(learner.partition.features(params, learner.partition.prefix(part.sequences))),
                part.labels,
                "classification",
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
        wanted_value = task_loss(
            LinearHead(phi["head.weight"], phi["head.bias"])(
                learner.partition.features(phi, learner.partition.prefix(episode.query.sequences))
            ),
            episode.query.labels,
            "classification",
        )
    assert learner.meta_loss([episode]).loss.item() == pytest.approx(wanted_value.item(), abs=1e-12)


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

    episode = objective.Episodic({"w": theta}, support, query, 0.5, SGD(0.2), 2000, "second", None, 1.0)
    loss = objective.implicit(strength=strength, cg_steps=12)(episode)
    found = torch.autograd.grad(loss, [theta, psi])
    system = a + strength * torch.eye(6, dtype=torch.float64)
    star = torch.linalg.solve(system, strength * theta + psi * b)
    closed = (star - c).square().sum() / 2 + psi
    wanted = torch.autograd.grad(closed, [theta, psi])
    assert loss.item() == pytest.approx(closed.item(), abs=1e-10)
    for mine, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, exact, rtol=0, atol=1e-10)


def test_imaml_is_the_limit_of_differentiating_through_the_regularised_inner_loop() -> None:
    encoder, strength = _encoder(), 2.0
    episode = _episodes(encoder, "classification", n_query=3)[0]
    settings = {"adapts": "layers:-1", "inner_lr": 0.2, "head_lr": 0.2, "inner_steps": 80}
    found = _gradient(make("imaml", encoder, settings | {"strength": strength, "cg_steps": 40}), [episode])
    learner = make("maml", encoder, {"adapts": "layers:-1"})

    def unrolled(e: objective.Episodic) -> Tensor:
        def loss(p: Params) -> Tensor:
            return e.support(p) + strength / 2 * sum((p[n] - e.theta[n]).square().sum() for n in p)

        return e.query(unroll(loss, e.theta, SGD(0.2), steps=80, order="second"))

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


def test_anil_equals_the_loop_that_runs_the_encoder_at_every_step() -> None:
    encoder = _encoder()
    episode = _episodes(encoder, "classification", n_query=3)[0]
    found = _gradient(make("anil", encoder, {"head_lr": 1.0, "inner_steps": 3}), [episode])

    def scores(params: Params, part: Any) -> Tensor:
        return LinearHead(params["w"], params["b"])(encoder(part.sequences))

    theta = {"w": torch.zeros(2, 16).double().requires_grad_(), "b": torch.zeros(2).double().requires_grad_()}
    phi = unroll(
        lambda p: task_loss(scores(p, episode.support), episode.support.labels, "classification"),
        theta,
        SGD(1.0),
        steps=3,
        order="second",
    )
    loss = task_loss(scores(phi, episode.query), episode.query.labels, "classification")
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


def test_an_unknown_word_for_a_setting_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"rates = 'layers'.*\n.*layer"):
        make("meta-sgd", _encoder(), {"rates": "layers"})


class _Loss(torch.nn.Module):
    def __init__(self, learner: MetaLearner, episodes: Sequence[EncodedEpisode], progress: float) -> None:
        super().__init__()
        self.learner, self.episodes, self.progress = learner, episodes, progress

    def forward(self) -> Tensor:
        return self.learner.meta_loss(self.episodes, self.progress).loss


def _encoder() -> Encoder:
    return tiny_encoder("bert", torch.float64)


def _episodes(encoder: Encoder, kind: Kind, *, n_query: int = 1) -> list[EncodedEpisode]:
    regression = kind == "regression"
    task = score_task() if regression else word_task()
    sampler = EpisodeSampler([task], EpisodeSpec(3 if regression else 2, 1, n_query), seed=1)
    return [encode_episode(encoder, sampler[0])]


def _gradcheck(
    learner: MetaLearner, episodes: Sequence[EncodedEpisode], also: Sequence[str] = (), progress: float = 1.0
) -> bool:
    """Check the meta-gradient in the first two entries of some parameter tensors."""
    names = [*_CHECKED, *also]
    theta = {name: p.detach() for name, p in learner.named_parameters() if name in names}
    module = _Loss(learner, episodes, progress)

    def loss(*values: Tensor) -> Tensor:
        replaced = {
            f"learner.{name}": torch.cat([value, theta[name].flatten()[2:]]).view_as(theta[name])
            for name, value in zip(names, values, strict=True)
        }
        return functional_call(module, replaced)

    return gradcheck(loss, tuple(theta[name].flatten()[:2].clone().requires_grad_() for name in names))


def _gradient(learner: MetaLearner, episodes: Sequence[EncodedEpisode]) -> dict[str, Tensor]:
    named = dict(learner.named_parameters())
    loss = learner.meta_loss(episodes).loss
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), materialize_grads=True), strict=True))


def _distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)
