"""Recommend: which learner of a comparison to take for these tasks, within limits, and whether the evidence decides.

Of the learners within the limits the one with the best mean leads. Those that the paired test over draws (`over_draws`: these
tasks, other support sets; corrected by Holm for all pairs) cannot tell from it are its equals, and of the equals the one that
adapts fastest is recommended: a difference that is not there is not worth waiting for.
"""

from collections.abc import Mapping
from typing import Any

from quickstudy.errors import DataError

_LEVEL = 0.05


def recommend(
    results: Mapping[str, Any], *, shots: int | None = None, most_seconds: float | None = None
) -> dict[str, Any]:
    """Recommend a learner.

    Args:
        results: The content of a comparison's `results.json`.
        shots: Labelled examples per class that there will be; the most that were compared by default.
        most_seconds: What adapting to a task may take.

    Returns:
        `learner`, `shots`, `mean`, `low`, `high`, `seconds_adapt`; `equals`: the others that are not told from the best; `worse`:
        those that are, and by how much; `decided`: whether something within the limits is worse; `why`, in words.

    Raises:
        DataError: That number of shots was not compared, or no learner is within the limits.
    """
    compared = [int(k) for k, found in results["by_shots"].items() if found["learners"]]
    shots = max(compared, default=0) if shots is None else shots
    if shots not in compared:
        raise DataError(
            f"the comparison has no figures of {shots} shots",
            fix=f"Choose one of: {', '.join(map(str, sorted(compared)))}.",
        )
    found = results["by_shots"][str(shots)]
    within = [row for row in found["learners"] if most_seconds is None or row["seconds_adapt"] <= most_seconds]
    if not within:
        fastest = min(row["seconds_adapt"] for row in found["learners"])
        raise DataError(
            f"no learner adapts within {most_seconds} s",
            fix=f"The fastest takes {fastest:.3f} s: allow that, or compare others.",
        )
    best = max(within, key=lambda row: row["mean"])
    names = {row["learner"] for row in within}
    against = [pair for pair in found["pairs"] if pair["a"] == best["learner"] and pair["b"] in names]
    worse = [pair for pair in against if pair["here"]["p_holm"] is not None and pair["here"]["p_holm"] <= _LEVEL]
    beaten = {pair["b"] for pair in worse}
    equals = [row for row in within if row["learner"] not in beaten]
    chosen = min(equals, key=lambda row: row["seconds_adapt"])
    others = [row["learner"] for row in equals if row is not chosen]
    return {
        "learner": chosen["learner"],
        "shots": shots,
        **{key: chosen[key] for key in ("mean", "low", "high", "seconds_adapt")},
        "equals": others,
        "worse": [{"learner": pair["b"], "by": pair["mean"], "p": pair["here"]["p_holm"]} for pair in worse],
        "decided": bool(worse),
        "why": _why(chosen, best, others, worse, len(within)),
    }


def _why(
    chosen: Mapping[str, Any], best: Mapping[str, Any], others: list[str], worse: list[dict[str, Any]], compared: int
) -> str:
    name, mean = chosen["learner"], f"{100 * chosen['mean']:.1f}"
    if compared == 1:
        return f"{name} is the only one within the limits; its mean is {mean}."
    if not worse:
        return f"Nothing is better than anything else here: no difference is told from chance. {name} ({mean}) adapts fastest."
    least = min(100 * pair["mean"] for pair in worse)
    behind = ", ".join(pair["b"] for pair in worse)
    lead = f"{best['learner']} ({100 * best['mean']:.1f}) is ahead of {behind} by {least:.1f} points or more."
    if not others:
        return lead
    if chosen is best:
        return f"{lead} The evidence does not tell it from {', '.join(others)}; it adapts fastest of these."
    return f"{lead} The evidence does not tell it from {name} ({mean}), which adapts fastest of its equals."
