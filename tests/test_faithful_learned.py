"""The learned family, the feature family and the baselines against their papers' equations, which are written again.

Each method stands at random weights in float64, in an episode of unequal classes. Its meta-loss, and the gradient in
every meta-parameter, must agree with the equations to 1e-8. For MetaOptNet, which iterations solve, it is 1e-6.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy, gelu

from conftest import score_task
from plain import N_WAY, SIZE, Case, Values, compare, make_case
from quickstudy.methods.catalog.baseline_family import label_names
from quickstudy.methods.generated_start import GeneratedStart
from quickstudy.models.batch import encode_set
from quickstudy.models.support_rows import SupportRows
from quickstudy.models.target import Classes, make_target
from quickstudy.tasks.label_text import label_texts
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Task

KINDS = pytest.mark.parametrize("scores", [False, True], ids=["classes", "scores"])
ORDERS = pytest.mark.parametrize("order", ["second", "first"])
TOP = "encoder.layer.1."
STEPS = {"adapts": "layers:-1", "inner_lr": 0.2, "head_lr": 0.5, "inner_steps": 3}
W, B = "head.weight", "head.bias"
PROJECTION = ("lower_weight", "lower_bias", "upper_weight", "upper_bias")


@pytest.fixture(autouse=True)
def _math_attention() -> Iterator[None]:
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        yield


# Metric and closed-form methods.


@pytest.mark.proves("identity", "protonet")
@KINDS
def test_protonet_compares_with_the_mean_of_each_label(scores: bool) -> None:
    case = make_case("protonet", {"scale": 0.3}, scores=scores)
    compare(case, case.query_loss(lambda f: _prior(case, f, case.meta["rule.log_scale"].exp())))


@pytest.mark.proves("identity", "matching")
@KINDS
def test_matching_lets_each_support_example_vote_by_its_cosine(scores: bool) -> None:
    case = make_case("matching", {"scale": 3.0}, scores=scores)
    support, labels = case.support()
    scale = case.meta["rule.log_scale"].exp()

    def head(f: Tensor) -> Tensor:
        cosines = torch.stack([torch.stack([(q @ x) / (q.norm() * x.norm()) for x in support]) for q in f])
        a = torch.softmax(scale * cosines, 1)
        if scores:
            return (a * labels).sum(1, keepdim=True)
        return torch.stack([a[:, labels == n].sum(1) for n in range(N_WAY)], 1).log()

    compare(case, case.query_loss(head))


@pytest.mark.proves("identity", "r2d2")
@KINDS
def test_r2d2_is_ridge_regression_by_the_normal_equations(scores: bool) -> None:
    case = make_case("r2d2", {"penalty": 0.7, "scale": 0.3}, scores=scores)
    support, labels = case.support()
    wanted = labels[:, None] if scores else torch.eye(N_WAY).double()[labels]
    penalty = case.meta["rule.log_penalty"].exp() * torch.eye(SIZE).double()
    w = torch.linalg.inv(support.T @ support + penalty) @ support.T @ wanted
    compare(case, case.query_loss(lambda f: f @ w if scores else case.meta["rule.log_scale"].exp() * f @ w))


def test_a_free_intercept_of_r2d2_is_a_column_of_ones_without_a_penalty() -> None:
    case = make_case("r2d2", {"penalty": 0.7, "scale": 0.3, "intercept": "free"})
    support, labels = case.support()
    x = torch.cat([support, torch.ones(len(support), 1).double()], 1)
    penalty = torch.diag(torch.tensor([*[1.0] * SIZE, 0.0]).double()) * case.meta["rule.log_penalty"].exp()
    w = torch.linalg.inv(x.T @ x + penalty) @ x.T @ torch.eye(N_WAY).double()[labels]
    compare(case, case.query_loss(lambda f: case.meta["rule.log_scale"].exp() * (f @ w[:-1] + w[-1])))


@pytest.mark.proves("identity", "metaoptnet")
@pytest.mark.parametrize("c", [0.05, 0.1, 5.0])
def test_metaoptnet_solves_the_dual_of_crammer_and_singer(c: float) -> None:
    """SciPy says which dual variables are at their bound; the others then solve linear equations."""
    case = make_case("metaoptnet", {"c": c, "scale": 1.0})
    support, labels = case.support()
    dual = _solve_dual(support @ support.T, torch.eye(N_WAY).double()[labels], c)
    w = case.meta["rule.log_scale"].exp() * dual.T @ support
    # The library's solver stops at 1e-10, and the system of its derivative has 1e-9 on the diagonal.
    compare(case, case.query_loss(lambda f: f @ w.T), tolerance=1e-6)


def test_metaoptnet_predicts_scores_by_ridge_regression() -> None:
    case = make_case("metaoptnet", {"penalty": 0.5}, scores=True)
    support, labels = case.support()
    w = torch.linalg.inv(support.T @ support + 0.5 * torch.eye(SIZE).double()) @ support.T @ labels[:, None]
    compare(case, case.query_loss(lambda f: f @ w))


def _solve_dual(kernel: Tensor, y: Tensor, c: float) -> Tensor:
    """min 1/2 tr(A^T K A) - <A, Y>  s.t.  A <= C Y, A 1 = 0, for A (B, N)."""
    k, target, size = kernel.detach().numpy(), y.numpy(), y.numel()
    solved = minimize(
        lambda a: ((m := a.reshape(y.shape)) * (k @ m)).sum() / 2 - (m * target).sum(),
        np.zeros(size),
        jac=lambda a: (k @ a.reshape(y.shape) - target).ravel(),
        bounds=[(None, bound) for bound in (c * target).ravel()],
        constraints={"type": "eq", "fun": lambda a: a.reshape(y.shape).sum(1)},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    bound = torch.from_numpy(solved.x > (c * target).ravel() - 1e-6)
    hessian = torch.kron(kernel, torch.eye(y.shape[1]).double())  # of the entries of A, row by row
    rows = torch.kron(torch.eye(len(y)).double(), torch.ones(1, y.shape[1]).double())
    at, sums = torch.eye(size).double()[bound], torch.zeros(len(y)).double()
    equal, values = torch.cat([rows, at]), torch.cat([sums, c * y.flatten()[bound]])
    # Rows whose entries are all at their bound determine nothing: their sum is 0 twice over.
    corner = torch.zeros(len(equal), len(equal)).double()
    matrix = torch.cat([torch.cat([hessian, equal.T], 1), torch.cat([equal, corner], 1)])
    a = torch.linalg.lstsq(matrix, torch.cat([y.flatten(), values])[:, None], driver="gelsd").solution[:size, 0]
    assert abs(a.detach().numpy() - solved.x).max() < 1e-4
    return a.view(y.shape)


# Networks that read the support set.


@pytest.mark.proves("identity", "relation")
@KINDS
@pytest.mark.parametrize("prior", [0.3, 0.0])
def test_relation_compares_each_query_with_each_mean_by_a_network(prior: float, scores: bool) -> None:
    case = make_case("relation", {"hidden": 5, "prior": prior}, scores=scores)
    support, labels = case.support()
    points = support if scores else torch.stack([support[labels == n].mean(0) for n in range(N_WAY)])

    def relation(f: Tensor, c: Tensor) -> Tensor:
        both = torch.cat([(f - c).abs(), math.sqrt(SIZE) * f * c])
        hidden = torch.relu(_linear(case, f"rule.net.project.{SIZE}", both))
        return _linear(case, "rule.net.answer", hidden)[0]

    def head(f: Tensor) -> Tensor:
        relations = torch.stack([torch.stack([relation(q, c) for c in points]) for q in f])
        answers = (torch.softmax(relations, 1) * labels).sum(1, keepdim=True) if scores else relations
        return answers + _prior(case, f, case.meta["rule.prior"])

    compare(case, case.query_loss(head))


@pytest.mark.proves("identity", "in-context")
@KINDS
@pytest.mark.parametrize("prior", [0.3, 0.0])
def test_in_context_attends_from_the_query_to_examples_that_attended_to_each_other(prior: float, scores: bool) -> None:
    case = make_case("in-context", {"hidden": 8, "prior": prior}, scores=scores, noise=0.5)
    support, labels = case.support()
    columns = labels[:, None] if scores else torch.eye(N_WAY).double()[labels]
    project = f"rule.net.project.{SIZE}"

    def answer(f: Tensor, column: Tensor) -> Tensor:
        told = torch.stack([_linear(case, "rule.net.label", y[None]) for y in column])
        examples = _linear(case, project, support) + told
        examples = _attention(case, "rule.net.read", examples, examples)
        return _linear(case, "rule.net.answer", _attention(case, "rule.net.ask", _linear(case, project, f), examples))

    def head(f: Tensor) -> Tensor:
        return torch.cat([answer(f, column) for column in columns.T], 1) + _prior(case, f, case.meta["rule.prior"])

    compare(case, case.query_loss(head))


def _attention(case: Case, block: str, asking: Tensor, read: Tensor) -> Tensor:
    """x = a + attend(norm(a), norm(r));  x + feed(norm(x)), with four heads, for a (A, D) and r (B, D)."""
    p, size = case.meta, asking.shape[-1]
    q, k, v = (
        values @ weight.T + bias
        for values, weight, bias in zip(
            (_norm(case, f"{block}.norms.0", asking), *[_norm(case, f"{block}.norms.1", read)] * 2),
            p[f"{block}.attend.in_proj_weight"].split(size),
            p[f"{block}.attend.in_proj_bias"].split(size),
            strict=True,
        )
    )
    width = size // 4
    heads = [slice(i * width, (i + 1) * width) for i in range(4)]
    mixed = torch.cat([torch.softmax(q[:, h] @ k[:, h].T / math.sqrt(width), 1) @ v[:, h] for h in heads], 1)
    x = asking + _linear(case, f"{block}.attend.out_proj", mixed)
    hidden = gelu(_linear(case, f"{block}.feed.0", _norm(case, f"{block}.norms.2", x)))
    return x + _linear(case, f"{block}.feed.2", hidden)


def _norm(case: Case, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * case.meta[f"{name}.weight"] + case.meta[f"{name}.bias"]


@pytest.mark.proves("identity", "lstm-reader")
@KINDS
@pytest.mark.parametrize(("prior", "loss"), [(0.3, "query"), (0.0, "every-example"), (0.3, "every-example")])
def test_the_lstm_reader_answers_each_text_before_it_is_told_the_label(prior: float, loss: str, scores: bool) -> None:
    case = make_case("lstm-reader", {"hidden": 4, "prior": prior, "loss": loss}, scores=scores, noise=0.5)
    support, labels = case.support()
    columns = labels[:, None] if scores else torch.eye(N_WAY).double()[labels]
    orders, losses = _reading_orders(len(support)), []

    def step(f: Tensor, told: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return _lstm(case, "rule.net.cell", torch.cat([_linear(case, f"rule.net.project.{SIZE}", f), told]), *state)

    def answer(state: tuple[Tensor, Tensor]) -> Tensor:
        return _linear(case, "rule.net.answer", state[0])[0]

    def read(order: list[int], column: Tensor, f: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        """Return the answers for the support examples and that for a query."""
        state, told, answers = (torch.zeros(4).double(),) * 2, torch.zeros(2).double(), {}
        for i in order:
            state = step(support[i], told, state)
            answers[i], told = answer(state), torch.stack([column[i], torch.ones(()).double()])
        return answers, answer(step(f, told, state))

    def head(f: Tensor) -> Tensor:
        answers = [[[read(order, column, q)[1] for column in columns.T] for q in f] for order in orders]
        return torch.stack([torch.stack([torch.stack(n) for n in order]) for order in answers]).mean(0) + _prior(
            case, f, case.meta["rule.prior"]
        )

    for order in orders:
        early = [read(order, column, support[0])[0] for column in columns.T]
        answers = torch.stack([torch.stack([column[i] for column in early]) for i in range(len(support))])
        losses.append(case.loss(answers, case.episode.support))
    wanted, b, q = case.query_loss(head), len(support), len(case.episode.query)
    compare(case, (b * torch.stack(losses).mean() + q * wanted) / (b + q) if loss == "every-example" else wanted)


# Methods with LSTMs that take steps or change the encoder.


@pytest.mark.proves("identity", "lstm-controller")
@KINDS
def test_the_controller_gates_and_shifts_every_branch(scores: bool) -> None:
    case = make_case("lstm-controller", {"hidden": 4, "scale": 0.3}, scores=scores, noise=0.5)
    support, labels = case.support()
    told = labels[:, None].expand(-1, SIZE)
    if not scores:
        told = torch.stack([support[labels == n].mean(0) for n in range(N_WAY)])[labels]
    inputs = _linear(case, f"project.{SIZE}", torch.cat([support, told], 1))
    last = []
    for order in _reading_orders(len(support)):
        state = (torch.zeros(4).double(),) * 2
        for i in order:
            state = _lstm(case, "cell", inputs[i], *state)
        last.append(state[0])
    outputs, phi = _linear(case, "out", torch.stack(last).mean(0)), {}
    for name in sorted(n for n in case.theta if n.endswith("output.dense.weight")):
        gate, shift, outputs = 2 * torch.sigmoid(outputs[0]), outputs[1 : 1 + SIZE], outputs[1 + SIZE :]
        bias = name.replace("weight", "bias")
        phi |= {name: gate * case.theta[name], bias: gate * case.theta[bias] + shift}
    assert (len(phi), len(outputs)) == (8, 0)  # two branches in each of two layers
    changed = case.features(case.episode.support, phi)
    answers = _distances(case, case.features(case.episode.query, phi), changed, case.meta["rule.log_scale"].exp())
    compare(case, case.loss(answers, case.episode.query))


@pytest.mark.proves("identity", "lstm-optimizer")
@KINDS
@ORDERS
def test_the_lstm_optimizer_has_the_parameters_as_its_cell_state(order: str, scores: bool) -> None:
    case = make_case("lstm-optimizer", STEPS | {"hidden": 3, "order": order}, scores=scores)
    state: dict[str, tuple[Tensor, ...]] = {}

    def step(name: str, p: Tensor, slope: Tensor, loss: Tensor) -> Tensor:
        p, g = p.flatten(), slope.flatten()
        zero, one = torch.zeros(len(p), 3).double(), torch.ones(len(p)).double()
        h, c, forget, take = state.get(name, (zero, zero, one, one))
        h, c = _lstm(case, "optimizer.cell", torch.cat([_pre(g), _pre(loss.expand(len(g)))], 1), h, c)
        forget, take = (
            scale
            * torch.sigmoid(_linear(case, f"optimizer.{gate}", torch.cat([h, p[:, None], past[:, None]], 1))[:, 0])
            for gate, past, scale in (("forget", forget, 1), ("input", take, 2))
        )
        state[name] = h, c, forget, take
        return (forget * p - _rate(name) * take * g).view_as(slope)

    row = case.meta[f"start.rows.{SIZE}"]
    n = 1 if scores else N_WAY
    theta = _adapting(case) | {W: row[:-1].expand(n, -1), B: row[-1].expand(n)}
    compare(case, _query(case, _walk(case, theta, step, order)[-1]))


@pytest.mark.proves("identity", "learned-optimizer")
@KINDS
@ORDERS
def test_the_learned_optimizer_corrects_the_gradient_and_learns_from_every_step(order: str, scores: bool) -> None:
    case = make_case("learned-optimizer", STEPS | {"hidden": 3, "order": order}, scores=scores)
    state: dict[str, tuple[Tensor, ...]] = {}

    def step(name: str, p: Tensor, slope: Tensor, loss: Tensor) -> Tensor:
        zero = torch.zeros(p.numel(), 3).double()
        h1, c1, h2, c2 = state.get(name, (zero,) * 4)
        h1, c1 = _lstm(case, "optimizer.lower", _pre(slope.flatten()), h1, c1)
        h2, c2 = _lstm(case, "optimizer.upper", h1, h2, c2)
        state[name] = h1, c1, h2, c2
        return p - _rate(name) * (slope + _linear(case, "optimizer.out", h2).view_as(p))

    n = 1 if scores else N_WAY
    zeros = {W: torch.zeros(n, SIZE).double().requires_grad_(), B: torch.zeros(n).double().requires_grad_()}
    path = _walk(case, _adapting(case) | zeros, step, order)
    compare(case, torch.stack([_query(case, phi) for phi in path]).mean())


# LEOPARD.


@pytest.mark.proves("identity", "leopard")
@KINDS
@ORDERS
def test_leopard_writes_the_head_from_the_examples_and_projects_the_features(order: str, scores: bool) -> None:
    """Bansal et al. 2020, equations 2 to 4; what is learned are multiples of the weights of g and h."""
    case = make_case("leopard", STEPS | {"hidden": 6, "order": order}, scores=scores)
    support, labels = case.support()

    def network(kind: str, gain: float) -> tuple[Tensor, ...]:
        lower, upper = (f"start.{kind}.{SIZE}.{layer}" for layer in ("lower", "upper"))
        weights = case.meta[f"{lower}.weight"] / math.sqrt(SIZE), gain * case.meta[f"{upper}.weight"] / math.sqrt(6)
        return weights[0], case.meta[f"{lower}.bias"], weights[1], case.meta[f"{upper}.bias"]

    h = dict(zip(PROJECTION, network("projections", 0.3), strict=True))
    if scores:
        x = _two_layers(support, *h.values())
        w = (torch.linalg.inv(x.T @ x + torch.eye(6).double()) @ x.T @ labels)[None]
        rows = torch.cat([w, torch.zeros(1, 1).double()], 1)
    else:
        written = torch.stack([_two_layers(f, *network("generators", 0.1)) for f in support])
        rows = torch.stack([written[labels == n].mean(0) for n in range(N_WAY)])
    theta = _adapting(case) | {W: rows[:, :-1], B: rows[:, -1]} | {f"head.{name}": p for name, p in h.items()}
    compare(case, _query(case, _walk(case, theta, _multiply(case), order)[-1]))


@pytest.mark.proves("identity", "leopard")
@ORDERS
def test_leopard_corrects_the_prototypes_head_where_it_is_told_to(order: str) -> None:
    case = make_case("leopard", STEPS | {"hidden": 6, "order": order, "start": "prototypes", "scale": 0.1})
    support, labels = case.support()
    means = torch.stack([support[labels == n].mean(0) for n in range(N_WAY)])
    network = f"start.networks.{SIZE}"
    rows = _linear(case, f"{network}.2", torch.tanh(_linear(case, f"{network}.0", means)))
    scale = case.meta["start.prototypes.log_scale"].exp()
    head = {W: 2 * scale * means + rows[:, :-1], B: -scale * means.square().sum(1) + rows[:, -1]}
    compare(case, _query(case, _walk(case, _adapting(case) | head, _multiply(case), order)[-1]))


def test_the_first_outer_steps_change_the_logits_of_a_generated_head_slowly() -> None:
    start, features = GeneratedStart({384}), torch.nn.functional.normalize(torch.randn(8, 384), dim=-1)
    target, rows = make_target("classification", ("a", "b")), SupportRows(features, torch.arange(8) % 2)

    def spread() -> Tensor:
        return start.head(lambda: rows, target, features[0])(features).std(1).mean()

    outer = torch.optim.Adam(start.parameters(), lr=0.01)
    for _ in range(10):
        outer.zero_grad()
        (-spread()).backward()
        outer.step()
    assert spread() < 3


# Baselines.


@pytest.mark.proves("identity", "multi-task")
@KINDS
def test_multi_task_trains_the_head_of_the_task_on_all_examples(scores: bool) -> None:
    case = make_case("multi-task", {"scale": 0.7}, scores=scores)
    names = [f"class{i}" for i in range(4)]
    both = case.episode.support + case.episode.query
    answers = 0.7 * (case.features(both) @ case.meta["heads.1"][:, :-1].T + case.meta["heads.1"][:, -1])
    if not scores:
        place = torch.tensor([names.index(name) for name in case.episode.label_names])
        compare(case, cross_entropy(answers, place[case.labels(both)]))
        return
    known, given = (torch.tensor([row.label for row in rows]).double() for rows in (_all_rows(score_task()), both))
    compare(case, (answers[:, 0] - (given - known.mean()) / known.std(correction=0)).square().mean())


def _all_rows(task: Task) -> list[Example]:
    return [task.train_split[i] for i in range(len(task.train_split))]


def test_label_names_are_compared_as_texts() -> None:
    case = make_case("majority", {})
    names = ("good film", "bad_loan", "red")
    queries, read = case.episode.query, tuple(Example(name.replace("_", " ")) for name in names)
    target = Classes(names, label_texts(names, {}))
    support = encode_set(case.learner.encoder, case.episode.support)
    model = label_names(case.learner.encoder, scale=0.3).adapt(support, target)
    wanted = _distances(case, case.features(queries), case.features(read), torch.tensor(0.3), torch.arange(3))
    found = model.predict_proba([row.text for row in queries])
    torch.testing.assert_close(found, torch.softmax(wanted, 1).detach(), rtol=1e-7, atol=0)


# What the equations share.


def _linear(case: Case, name: str, x: Tensor) -> Tensor:
    return x @ case.meta[f"{name}.weight"].T + case.meta[f"{name}.bias"]


def _lstm(case: Case, name: str, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """i, f, g, o = W [x, h] + b;  c = σ(f) c + σ(i) tanh(g);  h = σ(o) tanh(c)."""
    gates, size = _linear(case, f"{name}.gates", torch.cat([x, h], -1)), h.shape[-1]
    i, f, g, o = (gates[..., k * size : (k + 1) * size] for k in range(4))
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _reading_orders(examples: int) -> list[list[int]]:
    """The order in which the examples come, and three random ones."""
    random = (torch.randperm(examples, generator=torch.Generator().manual_seed(seed)).tolist() for seed in (1, 2, 3))
    return [list(range(examples)), *random]


def _distances(case: Case, f: Tensor, points: Tensor, scale: Tensor, labels: Tensor | None = None) -> Tensor:
    """-scale ||f - c_n||^2 for the mean c_n of each label; of scores the mean, weighted by the softmax of these."""
    labels = case.labels(case.episode.support) if labels is None else labels
    if not case.scores:
        points = torch.stack([points[labels == n].mean(0) for n in range(N_WAY)])
    distances = torch.stack([torch.stack([(q - c).square().sum() for c in points]) for q in f])
    if case.scores:
        return (torch.softmax(-scale * distances, 1) * labels).sum(1, keepdim=True)
    return -scale * distances


def _prior(case: Case, f: Tensor, scale: Tensor) -> Tensor:
    return _distances(case, f, case.support()[0], scale)


def _pre(x: Tensor) -> Tensor:
    """(log|x| / 10, sign x), or (-1, e^10 x) where |x| < e^-10."""
    pairs = [
        torch.stack([v.abs().log() / 10, v.sign()])
        if abs(float(v.detach())) >= math.exp(-10)
        else torch.stack([-torch.ones_like(v), math.exp(10) * v])
        for v in x
    ]
    return torch.stack(pairs)


def _adapting(case: Case) -> Values:
    return {name: p for name, p in case.theta.items() if name.startswith(TOP)}


def _rate(name: str) -> float:
    return STEPS["head_lr"] if name.startswith("head.") else STEPS["inner_lr"]


def _multiply(case: Case) -> Callable[..., Tensor]:
    """A step of gradient descent with a learned multiple of the rate for each tensor."""

    def step(name: str, p: Tensor, slope: Tensor, _loss: Tensor) -> Tensor:
        return p - _rate(name) * case.meta[f"optimizer.multiples.{name.replace('.', '/')}"][0] * slope

    return step


def _two_layers(x: Tensor, u: Tensor, a: Tensor, v: Tensor, b: Tensor) -> Tensor:
    return torch.tanh(torch.tanh(x @ u.T + a) @ v.T + b)


def _answers(case: Case, rows: tuple[Example, ...], values: Values) -> Tensor:
    f = case.features(rows, values)
    if "head.upper_weight" in values:
        f = _two_layers(f, *(values[f"head.{name}"] for name in PROJECTION))
    return f @ values[W].T + values[B]


def _query(case: Case, values: Values) -> Tensor:
    return case.loss(_answers(case, case.episode.query, values), case.episode.query)


def _walk(case: Case, theta: Values, step: Callable[..., Tensor], order: str) -> list[Values]:
    """φ_1 .. φ_S. In first order the slopes and the loss are constants."""
    path = []
    for _ in range(3):
        nodes = {name: p.view_as(p) for name, p in theta.items()}  # slopes are partial: the head is made of features
        loss = case.loss(_answers(case, case.episode.support, nodes), case.episode.support)
        loss = 0.1 * loss if case.scores else loss
        slopes = torch.autograd.grad(loss, list(nodes.values()), create_graph=True)
        if order == "first":
            slopes, loss = [slope.detach() for slope in slopes], loss.detach()
        theta = {name: step(name, p, slope, loss) for (name, p), slope in zip(theta.items(), slopes, strict=True)}
        path.append(theta)
    return path
