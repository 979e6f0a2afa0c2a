"""Weights of examples: an example of weight 2 is the same example given twice, in every method that weighs."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from conftest import score_task, tiny_encoder, word_task
from quickstudy.adaptation.few import adapt_task
from quickstudy.errors import DataError
from quickstudy.methods.catalog import METHODS, make
from quickstudy.methods.closed_form import SupportVectors
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedEpisode, encode_set
from quickstudy.models.head import ridge
from quickstudy.models.support_rows import SupportRows
from quickstudy.models.target import Classes, Scores, Target
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Task

CANNOT_WEIGH = {"lstm-controller", "lstm-reader", "nearest-neighbour"}
WEIGHS = sorted(METHODS.keys() - CANNOT_WEIGH)
COUNTS = (2, 1, 3, 1, 1, 1)
TASKS = {"classes": word_task(n_way=3), "pairs": word_task("pairs", pair=True), "scores": score_task()}
STEPS = {"inner_steps": 2, "adapts": "layers:-1"}  # of methods with an inner loop


def test_weights_too_large_for_single_precision_are_refused() -> None:
    """Alone or in their sum they would be infinity there, and every figure that is made with them NaN."""
    encoder = tiny_encoder()
    for weights in ([1.0, 1e39], [3e38, 3e38]):
        with pytest.raises(DataError, match="the weights are too large: their sum is"):
            encode_set(encoder, [Example("a", label=0), Example("b", label=1)], weights)


def test_scores_that_all_have_zero_weight_are_refused() -> None:
    task = TASKS["scores"]
    with pytest.raises(DataError, match="all rows have zero weight"):
        adapt_task(make("protonet", tiny_encoder()), task, weights=[0.0] * len(task.train_split))


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("method", WEIGHS)
def test_a_weight_of_two_is_the_example_given_twice(method: str, kind: str) -> None:
    rows, tests = _rows(TASKS[kind])
    repeated = [row for row, count in zip(rows, COUNTS, strict=True) for _ in range(count)]
    weighted, twice, plain = (
        _answers(method, TASKS[kind], given, weights, tests)
        for given, weights in ((rows, COUNTS), (repeated, None), (rows, None))
    )
    near = 1e-3 if method in ("linear-probe", "multi-task") else 1e-6  # scikit-learn stops within its own tolerance
    torch.testing.assert_close(weighted, twice, rtol=0, atol=near)
    assert (weighted - plain).abs().max() > 3 * near, "the weights changed nothing"


@pytest.mark.parametrize("method", ["protonet", "matching", "r2d2", "metaoptnet", "relation", "in-context", "leopard"])
def test_the_meta_gradient_of_a_weight_of_two_is_that_of_the_example_given_twice(method: str) -> None:
    task = TASKS["classes"]
    rows, tests = _rows(task)
    repeated = [row for row, count in zip(rows, COUNTS, strict=True) for _ in range(count)]
    gradients = [
        _meta_gradient(method, task, given, weights, tests) for given, weights in ((rows, COUNTS), (repeated, None))
    ]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_weights_of_one_change_nothing(method: str) -> None:
    rows, tests = _rows(TASKS["classes"])
    ones, none = (_answers(method, TASKS["classes"], rows, w, tests) for w in ((1,) * len(rows), None))
    torch.testing.assert_close(ones, none, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", sorted(CANNOT_WEIGH))
def test_a_method_that_cannot_weigh_says_so(method: str) -> None:
    rows, tests = _rows(TASKS["classes"])
    with pytest.raises(DataError, match=rf"{method} cannot give examples different weights\n  Leave the weights out"):
        _answers(method, TASKS["classes"], rows, COUNTS, tests)


@pytest.mark.parametrize("method", ["matching", "relation", "in-context"])
@pytest.mark.parametrize("kind", TASKS)
def test_a_saved_model_keeps_its_weights(method: str, kind: str, tmp_path: Path) -> None:
    rows, tests = _rows(TASKS[kind])
    model = _adapt(method, TASKS[kind], rows, COUNTS, torch.float32)
    opened = AdaptedModel.load(model.save(tmp_path / "model"))
    torch.testing.assert_close(opened.logits(tests), model.logits(tests), rtol=0, atol=1e-5)


def test_weighted_ridge_regression_is_the_solution_of_its_normal_equations() -> None:
    x, y, weights = _randn(6, 9), _randn(6, 2, seed=1), torch.tensor([0.0, 0.3, 1.0, 2.0, 5.0, 1e-9]).double()
    wanted = torch.linalg.solve(x.T @ (weights[:, None] * x) + 0.7 * torch.eye(9), x.T @ (weights[:, None] * y)).T
    torch.testing.assert_close(ridge(x, y, torch.tensor(0.7).double(), weights), wanted, rtol=0, atol=1e-10)


def test_the_gradient_of_weights_is_exact_in_closed_form_heads() -> None:
    x, labels, query = _randn(7, 9), torch.tensor([0, 1, 2, 0, 1, 2, 0]), _randn(4, 9, seed=1)
    weights = torch.tensor([1.0, 0.2, 0.7, 1.3, 1.0, 0.05, 2.0]).double().requires_grad_()
    rule = SupportVectors(c=0.3).double()

    def scores(weights: Tensor, x: Tensor) -> Tensor:
        return rule.head(SupportRows(x, labels, weights), Classes(("a", "b", "c")))(query)

    assert torch.autograd.gradcheck(scores, (weights, x.requires_grad_()), atol=1e-5)
    penalty = torch.tensor(0.7).double()
    zero = torch.tensor([0.0, 1.0, 2.0, 0.5, 1.0, 1.0, 1.0]).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: ridge(x, x[:, :2], penalty, w), (zero,))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((1.0, 2.0), "6 examples but 2 weights\n  Give one weight per example."),
        ((1.0, 1.0, -1.0, 1.0, 1.0, 1.0), r"weights\[2\]: the weight -1.0 is not possible"),
        ((1.0, 1.0, 1.0, float("nan"), 1.0, 1.0), r"weights\[3\]: the weight nan is not possible"),
    ],
)
def test_impossible_weights_are_refused(weights: tuple[float, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode_set(tiny_encoder(), _rows(TASKS["classes"])[0], weights)


def _rows(task: Task) -> tuple[list[Example], list[Example]]:
    return tuple([task.split(split)[i] for i in range(len(COUNTS))] for split in ("train", "test"))  # type: ignore[return-value]


def _target(task: Task) -> Target:
    return Classes(task.label_names) if task.label_names else Scores()


def _settings(method: str) -> dict[str, object]:
    has = METHODS[method].__annotations__
    settings: dict[str, object] = {}
    if "inner" in has or method == "boil":
        settings = dict(STEPS)
    if method == "maml-lora":
        settings["adapts"] = "lora:2"
    if method in ("lstm-optimizer", "learned-optimizer"):
        settings["adapts"] = "head"
    return settings


def _adapt(
    method: str, task: Task, rows: list[Example], weights: tuple[int, ...] | None, dtype: torch.dtype
) -> AdaptedModel:
    learner = make(method, tiny_encoder(dtype=dtype, normalize=True), _settings(method)).to(dtype)
    return learner.adapt(encode_set(learner.encoder, rows, weights), _target(task))


def _answers(
    method: str, task: Task, rows: list[Example], weights: tuple[int, ...] | None, tests: list[Example]
) -> Tensor:
    model = _adapt(method, task, rows, weights, torch.float64)
    return model.target.answer(model.logits(tests))


def _meta_gradient(
    method: str, task: Task, rows: list[Example], weights: tuple[int, ...] | None, tests: list[Example]
) -> list[Tensor]:
    encoder = tiny_encoder(dtype=torch.float64, normalize=True)
    learner = make(method, encoder, _settings(method)).double()
    episode = EncodedEpisode("t", _target(task), encode_set(encoder, rows, weights), encode_set(encoder, tests))
    gradients = torch.autograd.grad(learner.meta_loss([episode]).loss, list(learner.parameters()), allow_unused=True)
    return [torch.zeros(()) if gradient is None else gradient for gradient in gradients]


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
