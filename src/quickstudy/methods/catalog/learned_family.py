"""Learned family: methods that learn more than a start.

They also learn inner rates, an update rule, the start of the head, or how the encoder changes.
"""

import math
from functools import partial
from typing import Literal

from quickstudy.inner.lstm_optimizer import LearnedOptimizer, LSTMOptimizer
from quickstudy.inner.optimizer import HEAD
from quickstudy.inner.rates import Granularity, LearnedRates
from quickstudy.inner.unroll import Order
from quickstudy.methods import objective
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.controller import Controller
from quickstudy.methods.generated_start import PROJECTION, GeneratedStart
from quickstudy.methods.gradient import GradientMetaLearner
from quickstudy.methods.inner_loop import InnerLoop
from quickstudy.methods.name_gate import Names, make_gate
from quickstudy.methods.setting import AboveZero, NotNegative, Width
from quickstudy.methods.start import CorrectedStart, HeadStart, LearnedStart, Word, make_start
from quickstudy.models.encoder import Encoder
from quickstudy.models.parameter_filter import list_shapes


def meta_sgd(
    encoder: Encoder,
    inner: InnerLoop = InnerLoop(inner_steps=3),
    *,
    rates: Granularity = "entry",
    order: Order = "second",
    start: Word = "learned",
) -> MetaLearner:
    """Meta-SGD: MAML that also learns the inner rates, and with them what adapts, and in which direction.

    A learned rate replaces a search for `inner_lr`, and few steps are enough. A rate per entry doubles the number of
    meta-parameters; `layer` is a light version. The paper takes one step, and its head has a rate per entry too; here
    the head's weight and bias have one rate each, because heads differ in size. What is learned is the factor of the
    initial rate.

        φ_{s+1} = φ_s - α ∘ ∇ L_support(φ_s),        α learned

    Args:
        encoder: The encoder that is meta-trained and adapts.
        inner: The inner loop; see `InnerLoop`. Its rates are where the learned rates start.
        rates: What has a rate: each `entry` of a parameter, each parameter tensor (`layer`), or each tensor in each
            inner step (`layer-step`).
        order: `second` (exact) or `first`.
        start: Where the head starts: `learned` (a row for each label position, as in the paper) or `zero`.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = meta_sgd(tiny_encoder(normalize=True), InnerLoop(adapts="layers:-1", inner_steps=2), start="zero")
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Li et al. 2017, arXiv:1707.09835. Rates per layer and step: Antoniou et al. 2019, arXiv:1810.09502.
    """
    adapted = list_shapes(encoder.model, inner.adapts)
    rule = partial(LearnedRates, shapes=adapted, granularity=rates, steps=inner.inner_steps)
    head = make_start(start, encoder.feature_sizes)
    return GradientMetaLearner(encoder, inner, rule, start=head, order=order, name="meta-sgd")


def mamlpp(
    encoder: Encoder,
    inner: InnerLoop = InnerLoop(),
    *,
    annealed: NotNegative = 0.15,
    first_order: NotNegative = 0.3,
    start: Word = "learned",
) -> MetaLearner:
    """MAML++: a more stable MAML, which learns a rate per layer and step.

    Early in training the loss after every inner step counts, and the gradient is first order. Later only the loss after
    the last step counts, in second order. Take it where MAML is unstable. The paper anneals the outer rate by a
    cosine: set `outer.schedule = "cosine"`, as the recipe does. Its batch normalisation per step does not apply, since
    encoders of texts have layer normalisation.

        min_θ Σ_s w_s L_query(φ_s),        w goes from equal weights to the last step alone

    Args:
        encoder: The encoder that is meta-trained and adapts.
        inner: The inner loop; see `InnerLoop`. Its rates are where the learned rates start.
        annealed: Fraction of the training in which the weights w go from equal ones to the last step alone.
        first_order: Fraction of the training, at its start, that is first order.
        start: Where the head starts: `learned` (a row for each label position, as in the paper) or `zero`.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = mamlpp(tiny_encoder(normalize=True), InnerLoop(adapts="layers:-1", inner_steps=2), start="zero")
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Antoniou, Edwards and Storkey 2019, arXiv:1810.09502.
    """
    adapted = list_shapes(encoder.model, inner.adapts)
    rule = partial(LearnedRates, shapes=adapted, granularity="layer-step", steps=inner.inner_steps)
    every_step = objective.multi_step(annealed=annealed, first_order=first_order)
    head = make_start(start, encoder.feature_sizes)
    return GradientMetaLearner(encoder, inner, rule, start=head, objective=every_step, name="maml++")


