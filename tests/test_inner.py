"""The inner loop: update rules against torch.optim, unrolled gradients against closed forms."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quickstudy.inner.optimizer import SGD, Adam, InnerOptimizer, Params
from quickstudy.inner.unroll import Order, unroll

_EXACT = {"rtol": 0.0, "atol": 1e-10}


@pytest.mark.parametrize(
    ("rule", "reference"),
    [
        (SGD(0.03, 0.2), lambda groups: torch.optim.SGD(groups)),
        (Adam(0.03, 0.2), lambda groups: torch.optim.Adam(groups)),
        (
            Adam(0.03, 0.2, betas=(0.5, 0.7), eps=1e-3),
            lambda groups: torch.optim.Adam(groups, betas=(0.5, 0.7), eps=1e-3),
        ),
    ],
    ids=["sgd", "adam", "adam with other moments"],
)
@pytest.mark.parametrize("order", ["first", "second"])
def test_ten_steps_equal_torch_optim(rule: InnerOptimizer, reference: Callable[[Any], Any], order: Order) -> None:
    start = {"encoder.w": _randn(4, 3), "encoder.b": _randn(3), "head.weight": _randn(2, 3), "head.bias": _randn(2)}
    x, y = _randn(7, 4), torch.arange(7) % 2

    def loss_fn(params: Params) -> Tensor:
        hidden = torch.tanh(x @ params["encoder.w"] + params["encoder.b"])
        logits = hidden @ params["head.weight"].T + params["head.bias"]
        return torch.nn.functional.cross_entropy(logits, y)

    theta = {name: value.clone().requires_grad_() for name, value in start.items()}
    phi = unroll(loss_fn, theta, rule, steps=10, order=order)

    wanted = {name: value.clone().requires_grad_() for name, value in start.items()}
    encoder, head = ([p for name, p in wanted.items() if name.startswith("head.") == top] for top in (False, True))
    optimizer = reference([{"params": encoder, "lr": 0.03}, {"params": head, "lr": 0.2}])
    for _ in range(10):
        optimizer.zero_grad()
        loss_fn(wanted).backward()
        optimizer.step()
    for name in start:
        assert (wanted[name] - start[name]).abs().max() > 1e-3
        torch.testing.assert_close(phi[name], wanted[name], **_EXACT)
        torch.testing.assert_close(theta[name].detach(), start[name], rtol=0, atol=0)


@pytest.mark.parametrize("rule", [SGD, Adam])
def test_head_rate_is_the_encoder_rate_unless_it_is_given(rule: Callable[..., InnerOptimizer]) -> None:
    params = {"head.weight": _randn(3), "body": _randn(3)}
    grads = {"head.weight": _randn(3), "body": _randn(3)}
    own, shared = (_one_update(optimizer, grads, params) for optimizer in (rule(0.3, 0.3), rule(0.3)))
    still = _one_update(rule(0.3, 0.0), grads, params)
    torch.testing.assert_close(shared, own, rtol=0, atol=0)
    torch.testing.assert_close(still, own | {"head.weight": params["head.weight"]}, rtol=0, atol=0)


@pytest.mark.parametrize("order", ["first", "second"])
def test_no_steps_return_theta_itself(order: Order) -> None:
    theta = {"w": _randn(3).requires_grad_()}
    assert unroll(lambda p: p["w"].sum(), theta, SGD(1.0), steps=0, order=order)["w"] is theta["w"]


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("rule", [SGD(0.5), Adam(0.5)], ids=["sgd", "adam"])
def test_a_parameter_outside_the_loss_stays_where_it_is(rule: InnerOptimizer, order: Order) -> None:
    theta = {"used": _randn(3).requires_grad_(), "unused": _randn(3).requires_grad_()}
    phi = unroll(lambda p: p["used"].square().sum(), theta, rule, steps=2, order=order)
    assert torch.equal(phi["unused"], theta["unused"])
    assert not torch.equal(phi["used"], theta["used"])


def test_unroll_takes_gradients_where_the_caller_switched_them_off() -> None:
    with torch.no_grad():
        phi = unroll(
            lambda p: p["w"] ** 2 / 2, {"w": torch.ones((), requires_grad=True)}, SGD(0.1), steps=1, order="first"
        )
    assert phi["w"].item() == pytest.approx(0.9)


@pytest.mark.parametrize("rule", [SGD(0.1), Adam(0.1)], ids=["sgd", "adam"])
def test_first_order_has_the_identity_as_jacobian(rule: InnerOptimizer) -> None:
    curvature, a, _ = _quadratic(4, seed=1)
    theta = _randn(4)

    def adapted(w: Tensor) -> Tensor:
        return unroll(_support_loss(curvature, a), {"w": w}, rule, steps=3, order="first")["w"]

    assert (adapted(theta.requires_grad_()) - theta).abs().max() > 1e-2  # it moved all the same
    torch.testing.assert_close(
        torch.autograd.functional.jacobian(adapted, theta), torch.eye(4).double(), rtol=0, atol=0
    )


@pytest.mark.parametrize("steps", [0, 1, 3, 5])
def test_second_order_jacobian_is_the_product_of_the_steps(steps: int) -> None:
    curvature, a, _ = _quadratic(4, seed=2)

    def adapted(w: Tensor) -> Tensor:
        return unroll(_support_loss(curvature, a), {"w": w}, SGD(0.1), steps=steps, order="second")["w"]

    found = torch.autograd.functional.jacobian(adapted, _randn(4))
    torch.testing.assert_close(found, _step_product(curvature, 0.1, steps), **_EXACT)


@pytest.mark.parametrize("steps", [0, 1, 3, 5])
@pytest.mark.parametrize("order", ["first", "second"])
def test_meta_gradient_on_a_quadratic_equals_the_closed_form(order: Order, steps: int) -> None:
    curvature, a, b = _quadratic(6, seed=3)
    theta = _randn(6)
    phi, found = _meta_gradient(curvature, a, b, theta, lr=0.05, steps=steps, order=order)
    product = _step_product(curvature, 0.05, steps)
    wanted_phi = a + product @ (theta - a)
    torch.testing.assert_close(phi, wanted_phi, **_EXACT)
    at_phi = wanted_phi - b  # the gradient of the query loss at φ, which first order takes for the meta-gradient
    torch.testing.assert_close(found, product.T @ at_phi if order == "second" else at_phi, **_EXACT)
    if steps:
        assert (product.T @ at_phi - at_phi).abs().max() > 1e-2  # the two orders can be told apart


@settings(deadline=None, max_examples=40, database=None)
@given(size=st.integers(1, 5), seed=st.integers(0, 2**32 - 1), steps=st.integers(0, 5), lr=st.floats(1e-4, 0.2))
def test_meta_gradients_hold_on_any_quadratic(size: int, seed: int, steps: int, lr: float) -> None:
    curvature, a, b = _quadratic(size, seed=seed)
    theta = _randn(size, seed=seed + 1)
    product = _step_product(curvature, lr, steps)
    at_phi = a + product @ (theta - a) - b
    for order, wanted in (("first", at_phi), ("second", product.T @ at_phi)):
        _, found = _meta_gradient(curvature, a, b, theta, lr=lr, steps=steps, order=order)  # type: ignore[arg-type]
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64)


def _quadratic(size: int, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A positive definite A (eigenvalues from 0.1 to about 10) and the two minima a and b."""
    root = _randn(size, size, seed=seed)
    curvature = root @ root.T / size**0.5 + 0.1 * torch.eye(size, dtype=torch.float64)
    return curvature, _randn(size, seed=seed + 7), _randn(size, seed=seed + 8)


