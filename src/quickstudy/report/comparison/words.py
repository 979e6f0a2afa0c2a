"""Words: a recommendation in sentences; what is decided, for which tasks, and what is not."""

from collections.abc import Sequence
from typing import get_args

from quickstudy.evaluation.record import LearnerMean
from quickstudy.report.comparison.recommendation import Recommendation, Worse
from quickstudy.report.comparison.verdict import Judged, Verdict
from quickstudy.report.number import percent, shots_text


def describe(
    choice: Recommendation,
    best: LearnerMean,
    asked: int | None,
    judged: Sequence[Judged],
    untold: Sequence[str],
    candidates: int,
    looks: int,
) -> str:
    """Return the reason of a recommendation, in words.

    Args:
        choice: The recommendation.
        best: The learner with the best mean.
        asked: The number of shots that was asked for.
        judged: Every pair of the learners within the limits.
        untold: Learners of which no test can say whether they are behind the best.
        candidates: Among how many learners it was picked for its mean.
        looks: How many numbers of shots were looked at.
    """
    sentences = [
        _shots(asked, choice.shots),
        *_decided(choice.worse, best),
        _undecided(choice, best),
        _untestable(best, untold),
        _picked(choice, candidates),
        _unknown_rows(judged),
        _counted(len(judged), looks),
    ]
    return " ".join(filter(None, sentences))


def _shots(asked: int | None, answered: int) -> str:
    if asked is None or asked == answered:
        return ""
    return f"The comparison has no figures of {shots_text(asked)}: this answer is from {shots_text(answered)}."


def _decided(worse: Sequence[Worse], best: LearnerMean) -> list[str]:
    """Return a sentence for each verdict, the strongest first."""
    order = get_args(Verdict).index
    sentences = []
    for verdict in dict.fromkeys(each.verdict for each in sorted(worse, key=lambda each: order(each.verdict))):
        behind = [each for each in worse if each.verdict == verdict]
        limit = "" if verdict == "decided for tasks like these" else ", which is not to say for others like it"
        limit = limit if best.n == 1 else limit.replace("like it", "like them")
        names, least = ", ".join(each.learner for each in behind), min(each.by for each in behind)
        ahead = f"{best.learner} ({percent(best.mean)}) is ahead of {names} by {percent(least)} points or more"
        sentences.append(f"{verdict.capitalize()}{limit}: {ahead}.")
    return sentences


def _undecided(choice: Recommendation, best: LearnerMean) -> str:
    name, mean = choice.learner, percent(choice.mean)
    if not choice.equals:
        if choice.worse:
            return ""
        lead = "is the only one within the limits" if choice.verdict is None else "has the best mean"
        return f"{name} {lead} ({mean})."
    if name != best.learner:
        lead = (
            f"Not decided: {best.learner} has the best mean ({percent(best.mean)}), and the evidence does not tell it"
        )
        others = ", ".join(name if each == best.learner else each for each in choice.equals)
        return f"{lead} from {others}. {name} ({mean}) adapts fastest of these."
    others = ", ".join(choice.equals)
    return f"Not decided: the evidence does not tell {name} ({mean}) from {others}. It adapts as fast as any of these."


def _untestable(best: LearnerMean, names: Sequence[str]) -> str:
    if not names:
        return ""
    behind = ", ".join(names)
    return f"Whether {best.learner} is ahead of {behind} by more than chance cannot be tested: use more draws."


def _picked(choice: Recommendation, candidates: int) -> str:
    if choice.corrected is None:
        return ""
    return (
        f"The best of {candidates} means looks better than it is: corrected for having been picked, the mean of "
        f"{choice.learner} is {percent(choice.corrected)}."
    )


def _unknown_rows(judged: Sequence[Judged]) -> str:
    if all(each.pair.counts_rows for each in judged):
        return ""
    return (
        "The noise of the test rows is not known (these results are of an earlier version), so nothing is decided for "
        "these tasks alone. Compare again into another folder to have it counted."
    )


def _counted(pairs: int, looks: int) -> str:
    if pairs * looks < 2:
        return ""
    counted = [f"{pairs} pairs" if pairs > 1 else "", f"{looks} numbers of shots" if looks > 1 else ""]
    return f"The evidence is corrected for {' and '.join(filter(None, counted))}."
