"""Baseline family: what a method has to beat. All but `multi_task` learn nothing across tasks."""

from quickstudy.inner.optimizer import Adam
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.baseline import Majority, Nearest
from quickstudy.methods.feature import FeatureMetaLearner
from quickstudy.methods.gradient import GradientMetaLearner
from quickstudy.methods.inner_loop import InnerLoop
from quickstudy.methods.label_names import LabelNames
from quickstudy.methods.linear_probe import LinearProbe
from quickstudy.methods.multi_task import MultiTask
from quickstudy.methods.setting import AboveZero, NotNegative, Steps
from quickstudy.models.encoder import Encoder


def majority(encoder: Encoder) -> MetaLearner:
    """Majority: always the most frequent label of the support set; for scores, their mean.

    It shows what accuracy is worth nothing: a method near it has learned nothing from the texts.

        p(y=n) = fraction of n in the support set

    Args:
        encoder: The encoder; its features are not used.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = majority(tiny_encoder())
    >>> learner.adapt(*tiny_support(learner.encoder)).predict_proba(["a great film"]).tolist()
    [[0.5, 0.5]]

    A customary baseline; it has no reference.
    """
    return FeatureMetaLearner(encoder, Majority(), meta_trains=False, name="majority")


def nearest_neighbour(encoder: Encoder) -> MetaLearner:
    """Nearest neighbour: the label of the support example that is nearest to the text.

    It shows what the features know without any fitting.

        y = y_i  with  i = argmin_i ||f(x) - f(x_i)||

    Args:
        encoder: The encoder; it is not changed.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = nearest_neighbour(tiny_encoder())
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Cover and Hart 1967, "Nearest neighbor pattern classification".
    """
    return FeatureMetaLearner(encoder, Nearest(), meta_trains=False, name="nearest-neighbour")


def linear_probe(encoder: Encoder, *, c: AboveZero = 10.0, name: str = "linear-probe") -> MetaLearner:
    """Linear probe: logistic regression on the untouched features; for scores, ridge regression.

    The baseline to beat: it shows what a good encoder gives without meta-training. The paper probes every layer; this
    probes what the encoder gives.

        min_{W,b}  C Σ_i CE(W f(x_i) + b, y_i) + ||W||^2 / 2

    Args:
        encoder: The encoder; it is not changed.
        c: Inverse penalty C: a larger number fits the support set more closely.
        name: The name that goes into saved models.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = linear_probe(tiny_encoder())
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Alain and Bengio 2016, arXiv:1610.01644. It is fitted by scikit-learn.
    """
    return LinearProbe(encoder, c=c, name=name)


def multi_task(
    encoder: Encoder, *, scale: AboveZero = 10.0, c: AboveZero = 10.0, name: str = "multi-task"
) -> MetaLearner:
    """Multi-task pre-training: one head per meta-train task and no inner loop; a new task gets a linear probe.

    It sees the same tasks as the meta-learners, so the difference between them is what learning to learn is worth. It
    differs from Liu et al. in what follows: they fine-tune the whole encoder on a new task, and here a linear probe is
    fitted. The scale s is not in the papers.

        loss = mean over all examples of CE(s (W_t f(x) + b_t), y),        W_t and b_t the head of task t

    Args:
        encoder: The encoder that is meta-trained.
        scale: Factor s of the logits. Features have unit length, so heads would grow slowly without it.
        c: Inverse penalty of the linear probe; see `linear_probe`.
        name: The name that goes into saved models.

    >>> from quickstudy.testing import tiny_encoder, tiny_support, word_task
    >>> learner = multi_task(tiny_encoder())
    >>> learner.prepare([word_task()])
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Caruana 1997, "Multitask learning"; for language encoders Liu et al. 2019, arXiv:1901.11504.
    """
    return MultiTask(encoder, scale=scale, c=c, name=name)


def finetune(
    encoder: Encoder,
    *,
    adapts: str = "all",
    lr: NotNegative = 5e-5,
    head_lr: AboveZero = 0.05,
    steps: Steps = 30,
) -> MetaLearner:
    """Fine-tuning: Adam on the support set, for the encoder and a fresh head.

    It shows what ordinary fine-tuning reaches with the same few labels. Each step sees the whole support set, without
    dropout, weight decay or warm-up, which Devlin et al. have. Their head starts at random and has no rate of its own.

        φ_{s+1} = Adam(φ_s, ∇ L_support(φ_s)),        φ_0 = θ and a head of zeros

    Args:
        encoder: The encoder that adapts; nothing is learned across tasks.
        adapts: Which encoder parameters adapt beside the head: `head` (none of the encoder), `layers:-m` (the top m
            layers), `bias`, `lora:r`, or `all`.
        lr: Rate of encoder parameters.
        head_lr: Rate of the head.
        steps: Steps on the whole support set.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = finetune(tiny_encoder(normalize=True), adapts="head", head_lr=0.5)
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["a great film", "an awful film"])
    ['good', 'bad']

    Adam: Kingma and Ba 2015, arXiv:1412.6980. Fine-tuning: Devlin et al. 2019, arXiv:1810.04805.
    """
    inner = InnerLoop(adapts, lr, head_lr, steps)
    return GradientMetaLearner(encoder, inner, Adam, order="first", meta_trains=False, name="finetune")


def label_names(encoder: Encoder, *, scale: AboveZero = 10.0) -> MetaLearner:
    """Label names: classify by the nearest label name, without any labelled example.

    A reference for `quickstudy compare`: what a method reaches above it is what its labelled examples are worth. It
    cannot be meta-trained. The paper compares vectors of Wikipedia concepts; this compares features of the encoder.

        p(y=n | x) = softmax_n(-scale ||f(x) - f(name of n)||^2)

    Args:
        encoder: The encoder; it is not changed.
        scale: Factor of the squared distances.

    >>> from quickstudy.testing import tiny_encoder, tiny_support
    >>> learner = label_names(tiny_encoder())
    >>> learner.adapt(*tiny_support(learner.encoder)).predict(["good", "bad"])
    ['good', 'bad']

    Chang et al. 2008, "Importance of semantic representation: dataless classification".
    """
    return LabelNames(encoder, scale=scale)
