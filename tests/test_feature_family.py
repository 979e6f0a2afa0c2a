"""Methods without an inner loop: optimality conditions, scikit-learn's answers, and what a net can learn."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from conftest import tiny_encoder
from quickstudy.lstm import LSTMCell
from quickstudy.methods.baseline import Majority, Nearest
from quickstudy.methods.catalog import make
from quickstudy.methods.closed_form import _project, solve_svm
from quickstudy.methods.protonet import Prototypes
from quickstudy.methods.support_net_rule import SupportNetRule
from quickstudy.models.support_net import InContext, LSTMReader, Relation, SupportNet
from quickstudy.models.support_rows import SupportRows
from quickstudy.models.target import Classes, Scores

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0])
TWO, THREE, FOUR = (Classes(tuple("abcd"[:n])) for n in (2, 3, 4))


@pytest.mark.proves("identity", "nearest-neighbour")
def test_the_nearest_neighbour_is_scikit_learns() -> None:
    support, query = _randn(30, 5), _randn(40, 5, seed=1)
    labels = torch.arange(30) % 4
    fitted = KNeighborsClassifier(1).fit(support.numpy(), labels.numpy())
    found = Nearest().head(SupportRows(support, labels), FOUR)(query).argmax(-1)
    assert found.tolist() == fitted.predict(query.numpy()).tolist()
    assert (
        Nearest().head(SupportRows(support, query[:30, 0]), Scores())(support)[:, 0].tolist() == query[:30, 0].tolist()
    )


@pytest.mark.proves("identity", "majority")
def test_the_majority_knows_only_how_often_a_label_comes() -> None:
    found = Majority().head(SupportRows(_randn(8, 5), LABELS), THREE)(_randn(2, 5, seed=1)).softmax(-1)
    assert found.tolist() == pytest.approx(np.array([[4, 2, 2]] * 2) / 8)
    rows = SupportRows(_randn(8, 5), _randn(8, seed=2))
    assert Majority().head(rows, Scores())(_randn(1, 5)).item() == pytest.approx(rows.labels.mean().item())


@pytest.mark.proves("identity", "metaoptnet")
@pytest.mark.parametrize("c", [0.05, 0.5, 5.0])
def test_the_support_vector_solution_is_optimal(c: float) -> None:
    features, y = _randn(20, 12), torch.nn.functional.one_hot(torch.arange(20) % 4, 4).double()
    kernel = features @ features.T
    dual = solve_svm(kernel, y, torch.full((20,), c))
    assert (dual <= c * y + 1e-9).all()
    assert dual.sum(-1).abs().max() < 1e-8

    def objective(a: Tensor) -> float:
        return float((a * (kernel @ a)).sum() / 2 - (a * y).sum())

    best, random = objective(dual), torch.Generator().manual_seed(0)
    for size in (1e-3, 1e-1, 1.0):  # no feasible neighbour is better
        for _ in range(20):
            move = size * c * torch.randn(20, 4, generator=random, dtype=torch.float64)
            assert objective(_project(dual + move, c * y)) >= best - 1e-9


@pytest.mark.parametrize("prior", [0.0, 10.0])
def test_a_net_without_a_prior_stays_without(prior: float) -> None:
    rule = make("relation", tiny_encoder(), {"prior": prior}).rule
    assert rule.prior.item() == prior
    assert rule.prior.requires_grad == (prior > 0)


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


@pytest.mark.proves("identity", "relation", "in-context", "lstm-reader")
@pytest.mark.parametrize("net", [Relation, InContext, LSTMReader])
def test_an_untrained_net_adds_nothing_to_the_prototypes(net: type[SupportNet]) -> None:
    support, query = _randn(8, 5), _randn(6, 5, seed=1)
    found = SupportNetRule(lambda: net([5], 8), 2.0).double().head(SupportRows(support, LABELS), THREE)(query)
    wanted = Prototypes(2.0).double().head(SupportRows(support, LABELS), THREE)(query)
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
        scores = rule.head(SupportRows(points[:16], labels[:16]), TWO)(points[16:])
        loss = torch.nn.functional.cross_entropy(scores, labels[16:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step >= 150:
            right.append((scores.argmax(-1) == labels[16:]).float().mean().item())
    assert np.mean(right) > 0.7


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
