"""Catalog: the methods by name; a table of the field.

    name           head starts at    what adapts     inner optimizer    order     reference
    maml           zero              all             SGD                second    Finn et al. 2017, arXiv:1703.03400
    fomaml         zero              all             SGD                first     Finn et al. 2017, arXiv:1703.03400
    protonet       prototypes        -               -                  -         Snell et al. 2017, arXiv:1703.05175
    linear-probe   -                 head            L-BFGS             -         baseline
    finetune       zero              all             Adam               -         baseline

What adapts, rates and steps are settings; the table gives the defaults. Adding a method is one file and one line here.
"""

import math
from collections.abc import Callable, Mapping
from inspect import signature
from types import NoneType
from typing import Any, get_args

from quickstudy.errors import RecipeError, did_you_mean
from quickstudy.inner.optimizer import SGD, Adam
from quickstudy.inner.unroll import Order
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.gradient import GradientMetaLearner
from quickstudy.methods.linear_probe import LinearProbe
from quickstudy.methods.protonet import ProtoNet
from quickstudy.models.encoder import Encoder


def maml(
    encoder: Encoder,
    *,
    adapts: str = "all",
    inner_lr: float = 0.05,
    head_lr: float | None = 3.0,
    inner_steps: int = 5,
    adapt_steps: int | None = None,
) -> MetaLearner:
    """MAML with exact second-order gradients."""
    return _gradient(encoder, "maml", "second", adapts, inner_lr, head_lr, inner_steps, adapt_steps)


def fomaml(
    encoder: Encoder,
    *,
    adapts: str = "all",
    inner_lr: float = 0.05,
    head_lr: float | None = 3.0,
    inner_steps: int = 5,
    adapt_steps: int | None = None,
) -> MetaLearner:
    """First-order MAML."""
    return _gradient(encoder, "fomaml", "first", adapts, inner_lr, head_lr, inner_steps, adapt_steps)


def finetune(
    encoder: Encoder, *, adapts: str = "all", lr: float = 5e-5, head_lr: float = 0.05, steps: int = 30
) -> MetaLearner:
    """Plain fine-tuning of the encoder and a fresh head with Adam: a baseline, nothing is learned across tasks."""
    return GradientMetaLearner(
        encoder,
        Adam(lr, head_lr),
        adapts=adapts,
        inner_steps=steps,
        order="first",
        meta_trains=False,
        name="finetune",
    )


METHODS: Mapping[str, Callable[..., MetaLearner]] = {
    "maml": maml,
    "fomaml": fomaml,
    "protonet": ProtoNet,
    "linear-probe": LinearProbe,
    "finetune": finetune,
}


def make(name: str, encoder: Encoder, settings: Mapping[str, Any] | None = None) -> MetaLearner:
    """Return a method by name.

    Raises:
        RecipeError: An unknown method, or a setting it does not have.
    """
    check_method(name)
    for key, value in (settings or {}).items():
        check_setting(name, key, value)
    return METHODS[name](encoder, **(settings or {}))


def check_method(name: str) -> None:
    """Raise `RecipeError` unless there is a method of that name."""
    if name not in METHODS:
        raise RecipeError(f"there is no method {name!r}", fix=did_you_mean(name, METHODS))


def check_setting(name: str, key: str, value: Any) -> None:
    """Raise `RecipeError` unless a method has a setting `key` that can be `value`.

    >>> check_setting("maml", "inner_lr", "fast")
    Traceback (most recent call last):
    quickstudy.errors.RecipeError: inner_lr = 'fast': method 'maml' takes float here
    """
    known = {k: p.annotation for k, p in signature(METHODS[name], eval_str=True).parameters.items()}
    settings = set(known) - {"encoder", "name"}
    if key not in settings:
        raise RecipeError(f"method {name!r} has no setting {key!r}", fix=did_you_mean(key, settings))
    kinds = get_args(known[key]) or (known[key],)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and float in kinds) and type(value) not in kinds:
        wanted = " or ".join(kind.__name__ for kind in kinds if kind is not NoneType)
        raise RecipeError(f"{key} = {value!r}: method {name!r} takes {wanted} here")
    if number and not 0 <= value < math.inf:
        raise RecipeError(f"{key} = {value!r} is not possible", fix="Give a finite number that is not negative.")


def _gradient(
    encoder: Encoder,
    name: str,
    order: Order,
    adapts: str,
    inner_lr: float,
    head_lr: float | None,
    inner_steps: int,
    adapt_steps: int | None,
) -> MetaLearner:
    return GradientMetaLearner(
        encoder,
        SGD(inner_lr, head_lr),
        adapts=adapts,
        inner_steps=inner_steps,
        adapt_steps=adapt_steps,
        order=order,
        name=name,
    )