def _support_loss(curvature: Tensor, a: Tensor) -> Callable[[Params], Tensor]:
    return lambda params: (params["w"] - a) @ curvature @ (params["w"] - a) / 2


def _step_product(curvature: Tensor, lr: float, steps: int) -> Tensor:
    return torch.linalg.matrix_power(torch.eye(len(curvature), dtype=torch.float64) - lr * curvature, steps)


def _meta_gradient(
    curvature: Tensor, a: Tensor, b: Tensor, theta: Tensor, *, lr: float, steps: int, order: Order
) -> tuple[Tensor, Tensor]:
    """φ and the gradient in θ of the query loss ½ |φ - b|²."""
    w = theta.clone().requires_grad_()
    phi = unroll(_support_loss(curvature, a), {"w": w}, SGD(lr), steps=steps, order=order)["w"]
    (found,) = torch.autograd.grad((phi - b).square().sum() / 2, w)
    return phi.detach(), found


def _one_update(rule: InnerOptimizer, grads: Params, params: Params) -> Params:
    return rule.update(grads, rule.init(params), params, loss=torch.zeros(()))[0]


def test_an_entry_without_a_gradient_lets_adam_s_second_order_gradient_be_finite() -> None:
    start = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    loss = lambda params: params["w"][0] ** 3  # noqa: E731
    w = unroll(loss, {"w": start}, Adam(0.1), steps=2, order="second")["w"]
    (gradient,) = torch.autograd.grad(w.sum(), start)
    assert gradient.isfinite().all()
    assert gradient[1] == 1
