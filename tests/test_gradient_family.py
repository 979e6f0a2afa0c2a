"""The MAML family: identities and closed forms of every member's meta-gradient, in float64."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import score_task, tiny_encoder, word_task
from quickstudy.errors import RecipeError
from quickstudy.inner.optimizer import SGD, Params
from quickstudy.inner.rates import LearnedRates
from quickstudy.inner.unroll import unroll
from quickstudy.methods import objective
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import make
from quickstudy.methods.generated_start import GeneratedStart
from quickstudy.methods.start import LearnedStart
from quickstudy.models.batch import EncodedEpisode, encode_episode
from quickstudy.models.encoder import Encoder
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.tasks.task import Kind

_TOP = {"adapts": "layers:-1", "inner_lr": 0.3, "inner_steps": 2}


@pytest.mark.proves("identity")
@pytest.mark.parametrize("method", ["lstm-optimizer", "learned-optimizer"])
def test_the_lstm_rules_start_as_gradient_descent(method: str) -> None:
    settings = _TOP | {"head_lr": 1.0}
    episodes = _episodes(_encoder(), "classification", n_query=3)
    learner = make(method, _encoder(), settings).double()
    learner.objective = objective.query  # type: ignore[assignment]
    wanted = make("fomaml", _encoder(), settings | {"start": "zero"}).meta_loss(episodes).loss.item()
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

    found, left = objective.conjugate_gradient(product, (b[:4].view(2, 2), b[4:]), steps=20, least=1.0)
    assert left < 1e-9
    torch.testing.assert_close(torch.cat([found[0].flatten(), found[1]]), torch.linalg.solve(a, b), rtol=0, atol=1e-9)


def test_conjugate_gradients_say_what_they_leave_over_and_stop_before_a_direction_of_negative_curvature() -> None:
    random = torch.Generator().manual_seed(1)
    root = torch.randn(6, 6, generator=random, dtype=torch.float64)
    a, b = root @ root.T + torch.eye(6, dtype=torch.float64), torch.randn(6, generator=random, dtype=torch.float64)
    for steps in (1, 3):
        (x,), left = objective.conjugate_gradient(lambda p: (a @ p[0],), (b,), steps=steps, least=1.0)
        assert left == pytest.approx(float((b - a @ x).norm() / b.norm()), rel=1e-9)
        assert left > 1e-3

    saddle, ones = torch.diag(torch.tensor([3.0, -0.5]).double()), torch.ones(2).double()  # along b it curves up
    (x,), left = objective.conjugate_gradient(lambda p: (saddle @ p[0],), (ones,), steps=5, least=0.5)
    torch.testing.assert_close(x, ones * 2 / 2.5)  # the first step, and no more
    assert left == pytest.approx(float((ones - saddle @ x).norm() / ones.norm()))
    (x,), left = objective.conjugate_gradient(lambda p: (0 * p[0],), (0 * ones,), steps=5, least=0.5)
    assert (x.abs().max(), left) == (0, 0)


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


def test_a_row_that_all_labels_share_starts_at_zero() -> None:
    assert not LearnedStart({4}).rows["4"].any()


def test_leopard_starts_with_networks_of_known_size() -> None:
    start = GeneratedStart({64}, hidden=128)
    for network, gain in ((start.generators["64"], 0.1), (start.projections["64"], 0.3)):
        lower, _, upper, _ = network.layers()
        assert lower.std().item() == pytest.approx(1, rel=0.05)
        assert upper.std().item() == pytest.approx(gain * 128**-0.5, rel=0.05)


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
