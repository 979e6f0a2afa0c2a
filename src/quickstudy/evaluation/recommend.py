"""Recommend: which learner of a comparison to take for these tasks, within limits, and whether the evidence decides.

Of the learners within the limits the one with the best mean leads. Those that the paired test over draws (`over_draws`: these
tasks, other support sets; corrected by Holm for all pairs) cannot tell from it are its equals, and of the equals the one that
adapts fastest is recommended (of several as fast, the best mean): a difference that is not there is not worth waiting for.
Where there is a single draw, or every draw gives the same figure, no test can tell, and the better mean stands.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quickstudy.errors import DataError

_LEVEL = 0.05
_CLOSE = 1.1  # times of adapting that differ by less are taken as the same


@dataclass(frozen=True, slots=True)
class Limits:
    """What there is to work with; None where it does not matter.

    Attributes:
        shots: Labelled examples per class; the figures of the most that were compared and are not above it count.
        seconds: Adapting to a task may take so long.
        mib: Adapting and predicting may take so much memory, in MiB.
        no_gpu: Only learners whose costs were measured without one.
    """

    shots: int | None = None
    seconds: float | None = None
    mib: float | None = None
    no_gpu: bool = False


def recommend(results: Mapping[str, Any], limits: Limits = Limits()) -> dict[str, Any]:
    """Recommend a learner.

    Args:
        results: The content of a comparison's `results.json`.
        limits: What the learner must keep to.

    Returns:
        `learner`, `shots`, `mean`, `low`, `high`, `seconds_adapt`; `equals`: the others that are not told from the best; `worse`:
        those that are, and by how much; `decided`: whether something within the limits is worse; `why`, in words.

    Raises:
        DataError: No compared number of shots is that small, or no learner is within the limits.
    """
    compared = sorted(int(k) for k, found in results["by_shots"].items() if k != "all" and found["learners"])
    possible = [k for k in compared if limits.shots is None or k <= limits.shots]
    if not compared:
        raise DataError("the comparison has no figures of few shots", fix="Compare by another protocol than full.")
    if not possible:
        raise DataError(
            f"the comparison has no figures of {limits.shots} shots or fewer",
            fix=f"It has {', '.join(map(str, compared))}: compare with fewer --shots.",
        )
    found = results["by_shots"][str(possible[-1])]
    within = [row for row in found["learners"] if _fits(row, results["learners"][row["learner"]]["costs"], limits)]
    if not within:
        raise DataError(
            "no learner is within the limits", fix=f"There are: {', '.join(map(_offer, found['learners']))}."
        )
    best = max(within, key=lambda row: row["mean"])
    names = {row["learner"] for row in within}
    against = [pair for pair in found["pairs"] if pair["a"] == best["learner"] and pair["b"] in names]
    worse = [pair for pair in against if pair["here"]["p_holm"] is not None and pair["here"]["p_holm"] <= _LEVEL]
    untold = [pair["b"] for pair in against if pair["here"]["p_holm"] is None]
    apart = {*untold, *(pair["b"] for pair in worse)}
    equals = [row for row in within if row["learner"] not in apart]
    fastest = min(row["seconds_adapt"] for row in equals)
    chosen = max((row for row in equals if row["seconds_adapt"] <= _CLOSE * fastest), key=lambda row: row["mean"])
    others = [row["learner"] for row in equals if row is not chosen]
    return {
        "learner": chosen["learner"],
        "shots": possible[-1],
        **{key: chosen[key] for key in ("mean", "low", "high", "seconds_adapt")},
        "equals": others,
        "worse": [{"learner": pair["b"], "by": pair["mean"], "p": pair["here"]["p_holm"]} for pair in worse],
        "decided": bool(worse),
        "why": " ".join(filter(None, [_why(chosen, best, others, worse, len(within)), _untold(best, untold)])),
    }


def _fits(row: Mapping[str, Any], costs: Mapping[str, Any], limits: Limits) -> bool:
    """Return whether a learner is known to keep the limits: what was not measured does not."""
    mib = _memory(row)
    if limits.seconds is not None and row["seconds_adapt"] > limits.seconds:
        return False
    if limits.mib is not None and (mib is None or mib > limits.mib):
        return False
    return not limits.no_gpu or "cuda" not in (costs["device"] or "")


def _memory(row: Mapping[str, Any]) -> float | None:
    peaks = row["adapt_peak_mib"], row["predict_peak_mib"]
    return None if None in peaks else max(peaks)


def _offer(row: Mapping[str, Any]) -> str:
    mib = _memory(row)
    return f"{row['learner']} ({row['seconds_adapt']:.3g} s{'' if mib is None else f', {mib:.0f} MiB'})"


def _why(
    chosen: Mapping[str, Any], best: Mapping[str, Any], others: list[str], worse: list[dict[str, Any]], compared: int
) -> str:
    name, mean = chosen["learner"], f"{100 * chosen['mean']:.1f}"
    if compared == 1:
        return f"{name} is the only one within the limits; its mean is {mean}."
    if not worse and not others:
        return f"{name} has the best mean ({mean})."
    if not worse:
        lead = "Nothing is better than anything else here: no difference is told from chance."
        return f"{lead} {name} ({mean}) adapts as fast as any."
    least = min(100 * pair["mean"] for pair in worse)
    behind = ", ".join(pair["b"] for pair in worse)
    lead = f"{best['learner']} ({100 * best['mean']:.1f}) is ahead of {behind} by {least:.1f} points or more."
    if not others:
        return lead
    if chosen is best:
        return f"{lead} The evidence does not tell it from {', '.join(others)}; it adapts fastest of these."
    return f"{lead} The evidence does not tell it from {name} ({mean}), which adapts fastest of its equals."


def _untold(best: Mapping[str, Any], names: list[str]) -> str:
    if not names:
        return ""
    return f"Whether {best['learner']} is ahead of {', '.join(names)} by more than chance cannot be tested: use more draws."
