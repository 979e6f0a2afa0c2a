"""Gradient family: methods that adapt by plain gradient steps from a meta-learned start.

    φ_0 = θ,      φ_{s+1} = φ_s - α ∇ L_support(φ_s),      s = 0 .. S-1

θ are the encoder's parameters and a head; α is `inner_lr` for the encoder and `head_lr` for the head. The methods
differ in where the head starts, in what adapts, and in how the gradient of L_query(φ_S) goes back to θ. Where a method
differs from its paper, its docstring and docs/methods.md say so.
"""

from typing import Literal

from quickstudy.errors import RecipeError
from quickstudy.inner.unroll import Order
from quickstudy.methods import objective
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.gradient import GradientMetaLearner
from quickstudy.methods.inner_loop import InnerLoop
from quickstudy.methods.name_gate import Names, make_gate
from quickstudy.methods.setting import AboveZero, Count, NotNegative, Steps
from quickstudy.methods.start import PositionStart, PrototypeStart, Word, make_start
from quickstudy.models.encoder import Encoder
from quickstudy.models.parameter_filter import read_rank


def maml(
    encoder: Encoder, inner: InnerLoop = InnerLoop(), *, start: Word = "learned", exact_steps: Count | None = None
) -> MetaLearner:
    """MAML: learns a start from which a few gradient steps solve a new task, with the exact meta-gradient.

    It is the reference of its family, and the most general method: the start is trained for exactly what adapts. It
    costs about twice as much as first order, and its memory grows with the inner steps.

        min_θ L_query(φ_S),        dφ_S/dθ = Π_s (I - α ∇² L_support(φ_s))

    Args:
        encoder: The encoder that is meta-trained and adapts.
        inner: The inner loop; see `InnerLoop`.
        start: Where the head starts: `learned` (a row for each label position, as in the paper) or `zero`.
        exact_steps: How many of the last inner steps the meta-gradient goes through; if it is not given, all. The steps
            before them count as first order.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = maml(tiny_encoder(normalize=True), InnerLoop(adapts="layers:-1", inner_steps=2), start="zero")
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Finn, Abbeel and Levine 2017, arXiv:1703.03400. Truncation: Shaban et al. 2019, arXiv:1810.10667.
    """
    head = make_start(start, encoder.feature_sizes)
    return GradientMetaLearner(encoder, inner, start=head, exact_steps=exact_steps, name="maml")


def fomaml(encoder: Encoder, inner: InnerLoop = InnerLoop(), *, start: Word = "learned") -> MetaLearner:
    """First-order MAML: MAML without second derivatives, at about half the cost.

    It is what to try before MAML when an episode takes long or does not fit into memory. The gradient of the query
    loss at φ_S is taken for the meta-gradient, as if each inner step added a constant.

        θ ← θ - η ∇ L_query(φ_S)

    Args:
        encoder: The encoder that is meta-trained and adapts.
        inner: The inner loop; see `InnerLoop`.
        start: Where the head starts: `learned` (a row for each label position, as in the paper) or `zero`.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = fomaml(tiny_encoder(normalize=True), InnerLoop(adapts="layers:-1", inner_steps=2), start="zero")
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Finn, Abbeel and Levine 2017, arXiv:1703.03400.
    """
    head = make_start(start, encoder.feature_sizes)
    return GradientMetaLearner(encoder, inner, start=head, order="first", name="fomaml")


def reptile(encoder: Encoder, inner: InnerLoop = InnerLoop(), *, start: Word = "learned") -> MetaLearner:
    """Reptile: moves the start towards the parameters that the inner loop finds.

    It needs no query set and no second derivatives. The inner loop sees support and query examples together, all of
    them in every step; the paper draws a new mini-batch for each, and its inner optimizer is Adam. The outer optimizer
    takes θ - φ_S for a gradient. Only the parameters that adapt are meta-trained, so `adapts = "head"` is refused.

        θ ← θ - η (θ - φ_S)

    Args:
        encoder: The encoder that is meta-trained and adapts.
        inner: The inner loop; see `InnerLoop`.
        start: Where the head starts: `learned` (a row for each label position, as in the paper) or `zero`.

    Raises:
        RecipeError: Only the head adapts.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = reptile(tiny_encoder(normalize=True), InnerLoop(adapts="layers:-1", inner_steps=2), start="zero")
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Nichol, Achiam and Schulman 2018, arXiv:1803.02999.
    """
    if inner.adapts == "head":
        raise RecipeError(
            "reptile trains what adapts, and adapts = 'head' leaves the encoder as it is", fix="Use layers:-m or all."
        )
    head = make_start(start, encoder.feature_sizes)
    return GradientMetaLearner(encoder, inner, start=head, order="first", objective=objective.reptile, name="reptile")


