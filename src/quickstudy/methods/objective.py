"""Objective: what the outer loop minimises in an episode whose model adapts by gradient steps.

    query       L_query(φ_S)                                             MAML and most others
    multi_step  sum_s w_s L_query(φ_s)                                   MAML++ (weights: `step_weights`)
    reptile     <θ, θ - φ_S>, with θ - φ_S held constant                 Reptile
    implicit    L_query(φ*) with dφ*/dθ from the optimality of φ*        iMAML

The last two are surrogates: their value is the query loss, and their gradient is exactly the method's update. So one
outer loop serves all methods.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from quickstudy.inner.optimizer import InnerOptimizer, Params
from quickstudy.inner.unroll import Order, Recompute, trajectory, unroll
from quickstudy.methods.convergence import Convergence

Loss = Callable[[Params], Tensor]

_LEAST_EARLY = 0.03  # the weight of an early loss of MAML++ is at least this fraction of an equal weight


@dataclass(frozen=True, slots=True)
class InnerProblem:
    """What the inner loop solves in one episode, and how.

    Attributes:
        theta: Parameters before the first step.
        support_loss: The loss of parameters on the support set; the inner loop minimises it.
        query_loss: The loss of parameters on the query set.
        support_fraction: Support examples as a fraction of all.
        optimizer: Inner update rule.
        steps: Inner steps S.
        order: `first` or `second`.
        exact_steps: See `unroll`.
        progress: Fraction of the meta-training that is done, 0 to 1.
        inner_weight: A factor that the support loss contains and the query loss does not.
        recompute: See `unroll`.
        report: Is told how well an implicit objective was solved.
    """

    theta: Params
    support_loss: Loss
    query_loss: Loss
    support_fraction: float
    optimizer: InnerOptimizer
    steps: int
    order: Order
    exact_steps: int | None
    progress: float
    inner_weight: float = 1.0
    recompute: Recompute | None = None
    report: Callable[[Convergence], None] = lambda _: None


Objective = Callable[[InnerProblem], Tensor]


def query(problem: InnerProblem) -> Tensor:
    """Return the query loss after the inner loop."""
    phi = unroll(
        problem.support_loss,
        problem.theta,
        problem.optimizer,
        steps=problem.steps,
        order=problem.order,
        exact_steps=problem.exact_steps,
        recompute=problem.recompute,
    )
    return problem.query_loss(phi)


def multi_step(*, annealed: float = 0.15, first_order: float = 0.3) -> Objective:
    """Return the objective of MAML++ (Antoniou et al. 2019, arXiv:1810.09502).

    Args:
        annealed: Fraction of the training in which the weights go from equal ones to the last step alone.
        first_order: Fraction of the training, at its start, that is first order.
    """

    def objective(problem: InnerProblem) -> Tensor:
        if problem.steps == 0:
            return query(problem)
        order: Order = "first" if problem.progress < first_order else problem.order
        weights = step_weights(problem.steps, problem.progress / annealed if annealed else 1.0)
        if weights[-1] == 1.0:
            return query(replace(problem, order=order))
        path = trajectory(
            problem.support_loss,
            problem.theta,
            problem.optimizer,
            steps=problem.steps,
            order=order,
            recompute=problem.recompute,
        )
        return torch.stack([w * problem.query_loss(phi) for w, phi in zip(weights, path, strict=True)]).sum()

    return objective


def step_weights(steps: int, progress: float) -> list[float]:
    """Return the weight of each step's query loss. Their sum is 1.

    All are equal at progress 0. The early ones fall linearly, but not below 0.03 / S as long as progress is below 1.
    From 1 on only the last step counts. Paper and reference code of MAML++ agree on this; the 0.03 is from the code.

    >>> step_weights(4, 0.0), step_weights(4, 2.0)
    ([0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 0.0, 1.0])
    >>> step_weights(3, 0.999)
    [0.01, 0.01, 0.98]
    """
    early = max(1 - progress, _LEAST_EARLY) / steps if progress < 1 else 0.0
    return [early] * (steps - 1) + [1 - early * (steps - 1)]


def reptile(problem: InnerProblem) -> Tensor:
    """Return a surrogate whose gradient is θ - φ (Nichol et al. 2018, arXiv:1803.02999).

    φ is adapted to support and query examples together, because Reptile makes no difference between them.
    """

    def loss(params: Params) -> Tensor:
        fraction, weight = problem.support_fraction, problem.inner_weight
        return fraction * problem.support_loss(params) + (1 - fraction) * weight * problem.query_loss(params)

    phi = unroll(loss, problem.theta, problem.optimizer, steps=problem.steps, order="first")
    with torch.no_grad():
        value = problem.query_loss(phi)
    surrogate = sum((theta * (theta - phi[n]).detach()).sum() for n, theta in problem.theta.items())
    return _with_value(value, surrogate)


def implicit(*, strength: float = 0.1, cg_steps: int = 5) -> Objective:
    """Return the objective of iMAML (Rajeswaran et al. 2019, arXiv:1909.04630).

        φ* = argmin_φ G(φ),      G = L_support(φ) + λ/2 ||φ - θ||^2
        (∇² L_support + λ I) u = ∇ L_query(φ*),      dL/dθ = λ u

    The gradient does not go through the inner loop; conjugate gradients find u. If the loss curves down along the
    query gradient, there is no minimum, and the theorem says nothing. Then u = ∇ L_query / λ, which is the
    first-order gradient. A meta-parameter ψ that does not adapt gets its gradient by the same theorem: ∂L_query/∂ψ -
    u ∂∇G/∂ψ.

    Args:
        strength: λ.
        cg_steps: Steps of conjugate gradients.
    """

    def objective(problem: InnerProblem) -> Tensor:
        fixed = {n: p.detach() for n, p in problem.theta.items()}
        near = proximal(problem.support_loss, fixed, strength)
        phi = unroll(near, fixed, problem.optimizer, steps=problem.steps, order="first")
        leaves = {n: p.detach().requires_grad_() for n, p in phi.items()}
        loss = problem.query_loss(leaves)
        v = torch.autograd.grad(
            loss, list(leaves.values()), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        with sdpa_kernel(SDPBackend.MATH):
            g = torch.autograd.grad(
                proximal(problem.support_loss, problem.theta, strength)(leaves),
                list(leaves.values()),
                create_graph=True,
            )
        u, left = conjugate_gradient(
            lambda x: torch.autograd.grad(g, list(leaves.values()), x, retain_graph=True),
            v,
            steps=cg_steps,
            least=strength,
        )
        pull = tuple(strength * (phi[n] - fixed[n]) for n in fixed)
        problem.report(Convergence(_relative(g, pull), left))
        surrogate = -sum((a * b).sum() for a, b in zip(u, g, strict=True))
        return loss + _with_value(torch.zeros_like(loss), surrogate)

    return objective


def proximal(loss: Loss, theta: Params, strength: float) -> Loss:
    """Return loss(φ) + λ/2 ||φ - θ||^2, which is the inner loss of iMAML, for a strength λ."""

    def near(params: Params) -> Tensor:
        return loss(params) + strength / 2 * sum((params[n] - theta[n]).square().sum() for n in theta)

    return near


Vectors = tuple[Tensor, ...]


def conjugate_gradient(
    product: Callable[[Vectors], Vectors], b: Vectors, *, steps: int, least: float
) -> tuple[Vectors, float]:
    """Solve A x = b for a symmetric positive definite A that is given by its product with vectors.

    Returns:
        x after `steps` steps, and the norm of b - A x as a fraction of that of b. There are fewer steps if the residual
        vanishes, or if A is not positive along a direction. If A is not positive along b itself, x is b / `least`, and
        the fraction is 1.
    """
    x = tuple(torch.zeros_like(t) for t in b)
    residual = direction = tuple(t.detach() for t in b)
    size = start = _dot(residual, residual)
    for step in range(steps):
        if size <= 1e-24 * start:
            break
        image = product(direction)
        curvature = _dot(direction, image)
        if curvature <= 0:
            x = x if step else tuple(t / least for t in residual)
            break
        length = size / curvature
        x = tuple(a + length * d for a, d in zip(x, direction, strict=True))
        residual = tuple(r - length * i.detach() for r, i in zip(residual, image, strict=True))
        before, size = size, _dot(residual, residual)
        direction = tuple(r + size / before * d for r, d in zip(residual, direction, strict=True))
    return x, float((size / start).sqrt()) if start > 0 else 0.0


def _relative(a: Vectors, b: Vectors) -> float:
    """Return ||a|| / ||b||; 0 if both are 0."""
    size, base = float(_dot(a, a)), float(_dot(b, b))
    return (size / base) ** 0.5 if base else math.inf if size else 0.0


def _dot(a: Vectors, b: Vectors) -> Tensor:
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum().detach()


def _with_value(value: Tensor, surrogate: Tensor | int) -> Tensor:
    """Return something with one tensor's value and another's gradient."""
    return value + surrogate - torch.as_tensor(surrogate).detach()