def leopard(
    encoder: Encoder,
    inner: InnerLoop = InnerLoop(head_lr=0.5),
    *,
    start: Literal["generated", "prototypes"] = "generated",
    hidden: Width = 128,
    order: Order = "first",
    scale: AboveZero = 10.0,
    names: Names = "none",
) -> MetaLearner:
    """LEOPARD: a network writes the head from the examples of each label, and each layer has a learned rate.

    It was made for language encoders and for tasks with different numbers of labels. With `start = "prototypes"` a
    network corrects the prototypes' head instead, and starts at zero. That start already works, but it is not the
    paper's method.

        (w_n, b_n) = mean of g(f(x)) over label n,        logits w_n · h(f(x)) + b_n,        w, b, h and f adapt

    It differs from the paper in its batches: there, one mini-batch of the task writes the head and each inner step
    sees another one. Here the whole support set of an episode does both.

    Args:
        encoder: The encoder that is meta-trained and adapts.
        inner: The inner loop; see `InnerLoop`. Its rates are where the learned rates start.
        start: How the head starts: `generated` (as in the paper) or `prototypes` (and a learned correction).
        hidden: Hidden units of the networks g and h, and outputs of h.
        order: `second` (exact) or `first`.
        scale: Initial factor of the squared distances in the prototypes' head, learned; for `start = "prototypes"`.
        names: Whether label names are read by the start of the head: `none` (as in the paper) or `gated`.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> inner = InnerLoop(adapts="layers:-1", inner_steps=2)
    >>> learner = leopard(tiny_encoder(normalize=True), inner, start="prototypes", hidden=4)
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Bansal, Jha and McCallum 2020, arXiv:1911.03863.
    """
    shapes, sizes = list_shapes(encoder.model, inner.adapts), encoder.feature_sizes
    made: HeadStart = CorrectedStart(sizes, hidden, scale) if start == "prototypes" else GeneratedStart(sizes, hidden)
    if start == "generated":  # each layer of the projection adapts, at a rate of its own
        shapes = shapes | {HEAD + name: () for name in PROJECTION}
    rule = partial(LearnedRates, shapes=shapes, granularity="layer")
    gate = make_gate(names)
    return GradientMetaLearner(encoder, inner, rule, start=made, gate=gate, order=order, name="leopard")


def lstm_optimizer(
    encoder: Encoder,
    inner: InnerLoop = InnerLoop(adapts="head"),
    *,
    hidden: Width = 20,
    order: Order = "first",
) -> MetaLearner:
    """LSTM optimizer: an LSTM takes the inner steps, and its cell state is the adapted parameters.

    The forget gate learns when to let go of a parameter, and the input gate learns the rate, from gradient and loss.
    The start of the head is learned too. All coordinates share one small LSTM, which costs memory for every entry
    that adapts.

        φ_t = f_t φ_{t-1} - i_t ∇_t,        f_t and i_t from an LSTM that reads ∇_t and L_t

    It differs from the paper in three things. i_t is 2 α σ(..), where the paper has σ(..): heads need rates above 1,
    and the encoder's layers rates far below it. All parameters may adapt, but by default only the head does, while the
    paper adapts a whole network. The head's learned start is one row that all labels share, where the paper has a row
    for each, because labels differ in number.

    Args:
        encoder: The encoder that is meta-trained.
        inner: The inner loop; see `InnerLoop`. Its rates are where the input gate starts.
        hidden: Hidden units per coordinate.
        order: `second` (exact) or `first`.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = lstm_optimizer(tiny_encoder(normalize=True), hidden=4)
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Ravi and Larochelle 2017, openreview rJY0-Kcll.
    """
    rule, start = partial(LSTMOptimizer, hidden=hidden), LearnedStart(encoder.feature_sizes)
    return GradientMetaLearner(encoder, inner, rule, start=start, order=order, name="lstm-optimizer")


def learned_optimizer(
    encoder: Encoder,
    inner: InnerLoop = InnerLoop(adapts="head"),
    *,
    hidden: Width = 20,
    order: Order = "first",
) -> MetaLearner:
    """Learned optimizer: two LSTM layers per coordinate correct the gradient; trained on the loss after every step.

    It starts as gradient descent and learns how to do better. The LSTM is the same for all coordinates and all tasks.

        φ_t = φ_{t-1} - α (∇_t + w h_t + b),        h_t = LSTM(LSTM(∇_t)),        min Σ_t L_query(φ_t) / S

    It differs from the paper in two things. There the LSTM's output is the whole step; here it is added to the
    gradient. The paper trains on the loss that the steps minimise; here the steps minimise the support loss, and the
    optimizer and the encoder are trained on the query loss.

    Args:
        encoder: The encoder that is meta-trained.
        inner: The inner loop; see `InnerLoop`. Its rates are the α of the equation.
        hidden: Hidden units per coordinate and layer.
        order: `second` (exact) or `first`.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = learned_optimizer(tiny_encoder(normalize=True), hidden=4)
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Andrychowicz et al. 2016, arXiv:1606.04474.
    """
    rule = partial(LearnedOptimizer, hidden=hidden)
    every_step = objective.multi_step(annealed=math.inf, first_order=0.0)
    return GradientMetaLearner(encoder, inner, rule, order=order, objective=every_step, name="learned-optimizer")


def lstm_controller(encoder: Encoder, *, hidden: Width = 64, scale: AboveZero = 10.0) -> MetaLearner:
    """LSTM controller: an LSTM reads the support set and sets a gate and a shift for every branch of the encoder.

    The encoder adapts to a task in one pass, without gradient steps. It starts as a prototypical network, with all
    gates open.

        branch_l(x) → g_l branch_l(x) + s_l,        g_l and s_l from the LSTM's last state

    Args:
        encoder: The encoder that is meta-trained and adapts.
        hidden: Hidden units of the LSTM.
        scale: Initial factor of the squared distances to the prototypes, learned.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = lstm_controller(tiny_encoder(normalize=True), hidden=4)
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    This project; after FiLM (Perez et al. 2018, arXiv:1709.07871) and CNAPs (Requeima et al. 2019, arXiv:1906.07697).
    """
    return Controller(encoder, hidden=hidden, scale=scale)
