"""Catalog: the methods by name; a table of the field.

    name           head starts at    what adapts     inner optimizer    order     reference
    maml           zero              all             SGD                second    Finn et al. 2017, arXiv:1703.03400
    fomaml         zero              all             SGD                first     Finn et al. 2017, arXiv:1703.03400
    reptile        zero              all             SGD                first     Nichol et al. 2018, arXiv:1803.02999
    anil           zero              head            SGD                second    Raghu et al. 2020, arXiv:1909.09157
    boil           prototypes        all but head    SGD                second    Oh et al. 2021, arXiv:2008.08882
    meta-sgd       zero              all             learned rates      second    Li et al. 2017, arXiv:1707.09835
    maml++         zero              all             learned rates      both      Antoniou et al. 2019, arXiv:1810.09502
    imaml          zero              all             SGD                implicit  Rajeswaran et al. 2019, arXiv:1909.04630
    maml-lora      zero              lora            SGD                second    Hu et al. 2022, arXiv:2106.09685
    proto-maml     prototypes        all             SGD                second    Triantafillou et al. 2020, arXiv:1903.03096
    leopard        generated         all             learned rates      first     Bansal et al. 2020, arXiv:1911.03863
    lstm-optimizer       learned     head            LSTM cell          first     Ravi and Larochelle 2017, openreview rJY0-Kcll
    learned-optimizer    zero        head            LSTM               first     Andrychowicz et al. 2016, arXiv:1606.04474
    lstm-controller      prototypes  branches        LSTM, no steps     -         this project, after arXiv:1906.07697
    protonet       prototypes        -               -                  -         Snell et al. 2017, arXiv:1703.05175
    matching       attention         -               -                  -         Vinyals et al. 2016, arXiv:1606.04080
    r2d2           ridge             -               -                  -         Bertinetto et al. 2019, arXiv:1805.08136
    metaoptnet     support vectors   -               -                  -         Lee et al. 2019, arXiv:1904.03758
    relation       network           -               -                  -         Sung et al. 2018, arXiv:1711.06025
    in-context     set transformer   -               -                  -         Garnelo et al. 2018, arXiv:1807.01613
    lstm-reader    LSTM              -               -                  -         Hochreiter et al. 2001; Santoro et al. 2016
    majority, nearest-neighbour      -               -                  -         baselines
    linear-probe   -                 head            L-BFGS             -         baseline
    multi-task     one per task      -               -                  -         baseline that meta-trains
    finetune       zero              all             Adam               -         baseline

What adapts, rates and steps are settings; the table gives the defaults. Adding a method is one file and one line here.
"""

import math
from collections.abc import Callable, Mapping
from inspect import signature
from types import NoneType
from typing import Any, get_args

from quickstudy.errors import RecipeError, did_you_mean
from quickstudy.inner.lstm_optimizer import LearnedOptimizer, LSTMOptimizer
from quickstudy.inner.optimizer import SGD, Adam
from quickstudy.inner.rates import Granularity, LearnedRates
from quickstudy.inner.unroll import Order
from quickstudy.methods import objective
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.baseline import Majority, Nearest
from quickstudy.methods.closed_form import Ridge, SupportVectors
from quickstudy.methods.controller import Controller
from quickstudy.methods.feature import FeatureMetaLearner
from quickstudy.methods.gradient import GradientMetaLearner
from quickstudy.methods.linear_probe import LinearProbe
from quickstudy.methods.matching import Matching
from quickstudy.methods.multi_task import MultiTask
from quickstudy.methods.protonet import Prototypes
from quickstudy.methods.start import GeneratedStart, LearnedStart, PrototypeStart
from quickstudy.methods.support_net_rule import SupportNetRule
from quickstudy.models.encoder import Encoder
from quickstudy.models.partition import rank_of, shapes
from quickstudy.models.support_net import InContext, LSTMReader, Relation


