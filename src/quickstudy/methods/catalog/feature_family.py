"""Feature family: methods whose head is made from the features of the support set in one go, without an inner loop.

    head = rule(f(x_1), y_1, .., f(x_B), y_B)

Adapting costs one pass through the encoder. The methods differ in the rule. With `names = "gated"`, label names are
further rows (see `methods.name_gate`).
"""

from typing import Literal

from quickstudy.methods.base import MetaLearner
from quickstudy.methods.closed_form import Ridge, SupportVectors
from quickstudy.methods.feature import FeatureMetaLearner
from quickstudy.methods.matching import Matching
from quickstudy.methods.name_gate import Names, make_gate
from quickstudy.methods.protonet import Prototypes
from quickstudy.methods.setting import AboveZero, NotNegative, Width
from quickstudy.methods.support_net_rule import SupportNetRule, answer_late
from quickstudy.models.encoder import Encoder
from quickstudy.models.support_net import InContext, LSTMReader, Relation


def protonet(encoder: Encoder, *, scale: AboveZero = 10.0, names: Names = "none") -> MetaLearner:
    """Prototypical networks: classify by the distance to the mean feature of each label.

    The method to try first: it is fast, and there is nothing to tune. Only the features and a scale are learned. The
    scale is not in the paper, where it is 1; features of unit length need it.

        c_n = mean of f(x) over label n,        p(y=n | x) = softmax_n(-scale ||f(x) - c_n||^2)

    Args:
        encoder: The encoder that is meta-trained.
        scale: Initial factor of the squared distances, learned. About 10 suits features of unit length.
        names: Whether label names are further rows of the support set: `none` (as in the paper) or `gated`.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = protonet(tiny_encoder(normalize=True), scale=5.0)
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Snell, Swersky and Zemel 2017, arXiv:1703.05175. The scale: Oreshkin et al. 2018, arXiv:1805.10123.
    """
    return FeatureMetaLearner(encoder, Prototypes(scale), gate=make_gate(names), name="protonet")


def matching(encoder: Encoder, *, scale: AboveZero = 10.0) -> MetaLearner:
    """Matching networks: attention over the support examples, each of which votes for its label.

    The examples of a label are not averaged, so a label may consist of several clusters. It can suit tasks whose labels
    are mixed. It differs from the paper in two things. The paper's full context embeddings are not built: there, an
    LSTM in both directions over the support set, and one with attention for the query, change each feature. The cosines
    have a learned scale, which is 1 in the paper.

        a_i = softmax_i(scale cos(f(x), f(x_i))),        p(y=n | x) = Σ_{i: y_i=n} a_i

    Args:
        encoder: The encoder that is meta-trained.
        scale: Initial factor of the cosines, learned.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = matching(tiny_encoder(normalize=True))
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Vinyals et al. 2016, arXiv:1606.04080.
    """
    return FeatureMetaLearner(encoder, Matching(scale), name="matching")


def r2d2(
    encoder: Encoder,
    *,
    penalty: AboveZero = 1.0,
    scale: AboveZero = 10.0,
    intercept: Literal["none", "free"] = "none",
    calibration: Literal["none", "leave-one-out"] = "none",
    names: Names = "none",
) -> MetaLearner:
    """R2D2: ridge regression on the support set, differentiated through its solution.

    The head is a fitted linear classifier and not a mean, so it can weigh features. It costs the solution of a linear
    system as large as the support set. Scores are predicted by the same regression. The paper adds a learned bias to
    all logits, which changes no prediction; it is left out.

        W = argmin_W ||F W^T - Y||^2 + λ ||W||^2,        logits α W f(x)

    Args:
        encoder: The encoder that is meta-trained.
        penalty: Initial penalty λ, learned.
        scale: Initial factor α of the logits, learned.
        intercept: Whether each label has a bias that is not penalised: `none` (as in the paper) or `free`.
        calibration: How α is set for a task: `none` takes it as it was learned (as in the paper), `leave-one-out` finds
            the one that gives the best probabilities to support rows that are left out.
        names: Whether label names are further rows of the support set: `none` (as in the paper) or `gated`.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = r2d2(tiny_encoder(normalize=True), penalty=0.5)
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Bertinetto et al. 2019, arXiv:1805.08136.
    """
    rule = Ridge(penalty, scale, intercept=intercept == "free", calibrated=calibration == "leave-one-out")
    return FeatureMetaLearner(encoder, rule, gate=make_gate(names), name="r2d2")