def anil(
    encoder: Encoder,
    *,
    head_lr: AboveZero = 3.0,
    inner_steps: Steps = 5,
    adapt_steps: Steps | None = None,
    start: Word = "learned",
) -> MetaLearner:
    """ANIL: only the head adapts in the inner loop, and the encoder is trained for that.

    The encoder runs once per episode, so it is the cheapest method with an inner loop, and its meta-gradient is exact.
    It is the first gradient method to try.

        min_θ L_query(W_S),        W_{s+1} = W_s - α ∇_W L_support(W_s)  on the features f_θ(x)

    Args:
        encoder: The encoder that is meta-trained; it does not adapt.
        head_lr: Inner rate of the head.
        inner_steps: Inner steps in meta-training.
        adapt_steps: Inner steps when adapting to a task for use. If it is not given, it is `inner_steps`.
        start: Where the head starts: `learned` (a row for each label position, as in the paper) or `zero`.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = anil(tiny_encoder(normalize=True), inner_steps=2, start="zero")
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Raghu et al. 2020, arXiv:1909.09157.
    """
    inner = InnerLoop("head", head_lr=head_lr, inner_steps=inner_steps, adapt_steps=adapt_steps)
    return GradientMetaLearner(encoder, inner, start=make_start(start, encoder.feature_sizes), name="anil")


def boil(
    encoder: Encoder,
    *,
    adapts: str = "all",
    inner_lr: NotNegative = 0.05,
    inner_steps: Steps = 5,
    adapt_steps: Steps | None = None,
    order: Order = "second",
    start: Literal["learned", "prototypes"] = "learned",
    scale: AboveZero = 10.0,
) -> MetaLearner:
    """BOIL: only the encoder adapts; the head is meta-learned, and the same before and after the inner loop.

    It is ANIL the other way round: the features must change for every task, while ANIL uses them as they are. It can
    help if tasks need different features. The features have to come to the rows of the head, which know nothing of
    the task. With `start = "prototypes"` the head is that of the prototypes before the first step, which is no longer
    the paper's method.

        φ_{s+1} = φ_s - α ∇ L_support(φ_s, W),        W learned, a row for each label position

    Args:
        encoder: The encoder that is meta-trained and adapts.
        adapts: Which encoder parameters adapt: `layers:-m` (the top m layers), `bias`, `lora:r`, or `all`.
        inner_lr: Inner rate.
        inner_steps: Inner steps in meta-training.
        adapt_steps: Inner steps when adapting to a task for use. If it is not given, it is `inner_steps`.
        order: `second` (exact) or `first`.
        start: The head: `learned` (a row for each label position, as in the paper) or `prototypes`.
        scale: Initial factor of the squared distances in the head of prototypes, learned.

    Raises:
        RecipeError: Only the head would adapt.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = boil(tiny_encoder(normalize=True), adapts="layers:-1", inner_steps=2, start="prototypes")
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Oh et al. 2021, arXiv:2008.08882.
    """
    if adapts == "head":
        raise RecipeError(
            "boil adapts the encoder, and adapts = 'head' leaves it as it is", fix="Use layers:-m or all."
        )
    inner = InnerLoop(adapts, inner_lr, None, inner_steps, adapt_steps)
    head = PositionStart(encoder.feature_sizes) if start == "learned" else PrototypeStart(scale)
    return GradientMetaLearner(encoder, inner, start=head, head_adapts=False, order=order, name="boil")


