"""Objective: what the outer loop minimises in an episode whose model adapts by gradient steps.

    query       L_query(φ_S)                                             MAML and most others
    multi_step  sum_s w_s L_query(φ_s)                                   MAML++
    reptile     <θ, θ - φ_S>, with θ - φ_S held constant                 Reptile
    implicit    L_query(φ*) with dφ*/dθ from the optimality of φ*        iMAML

The last two are surrogates: their value is the query loss, their gradient is exactly the method's update, so that one outer
loop serves all.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from quickstudy.inner.optimizer import InnerOptimizer, Params
from quickstudy.inner.unroll import Order, Recompute, trajectory, unroll

Loss = Callable[[Params], Tensor]


@dataclass(frozen=True, slots=True)
class Episodic:
    """One episode, ready for the inner loop.

    Attributes:
        theta: Parameters before the first step.
        support: Support loss of parameters.
        query: Query loss of parameters.
        support_fraction: Support examples as a share of all.
        optimizer: Inner update rule.
        steps: Inner steps S.
        order: First or second.
        exact_steps: See `unroll`.
        progress: Share of the meta-training that is done, 0 to 1.
        weight: Factor that the support loss has and the query loss has not.
        recompute: See `unroll`.
    """

    theta: Params
    support: Loss
    query: Loss
    support_fraction: float
    optimizer: InnerOptimizer
    steps: int
    order: Order
    exact_steps: int | None
    progress: float
    weight: float = 1.0
    recompute: Recompute | None = None


Objective = Callable[[Episodic], Tensor]


def query(episode: Episodic) -> Tensor:
    """Return the query loss after the inner loop."""
    phi = unroll(
        episode.support,
        episode.theta,
        episode.optimizer,
        steps=episode.steps,
        order=episode.order,
        exact_steps=episode.exact_steps,
        recompute=episode.recompute,
    )
    return episode.query(phi)


def multi_step(*, annealed: float = 0.5, first_order: float = 0.3) -> Objective:
    """Return the objective of MAML++ (Antoniou et al. 2019, arXiv:1810.09502).

    Args:
        annealed: Share of the training over which the weights move from equal to the last step alone.
        first_order: Share of the training, at its start, that is first order.
    """

    def objective(episode: Episodic) -> Tensor:
        if episode.steps == 0:
            return query(episode)
        order: Order = "first" if episode.progress < first_order else episode.order
        weights = step_weights(episode.steps, episode.progress / annealed if annealed else 1.0)
        if weights[-1] == 1.0:
            return query(replace(episode, order=order))
        path = trajectory(
            episode.support,
            episode.theta,
            episode.optimizer,
            steps=episode.steps,
            order=order,
            recompute=episode.recompute,
        )
        # A sum from the start of the list: no zero tensor is needed.
        return torch.stack([w * episode.query(phi) for w, phi in zip(weights, path, strict=True)]).sum()

    return objective


def step_weights(steps: int, progress: float) -> list[float]:
    """Return the weight of each step's query loss: equal at progress 0, the last alone from 1 on; their sum is 1.

    >>> step_weights(4, 0.0), step_weights(4, 2.0)
    ([0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 0.0, 1.0])
    """
    early = (1 - min(1.0, progress)) / steps
    return [early] * (steps - 1) + [1 - early * (steps - 1)]


def reptile(episode: Episodic) -> Tensor:
    """Return a surrogate whose gradient is θ - φ (Nichol et al. 2018, arXiv:1803.02999).

    φ is adapted on support and query examples together: Reptile makes no difference between them.
    """

    def loss(params: Params) -> Tensor:
        fraction = episode.support_fraction
        return fraction * episode.support(params) + (1 - fraction) * episode.weight * episode.query(params)

    phi = unroll(loss, episode.theta, episode.optimizer, steps=episode.steps, order="first")
    with torch.no_grad():
        value = episode.query(phi)
    return _valued(value, sum((theta * (theta - phi[n]).detach()).sum() for n, theta in episode.theta.items()))


def implicit(*, strength: float = 0.1, cg_steps: int = 5) -> Objective:
    """Return the objective of iMAML (Rajeswaran et al. 2019, arXiv:1909.04630).

        φ* = argmin_φ G(φ),   G = L_support(φ) + λ/2 ||φ - θ||^2,      (∇² L_support + λ I) u = ∇ L_query(φ*),      dL/dθ = λ u

    The inner loop is not differentiated through; u comes from conjugate gradients. Where the loss curves down along the query
    gradient there is no minimum that the theorem could speak of, and u = ∇ L_query / λ, the first-order gradient. A
    meta-parameter ψ that does not adapt gets its gradient by the same theorem: ∂L_query/∂ψ - u ∂∇G/∂ψ.

    Args:
        strength: λ.
        cg_steps: Conjugate-gradient steps.
    """

    def objective(episode: Episodic) -> Tensor:
        fixed = {n: p.detach() for n, p in episode.theta.items()}
        near = proximal(episode.support, fixed, strength)
        phi = unroll(near, fixed, episode.optimizer, steps=episode.steps, order="first")
        leaves = {n: p.detach().requires_grad_() for n, p in phi.items()}
        loss = episode.query(leaves)
        v = torch.autograd.grad(
            loss, list(leaves.values()), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        with sdpa_kernel(SDPBackend.MATH):
            g = torch.autograd.grad(
                proximal(episode.support, episode.theta, strength)(leaves),
                list(leaves.values()),
                create_graph=True,
                materialize_grads=True,
            )
        u = conjugate_gradient(
            lambda x: torch.autograd.grad(g, list(leaves.values()), x, retain_graph=True, materialize_grads=True),
            v,
            steps=cg_steps,
            least=strength,
        )
        return loss + _valued(torch.zeros_like(loss), -sum((a * b).sum() for a, b in zip(u, g, strict=True)))

    return objective


def proximal(loss: Loss, theta: Params, strength: float) -> Loss:
    """Return loss(φ) + λ/2 ||φ - θ||^2, the inner loss of iMAML, of strength λ."""

    def near(params: Params) -> Tensor:
        return loss(params) + strength / 2 * sum((params[n] - theta[n]).square().sum() for n in theta)

    return near


Vectors = tuple[Tensor, ...]


def conjugate_gradient(product: Callable[[Vectors], Vectors], b: Vectors, *, steps: int, least: float = 1.0) -> Vectors:
    """Solve A x = b for a symmetric positive definite A given by its product with vectors.

    Returns:
        x after `steps` steps, or fewer when the residual vanishes or A turns out not to be positive along a direction;
        b / `least` if that is so along b itself.
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
            return x if step else tuple(t / least for t in residual)
        length = size / curvature
        x = tuple(a + length * d for a, d in zip(x, direction, strict=True))
        residual = tuple(r - length * i.detach() for r, i in zip(residual, image, strict=True))
        before, size = size, _dot(residual, residual)
        direction = tuple(r + size / before * d for r, d in zip(residual, direction, strict=True))
    return x


def _dot(a: Vectors, b: Vectors) -> Tensor:
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum().detach()


def _valued(value: Tensor, surrogate: Tensor | int) -> Tensor:
    """Return something with one tensor's value and another's gradient."""
    return value + surrogate - torch.as_tensor(surrogate).detach()
