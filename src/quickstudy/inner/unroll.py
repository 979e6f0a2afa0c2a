"""unroll: S steps of an inner optimizer from θ to φ; the only inner loop in the code base.

    φ_0 = θ,      φ_{s+1} = φ_s - U(∇_φ L(φ_s)),      s = 0 .. S-1

Second order keeps the graph of every gradient, so that dφ_S/dθ is exact: the product of (I - α H_s) over the steps.
First order treats the gradients as constants, so that dφ_S/dθ is the identity (FOMAML, Finn et al. 2017, arXiv:1703.03400).
In between, only the last `exact_steps` steps keep theirs (truncated, in the manner of Shaban et al. 2019, arXiv:1810.10667; the
steps before are first order here, so that the initialisation still gets a gradient).

Fused attention kernels have no double backward, so second-order steps run under the MATH kernel, which is exact; everything
else keeps the fused one. A user need not set anything.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from quickstudy.inner.optimizer import InnerOptimizer, Params

Order = Literal["first", "second"]


def unroll(
    loss_fn: Callable[[Params], Tensor],
    params: Params,
    optimizer: InnerOptimizer,
    *,
    steps: int,
    order: Order,
    exact_steps: int | None = None,
) -> Params:
    """Adapt parameters by gradient steps on a loss.

    Args:
        loss_fn: Support loss, (), of parameters by name.
        params: θ, by name, each requiring grad or depending on something that does.
        optimizer: The update rule.
        steps: Number of inner steps S; 0 returns θ itself.
        order: `second` differentiates through the steps, `first` does not.
        exact_steps: In second order, how many of the last steps are differentiated through; None for all.

    Returns:
        φ, by name, connected to θ in the graph.

    >>> from quickstudy.inner.optimizer import SGD
    >>> theta = {"w": torch.tensor(3.0, requires_grad=True)}
    >>> phi = unroll(lambda p: p["w"] ** 2 / 2, theta, SGD(lr=0.1), steps=2, order="second")["w"]
    >>> round(phi.item(), 4), round(torch.autograd.grad(phi, theta["w"])[0].item(), 4)
    (2.43, 0.81)
    """
    phi = params
    for after in trajectory(loss_fn, params, optimizer, steps=steps, order=order, exact_steps=exact_steps):
        phi = after
    return phi


def trajectory(
    loss_fn: Callable[[Params], Tensor],
    params: Params,
    optimizer: InnerOptimizer,
    *,
    steps: int,
    order: Order,
    exact_steps: int | None = None,
) -> Iterator[Params]:
    """Yield φ_1 .. φ_S; see `unroll`."""
    state = optimizer.init(params)
    first_exact = steps if order == "first" else 0 if exact_steps is None else max(0, steps - exact_steps)
    for step in range(steps):
        second = step >= first_exact
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH) if second else nullcontext():
            # Each parameter gets a node of its own, so that the gradient is partial: a head made of the encoder's features
            # is not differentiated with respect to the encoder. In first order it is a leaf, and nothing below it is.
            at = {name: p.view_as(p) if second else p.detach().requires_grad_() for name, p in params.items()}
            loss = loss_fn(at)
            found = torch.autograd.grad(
                loss, list(at.values()), create_graph=second, allow_unused=True, materialize_grads=True
            )
            params, state = optimizer.update(
                dict(zip(at, found, strict=True)), state, params, loss=loss if second else loss.detach()
            )
        yield params
