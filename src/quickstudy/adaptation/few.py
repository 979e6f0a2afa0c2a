"""Few-label adaptation: all labelled rows of a task are one support set."""

from quickstudy.errors import DataError
from quickstudy.methods.base import MetaLearner
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import encode_set
from quickstudy.models.target import make_target
from quickstudy.tasks.label_text import NameReading, read_texts
from quickstudy.tasks.task import Task

_MOST_ROWS = 2000  # the whole support set is in memory at once


def adapt_task(learner: MetaLearner, task: Task, names: NameReading = "true") -> AdaptedModel:
    """Adapt a learner to all labelled rows of a task's train split.

    Args:
        learner: The learner.
        task: The task.
        names: What a learner that reads label names gets of them: `true`, `none`, or `opaque` codes.

    Raises:
        DataError: A label without examples in the split, or more rows than fit one support set.
        RecipeError: Names cannot be read in this way.
    """
    texts = read_texts(task.label_texts, names)
    rows = task.train_split
    if len(rows) > _MOST_ROWS:
        raise DataError(
            f"{len(rows):,} labelled rows are too many for one support set",
            fix=f"Use up to {_MOST_ROWS:,} rows, or fine-tune on all of them: quickstudy adapt --full",
        )
    for label, name in enumerate(task.label_names):
        if not len(task.rows_of("train", label)):
            raise DataError(f"no example of the label {name!r} in 'train'", fix="Add one, or remove the label.")
    support = encode_set(learner.encoder, [rows[i] for i in range(len(rows))])
    return learner.adapt(support, make_target(task.kind, task.label_names, texts))
