"""The gradient family against its papers: one step of each method, written out plainly, at random weights in float64.

The references know the names of the meta-parameters and nothing else of the library. They run the Hugging Face model
by `functional_call`, pool by hand, and take inner gradients by `torch.func.grad`. Loss and meta-gradient of every
meta-parameter must agree to 1e-8.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.func import functional_call
from torch.func import grad as gradient_of
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from conftest import score_task, tiny_encoder, word_task
from quickstudy.methods import objective
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import make
from quickstudy.methods.convergence import Convergence
from quickstudy.models.batch import encode_episode
from quickstudy.models.encoder import Encoder
from quickstudy.models.head import LinearHead
from quickstudy.settings import OuterSettings
from quickstudy.tasks.episode import Episode, EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.tasks.split import Example
from quickstudy.training.meta_batch import MetaBatch
from quickstudy.training.outer import train

Values = dict[str, Tensor]
Loss = Callable[[Values], Tensor]

N_WAY, SIZE = 3, 16
TOP = "encoder.layer.1."
RATES = {"inner_lr": 0.2, "head_lr": 0.5, "inner_steps": 3}
W, B = "head.weight", "head.bias"


@pytest.fixture(autouse=True)
def _math_attention() -> Iterator[None]:
    AcceleratorState._reset_state(reset_partial_state=True)
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        yield
    AcceleratorState._reset_state(reset_partial_state=True)


@dataclass(frozen=True)
class _Case:
    """A learner at random weights, and an episode of texts."""

    learner: MetaLearner
    episode: Episode

    @property
    def encoder(self) -> Encoder:
        return self.learner.encoder

    @property
    def meta(self) -> Values:
        return dict(self.learner.named_parameters())

    @property
    def theta(self) -> Values:
        """The encoder's parameters, by their names in the Hugging Face model."""
        return dict(self.encoder.model.named_parameters())

    def adapting(self, within: str) -> Values:
        return {name: p for name, p in self.theta.items() if within in name}

    def learned_head(self) -> Values:
        """The head before the first step: sqrt(F) times the row of each label is what is learned."""
        kind = "tables" if self.episode.label_names else "scores"
        rows = self.meta[f"start.{kind}.{SIZE}"][: len(self.episode.label_names) or 1] / math.sqrt(SIZE)
        return {W: rows[:, :SIZE], B: rows[:, SIZE]}

    def features(self, values: Values, rows: tuple[Example, ...]) -> Tensor:
        tokens = self.encoder.tokenizer([row.text for row in rows], padding=True, return_tensors="pt")
        replaced = {name: values[name] for name in self.theta if name in values}
        inputs = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
        states = functional_call(self.encoder.model, replaced, kwargs=inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(1) / mask.sum(1)

    def loss(self, values: Values, rows: tuple[Example, ...]) -> Tensor:
        scores = self.features(values, rows) @ values[W].T + values[B]
        if self.episode.label_names:
            return cross_entropy(scores, torch.tensor([int(row.label or 0) for row in rows]))
        known = torch.tensor([row.label for row in self.episode.support], dtype=torch.float64)
        wanted = torch.tensor([row.label for row in rows], dtype=torch.float64)
        return (scores[:, 0] - (wanted - known.mean()) / known.std(correction=0)).square().mean()

    def support(self, values: Values) -> Tensor:
        return self.loss(values, self.episode.support) * (1.0 if self.episode.label_names else 0.1)

    def query(self, values: Values) -> Tensor:
        return self.loss(values, self.episode.query)


def _case(method: str, settings: dict[str, Any], *, kind: str = "classification", seed: int = 3) -> _Case:
    """A method on the tiny encoder. All that it learns is random, also what usually starts at zero or one."""
    learner = make(method, tiny_encoder("bert", torch.float64), settings).double()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in learner.named_parameters():
            noise = torch.randn(p.shape, generator=random, dtype=p.dtype)
            p.add_(0.05 * noise if name.startswith("encoder.") else noise)
    task = word_task(n_way=4) if kind == "classification" else score_task()
    return _Case(learner, _uneven(EpisodeSampler([task], EpisodeSpec(N_WAY, 3, 3), seed=seed)[0]))


def _uneven(episode: Episode) -> Episode:
    """Leave out examples: labels have 3, 2 and 1 support examples and 1, 3 and 1 query examples, in no order."""
    if not episode.label_names:
        return replace(episode, query=episode.query[:-1])
    support, query = (
        tuple(row for n in range(N_WAY) for row in [r for r in rows if r.label == n][: counts[n]])
        for rows, counts in ((episode.support, (3, 2, 1)), (episode.query, (1, 3, 1)))
    )
    assert (len(support), len(query)) == (6, 5)
    return replace(episode, support=tuple(sorted(support, key=lambda row: row.text)), query=query[::-1])


def _descend(
    loss: Loss, values: Values, rate: Callable[[str, int], Tensor | float], steps: int, *, exact: int | None = None
) -> list[Values]:
    """φ_1 .. φ_S of gradient descent. Gradients of all but the last `exact` steps are constants; None: of no step."""
    path = []
    for step in range(steps):
        slopes = gradient_of(loss)(values)
        if exact is not None and step < steps - exact:
            slopes = {name: g.detach() for name, g in slopes.items()}
        values = {name: p - rate(name, step) * slopes[name] for name, p in values.items()}
        path.append(values)
    return path


def _rate(name: str, _step: int) -> float:
    return RATES["head_lr"] if name in (W, B) else RATES["inner_lr"]


def _compare(case: _Case, wanted: Tensor, slopes: Values | None = None, *, progress: float = 1.0) -> None:
    """Compare loss and meta-gradient with a reference; `slopes` are given where they are not those of the loss."""
    actual = case.learner.meta_loss([encode_episode(case.encoder, case.episode)], progress).loss
    assert actual.item() == pytest.approx(wanted.item(), rel=1e-8)
    names, values = list(case.meta), list(case.meta.values())
    grads = torch.autograd.grad(actual, values, allow_unused=True, materialize_grads=True)
    if slopes is None:
        given = torch.autograd.grad(wanted, values, allow_unused=True, materialize_grads=True)
        slopes = dict(zip(names, given, strict=True))
    _same(dict(zip(names, grads, strict=True)), slopes)


def _same(actual: Values, wanted: Values) -> None:
    largest = max(float(g.abs().max()) for g in wanted.values())
    assert largest > 1e-4
    for name, value in wanted.items():
        scale = max(float(value.abs().max()), 1e-4 * largest)
        torch.testing.assert_close(actual[name], value, rtol=0, atol=1e-8 * scale, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.proves("identity", "maml", "fomaml")
@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("start", ["learned", "zero"])
@pytest.mark.parametrize(
    ("method", "exact", "within"), [("maml", None, ""), ("maml", 2, TOP), ("maml", 0, TOP), ("fomaml", 0, "")]
)
def test_maml_is_the_query_loss_after_gradient_steps(
    method: str, exact: int | None, within: str, start: str, kind: str
) -> None:
    settings = RATES | {"adapts": "layers:-1" if within else "all", "start": start}
    settings |= {"exact_steps": exact} if method == "maml" and exact is not None else {}
    case = _case(method, settings, kind=kind)
    head = case.learned_head() if start == "learned" else _zeros(N_WAY if kind == "classification" else 1)
    phi = _descend(case.support, case.adapting(within) | head, _rate, 3, exact=exact)[-1]
    _compare(case, case.query(phi))


def _zeros(rows: int) -> Values:
    return {W: torch.zeros(rows, SIZE, dtype=torch.float64), B: torch.zeros(rows, dtype=torch.float64)}


@pytest.mark.proves("identity", "anil")
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_anil_adapts_the_head_alone_from_its_learned_rows(kind: str) -> None:
    case = _case("anil", {"head_lr": RATES["head_lr"], "inner_steps": 3}, kind=kind)
    phi = _descend(case.support, case.learned_head(), _rate, 3)[-1]
    _compare(case, case.query(phi))


@pytest.mark.proves("identity", "boil")
@pytest.mark.parametrize("start", ["learned", "prototypes"])
@pytest.mark.parametrize("order", ["second", "first"])
def test_boil_adapts_the_encoder_under_a_head_that_stays(order: str, start: str) -> None:
    settings = {"adapts": "layers:-1", "inner_lr": 0.2, "inner_steps": 3, "order": order, "start": start, "scale": 0.1}
    case = _case("boil", settings)
    head = case.learned_head() if start == "learned" else _prototypes(case)
    exact = None if order == "second" else 0
    path = _descend(lambda body: case.support(body | head), case.adapting(TOP), _rate, 3, exact=exact)
    _compare(case, case.query(path[-1] | head))


@pytest.mark.proves("identity", "proto-maml")
@pytest.mark.parametrize("order", ["second", "first"])
def test_proto_maml_starts_at_the_prototypes_and_learns_through_them(order: str) -> None:
    case = _case("proto-maml", RATES | {"adapts": "layers:-1", "order": order, "scale": 0.1})
    exact = None if order == "second" else 0
    phi = _descend(case.support, case.adapting(TOP) | _prototypes(case), _rate, 3, exact=exact)[-1]
    _compare(case, case.query(phi))


def _prototypes(case: _Case) -> Values:
    """w_n = 2 s c_n and b_n = -s ||c_n||² at θ."""
    features = case.features(case.theta, case.episode.support)
    labels = torch.tensor([int(row.label or 0) for row in case.episode.support])
    means = torch.stack([features[labels == n].mean(0) for n in range(N_WAY)])
    scale = case.meta["start.log_scale"].exp()
    return {W: 2 * scale * means, B: -scale * means.square().sum(1)}


@pytest.mark.proves("identity", "meta-sgd")
@pytest.mark.parametrize("order", ["second", "first"])
@pytest.mark.parametrize("rates", ["entry", "layer", "layer-step"])
def test_meta_sgd_steps_by_learned_rates_of_either_sign(rates: str, order: str) -> None:
    case = _case("meta-sgd", RATES | {"adapts": "layers:-1", "rates": rates, "order": order})
    signs = torch.cat([p.detach().flatten() for name, p in case.meta.items() if "multiples" in name]).sign()
    assert set(signs.tolist()) == {-1.0, 1.0}
    exact = None if order == "second" else 0
    phi = _descend(case.support, case.adapting(TOP) | case.learned_head(), _learned_rate(case, rates), 3, exact=exact)[
        -1
    ]
    _compare(case, case.query(phi))


def _learned_rate(case: _Case, rates: str) -> Callable[[str, int], Tensor]:
    def rate(name: str, step: int) -> Tensor:
        multiples = case.meta[f"optimizer.multiples.{name.replace('.', '/')}"]
        return _rate(name, step) * multiples[step if rates == "layer-step" else 0]

    return rate


@pytest.mark.proves("identity", "maml++")
@pytest.mark.parametrize(
    ("step", "position"), [(0, None), (10, None), (30, None), (49, None), (50, None), (99, None), (7, 100.0), (7, 12.5)]
)
def test_the_outer_loop_takes_mamlpp_from_every_step_s_loss_to_the_last_ones(step: int, position: float | None) -> None:
    """In 100 outer steps, of which the first 20 are first order and the first 50 count early losses.

    Where a budget of time says how far the training is (`position`), that counts, and not the number of the step.
    """
    done = step if position is None else position
    case = _case("maml++", RATES | {"adapts": "layers:-1", "annealed": 0.5, "first_order": 0.2})
    path = _descend(
        case.support,
        case.adapting(TOP) | case.learned_head(),
        _learned_rate(case, "layer-step"),
        3,
        exact=0 if done < 20 else None,
    )
    early = max(1 / 3 - done / 50 / 3, 0.03 / 3) if done < 50 else 0.0
    weights = [early, early, 1 - 2 * early]
    wanted = torch.stack([w * case.query(phi) for w, phi in zip(weights, path, strict=True)]).sum()
    grads = torch.autograd.grad(wanted, list(case.meta.values()), allow_unused=True, materialize_grads=True)

    batch = MetaBatch(case.learner, _Always(case.episode), 1, 100, Accelerator(cpu=True))  # type: ignore[arg-type]
    totals = torch.zeros(3)
    batch.add(totals, step, position)
    assert float(totals[0]) == pytest.approx(wanted.item(), rel=1e-6)
    _same(
        {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in case.meta.items()},
        dict(zip(case.meta, grads, strict=True)),
    )


class _Always:
    """A sampler of one episode."""

    def __init__(self, episode: Episode) -> None:
        self.episode = episode

    def __getitem__(self, index: int) -> Episode:
        return self.episode


@pytest.mark.proves("identity", "reptile")
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_reptile_moves_encoder_and_head_towards_what_is_found_on_all_examples(kind: str) -> None:
    case = _case("reptile", RATES | {"adapts": "layers:-1"}, kind=kind)
    both = case.episode.support + case.episode.query
    weight = 1.0 if kind == "classification" else 0.1
    theta = case.adapting(TOP) | case.learned_head()
    phi = {n: p.detach() for n, p in _descend(lambda v: weight * case.loss(v, both), theta, _rate, 3)[-1].items()}
    moves = torch.stack([(p * (p.detach() - phi[n])).sum() for n, p in theta.items()]).sum()
    values = list(case.meta.values())
    slopes = torch.autograd.grad(moves, values, allow_unused=True, materialize_grads=True)
    wanted = dict(zip(case.meta, slopes, strict=True))
    name = f"{TOP}output.dense.weight"
    torch.testing.assert_close(wanted[f"encoder.model.{name}"], (theta[name] - phi[name]).detach())
    _compare(case, case.query(phi).detach(), wanted)


@pytest.mark.proves("identity", "imaml")
@pytest.mark.parametrize("steps", [2, 60])
def test_imaml_solves_its_linear_system_wherever_the_inner_loop_stops(steps: int) -> None:
    """The Hessian is made as a matrix, and (H + λ I) u = ∇ L_query is solved by elimination."""
    strength = 3.0
    settings = {"adapts": "bias", "inner_lr": 0.1, "head_lr": 0.1, "inner_steps": steps}
    case = _case("imaml", settings | {"strength": strength, "cg_steps": 300})
    biases = {n: p for n, p in case.theta.items() if n.endswith("bias") and "pooler" not in n}
    theta = biases | case.learned_head()
    fixed = {n: p.detach() for n, p in theta.items()}

    def near(values: Values) -> Tensor:
        return case.support(values) + strength / 2 * sum((values[n] - fixed[n]).square().sum() for n in fixed)

    phi = {n: p.detach() for n, p in _descend(near, fixed, lambda *_: 0.1, steps)[-1].items()}
    names = list(phi)
    flat = torch.cat([phi[n].flatten() for n in names])

    def unflatten(vector: Tensor) -> Values:
        pieces = vector.split([phi[n].numel() for n in names])
        return {n: piece.view_as(phi[n]) for n, piece in zip(names, pieces, strict=True)}

    def slope(vector: Tensor) -> Tensor:
        slopes = gradient_of(case.support)(unflatten(vector))
        return torch.cat([slopes[n].flatten() for n in names])

    hessian = torch.autograd.functional.jacobian(slope, flat)
    system = hessian + strength * torch.eye(len(flat), dtype=torch.float64)
    assert float(torch.linalg.eigvalsh(system).min()) > 0.1
    slopes = gradient_of(case.query)(phi)
    u = torch.linalg.solve(system, torch.cat([slopes[n].flatten() for n in names]).detach())
    # A parameter ψ that does not adapt: dL/dψ = ∂L_query/∂ψ - u · ∂∇L_support/∂ψ. One that adapts: λ u.
    outside = case.query(phi) - (u * slope(flat)).sum()
    inside = strength * sum((theta[n] * value.detach()).sum() for n, value in unflatten(u).items())
    values = list(case.meta.values())
    wanted = torch.autograd.grad(outside + inside, values, allow_unused=True, materialize_grads=True)
    _compare(case, case.query(phi).detach(), dict(zip(case.meta, wanted, strict=True)))

    pull = strength * torch.cat([(phi[n] - fixed[n]).flatten() for n in names])
    convergence = case.learner.meta_loss([encode_episode(case.encoder, case.episode)]).convergence
    assert convergence
    residual = (slope(flat) + pull).norm() / pull.norm()
    assert convergence.inner == pytest.approx(residual.item(), rel=1e-6, abs=1e-12)
    assert convergence.solve < 1e-8


@pytest.mark.proves("identity", "imaml")
def test_imaml_without_positive_curvature_has_the_first_order_gradient() -> None:
    theta = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    reported: list[Convergence] = []
    rule = make("maml", tiny_encoder(), {"inner_lr": 0.1, "head_lr": 0.1}).optimizer
    problem = objective.InnerProblem(
        theta={"w": theta},
        support_loss=lambda p: -p["w"].square().sum(),  # curvature -2, and the pull adds 0.5
        query_loss=lambda p: (p["w"] - 1).square().sum(),
        support_fraction=0.5,
        optimizer=rule,  # type: ignore[arg-type]
        steps=2,
        order="second",
        exact_steps=None,
        progress=1.0,
        report=reported.append,
    )
    (actual,) = torch.autograd.grad(objective.implicit(strength=0.5, cg_steps=5)(problem), theta)
    phi = theta.detach()
    for _ in range(2):
        phi = phi - 0.1 * (-2 * phi + 0.5 * (phi - theta.detach()))
    torch.testing.assert_close(actual, 2 * (phi - 1), rtol=1e-12, atol=0)
    assert reported[0].solve == 1.0
    assert reported[0].is_poor


@pytest.mark.proves("identity", "maml-lora")
@pytest.mark.parametrize("order", ["second", "first"])
def test_maml_lora_descends_on_the_factors_of_the_corrections(order: str) -> None:
    case = _case("maml-lora", RATES | {"adapts": "lora:2", "order": order})
    layers = [n for n, p in case.theta.items() if ".layer." in n and p.dim() == 2]
    parts = [p for n, p in case.meta.items() if n.startswith("low_rank.")]
    assert len(parts) == 2 * len(layers)
    factors = {f"{n}.{c}": parts[2 * i + j] for i, n in enumerate(layers) for j, c in enumerate("ab")}

    def corrected(values: Values) -> Values:
        weights = {n: case.theta[n] + 2 * values[f"{n}.b"] @ values[f"{n}.a"] for n in layers}
        return weights | {W: values[W], B: values[B]}

    exact = None if order == "second" else 0
    theta = factors | case.learned_head()
    phi = _descend(lambda v: case.support(corrected(v)), theta, _rate, 3, exact=exact)[-1]
    _compare(case, case.query(corrected(phi)))


@pytest.mark.proves("identity", "maml", "anil", "boil", "meta-sgd", "maml++", "imaml", "proto-maml")
@pytest.mark.parametrize("method", ["maml", "anil", "boil", "meta-sgd", "maml++", "imaml", "proto-maml"])
def test_adapting_to_a_task_takes_the_same_steps_and_as_many_as_it_is_told(method: str) -> None:
    """Beyond the steps of meta-training, a rate per step is that of the last one."""
    settings: dict[str, Any] = {"inner_steps": 2, "adapt_steps": 4}
    settings |= {"head_lr": RATES["head_lr"]} if method != "boil" else {}
    settings |= {"inner_lr": RATES["inner_lr"], "adapts": "layers:-1"} if method != "anil" else {}
    settings |= {"strength": 0.7} if method == "imaml" else {"scale": 0.1} if method == "proto-maml" else {}
    case = _case(method, settings | ({"rates": "layer"} if method == "meta-sgd" else {}))
    head = _prototypes(case) if method == "proto-maml" else case.learned_head()
    body = {} if method == "anil" else case.adapting(TOP)
    theta = {n: p.detach() for n, p in (body | ({} if method == "boil" else head)).items()}

    def loss(values: Values) -> Tensor:
        pull = sum((values[n] - theta[n]).square().sum() for n in theta) if method == "imaml" else 0.0
        return case.support({n: p.detach() for n, p in head.items()} | values) + 0.35 * pull

    def rate(name: str, step: int) -> Tensor | float:
        granularity = {"meta-sgd": "layer", "maml++": "layer-step"}.get(method)
        return _learned_rate(case, granularity)(name, min(step, 1)).detach() if granularity else _rate(name, step)

    phi = _descend(loss, theta, rate, 4)[-1]
    encoded = encode_episode(case.encoder, case.episode)
    model = case.learner.adapt(encoded.support, encoded.target)
    assert isinstance(model.head, LinearHead)
    torch.testing.assert_close(model.head.weight, phi.get(W, head[W]).detach(), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(model.head.bias, phi.get(B, head[B]).detach(), rtol=1e-8, atol=1e-10)
    assert model.params.keys() == body.keys()
    for name, p in model.params.items():
        torch.testing.assert_close(p, phi[name], rtol=1e-8, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.proves("identity", "finetune")
def test_fine_tuning_is_torchs_adam_on_the_support_set() -> None:
    case = _case("finetune", {"lr": 1e-3, "head_lr": 0.05, "steps": 5})
    values = {n: p.detach().clone().requires_grad_() for n, p in (case.theta | _zeros(N_WAY)).items()}
    head = [values.pop(W), values.pop(B)]
    optimizer = torch.optim.Adam([{"params": list(values.values()), "lr": 1e-3}, {"params": head, "lr": 0.05}])
    for _ in range(5):
        optimizer.zero_grad()
        case.support(values | {W: head[0], B: head[1]}).backward()
        optimizer.step()
    encoded = encode_episode(case.encoder, case.episode)
    model = case.learner.adapt(encoded.support, encoded.target)
    assert isinstance(model.head, LinearHead)
    torch.testing.assert_close(model.head.weight, head[0].detach(), rtol=0, atol=1e-9)
    torch.testing.assert_close(model.head.bias, head[1].detach(), rtol=0, atol=1e-9)
    assert model.params.keys() == values.keys()
    for name, p in model.params.items():
        torch.testing.assert_close(p, values[name].detach(), rtol=0, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("method", ["meta-sgd", "boil"])
def test_an_outer_step_is_adamw_and_only_the_encoder_decays(method: str, tmp_path: Path) -> None:
    settings = {"adapts": "layers:-1", "inner_lr": 0.1, "inner_steps": 2}
    case = _case(method, settings)
    before = {name: p.detach().clone() for name, p in case.meta.items()}
    loss = case.learner.meta_loss([encode_episode(case.encoder, case.episode)], 0.0).loss
    grads = torch.autograd.grad(loss, list(case.meta.values()), allow_unused=True)
    outer = OuterSettings(
        outer_steps=1,
        outer_lr=0.01,
        method_lr=0.02,
        meta_batch_size=1,
        warmup_steps=0,
        weight_decay=0.5,
        clip_norm=1e9,
        trains="all",
    )
    sampler: Any = _Always(case.episode)
    train(case.learner, sampler, outer, accelerator=Accelerator(cpu=True), folder=tmp_path, on_step=lambda _: None)
    for (name, start), g in zip(before.items(), grads, strict=True):
        inside = name.startswith("encoder.")
        wanted = start
        if g is not None:  # the first step of Adam is that of the gradient's sign
            rate = 0.01 if inside else 0.02
            wanted = start * (1 - rate * 0.5 if inside else 1.0) - rate * g / (g.abs() + 1e-8)
        sure = torch.ones_like(start, dtype=torch.bool) if g is None else (g.abs() > 1e-12) | (g == 0)
        torch.testing.assert_close(
            case.meta[name].detach()[sure], wanted[sure], rtol=0, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )
    table = f"start.tables.{SIZE}"
    assert torch.equal(case.meta[table][N_WAY:], before[table][N_WAY:])  # rows of positions that did not occur


def test_the_rows_of_positions_rename_with_the_labels_and_go_on_beyond_the_table() -> None:
    rows = [Example(f"{word} film", label=i) for i, word in enumerate(["good", "bad", "red", "two"] * 2)]
    rows = [Example(row.text, label=i % 4) for i, row in enumerate(rows)]
    order = [2, 0, 3, 1]
    renamed = [Example(row.text, label=order[int(row.label or 0)]) for row in rows]
    episodes = [Episode("t", tuple("abcd"), tuple(some), tuple(some)) for some in (rows, renamed)]
    case = _case("maml", RATES | {"adapts": "layers:-1"})
    losses = []
    for swap, episode in zip((False, True), episodes, strict=True):
        if swap:
            table = case.meta[f"start.tables.{SIZE}"]
            with torch.no_grad():
                table[order] = table[:4].clone()
        losses.append(case.learner.meta_loss([encode_episode(case.encoder, episode)]).loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)

    many = word_task(n_way=25, rows=75)
    episode = encode_episode(case.encoder, EpisodeSampler([many], EpisodeSpec(25, 1, 1), seed=0)[0])
    boil = _case("boil", {"adapts": "layers:-1", "inner_lr": 0.0})
    head = boil.learner.adapt(episode.support, episode.target).head
    assert isinstance(head, LinearHead)
    distances = torch.cdist(head.weight, head.weight).detach() + 9 * torch.eye(25)
    assert float(distances.min()) > 0.1  # a head that does not adapt must tell all labels apart
    again = boil.learner.adapt(episode.support, episode.target).head
    assert isinstance(again, LinearHead)
    assert torch.equal(head.weight, again.weight)