def maml(
    encoder: Encoder,
    *,
    adapts: str = "all",
    inner_lr: float = 0.05,
    head_lr: float | None = 3.0,
    inner_steps: int = 5,
    adapt_steps: int | None = None,
    exact_steps: int | None = None,
) -> MetaLearner:
    """MAML with exact second-order gradients; truncated if `exact_steps` is below `inner_steps`."""
    return GradientMetaLearner(
        encoder,
        SGD(inner_lr, head_lr),
        adapts=adapts,
        inner_steps=inner_steps,
        adapt_steps=adapt_steps,
        exact_steps=exact_steps,
        name="maml",
    )


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
    return GradientMetaLearner(
        encoder,
        SGD(inner_lr, head_lr),
        adapts=adapts,
        inner_steps=inner_steps,
        adapt_steps=adapt_steps,
        order="first",
        name="fomaml",
    )


def reptile(
    encoder: Encoder,
    *,
    adapts: str = "all",
    inner_lr: float = 0.05,
    head_lr: float | None = 3.0,
    inner_steps: int = 5,
    adapt_steps: int | None = None,
) -> MetaLearner:
    """Reptile: move towards what the inner loop finds. Only what adapts is meta-trained."""
    if adapts == "head":
        raise RecipeError("reptile trains what adapts, and the head is new in every task", fix="Use layers:-m or all.")
    return GradientMetaLearner(
        encoder,
        SGD(inner_lr, head_lr),
        adapts=adapts,
        inner_steps=inner_steps,
        adapt_steps=adapt_steps,
        order="first",
        objective=objective.reptile,
        name="reptile",
    )


def anil(
    encoder: Encoder, *, head_lr: float = 3.0, inner_steps: int = 5, adapt_steps: int | None = None
) -> MetaLearner:
    """ANIL: only the head adapts, so the encoder runs once per episode; second order."""
    return GradientMetaLearner(
        encoder, SGD(head_lr), adapts="head", inner_steps=inner_steps, adapt_steps=adapt_steps, name="anil"
    )


def boil(
    encoder: Encoder,
    *,
    adapts: str = "all",
    inner_lr: float = 0.05,
    inner_steps: int = 5,
    adapt_steps: int | None = None,
    order: Order = "second",
    scale: float = 10.0,
) -> MetaLearner:
    """BOIL: only the encoder adapts; the head is that of the prototypes before the first step."""
    if adapts == "head":
        raise RecipeError(
            "boil adapts the encoder, and adapts = 'head' leaves it as it is", fix="Use layers:-m or all."
        )
    return GradientMetaLearner(
        encoder,
        SGD(inner_lr),
        start=PrototypeStart(scale),
        adapts=adapts,
        head_adapts=False,
        inner_steps=inner_steps,
        adapt_steps=adapt_steps,
        order=order,
        name="boil",
    )


def meta_sgd(
    encoder: Encoder,
    *,
    adapts: str = "all",
    inner_lr: float = 0.05,
    head_lr: float | None = 3.0,
    inner_steps: int = 3,
    adapt_steps: int | None = None,
    rates: Granularity = "entry",
    order: Order = "second",
) -> MetaLearner:
    """Meta-SGD: MAML with learned inner rates, one per entry, per layer, or per layer and step."""
    return GradientMetaLearner(
        encoder,
        LearnedRates(inner_lr, head_lr, shapes(encoder.model, adapts), rates, inner_steps),
        adapts=adapts,
        inner_steps=inner_steps,
        adapt_steps=adapt_steps,
        order=order,
        name="meta-sgd",
    )


def mamlpp(
    encoder: Encoder,
    *,
    adapts: str = "all",
    inner_lr: float = 0.05,
    head_lr: float | None = 3.0,
    inner_steps: int = 5,
    adapt_steps: int | None = None,
    annealed: float = 0.5,
    first_order: float = 0.3,
) -> MetaLearner:
    """MAML++: learned rates per layer and step, a loss at every step at first, first order at first."""
    return GradientMetaLearner(
        encoder,
        LearnedRates(inner_lr, head_lr, shapes(encoder.model, adapts), "layer-step", inner_steps),
        adapts=adapts,
        inner_steps=inner_steps,
        adapt_steps=adapt_steps,
        objective=objective.multi_step(annealed=annealed, first_order=first_order),
        name="maml++",
    )


def imaml(
    encoder: Encoder,
    *,
    adapts: str = "all",
    inner_lr: float = 0.05,
    head_lr: float | None = 3.0,
    inner_steps: int = 10,
    adapt_steps: int | None = None,
    strength: float = 0.1,
    cg_steps: int = 5,
) -> MetaLearner:
    """iMAML: the meta-gradient from the optimality of the adapted parameters, by conjugate gradients."""
    return GradientMetaLearner(
        encoder,
        SGD(inner_lr, head_lr),
        adapts=adapts,
        inner_steps=inner_steps,
        adapt_steps=adapt_steps,
        objective=objective.implicit(strength=strength, cg_steps=cg_steps),
        strength=strength,
        name="imaml",
    )


