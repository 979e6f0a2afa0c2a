"""Episodes: support sets and wrong predictions of first draws, each text once, for the page to look up."""

from dataclasses import dataclass

from quickstudy.evaluation.record import Shots
from quickstudy.evaluation.results import FirstDraw, LabelledText
from quickstudy.report.view import View

_MOST_CHARACTERS = 600  # of a text

Label = str | int | float | None
Shown = tuple[int, Label]  # place of the text, its label
Missed = tuple[
    int, Label, str, float | None
]  # place of the text, its label, what was predicted, the probability of that


@dataclass(frozen=True, slots=True)
class Episodes:
    """What the page shows of first draws; names and texts by position, None for what is not there.

    Attributes:
        tasks: Names of tasks.
        shots: Numbers of shots.
        learners: Names of learners.
        texts: Each text with its second text.
        support: [task][shots] → examples of the support set.
        wrong: [task][shots][learner] → its wrong predictions; None where they were not kept.
        unkept: Learners of which some wrong predictions were not kept, though they could have been.
    """

    tasks: tuple[str, ...]
    shots: tuple[Shots, ...]
    learners: tuple[str, ...]
    texts: tuple[tuple[str, str | None], ...]
    support: tuple[tuple[tuple[Shown, ...] | None, ...], ...]
    wrong: tuple[tuple[tuple[tuple[Missed, ...] | None, ...], ...], ...]
    unkept: tuple[str, ...]


def episodes(view: View) -> Episodes | None:
    """Return what there is to show of first draws; None when the results hold no texts."""
    places: dict[tuple[str, str | None], int] = {}

    def place(example: LabelledText) -> int:
        return places.setdefault((_cut(example.text), example.text_pair and _cut(example.text_pair)), len(places))

    def support(first: FirstDraw | None) -> tuple[Shown, ...] | None:
        return tuple((place(example), example.label) for example in first.support) or None if first else None

    def wrong(first: FirstDraw | None, task: str, shots: Shots, learner: str) -> tuple[Missed, ...] | None:
        draws = view.cells.get((task, shots, learner), ())
        mistakes = next((draw.mistakes for draw in draws if draw.mistakes is not None), None)
        if first is None or mistakes is None:
            return None
        shown = [(first.scored[mistake.row], mistake) for mistake in mistakes if mistake.row in first.scored]
        return tuple((place(text), text.label, each.predicted, each.probability) for text, each in shown)

    tasks = view.results.tasks
    firsts = {name: {first.shots: first for first in task.first_draws} for name, task in tasks.items()}
    supports = tuple(tuple(support(firsts[name].get(shots)) for shots in view.shots) for name in tasks)
    missed = tuple(
        tuple(
            tuple(wrong(firsts[name].get(shots), name, shots, learner) for learner in view.learners)
            for shots in view.shots
        )
        for name in tasks
    )
    if not places:
        return None
    return Episodes(tuple(tasks), view.shots, view.learners, tuple(places), supports, missed, _unkept(view))


def _unkept(view: View) -> tuple[str, ...]:
    """Return learners with cells of an earlier version that left texts, and with them the mistakes, out."""
    lacking = {
        learner
        for (task, _, learner), draws in view.cells.items()
        if view.results.tasks[task].label_names and all(draw.mistakes is None for draw in draws)
    }
    return tuple(name for name in view.learners if name in lacking)


def _cut(text: str) -> str:
    return f"{text[:_MOST_CHARACTERS]} …" if len(text) > _MOST_CHARACTERS else text