def imaml(
    encoder: Encoder,
    inner: InnerLoop = InnerLoop("layers:-1", inner_lr=0.3, head_lr=0.8, inner_steps=10),
    *,
    strength: AboveZero = 1.0,
    cg_steps: Steps = 5,
    start: Word = "learned",
) -> MetaLearner:
    """iMAML: takes the meta-gradient from the optimality of the adapted parameters, so it does not look at the steps.

    Memory does not grow with the inner steps, so there can be many. The adapted parameters are pulled back to their
    start, and the meta-gradient is exact where the inner loop has converged. The defaults were
    measured on the top layer of MiniLM: 10 steps converge, and the cosine to the exact meta-gradient is above 0.999.
    With a weaker pull, or where more adapts, it takes more steps or smaller rates. The log of a run says how much is
    left (`inner_residual`, `solve_residual`), and there is a warning if it is too much.

        φ* = argmin_φ L_support(φ) + λ/2 ||φ - θ||^2,      dL/dθ = (I + ∇² L_support / λ)^-1 ∇ L_query(φ*)

    Args:
        encoder: The encoder that is meta-trained and adapts.
        inner: The inner loop; see `InnerLoop`.
        strength: Strength λ of the pull back to the start.
        cg_steps: Steps of conjugate gradients that solve for the meta-gradient.
        start: Where the head starts: `learned` (a row for each label position, as in the paper) or `zero`.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = imaml(tiny_encoder(normalize=True), strength=0.01, start="zero")
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Rajeswaran et al. 2019, arXiv:1909.04630.
    """
    implicit = objective.implicit(strength=strength, cg_steps=cg_steps)
    head = make_start(start, encoder.feature_sizes)
    return GradientMetaLearner(encoder, inner, start=head, objective=implicit, strength=strength, name="imaml")


def maml_lora(
    encoder: Encoder,
    inner: InnerLoop = InnerLoop(adapts="lora:4"),
    *,
    order: Order = "second",
    start: Word = "learned",
) -> MetaLearner:
    """MAML whose inner loop moves low-rank corrections of the weights.

    Few numbers adapt, so what is saved for a task is small. The encoder and the start of the corrections are both
    meta-learned. Set `outer.method_lr = 1e-4`: the corrections are weights of the encoder, and they need an outer rate
    like the encoder's.

        W' = W + 2 B A,        A and B adapt

    Args:
        encoder: The encoder that is meta-trained.
        inner: The inner loop; see `InnerLoop`. What adapts is `lora` or `lora:r`.
        order: `second` (exact) or `first`.
        start: Where the head starts: `learned` (a row for each label position) or `zero`.

    Raises:
        RecipeError: Something else than corrections would adapt.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = maml_lora(tiny_encoder(normalize=True), InnerLoop(adapts="lora:2", inner_steps=2), start="zero")
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Hu et al. 2022, arXiv:2106.09685, in the inner loop of Finn et al. 2017, arXiv:1703.03400.
    """
    if not read_rank(inner.adapts):
        raise RecipeError(
            f"maml-lora cannot adapt {inner.adapts!r}", fix="Use lora or lora:r; method maml has the others."
        )
    head = make_start(start, encoder.feature_sizes)
    return GradientMetaLearner(encoder, inner, start=head, order=order, name="maml-lora")


def proto_maml(
    encoder: Encoder,
    inner: InnerLoop = InnerLoop(head_lr=0.5),
    *,
    order: Order = "second",
    scale: AboveZero = 10.0,
    names: Names = "none",
) -> MetaLearner:
    """Proto-MAML: the head starts at the prototypes, and the gradient flows through them.

    It starts where a prototypical network ends, and then it adapts the encoder. Take it if both `protonet` and `maml`
    work. The scale s is not in the paper, where it is 1. The paper's first-order form is `order = "first"`.

        w_n = 2 s c_n,  b_n = -s ||c_n||^2  at the start, then the inner loop of MAML

    Args:
        encoder: The encoder that is meta-trained and adapts.
        inner: The inner loop; see `InnerLoop`.
        order: `second` (exact) or `first`.
        scale: Initial factor s of the squared distances, learned.
        names: Whether label names count in the prototypes: `none` (as in the paper) or `gated`.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = proto_maml(tiny_encoder(normalize=True), InnerLoop(adapts="layers:-1", inner_steps=2))
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Triantafillou et al. 2020, arXiv:1903.03096.
    """
    head, gate = PrototypeStart(scale), make_gate(names)
    return GradientMetaLearner(encoder, inner, start=head, gate=gate, order=order, name="proto-maml")
