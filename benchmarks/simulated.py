"""Simulated: the record of simulations.json, a line for each share and each mean that is simulated."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SimulatedLine:
    """How often something happened in simulations, in percent, with its 95 % interval, and what is wanted."""

    what: str
    setting: str
    percent: float
    low: float
    high: float
    wanted: str
    simulations: int

    def text(self) -> str:
        share = f"{self.percent:5.1f} % ({self.low:.1f} to {self.high:.1f})"
        return f"{self.what:<38} {self.setting:<62} {share:<24} wanted: {self.wanted}"


@dataclass(frozen=True)
class SimulatedMean:
    """By how many points the mean of the picked learner is too good; `error` is the standard error of the second."""

    setting: str
    before: float
    after: float
    error: float
    simulations: int

    def text(self) -> str:
        after = f"{self.after:+.2f} ± {self.error:.2f} points after the correction"
        return f"{'the picked mean is too good by':<38} {self.setting:<62} {self.before:+.2f} before, {after}"


@dataclass(frozen=True)
class Simulations:
    versions: dict[str, str]
    lines: tuple[SimulatedLine, ...]
    means: tuple[SimulatedMean, ...]
