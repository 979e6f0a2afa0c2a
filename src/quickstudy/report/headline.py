"""Headline: sentences that say which learner has the best mean, and what tells it from the next.

Evidence is of two kinds, as in evaluation/statistics.py: about these tasks, and about other tasks too.
"""

from quickstudy.evaluation.record import Evidence, PairedTest
from quickstudy.report.number import has_telling_interval, p_text, percent, points, shots_text
from quickstudy.report.view import View

LEVEL = 0.05  # of p: a difference with a smaller one is told from chance


def headline(view: View) -> list[str]:
    """Return the sentences, at the largest number of shots."""
    shots, table = view.largest, view.results.table(view.largest)
    best, *others = sorted(view.means(shots).values(), key=lambda mean: -mean.mean)
    over = f"the mean over {best.n} tasks" if best.n > 1 else "the score on one task"
    first = f"{best.learner} is {'best' if others else 'the only learner'} at {shots_text(shots)}: {over} is "
    first += f"{percent(best.mean)} %"
    if has_telling_interval(best):
        first += f" (95 % interval over tasks: {percent(best.low)} to {percent(best.high)})"
    if not others:
        return [f"{first}."]
    following = others[0].learner
    pair = next((pair for pair in table.pairs if {pair.a, pair.b} == {best.learner, following}), None)
    if pair is None:
        return [f"{first}.", f"It was not compared with the next, {following}, on the same draws."]
    ahead = f"The next, {following}, is {points(abs(pair.mean)).lstrip('+')} points behind."
    return [f"{first}.", ahead, _here(pair), _beyond(pair, len(table.pairs))]


def gain_sentences(view: View) -> list[str]:
    """Return what the first learner gained over the second: of a run, what its meta-training gained."""
    if view.gain is None:
        return []
    first, second = view.gain
    pair = next((pair for pair in view.results.table(view.largest).pairs if {pair.a, pair.b} == {first, second}), None)
    if pair is None:
        return []
    gained = pair.mean if pair.a == first else -pair.mean
    return [
        f"{first} minus {second} at {shots_text(view.largest)}: {points(gained)} points.",
        _here(pair),
    ]


def told_from_chance(evidence: Evidence) -> bool:
    """Return whether evidence shows a difference."""
    return evidence.p_holm is not None and evidence.p_holm <= LEVEL


def _here(pair: PairedTest) -> str:
    """The verdict on these tasks; without what test rows give, it holds for these test rows alone."""
    uncounted = " (the noise of the test rows is not counted)" if not pair.counts_rows else ""
    return _verdict(f"On these tasks{uncounted}", pair.these_tasks)


def _verdict(where: str, evidence: Evidence) -> str:
    if evidence.p_holm is None:
        return f"{where}: not decided, as there is a single draw, or no draw differs from another."
    told = told_from_chance(evidence)
    verdict = "the difference is told from chance" if told else "the evidence does not tell them apart"
    return f"{where}: {verdict} (p {p_text(evidence.p_holm)} after Holm's correction)."


def _beyond(pair: PairedTest, pairs: int) -> str:
    """The verdict on other tasks too; with too few tasks none could be given, whatever the scores."""
    least = pairs * 2.0 ** (1 - pair.n)
    if least <= LEVEL:
        return _verdict("On other tasks too", pair.other_tasks)
    few = f"{pair.n} task{'s' * (pair.n > 1)}" + (f" and {pairs} pairs" if pairs > 1 else "")
    return f"On other tasks too: cannot be decided, as with {few} no p is below {LEVEL}."
