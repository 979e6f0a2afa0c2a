"""Few-label adaptation: all labelled rows of a task are one support set."""

from collections.abc import Callable, Sequence
from warnings import warn

from quickstudy.adaptation.summary import summarise
from quickstudy.errors import DataError, NoExampleWarning
from quickstudy.methods.base import MetaLearner
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedSet, encode_set
from quickstudy.models.feature_cache import FeatureCaches
from quickstudy.models.learned import Learned
from quickstudy.models.target import Target, make_target
from quickstudy.tasks.label_text import NameReading, read_texts
from quickstudy.tasks.task import Task

_MOST_ROWS = 2000  # the whole support set is in memory at once


def adapt_task(
    learner: MetaLearner, task: Task, names: NameReading = "true", *, weights: Sequence[float] | None = None
) -> AdaptedModel:
    """Adapt a learner to all labelled rows of a task's train split.

    Args:
        learner: The learner.
        task: The task.
        names: What a learner that reads label names gets of them: `true`, `none`, or `opaque` codes.
        weights: How often each row counts, 0 or more; None if each counts once.

    Raises:
        DataError: A label that nothing is known of, impossible weights, weights that the method cannot use, or more
            rows than fit one support set.
        RecipeError: Names cannot be read in this way.

    Warns:
        NoExampleWarning: A label has a description and no example.
    """
    return learner.adapt(*_support(learner, task, names, weights))


def learn_task(
    learner: MetaLearner,
    task: Task,
    names: NameReading = "true",
    *,
    weights: Sequence[float] | None = None,
    prior: str = "",
) -> tuple[AdaptedModel, Callable[[], Learned]]:
    """Adapt a learner as `adapt_task` does, and return beside the model a function that says what was learned.

    It is a function because a leave-one-out accuracy can take much longer than adapting.

    Args:
        learner: The learner.
        task: The task.
        names: See `adapt_task`.
        weights: See `adapt_task`.
        prior: What the learner is called in the summary.
    """
    support, target = _support(learner, task, names, weights)
    caches = FeatureCaches()
    chosen = learner.for_support(support, target, caches)
    cache = caches.of(chosen.encoder)  # the summary makes the head anew, from the same features
    model = chosen.adapt(support, target, cache=cache)
    return model, lambda: summarise(chosen, task, support, target, cache, prior)


def _support(
    learner: MetaLearner, task: Task, names: NameReading, weights: Sequence[float] | None
) -> tuple[EncodedSet, Target]:
    """Return the rows of a task that count, in tokens, and its target."""
    texts = read_texts(task.label_texts, names)
    rows = task.train_split
    if len(rows) > _MOST_ROWS:
        raise DataError(
            f"{len(rows):,} labelled rows are too many for one support set",
            fix=f"Use up to {_MOST_ROWS:,} rows, or fine-tune on all of them: quickstudy adapt --full",
        )
    support = encode_set(learner.encoder, [rows[i] for i in range(len(rows))], weights)
    if support.weights is not None and not bool(support.weights.all()):  # a row of weight 0 is no row
        support = support.select(support.weights.nonzero().flatten().tolist())
    for label, name in enumerate(task.label_names):
        if not bool((support.labels == label).any()):
            _check_described(learner, task, name, names, weighted=bool(len(task.rows_of("train", label))))
    if not len(support.labels):
        raise DataError("all rows have zero weight in 'train'", fix="Give some of them a weight.")
    return support, make_target(task.kind, task.label_names, texts)


def _check_described(learner: MetaLearner, task: Task, name: str, names: NameReading, *, weighted: bool) -> None:
    """Warn that a label without examples is known by its description; raise `DataError` if it is not."""
    if name in task.label_descriptions and learner.reads_names and names == "true":
        warn(
            f"there is no example of the label {name!r}: it is known by its description alone, and its texts will "
            "be found less often than those of labels that have examples. Add some if you can",
            NoExampleWarning,
            stacklevel=5,
        )
        return
    what = f"all examples of the label {name!r} have zero weight" if weighted else f"no example of the label {name!r}"
    fix = "Give one of them a weight, or leave the class out." if weighted else "Add one, or remove the label."
    if learner.reads_names and names == "true":
        fix += " Or describe it: label_descriptions."
    raise DataError(f"{what} in 'train'", fix=fix)
