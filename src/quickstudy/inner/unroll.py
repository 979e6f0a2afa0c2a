"""unroll: S steps of an inner optimizer from θ to φ. It is the only inner loop in the code base.

    φ_0 = θ,      φ_{s+1} = φ_s - U(∇_φ L(φ_s)),      s = 0 .. S-1

Second order keeps the graph of every gradient, so dφ_S/dθ is exact: it is the product of (I - α H_s) over the steps.
First order treats the gradients as constants, so dφ_S/dθ is the identity (FOMAML, Finn et al. 2017,
arXiv:1703.03400). In between, only the last `exact_steps` steps keep their graph (truncation in the manner of Shaban
et al. 2019, arXiv:1810.10667). The steps before them are first order here, so that the initialisation still gets a
gradient.

Fused attention kernels have no second derivative. So second-order steps run under the MATH kernel, which is exact,
and all other steps keep the fused one. A user need not set anything.

The graph of every second-order step takes memory. A step that is to be recomputed stores only φ_s, and runs again on
the way back. Then there is one graph at a time, for a third more operations.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from quickstudy.inner.optimizer import InnerOptimizer, Params, State

Order = Literal["first", "second"]


@dataclass(frozen=True, slots=True)
class Recompute:
    """Which second-order steps keep no graph, and what their loss reads beside the parameters that adapt.

    A step that runs again must know every tensor that a gradient may flow to, and must know each of them once.

    Attributes:
        stored: How many of the last steps keep their graph.
        fixed: What the loss function reads from its argument beside the parameters, by name.
        leaves: Meta-parameters that the loss function or the update rule reads directly.
    """

    stored: int
    fixed: Params
    leaves: Sequence[Tensor]


def unroll(
    loss_fn: Callable[[Params], Tensor],
    params: Params,
    optimizer: InnerOptimizer,
    *,
    steps: int,
    order: Order,
    exact_steps: int | None = None,
    recompute: Recompute | None = None,
) -> Params:
    """Adapt parameters by gradient steps on a loss.

    Args:
        loss_fn: Support loss, (), of parameters by name.
        params: θ, by name, each requiring grad or depending on something that does.
        optimizer: The update rule.
        steps: Number of inner steps S; 0 returns θ itself.
        order: `second` differentiates through the steps, `first` does not.
        exact_steps: In second order, how many of the last steps are differentiated through; None for all.
        recompute: In second order, which steps keep no graph; with None all steps keep theirs.

    Returns:
        φ, by name, connected to θ in the graph.

    >>> from quickstudy.inner.optimizer import SGD
    >>> theta = {"w": torch.tensor(3.0, requires_grad=True)}
    >>> phi = unroll(lambda p: p["w"] ** 2 / 2, theta, SGD(lr=0.1), steps=2, order="second")["w"]
    >>> round(phi.item(), 4), round(torch.autograd.grad(phi, theta["w"])[0].item(), 4)
    (2.43, 0.81)
    """
    phi = params
    path = trajectory(
        loss_fn, params, optimizer, steps=steps, order=order, exact_steps=exact_steps, recompute=recompute
    )
    for after in path:
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
    recompute: Recompute | None = None,
) -> Iterator[Params]:
    """Yield φ_1 .. φ_S; see `unroll`."""
    state = optimizer.init(params)
    first_exact = steps if order == "first" else 0 if exact_steps is None else max(0, steps - exact_steps)
    fixed = recompute.fixed if recompute else {}

    def take_step(params: Params, state: State, fixed: Params, second: bool) -> tuple[Params, State]:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH) if second else nullcontext():
            # Each parameter gets a new node, so that the gradient is partial: a head that is made from the encoder's
            # features is not differentiated with respect to the encoder. In first order the node is a leaf, and the
            # graph ends there.
            nodes = {name: p.view_as(p) if second else p.detach().requires_grad_() for name, p in params.items()}
            loss = loss_fn(nodes | fixed)
            values = torch.autograd.grad(
                loss, list(nodes.values()), create_graph=second, allow_unused=True, materialize_grads=True
            )
            grads = dict(zip(nodes, values, strict=True))
            return optimizer.update(grads, state, params, loss=loss if second else loss.detach())

    for step in range(steps):
        second = step >= first_exact
        if recompute and second and step < steps - recompute.stored:
            params, state = _take_recomputed_step(take_step, params, state, recompute)
        else:
            params, state = take_step(params, state, fixed, second)
        yield params


_Step = Callable[[Params, State, Params, bool], tuple[Params, State]]


def _take_recomputed_step(step: _Step, params: Params, state: State, recompute: Recompute) -> tuple[Params, State]:
    """Take a second-order step that stores only its inputs, and runs again when its gradient is asked for."""
    given, shape = pytree.tree_flatten((params, state, recompute.fixed))
    places = [i for i, value in enumerate(given) if isinstance(value, Tensor)]
    # The structure of the result, and its leaves: those that are tensors come from `_Again`, and have a mark here.
    result: list[Any] = []

    def run(inputs: Sequence[Tensor], second: bool) -> list[Tensor]:
        values = list(given)
        for i, tensor in zip(places, inputs, strict=True):
            values[i] = tensor
        params, state, fixed = pytree.tree_unflatten(values, shape)
        leaves, structure = pytree.tree_flatten(step(params, state, fixed, second))
        result[:] = [structure, [_Again if isinstance(leaf, Tensor) else leaf for leaf in leaves]]
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    meta_parameters = list({id(p): p for p in recompute.leaves if p.requires_grad}.values())
    inputs = (*(given[i] for i in places), *meta_parameters)
    tensors = iter(_Again.apply(run, meta_parameters, *inputs))  # type: ignore[no-untyped-call]
    structure, leaves = result
    filled = [next(tensors) if leaf is _Again else leaf for leaf in leaves]
    after: tuple[Params, State] = pytree.tree_unflatten(filled, structure)
    return after


class _Again(torch.autograd.Function):
    """A function of tensors that stores the tensors, and not its graph."""

    @staticmethod
    def forward(ctx: Any, run: Any, leaves: Sequence[Tensor], *tensors: Tensor) -> tuple[Tensor, ...]:
        device = tensors[0].device.type
        ctx.run, ctx.leaves = run, leaves
        ctx.autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        inputs = tensors[: len(tensors) - len(leaves)]
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)  # a tensor that no gradient reaches has none, not zeros
        return tuple(tensor.detach() for tensor in run(inputs, second=False))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        device, dtype, enabled = ctx.autocast
        with torch.enable_grad(), torch.autocast(device, dtype, enabled=enabled):
            inputs = [t.detach().requires_grad_(t.is_floating_point()) for t in ctx.saved_tensors]
            outputs = ctx.run(inputs, second=True)
        wanted = [*(t for t in inputs if t.requires_grad), *ctx.leaves]
        pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if o.requires_grad and g is not None]
        outputs, output_grads = [output for output, _ in pairs], [grad for _, grad in pairs]
        input_grads = iter(torch.autograd.grad(outputs, wanted, output_grads, allow_unused=True))
        return None, None, *(next(input_grads) if t.requires_grad else None for t in (*inputs, *ctx.leaves))
