"""Agreement with independent implementations: MAML with higher and TorchOpt, update rules with torch.optim.

The peers are in the extra `bench`; without them their tests are skipped.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from conftest import tiny_encoder, word_task
from quickstudy.inner.optimizer import SGD, Adam, InnerOptimizer
from quickstudy.inner.rates import LearnedRates
from quickstudy.methods.catalog import make
from quickstudy.models.batch import EncodedEpisode, encode_episode
from quickstudy.models.encoder import Encoder
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler

_RATE, _STEPS = 0.1, 3


class _Classifier(nn.Module):
    """The encoder with a linear head: what a peer adapts."""

    def __init__(self, encoder: Encoder, n_way: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.feature_size(pair=False), n_way)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, part: Any) -> Tensor:
        return nn.functional.cross_entropy(self.head(self.encoder(part.sequences)), part.labels)


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("peer", ["higher", "torchopt"])
def test_maml_has_the_meta_gradient_of_its_peers(peer: str, order: str) -> None:
    pytest.importorskip(peer, reason=f"{peer} is in the extra 'bench'", exc_type=ImportError)
    encoder = tiny_encoder()
    episode = _episode(encoder)
    name = "maml" if order == "second" else "fomaml"
    settings = {"adapts": "all", "inner_lr": _RATE, "head_lr": _RATE, "inner_steps": _STEPS, "start": "zero"}
    learner = make(name, encoder, settings)
    named = dict(encoder.named_parameters())
    loss = learner.meta_loss([episode]).loss
    found = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
    with sdpa_kernel(SDPBackend.MATH):
        wanted = _PEERS[peer](_Classifier(encoder, 3), episode, order == "second")
    assert max(float(g.abs().max()) for g in found) > 1e-3
    for key, mine in zip(named, found, strict=True):
        theirs = wanted.get(f"encoder.{key}")
        torch.testing.assert_close(mine, torch.zeros_like(mine) if theirs is None else theirs, rtol=0, atol=1e-6)


def _higher(model: _Classifier, episode: EncodedEpisode, second: bool) -> dict[str, Tensor]:
    import higher

    optimizer = torch.optim.SGD(model.parameters(), _RATE)
    with higher.innerloop_ctx(model, optimizer, copy_initial_weights=False, track_higher_grads=second) as (inner, rule):
        for _ in range(_STEPS):
            rule.step(inner(episode.support))
        loss = inner(episode.query)
        # In first order the copies are cut off from the initial parameters: the gradient is that at the last copy.
        at = dict(model.named_parameters()) if second else dict(inner.named_parameters())
        found = torch.autograd.grad(loss, list(at.values()), allow_unused=True)
    return {name: g for name, g in zip(at, found, strict=True) if g is not None}


def _torchopt(model: _Classifier, episode: EncodedEpisode, second: bool) -> dict[str, Tensor]:
    import torchopt
    from torch.func import functional_call

    theta = dict(model.named_parameters())
    rule = torchopt.sgd(_RATE)
    params, state = theta, rule.init(theta)
    for _ in range(_STEPS):
        at = params if second else {name: p.detach().requires_grad_() for name, p in params.items()}
        loss = functional_call(model, at, (episode.support,))
        grads = torch.autograd.grad(loss, list(at.values()), create_graph=second, materialize_grads=True)
        updates, state = rule.update(dict(zip(at, grads, strict=True)), state, inplace=False)
        params = torchopt.apply_updates(at, updates, inplace=False)
    if not second:
        params = {name: p.detach().requires_grad_() for name, p in params.items()}
    at = theta if second else params
    loss = functional_call(model, params, (episode.query,))
    found = torch.autograd.grad(loss, list(at.values()), materialize_grads=True)
    return dict(zip(at, found, strict=True))


_PEERS: dict[str, Callable[[_Classifier, EncodedEpisode, bool], dict[str, Tensor]]] = {
    "higher": _higher,
    "torchopt": _torchopt,
}


def _episode(encoder: Encoder) -> EncodedEpisode:
    return encode_episode(encoder, EpisodeSampler([word_task(n_way=3)], EpisodeSpec(3, 2, 2), seed=0)[0])


@pytest.mark.parametrize(
    ("rule", "theirs"),
    [
        (SGD(0.07), lambda params: torch.optim.SGD(params, 0.07)),
        (Adam(0.07), lambda params: torch.optim.Adam(params, 0.07)),
        (Adam(0.02, betas=(0.5, 0.9), eps=1e-5), lambda params: torch.optim.Adam(params, 0.02, (0.5, 0.9), 1e-5)),
        (LearnedRates(0.07, None, {"w": (5, 3), "b": (3,)}), lambda params: torch.optim.SGD(params, 0.07)),
    ],
)
def test_update_rules_are_torchs(rule: InnerOptimizer, theirs: Callable[[Any], torch.optim.Optimizer]) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(20, 5, generator=random, dtype=torch.float64)
    y = torch.randn(20, 3, generator=random, dtype=torch.float64)
    start = {"w": torch.randn(5, 3, generator=random, dtype=torch.float64), "b": torch.zeros(3, dtype=torch.float64)}

    def loss(params: dict[str, Tensor]) -> Tensor:
        return ((x @ params["w"] + params["b"] - y) ** 2).mean()

    mine, state = dict(start), rule.double().init(start)
    leaves = {name: p.clone().requires_grad_() for name, p in start.items()}
    optimizer = theirs(list(leaves.values()))
    for _ in range(10):
        at = {name: p.detach().requires_grad_() for name, p in mine.items()}
        grads = torch.autograd.grad(loss(at), list(at.values()))
        mine, state = rule.update(dict(zip(at, grads, strict=True)), state, at, loss=loss(at))
        optimizer.zero_grad()
        torch.autograd.backward(loss(leaves))
        optimizer.step()
    for name, p in leaves.items():
        torch.testing.assert_close(mine[name], p, rtol=0, atol=1e-10)
