"""Find: what is evaluated and was seen in meta-training, row by row; `kind` says in which ways.

Each row counts once, under the strictest kind that it meets. Rows that are scored and rows of support sets are counted
apart: adapting to texts whose labels were trained on is easier too. The train splits of the seen tasks are read,
because meta-training and meta-validation read no others.

What is not looked for: other words for the same thing (paraphrases), translations, and what the encoder read before
meta-training.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

from quickstudy.evaluation.leakage.kind import REPORTED, Seen
from quickstudy.evaluation.leakage.search import Search, texts_of
from quickstudy.evaluation.results import Overlap
from quickstudy.evaluation.trial import Examples, PlannedTask
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Task

_EXAMPLES = 3


def find_overlap(
    seen: Sequence[Task], evaluated: Iterable[PlannedTask], how: Seen = "meta-trained on"
) -> tuple[Overlap, ...]:
    """Look for what is evaluated among what was seen.

    Args:
        seen: Tasks of the meta-training, or of the meta-validation; their train splits are read once.
        evaluated: Tasks with their trials.
        how: What was done with the seen tasks.

    Returns:
        One entry per evaluated task that has something in common with a seen task.
    """
    planned = list(evaluated)
    if not seen:
        return ()
    search = Search(chain.from_iterable(chain(task.scored, _support(task)) for task in planned))
    for number, task in enumerate(seen):
        search.read(task.train_split, number)
    overlaps = [_overlap(search, task, seen, how) for task in planned]
    return tuple(overlap for overlap in overlaps if overlap.rows or overlap.support or overlap.lineage)


def _overlap(search: Search, planned: PlannedTask, seen: Sequence[Task], how: Seen) -> Overlap:
    support = _support(planned)
    rows, sources, examples = _count(search, planned.scored)
    support_rows, support_sources, _ = _count(search, support)
    # A task that is itself a seen task is reported elsewhere. The sources it shares with itself are left out.
    shared = {task.name: task.lineage & planned.task.lineage for task in seen if task.name != planned.name}
    numbers = [number for number, _ in (sources.most_common() + support_sources.most_common())]
    return Overlap(
        task=planned.name,
        rows=rows,
        total=len(planned.scored),
        sources=tuple(dict.fromkeys([*(seen[n].name for n in numbers), *(name for name in shared if shared[name])])),
        lineage=tuple(sorted(frozenset[str]().union(*shared.values()))),
        examples=tuple(" | ".join(texts_of(example)) for example in examples[:_EXAMPLES]),
        how=how,
        support=support_rows,
        support_total=len(support),
    )


def _count(search: Search, examples: Examples) -> tuple[dict[str, int], Counter[int], list[Example]]:
    """Return how many rows were seen, by kind and by source, and these rows; kinds that are only reported come last."""
    matches = [(example, match) for example in examples if (match := search.kind(example))]
    kinds = Counter(str(kind) for _, (kind, _) in matches)
    rows = [example for example, (kind, _) in sorted(matches, key=lambda each: each[1][0] in REPORTED)]
    return dict(kinds), Counter(source for _, (_, source) in matches), rows


def _support(planned: PlannedTask) -> Examples:
    """Return the examples that any trial adapts to, each once."""
    shared = {id(trial.support): trial.support for trial in planned.trials}
    return tuple(dict.fromkeys(chain.from_iterable(shared.values())))