def metaoptnet(
    encoder: Encoder,
    *,
    c: AboveZero = 1.0,
    penalty: AboveZero = 1.0,
    scale: AboveZero = 5.0,
    names: Names = "none",
) -> MetaLearner:
    """MetaOptNet: a support vector machine on the support set, differentiated through its optimality.

    The head depends only on the examples near the boundary, so examples far from it have no influence. It takes longer
    to solve than ridge regression. It is the paper's dual problem, with other defaults: its code sets C = 0.1, starts
    the scale at 1, and adds the identity to K. Features of unit length need a larger C. Scores, for which the paper has
    no head, are predicted by ridge regression.

        A = argmin_A 1/2 tr(A^T K A) - <A, Y>  s.t.  A <= C Y, A 1 = 0,        logits α A^T F f(x)

    Args:
        encoder: The encoder that is meta-trained.
        c: Upper bound C of a dual variable: how strongly a single example can pull.
        penalty: Penalty of the ridge regression that predicts scores.
        scale: Initial factor α of the logits, learned.
        names: Whether label names are further rows of the support set: `none` (as in the paper) or `gated`.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = metaoptnet(tiny_encoder(normalize=True), c=0.5)
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Lee et al. 2019, arXiv:1904.03758.
    """
    rule = SupportVectors(c, penalty, scale)
    return FeatureMetaLearner(encoder, rule, gate=make_gate(names), name="metaoptnet")


def relation(encoder: Encoder, *, hidden: Width = 64, prior: NotNegative = 10.0, names: Names = "none") -> MetaLearner:
    """Relation networks: a small network learns how to compare a text with the mean of a label.

    It starts as a prototypical network and learns a correction, so it can learn another distance than the Euclidean
    one.

        s_n = -prior ||f(x) - c_n||^2 + g(|f(x) - c_n|, sqrt(F) f(x) ∘ c_n)

    It differs from the paper in four things. With `prior = 0` the network stands alone, as in the paper; then three are
    left. The network reads the difference and the product, where the paper's reads f(x) and c_n themselves. c_n is the
    mean of the features, where the paper has their sum. The loss is cross-entropy, where the paper fits a sigmoid to 0
    and 1 by squared errors.

    Args:
        encoder: The encoder that is meta-trained.
        hidden: Hidden units of the network.
        prior: Initial factor of the squared distances, learned; with 0 the network stands alone, as in the paper.
        names: Whether label names are further rows of the support set: `none` (as in the paper) or `gated`.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = relation(tiny_encoder(normalize=True), hidden=8)
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Sung et al. 2018, arXiv:1711.06025.
    """
    rule = SupportNetRule(lambda: Relation(encoder.feature_sizes, hidden), prior)
    return FeatureMetaLearner(encoder, rule, gate=make_gate(names), name="relation")


def in_context(encoder: Encoder, *, hidden: Width = 64, prior: NotNegative = 10.0) -> MetaLearner:
    """In-context learning: a small set transformer reads the (text, label) pairs and answers in one pass.

    It can learn any way to read a support set, and it sees all examples at once. It starts as a prototypical network
    and learns a correction. No paper has exactly this method. Those below have deeper networks and no prior, and their
    networks answer for all labels at once. Here the network has two attention blocks, and answers for one label at a
    time.

        s_n = -prior ||f(x) - c_n||^2 + attend(f(x), self-attention over {(f(x_i), [y_i = n])})

    Args:
        encoder: The encoder that is meta-trained.
        hidden: Width of the transformer; a multiple of its 4 attention heads.
        prior: Initial factor of the squared distances, learned; with 0 the network stands alone.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = in_context(tiny_encoder(normalize=True), hidden=8)
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    In the manner of Garnelo et al. 2018, arXiv:1807.01613, and Hollmann et al. 2023, arXiv:2207.01848.
    """
    rule = SupportNetRule(lambda: InContext(encoder.feature_sizes, hidden), prior)
    return FeatureMetaLearner(encoder, rule, name="in-context")


def lstm_reader(
    encoder: Encoder,
    *,
    hidden: Width = 64,
    prior: NotNegative = 10.0,
    loss: Literal["query", "every-example"] = "query",
) -> MetaLearner:
    """LSTM reader: an LSTM reads the support set example by example, each label one step late, then answers the query.

    The oldest way to learn to learn: all that adapts is the LSTM's state. It starts as a prototypical network and
    learns a correction.

        h_t = LSTM([P f(x_t), y_{t-1}], h_{t-1}),        s_n = -prior ||f(x) - c_n||^2 + w h(query)

    With `prior = 0` and `loss = "every-example"` it is the method of the papers, except for two things. It answers for
    one label at a time, so that any number of labels is possible. Its answer is the mean over four orders of the
    support set. Santoro et al. also have an external memory, which is not built.

    Args:
        encoder: The encoder that is meta-trained.
        hidden: Hidden units of the LSTM.
        prior: Initial factor of the squared distances, learned; with 0 the network stands alone, as in the papers.
        loss: What it is trained on: the answers for the `query` set, or those for `every-example`, also of the support
            set, before its label is told (as in the papers).

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = lstm_reader(tiny_encoder(normalize=True), hidden=8)
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Hochreiter, Younger and Conwell 2001; Santoro et al. 2016.
    """
    rule = SupportNetRule(lambda: LSTMReader(encoder.feature_sizes, hidden), prior)
    support_loss = answer_late if loss == "every-example" else None
    return FeatureMetaLearner(encoder, rule, support_loss=support_loss, name="lstm-reader")