def maml_lora(
    encoder: Encoder,
    *,
    adapts: str = "lora:4",
    inner_lr: float = 0.05,
    head_lr: float | None = 3.0,
    inner_steps: int = 5,
    adapt_steps: int | None = None,
    order: Order = "second",
) -> MetaLearner:
    """MAML whose inner loop moves low-rank corrections of the weights."""
    if not rank_of(adapts):
        raise RecipeError(f"maml-lora cannot adapt {adapts!r}", fix="Use lora or lora:r; method maml has the others.")
    return GradientMetaLearner(
        encoder,
        SGD(inner_lr, head_lr),
        adapts=adapts,
        inner_steps=inner_steps,
        adapt_steps=adapt_steps,
        order=order,
        name="maml-lora",
    )


def proto_maml(
    encoder: Encoder,
    *,
    adapts: str = "all",
    inner_lr: float = 0.05,
    head_lr: float | None = 0.5,
    inner_steps: int = 5,
    adapt_steps: int | None = None,
    order: Order = "second",
    scale: float = 10.0,
) -> MetaLearner:
    """Proto-MAML: the head starts at the prototypes, and the gradient flows through them."""
    return GradientMetaLearner(
        encoder,
        SGD(inner_lr, head_lr),
        start=PrototypeStart(scale),
        adapts=adapts,
        inner_steps=inner_steps,
        adapt_steps=adapt_steps,
        order=order,
        name="proto-maml",
    )


def leopard(
    encoder: Encoder,
    *,
    adapts: str = "all",
    inner_lr: float = 0.05,
    head_lr: float | None = 0.5,
    inner_steps: int = 5,
    adapt_steps: int | None = None,
    hidden: int = 128,
    order: Order = "first",
    scale: float = 10.0,
) -> MetaLearner:
    """LEOPARD: a generated head, and learned rates per layer."""
    return GradientMetaLearner(
        encoder,
        LearnedRates(inner_lr, head_lr, shapes(encoder.model, adapts), "layer"),
        start=GeneratedStart(_sizes(encoder), hidden, scale),
        adapts=adapts,
        inner_steps=inner_steps,
        adapt_steps=adapt_steps,
        order=order,
        name="leopard",
    )


def lstm_optimizer(
    encoder: Encoder,
    *,
    adapts: str = "head",
    inner_lr: float = 0.05,
    head_lr: float | None = 3.0,
    inner_steps: int = 5,
    adapt_steps: int | None = None,
    hidden: int = 20,
    order: Order = "first",
) -> MetaLearner:
    """The LSTM whose cell state is the adapted parameters; its initial state is learned."""
    return GradientMetaLearner(
        encoder,
        LSTMOptimizer(inner_lr, head_lr, hidden),
        start=LearnedStart(_sizes(encoder)),
        adapts=adapts,
        inner_steps=inner_steps,
        adapt_steps=adapt_steps,
        order=order,
        name="lstm-optimizer",
    )


def learned_optimizer(
    encoder: Encoder,
    *,
    adapts: str = "head",
    inner_lr: float = 0.05,
    head_lr: float | None = 3.0,
    inner_steps: int = 5,
    adapt_steps: int | None = None,
    hidden: int = 20,
    order: Order = "first",
) -> MetaLearner:
    """A learned optimizer, trained on the loss after every step."""
    return GradientMetaLearner(
        encoder,
        LearnedOptimizer(inner_lr, head_lr, hidden),
        adapts=adapts,
        inner_steps=inner_steps,
        adapt_steps=adapt_steps,
        order=order,
        objective=objective.multi_step(annealed=math.inf, first_order=0.0),
        name="learned-optimizer",
    )


def lstm_controller(encoder: Encoder, *, hidden: int = 64, scale: float = 10.0) -> MetaLearner:
    """The LSTM that reads the support set and sets the encoder's gates and shifts."""
    return Controller(encoder, hidden=hidden, scale=scale)


