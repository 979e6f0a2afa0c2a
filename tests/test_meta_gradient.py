"""Meta-gradients through a tiny BERT in float64: gradcheck, finite differences, and the attention kernels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from weakref import WeakSet

import pytest
import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError, gradcheck
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from conftest import score_task, tiny_encoder, word_task
from quickstudy.errors import RunError
from quickstudy.inner.optimizer import SGD, Adam, Params, State
from quickstudy.inner.unroll import unroll
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import make
from quickstudy.methods.gradient import GradientMetaLearner
from quickstudy.methods.inner_loop import InnerLoop
from quickstudy.models.batch import EncodedEpisode, encode_episode
from quickstudy.models.encoder import Encoder
from quickstudy.models.tokens import batches
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.tasks.task import Kind

_LAYER = "encoder.model.encoder.layer"
CHECKED = (  # below, at and above every place where an episode can be cut
    "encoder.model.embeddings.token_type_embeddings.weight",
    "encoder.model.embeddings.LayerNorm.bias",
    f"{_LAYER}.0.attention.self.query.weight",
    f"{_LAYER}.0.intermediate.dense.bias",
    f"{_LAYER}.1.attention.self.value.weight",
    f"{_LAYER}.1.output.dense.weight",
    f"{_LAYER}.1.output.LayerNorm.weight",
)
_ENTRIES = 2  # of each tensor: gradcheck runs the loss twice per entry
KINDS: tuple[Kind, ...] = ("classification", "regression")
ADAPTS = ("head", "layers:-1", "all")
_INNER = {"inner_lr": 0.3, "head_lr": 1.0, "inner_steps": 2}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adapts", ADAPTS)
def test_maml_passes_gradcheck(adapts: str, kind: Kind) -> None:
    learner = make("maml", _double_encoder(), {"adapts": adapts, **_INNER})
    assert _gradcheck(learner, _episodes(learner.encoder, kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adapts", ADAPTS)
def test_first_order_fails_the_same_gradcheck(adapts: str, kind: Kind) -> None:
    learner = make("fomaml", _double_encoder(), {"adapts": adapts, **_INNER})
    with pytest.raises(GradcheckError, match="Jacobian mismatch"):
        _gradcheck(learner, _episodes(learner.encoder, kind))


@pytest.mark.parametrize("cut", ["head.bias", "encoder.layer.1.output.LayerNorm.weight", ""])
def test_gradcheck_catches_a_gradient_lost_in_the_inner_loop(cut: str) -> None:
    inner = InnerLoop("layers:-1", 0.3, 1.0, 2)
    learner = GradientMetaLearner(_double_encoder(), inner, partial(_LeakySGD, cut=cut))
    with pytest.raises(GradcheckError, match="Jacobian mismatch"):
        _gradcheck(learner, _episodes(learner.encoder, "classification"))


@pytest.mark.parametrize("kind", KINDS)
def test_protonet_passes_gradcheck(kind: Kind) -> None:
    learner = make("protonet", _double_encoder(), {"scale": 0.5}).double()
    assert _gradcheck(learner, _episodes(learner.encoder, kind), also=("rule.log_scale",))


@pytest.mark.parametrize("setting", ["classification", "regression", "joint pairs", "separate pairs"])
@pytest.mark.parametrize("method", ["maml head", "maml layers:-1", "maml all", "protonet"])
def test_meta_gradient_equals_finite_differences_over_all_parameters(method: str, setting: str) -> None:
    name, _, adapts = method.partition(" ")
    encoder = _double_encoder(pair="separate" if setting == "separate pairs" else "joint")
    settings = {"adapts": adapts, **_INNER, "head_lr": 0.1} if adapts else {"scale": 0.5}
    learner = make(name, encoder, settings).double()
    kind: Kind = "regression" if setting == "regression" else "classification"
    episodes = _episodes(encoder, kind, count=2, pair="pairs" in setting)
    theta = {name: p.detach() for name, p in learner.named_parameters()}
    random = torch.Generator().manual_seed(0)
    direction = {name: torch.randn(p.shape, generator=random, dtype=p.dtype) for name, p in theta.items()}
    found = _meta_gradient(learner, episodes)
    slope = torch.stack([(found[name] * direction[name]).sum() for name in theta]).sum()
    module = _Loss(learner, episodes)

    def loss(step: float) -> Tensor:
        moved = {f"learner.{name}": (p + step * direction[name]).requires_grad_() for name, p in theta.items()}
        return functional_call(module, moved).detach()

    h = 1e-5  # so small that no |a - b| of a pair changes its sign in between
    numeric = (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h)  # the error is of the order h⁴
    assert slope.abs() > 1e-2
    torch.testing.assert_close(slope, numeric, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("adapts", ADAPTS)
def test_a_model_loaded_with_default_attention_runs_second_order(tiny_folder: Path, adapts: str) -> None:
    gradients = []
    for attention in ("sdpa", "eager"):
        encoder = Encoder.load(str(tiny_folder)).double()
        if attention == "eager":
            encoder.model.set_attn_implementation("eager")
        assert encoder.model.config._attn_implementation == attention  # sdpa without anyone asking for it
        learner = make("maml", encoder, {"adapts": adapts, **_INNER})
        gradients.append(_meta_gradient(learner, _episodes(encoder, "classification", n_query=3)))
    fused, eager = gradients
    assert fused.keys() == eager.keys()
    assert any(value.abs().max() > 1e-3 for value in fused.values())
    for name in fused:
        torch.testing.assert_close(fused[name], eager[name], rtol=0, atol=1e-9)


def test_without_the_math_kernel_second_order_would_raise() -> None:
    encoder = tiny_encoder()
    sequences = _episodes(encoder, "classification", n_query=3)[0].support.sequences
    weight = dict(encoder.model.named_parameters())["encoder.layer.0.attention.self.query.weight"]
    theta = {"w": weight}

    def loss_fn(params: Params) -> Tensor:
        return functional_call(
            encoder, {"model.encoder.layer.0.attention.self.query.weight": params["w"]}, (sequences,)
        ).sum()

    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        (once,) = torch.autograd.grad(loss_fn(theta), weight, create_graph=True)
        try:
            torch.autograd.grad(once.square().sum(), weight)
        except RuntimeError as error:
            assert "not implemented" in str(error)  # noqa: PT017
        else:
            pytest.skip("this torch differentiates fused attention twice")
        # The guard holds even inside a caller's own choice of the fused kernel.
        phi = unroll(loss_fn, theta, SGD(0.1), steps=2, order="second")
    assert torch.autograd.grad(phi["w"].square().sum(), weight)[0].isfinite().all()


RECOMPUTED = {
    "maml all": {"adapts": "all"},
    "maml layers:-1": {"adapts": "layers:-1"},
    "maml bias": {"adapts": "bias"},
    "maml head": {"adapts": "head"},
    "boil layers:-1": {"adapts": "layers:-1"},
    "proto-maml": {},
    "meta-sgd": {"adapts": "layers:-1"},
    "maml++": {},
    "maml-lora": {},
}


@pytest.mark.parametrize("stored", [0, 1])
@pytest.mark.parametrize("case", RECOMPUTED)
def test_steps_that_run_again_give_the_same_meta_gradient(case: str, stored: int) -> None:
    learner = make(case.partition(" ")[0], _double_encoder(), {**RECOMPUTED[case], "inner_steps": 3}).double()
    assert isinstance(learner, GradientMetaLearner)
    episodes, named = _episodes(learner.encoder, "classification"), dict(learner.named_parameters())

    def gradient() -> list[Tensor]:
        loss = learner.meta_loss(episodes, 0.4).loss
        return list(torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True))

    wanted = gradient()
    learner.stored_steps = stored
    for name, found, value in zip(named, gradient(), wanted, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-9, atol=1e-10, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("stored", [None, 0])
def test_adam_passes_gradcheck_though_some_entries_have_no_gradient(stored: int | None) -> None:
    inner = InnerLoop("layers:-1", 0.01, 0.1, 2)
    learner = GradientMetaLearner(_double_encoder(), inner, partial(Adam, eps=1e-2))
    learner.stored_steps = stored
    assert _gradcheck(learner, _episodes(learner.encoder, "classification"))


def test_steps_that_run_again_pass_gradcheck() -> None:
    learner = make("maml", _double_encoder(), {"adapts": "all", **_INNER})
    learner.stored_steps = 0
    assert _gradcheck(learner, _episodes(learner.encoder, "classification"))


def test_steps_that_run_again_keep_their_parameters_alone() -> None:
    learner = make("maml", _double_encoder(), {"adapts": "layers:-1", **_INNER})
    assert isinstance(learner, GradientMetaLearner)
    episode = encode_episode(learner.encoder, EpisodeSampler([word_task()], EpisodeSpec(2, 16, 1), seed=0)[0])

    def kept(steps: int, stored: int | None) -> int:
        learner.inner_steps, learner.stored_steps = steps, stored
        alive: WeakSet[_Kept] = WeakSet()

        def pack(tensor: Tensor) -> _Kept:
            alive.add(kept := _Kept(tensor))
            return kept

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
            loss = learner.meta_loss([episode]).loss
        storages = {kept.tensor.untyped_storage().data_ptr(): kept.tensor.untyped_storage().nbytes() for kept in alive}
        del loss
        return sum(storages.values())

    head = 2 * (learner.encoder.feature_size(pair=False) + 1)
    phi = 8 * (sum(p.numel() for p in learner.partition.initial().values()) + head)
    one_more = kept(9, 0) - kept(8, 0)
    assert 0 < one_more <= 1.01 * phi
    assert kept(9, None) - kept(8, None) > 5 * phi


@pytest.mark.filterwarnings("ignore:.*checkpointing_enable:FutureWarning")
def test_the_models_own_checkpointing_is_refused_where_it_would_be_wrong_and_harmless_elsewhere() -> None:
    settings = {"adapts": "all", **_INNER}
    episodes = _episodes(_double_encoder(), "classification", n_query=3)
    exact = _meta_gradient(make("maml", _double_encoder(), settings), episodes)
    encoder = _double_encoder()
    encoder.model.gradient_checkpointing_enable()
    learner = make("maml", encoder, settings)
    learner.train()
    found = _meta_gradient(learner, episodes)  # the encoder stays in eval mode, where nothing is checkpointed
    assert max(float((found[n] - exact[n]).abs().max()) for n in exact) < 1e-12
    encoder.model.train()  # what someone could do by hand
    with pytest.raises(RunError, match=r"gradient checkpointing would recompute.*\n  Leave it off"):
        learner.meta_loss(episodes)


@pytest.mark.filterwarnings("ignore:.*checkpointing_enable:FutureWarning")
def test_without_the_refusal_the_meta_gradient_would_be_wrong() -> None:
    encoder = _double_encoder()
    encoder.model.set_attn_implementation("eager")  # a kernel chosen by context would be chosen anew in recomputing
    for module in encoder.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    sequences = _episodes(encoder, "classification", n_query=3)[0].support.sequences
    inputs = next(iter(batches(sequences, encoder.pad_id, encoder.device))).inputs
    names = [n for n, _ in encoder.model.named_parameters() if "layer" in n]

    def gradient() -> dict[str, Tensor]:
        theta = {n: p.detach().requires_grad_() for n, p in encoder.model.named_parameters() if n in names}

        def loss(params: Params) -> Tensor:
            return functional_call(encoder.model, params, kwargs=inputs).last_hidden_state[:, 0, :4].square().mean()

        step = torch.autograd.grad(loss(theta), list(theta.values()), create_graph=True, materialize_grads=True)
        phi = {n: p - 0.3 * g for (n, p), g in zip(theta.items(), step, strict=True)}
        return dict(
            zip(theta, torch.autograd.grad(loss(phi), list(theta.values()), materialize_grads=True), strict=True)
        )

    exact = gradient()
    encoder.model.gradient_checkpointing_enable({"use_reentrant": False})
    encoder.model.train()
    wrong = gradient()
    assert max(float((wrong[n] - exact[n]).abs().max()) for n in exact) > 1e-4


@pytest.mark.parametrize("method", ["maml", "fomaml", "protonet"])
def test_meta_loss_of_a_batch_is_the_mean_over_its_episodes(method: str) -> None:
    learner = make(method, _double_encoder(), {} if method == "protonet" else {"adapts": "layers:-1", **_INNER})
    learner = learner.double()
    episodes = [
        *_episodes(learner.encoder, "classification", count=2, n_query=3),
        *_episodes(learner.encoder, "classification", pair=True, n_query=3),
        *_episodes(learner.encoder, "regression", n_query=3),
    ]
    whole = _meta_gradient(learner, episodes)
    single = [_meta_gradient(learner, [episode]) for episode in episodes]
    for name, value in whole.items():
        mean = torch.stack([found.get(name, torch.zeros_like(value)) for found in single]).mean(0)
        torch.testing.assert_close(value, mean, rtol=0, atol=1e-10)


class _Loss(torch.nn.Module):
    """The meta-loss as a module, so that `functional_call` can replace any meta-parameter of the learner."""

    def __init__(self, learner: MetaLearner, episodes: Sequence[EncodedEpisode]) -> None:
        super().__init__()
        self.learner, self.episodes = learner, episodes

    def forward(self) -> Tensor:
        return self.learner.meta_loss(self.episodes).loss


class _LeakySGD(SGD):
    """SGD that loses the graph of some gradients; of all when `cut` is empty."""

    def __init__(self, lr: float, head_lr: float | None, cut: str) -> None:
        super().__init__(lr, head_lr)
        self.cut = cut

    def update(self, grads: Params, state: State, params: Params, *, loss: Tensor) -> tuple[Params, State]:
        leaky = {name: g.detach() if name.startswith(self.cut) else g for name, g in grads.items()}
        return super().update(leaky, state, params, loss=loss)


def _double_encoder(**settings: object) -> Encoder:
    return tiny_encoder("bert", torch.float64, **settings)


@dataclass(eq=False)
class _Kept:
    """What a graph keeps."""

    tensor: Tensor


def _episodes(
    encoder: Encoder, kind: Kind, *, count: int = 1, n_query: int = 1, pair: bool = False
) -> list[EncodedEpisode]:
    """2-way 1-shot episodes; a regression episode has three support scores."""
    regression = kind == "regression"
    task = score_task() if regression else word_task(pair=pair)
    sampler = EpisodeSampler([task], EpisodeSpec(3 if regression else 2, 1, n_query), seed=1)
    return [encode_episode(encoder, sampler[i]) for i in range(count)]


def _gradcheck(learner: MetaLearner, episodes: Sequence[EncodedEpisode], *, also: Sequence[str] = ()) -> bool:
    """Check the meta-gradient in the first entries of some parameter tensors."""
    names = [*CHECKED, *also]
    theta = {name: p.detach() for name, p in learner.named_parameters() if name in names}
    module = _Loss(learner, episodes)

    def loss(*values: Tensor) -> Tensor:
        replaced = {}
        for name, value in zip(names, values, strict=True):
            rest = theta[name].flatten()[_ENTRIES:]
            replaced[f"learner.{name}"] = torch.cat([value, rest]).view_as(theta[name])
        return functional_call(module, replaced)

    return gradcheck(loss, tuple(theta[name].flatten()[:_ENTRIES].clone().requires_grad_() for name in names))


def _meta_gradient(learner: MetaLearner, episodes: Sequence[EncodedEpisode]) -> dict[str, Tensor]:
    named = dict(learner.named_parameters())
    found = torch.autograd.grad(
        learner.meta_loss(episodes).loss, list(named.values()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(named, found, strict=True))
