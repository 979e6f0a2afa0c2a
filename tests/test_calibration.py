"""The calibrated scale of ridge regression: rows that are left out, and the most probable factor of the logits."""

import math

import pytest
import torch
from scipy.optimize import minimize_scalar

from conftest import tiny_encoder
from quickstudy.methods.catalog import make
from quickstudy.methods.closed_form import _FACTORS, Ridge
from quickstudy.models.head import LinearHead
from quickstudy.models.support_rows import SupportRows
from quickstudy.models.target import Classes, Scores
from quickstudy.testing import tiny_support

THREE = Classes(("a", "b", "c"))


def _ridge_rows(*, weights: bool, signal: float = 0.0) -> SupportRows:
    """Return 9 rows of three labels, in double precision; `signal` says how well they can be told apart."""
    random = torch.Generator().manual_seed(3)
    features = signal * torch.eye(5).double()[[0, 1, 2] * 3] + torch.randn(9, 5, generator=random, dtype=torch.float64)
    counts = 0.2 + torch.rand(9, generator=random, dtype=torch.float64) if weights else None
    return SupportRows(features, torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2]), counts)


def _without(rows: SupportRows, left_out: int) -> SupportRows:
    kept = [i for i in range(len(rows.labels)) if i != left_out]
    return SupportRows(rows.features[kept], rows.labels[kept], None if rows.weights is None else rows.weights[kept])


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weights", [True, False])
def test_leaving_a_row_out_is_ridge_regression_on_the_others(intercept: bool, weights: bool) -> None:
    rule, rows = Ridge(0.7, 1.0, intercept=intercept).double(), _ridge_rows(weights=weights)
    refitted = [rule.for_classes(_without(rows, i), 3)(rows.features[i]) for i in range(9)]
    assert torch.allclose(rule.leave_one_out(rows, 3), torch.stack(refitted), atol=1e-12)


@pytest.mark.parametrize(("signal", "learned"), [(0.0, 20.0), (3.0, 1.0)])
def test_the_calibrated_scale_is_the_most_probable_one(signal: float, learned: float) -> None:
    """SciPy finds it on heads that are made without the row, one by one; the last two rows are names."""
    rows = _ridge_rows(weights=True, signal=signal)
    rule = Ridge(0.7, learned, intercept=True, calibrated=True).double()
    logits = torch.stack([rule.for_classes(_without(rows, i), 3)(rows.features[i]) for i in range(7)]).detach()

    def cost(log_factor: float) -> float:
        answers = torch.log_softmax(math.exp(log_factor) * logits, -1)[range(7), rows.labels[:7]]
        return float((log_factor / 0.35) ** 2 / 2 - rows.counts[:7] @ answers)

    best = minimize_scalar(cost, bounds=(-3, 3), method="bounded").x
    assert -cost(best) - 0.05 < rule.evidence(rows, 7, 3) <= -cost(best) + 1e-9
    head = rule.for_classes(rows, 3)
    calibrated = rule.calibrate(head, rows, 7, THREE)
    assert isinstance(calibrated, LinearHead)
    factor = (calibrated.weight / head.weight).detach()
    assert abs(best) > 0.1  # more than half a step of the grid
    assert torch.allclose(factor, factor[0, 0])
    assert torch.allclose(calibrated.bias, factor[0, 0] * head.bias)
    assert abs(math.log(factor[0, 0].item()) - best) <= math.log(2) / 8 + 1e-6


def test_long_features_in_single_precision_are_calibrated_as_in_double() -> None:
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(16) % 4
    features = 300 * (torch.eye(32)[labels] / 8 + torch.randn(16, 32, generator=random) / 8 + 2)
    single, double = (SupportRows(each, labels) for each in (features, features.double()))
    rule = Ridge(1.0, 30.0, intercept=True, calibrated=True)
    every = torch.ones(16, dtype=torch.bool)
    totals = rule._totals(single, every, 4)
    assert totals.argmax() == rule.double()._totals(double, every, 4).argmax()
    assert _FACTORS[totals.argmax()] != 1.0


def test_a_scale_is_not_calibrated_where_no_example_can_be_left_out() -> None:
    rows = SupportRows(torch.eye(3), torch.arange(3))
    rule = Ridge(intercept=True, calibrated=True)
    head = rule.for_classes(rows, 3)
    calibrated = rule.calibrate(head, rows, 3, THREE)
    assert isinstance(calibrated, LinearHead)
    assert torch.equal(calibrated.weight, head.weight)
    scores = rule.for_scores(SupportRows(torch.eye(3), torch.arange(3.0)))
    assert rule.calibrate(scores, rows, 3, Scores()) is scores


def test_calibration_changes_probabilities_and_no_prediction() -> None:
    encoder = tiny_encoder(normalize=True)
    support, target = tiny_support(encoder)
    plain, calibrated = (
        make("r2d2", encoder, {"scale": 200.0, "intercept": "free", "calibration": how}).adapt(support, target)
        for how in ("none", "leave-one-out")
    )
    texts = ["a great film", "an awful film", "late fee"]
    assert plain.predict(texts) == calibrated.predict(texts)
    assert calibrated.predict_proba(texts).max() < plain.predict_proba(texts).max()