def protonet(encoder: Encoder, *, scale: float = 10.0) -> MetaLearner:
    """Prototypical networks."""
    return FeatureMetaLearner(encoder, Prototypes(scale), name="protonet")


def matching(encoder: Encoder, *, scale: float = 10.0) -> MetaLearner:
    """Matching networks."""
    return FeatureMetaLearner(encoder, Matching(scale), name="matching")


def r2d2(encoder: Encoder, *, penalty: float = 1.0, scale: float = 10.0) -> MetaLearner:
    """R2D2: a ridge-regression head in closed form."""
    return FeatureMetaLearner(encoder, Ridge(penalty, scale), name="r2d2")


def metaoptnet(encoder: Encoder, *, c: float = 1.0, penalty: float = 1.0, scale: float = 5.0) -> MetaLearner:
    """MetaOptNet: a support-vector head, differentiated through its optimality."""
    return FeatureMetaLearner(encoder, SupportVectors(c, penalty, scale), name="metaoptnet")


def relation(encoder: Encoder, *, hidden: int = 64, prior: float = 10.0) -> MetaLearner:
    """Relation networks."""
    rule = SupportNetRule(lambda: Relation(_sizes(encoder), hidden), prior)
    return FeatureMetaLearner(encoder, rule, name="relation")


def in_context(encoder: Encoder, *, hidden: int = 64, prior: float = 10.0) -> MetaLearner:
    """In-context learning: a set transformer reads (text, label) pairs."""
    rule = SupportNetRule(lambda: InContext(_sizes(encoder), hidden), prior)
    return FeatureMetaLearner(encoder, rule, name="in-context")


def lstm_reader(encoder: Encoder, *, hidden: int = 64, prior: float = 10.0) -> MetaLearner:
    """The LSTM that reads the support set example by example."""
    rule = SupportNetRule(lambda: LSTMReader(_sizes(encoder), hidden), prior)
    return FeatureMetaLearner(encoder, rule, name="lstm-reader")


def majority(encoder: Encoder) -> MetaLearner:
    """The most frequent label: a baseline."""
    return FeatureMetaLearner(encoder, Majority(), meta_trains=False, name="majority")


def nearest_neighbour(encoder: Encoder) -> MetaLearner:
    """The label of the nearest support example: a baseline."""
    return FeatureMetaLearner(encoder, Nearest(), meta_trains=False, name="nearest-neighbour")


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
    "reptile": reptile,
    "anil": anil,
    "boil": boil,
    "meta-sgd": meta_sgd,
    "maml++": mamlpp,
    "imaml": imaml,
    "maml-lora": maml_lora,
    "proto-maml": proto_maml,
    "leopard": leopard,
    "lstm-optimizer": lstm_optimizer,
    "learned-optimizer": learned_optimizer,
    "lstm-controller": lstm_controller,
    "protonet": protonet,
    "matching": matching,
    "r2d2": r2d2,
    "metaoptnet": metaoptnet,
    "relation": relation,
    "in-context": in_context,
    "lstm-reader": lstm_reader,
    "majority": majority,
    "nearest-neighbour": nearest_neighbour,
    "linear-probe": LinearProbe,
    "finetune": finetune,
    "multi-task": MultiTask,
}


_ABOVE_ZERO = {"hidden", "c", "scale", "penalty", "strength", "cg_steps"}


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
    if all(isinstance(kind, str) for kind in kinds):  # a Literal: one of these words
        if value not in kinds:
            raise RecipeError(
                f"{key} = {value!r}: method {name!r} takes one of these", fix=did_you_mean(str(value), kinds)
            )
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and float in kinds) and type(value) not in kinds:
        wanted = " or ".join(kind.__name__ for kind in kinds if kind is not NoneType)
        raise RecipeError(f"{key} = {value!r}: method {name!r} takes {wanted} here")
    if number and not 0 <= value < math.inf:
        raise RecipeError(f"{key} = {value!r} is not possible", fix="Give a finite number that is not negative.")
    if value == 0 and key in _ABOVE_ZERO:
        raise RecipeError(f"{key} = {value!r} is not possible", fix="Give a number above 0.")


def _sizes(encoder: Encoder) -> set[int]:
    """The feature sizes that occur: of single texts and of pairs."""
    return {encoder.feature_size(pair=pair) for pair in (False, True)}
