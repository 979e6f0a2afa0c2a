"""Methods without an inner loop: closed forms, optimality conditions, gradcheck of the meta-loss in float64."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.autograd.gradcheck import gradcheck

from quickstudy.lstm import LSTMCell
from quickstudy.methods.baseline import Majority, Nearest
from quickstudy.methods.closed_form import Ridge, SupportVectors, _project, solve_svm
from quickstudy.methods.feature import HeadRule
from quickstudy.methods.matching import Matching
from quickstudy.methods.protonet import Prototypes
from quickstudy.methods.support_net_rule import SupportNetRule
from quickstudy.models.support_net import InContext, LSTMReader, Relation, SupportNet


def _reading(net: type[SupportNet], prior: float = 2.0, hidden: int = 8) -> HeadRule:
    """A net that has been trained a little: its last layer is not zero."""
    rule = SupportNetRule(lambda: net([5], hidden), prior)
    for seed, parameter in enumerate(rule.net.answer.parameters()):
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    return rule


RULES: dict[str, Callable[[], HeadRule]] = {
    "prototypes": Prototypes,
    "matching": Matching,
    "ridge": Ridge,
    "support vectors": SupportVectors,
    "relation": lambda: _reading(Relation),
    "in-context": lambda: _reading(InContext),
    "lstm-reader": lambda: _reading(LSTMReader, hidden=4),
}
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0])


@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("rule", RULES)
def test_query_scores_pass_gradcheck_in_features_and_parameters(rule: str, kind: str) -> None:
    made = RULES[rule]().double()
    labels = LABELS if kind == "classification" else _randn(8, seed=3)
    # The matrices of a net do the same in both kinds: in regression its small parameters are checked, and the features.
    checked = {name: p for name, p in made.named_parameters() if kind == "classification" or p.numel() <= 8}

    def scores(support: Tensor, query: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(
            _Head(made, labels, kind), {f"rule.{n}": v for n, v in zip(checked, values, strict=True)}, (support, query)
        )

    inputs = [_randn(8, 5), _randn(3, 5, seed=1), *(p.detach().clone() for p in checked.values())]
    assert gradcheck(scores, tuple(x.requires_grad_() for x in inputs))


@pytest.mark.parametrize("rule", [*RULES.values(), Nearest, Majority])
def test_renaming_labels_renames_predictions(rule: Callable[[], HeadRule]) -> None:
    made = rule().double()
    support, query, order = _randn(8, 5), _randn(6, 5, seed=1), torch.tensor([2, 0, 1])
    one = made.head(support, LABELS, 3, "classification")(query)
    other = made.head(support, order[LABELS], 3, "classification")(query)
    torch.testing.assert_close(other[:, order].softmax(-1), one.softmax(-1), rtol=0, atol=1e-7)


@pytest.mark.parametrize("rule", [*(made for name, made in RULES.items() if name != "lstm-reader"), Nearest])
def test_the_order_of_support_examples_does_not_matter(rule: Callable[[], HeadRule]) -> None:
    made, order = rule().double(), torch.randperm(8, generator=torch.Generator().manual_seed(0))
    support, query = _randn(8, 5), _randn(6, 5, seed=1)
    one, other = (
        made.head(support[rows], LABELS[rows], 3, "classification")(query) for rows in (torch.arange(8), order)
    )
    torch.testing.assert_close(one.softmax(-1), other.softmax(-1), rtol=0, atol=1e-7)


@pytest.mark.proves("identity", "matching")
def test_matching_networks_are_attention_over_the_support_set() -> None:
    support, query = _randn(8, 5), _randn(4, 5, seed=1)
    found = Matching(3.0).double().head(support, LABELS, 3, "classification")(query).softmax(-1)
    for i, f in enumerate(query):
        weights = torch.softmax(torch.stack([3.0 * torch.cosine_similarity(f, x, dim=0) for x in support]), 0)
        wanted = torch.stack([weights[n == LABELS].sum() for n in range(3)])
        torch.testing.assert_close(found[i], wanted, rtol=0, atol=1e-7)


@pytest.mark.proves("identity", "r2d2")
def test_the_ridge_head_is_scikit_learns() -> None:
    support, query = _randn(8, 5), _randn(4, 5, seed=1)
    fitted = SklearnRidge(alpha=0.7, fit_intercept=False).fit(support.numpy(), np.eye(3)[LABELS.numpy()])
    found = Ridge(0.7, 2.0).double().head(support, LABELS, 3, "classification")(query)
    np.testing.assert_allclose(found.detach().numpy(), 2.0 * fitted.predict(query.numpy()), atol=1e-6)


@pytest.mark.proves("identity", "nearest-neighbour")
def test_the_nearest_neighbour_is_scikit_learns() -> None:
    support, query = _randn(30, 5), _randn(40, 5, seed=1)
    labels = torch.arange(30) % 4
    fitted = KNeighborsClassifier(1).fit(support.numpy(), labels.numpy())
    found = Nearest().head(support, labels, 4, "classification")(query).argmax(-1)
    assert found.tolist() == fitted.predict(query.numpy()).tolist()
    assert Nearest().head(support, query[:30, 0], 1, "regression")(support)[:, 0].tolist() == query[:30, 0].tolist()


@pytest.mark.proves("identity", "majority")
def test_the_majority_knows_only_how_often_a_label_comes() -> None:
    found = Majority().head(_randn(8, 5), LABELS, 3, "classification")(_randn(2, 5, seed=1)).softmax(-1)
    assert found.tolist() == pytest.approx(np.array([[4, 2, 2]] * 2) / 8)
    assert Majority().head(_randn(8, 5), _randn(8, seed=2), 1, "regression")(_randn(1, 5)).item() == pytest.approx(
        _randn(8, seed=2).mean().item()
    )


@pytest.mark.proves("identity", "metaoptnet")
@pytest.mark.parametrize("c", [0.05, 0.5, 5.0])
def test_the_support_vector_solution_is_optimal(c: float) -> None:
    features, y = _randn(20, 12), torch.nn.functional.one_hot(torch.arange(20) % 4, 4).double()
    kernel = features @ features.T
    dual = solve_svm(kernel, y, c)
    assert (dual <= c * y + 1e-9).all()
    assert dual.sum(-1).abs().max() < 1e-8

    def objective(a: Tensor) -> float:
        return float((a * (kernel @ a)).sum() / 2 - (a * y).sum())

    best, random = objective(dual), torch.Generator().manual_seed(0)
    for size in (1e-3, 1e-1, 1.0):  # no feasible neighbour is better
        for _ in range(20):
            move = size * c * torch.randn(20, 4, generator=random, dtype=torch.float64)
            assert objective(_project(dual + move, c * y)) >= best - 1e-9


def test_the_projection_is_the_nearest_feasible_point() -> None:
    v, bound = 2 * _randn(50, 4), torch.nn.functional.one_hot(torch.arange(50) % 4, 4).double()
    found = _project(v, bound)
    assert (found <= bound + 1e-12).all()
    assert found.sum(-1).abs().max() < 1e-12
    low, high = v.min(-1).values - 4, v.max(-1).values  # τ by bisection: the sum of min(v - τ, bound) falls in τ
    for _ in range(80):
        middle = (low + high) / 2
        above = torch.minimum(v - middle[:, None], bound).sum(-1) > 0
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    torch.testing.assert_close(found, torch.minimum(v - low[:, None], bound), rtol=0, atol=1e-10)


def test_the_lstm_cell_is_torchs() -> None:
    cell, theirs = LSTMCell(3, 4).double(), torch.nn.LSTMCell(3, 4).double()
    with torch.no_grad():
        theirs.weight_ih.copy_(cell.gates.weight[:, :3])
        theirs.weight_hh.copy_(cell.gates.weight[:, 3:])
        theirs.bias_ih.copy_(cell.gates.bias)
        theirs.bias_hh.zero_()
    x, state = _randn(2, 3), (_randn(2, 4, seed=1), _randn(2, 4, seed=2))
    for mine, wanted in zip(cell(x, state), theirs(x, state), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-12)


@pytest.mark.proves("identity", "lstm-reader")
def test_the_lstm_reader_is_one_pass_of_the_cell_per_label_and_order() -> None:
    net = _reading(LSTMReader).double().net
    support, query, values = _randn(5, 5), _randn(2, 5, seed=1), torch.eye(3).double()[[0, 1, 2, 0, 1]]
    wanted = torch.zeros(2, 3, dtype=torch.float64)
    for seed in range(4):
        order = range(5) if seed == 0 else torch.randperm(5, generator=torch.Generator().manual_seed(seed)).tolist()
        for n in range(3):
            for q in range(2):
                state, told = net.cell.start(query), torch.zeros(2).double()
                for i in order:
                    state = net.cell(torch.cat([net.project["5"](support[i]), told]), state)
                    told = torch.tensor([float(values[i, n]), 1.0]).double()
                state = net.cell(torch.cat([net.project["5"](query[q]), told]), state)
                wanted[q, n] += net.answer(state[0]).item() / 4
    torch.testing.assert_close(net(query, support, values), wanted, rtol=0, atol=1e-12)


@pytest.mark.proves("identity", "relation", "in-context", "lstm-reader")
@pytest.mark.parametrize("net", [Relation, InContext, LSTMReader])
def test_an_untrained_net_adds_nothing_to_the_prototypes(net: type[SupportNet]) -> None:
    support, query = _randn(8, 5), _randn(6, 5, seed=1)
    found = SupportNetRule(lambda: net([5], 8), 2.0).double().head(support, LABELS, 3, "classification")(query)
    wanted = Prototypes(2.0).double().head(support, LABELS, 3, "classification")(query)
    torch.testing.assert_close(found.softmax(-1), wanted.softmax(-1), rtol=0, atol=1e-7)


@pytest.mark.parametrize("net", [Relation, InContext, LSTMReader])
def test_a_net_learns_what_prototypes_cannot(net: type[SupportNet]) -> None:
    """One label lies on both sides of the other: both have the same mean."""
    rule = SupportNetRule(lambda: net([2], 32), 0.5)
    optimizer = torch.optim.Adam(rule.parameters(), 1e-2)
    random, right = torch.Generator().manual_seed(0), []
    for step in range(200):
        angle = 6.3 * torch.rand((), generator=random)
        axis = torch.stack([angle.cos(), angle.sin()])
        labels = torch.arange(24) % 2
        side = torch.where(labels == 0, 0.0, torch.randint(2, (24,), generator=random) * 2.0 - 1)
        points = side[:, None] * axis + 0.15 * torch.randn(24, 2, generator=random)
        scores = rule.head(points[:16], labels[:16], 2, "classification")(points[16:])
        loss = torch.nn.functional.cross_entropy(scores, labels[16:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step >= 150:
            right.append((scores.argmax(-1) == labels[16:]).float().mean().item())
    assert np.mean(right) > 0.7


class _Head(torch.nn.Module):
    def __init__(self, rule: HeadRule, labels: Tensor, kind: str) -> None:
        super().__init__()
        self.rule, self.labels, self.kind = rule, labels, kind

    def forward(self, support: Tensor, query: Tensor) -> Tensor:
        n_way = 3 if self.kind == "classification" else 1
        return self.rule.head(support, self.labels, n_way, self.kind)(query)  # type: ignore[arg-type]


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
