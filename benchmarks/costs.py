"""Cost against size: time and memory of a meta-gradient over inner steps, shots, ways, tokens and meta-batch.

    python benchmarks/costs.py [--runs 3] [--adapts layers:-2] [--sizes shots,ways] [--out benchmarks/costs.json]

Second-order MAML on MiniLM, with real texts. The usual size is 5 ways, 5 shots, 5 query examples, 5 steps, 25 tokens
and one episode; one size is varied at a time. The sizes take turns, and the median over the runs counts. The file also
holds what `Plan` says beforehand, the straight line through the medians with its R², and the time of sampling and
tokenising. Writes JSON and a plot.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from peers import HEAD_RATE, RATE
from records import CostPoint, Costs, Line, write

from quickstudy.cost import Cost, measure
from quickstudy.data.reference import load_tasks
from quickstudy.methods.catalog import make
from quickstudy.models.batch import encode_episode
from quickstudy.models.encoder import Encoder
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.tasks.split import Example, ListSplit
from quickstudy.tasks.task import Task
from quickstudy.training.plan import plan
from quickstudy.versions import versions

SIZES = {
    "inner steps": (1, 2, 4, 6, 8, 10),
    "shots": (1, 2, 4, 6, 8),
    "ways": (2, 3, 4, 5),
    "tokens": (8, 16, 24, 32, 48),
    "meta-batch": (1, 2, 3, 4),
}
USUAL = {"inner steps": 5, "shots": 5, "ways": 5, "tokens": 25, "meta-batch": 1}


@dataclass(frozen=True)
class Measured:
    """One meta-gradient: what it cost, the seconds of its data, and what `Plan` says of it."""

    cost: Cost
    data_seconds: float
    operations: float
    planned_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--adapts", default="layers:-2")
    parser.add_argument("--sizes", default=",".join(SIZES), help="which sizes to vary")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    sizes = options.sizes.split(",")
    points = tuple(measure_points(sizes, options.adapts, options.runs))
    lines = {size: fit_line([point for point in points if point.size == size]) for size in sizes}
    result = Costs(options.adapts, options.runs, versions(), lines, points)
    write(options.out, result)
    draw(result, options.out.with_suffix(".png"))
    show(result)


def measure_points(sizes: list[str], adapts: str, runs: int) -> Iterator[CostPoint]:
    """Measure all sizes in turn, run by run; the first run warms up and does not count."""
    encoder = Encoder.load("minilm")
    points = [(size, value) for size in sizes for value in SIZES[size]]
    measured: dict[tuple[str, int], list[Measured]] = {point: [] for point in points}
    for _ in range(runs + 1):
        for size, value in points:
            measured[size, value].append(measure_once(encoder, USUAL | {size: value}, adapts))
    for (size, value), turns in measured.items():
        yield CostPoint(
            size,
            value,
            seconds=statistics.median(turn.cost.seconds for turn in turns[1:]),
            more_mib=statistics.median(turn.cost.more_mib or 0 for turn in turns[1:]),
            data_seconds=turns[-1].data_seconds,
            operations=turns[-1].operations,
            planned_mib=turns[-1].planned_mib,
        )


def measure_once(loaded: Encoder, sizes: dict[str, int], adapts: str) -> Measured:
    # A new encoder has an empty cache, so that every text is tokenised again.
    encoder = Encoder(loaded.model, loaded.tokenizer, replace(loaded.settings, max_length=sizes["tokens"]))
    settings = {"adapts": adapts, "inner_lr": RATE, "head_lr": HEAD_RATE, "inner_steps": sizes["inner steps"]}
    learner = make("maml", encoder, settings)
    sampler = EpisodeSampler([which_of(sizes["ways"])], EpisodeSpec(sizes["ways"], sizes["shots"], 5), seed=0)
    tick = time.perf_counter()
    episodes = [encode_episode(encoder, sampler[i]) for i in range(sizes["meta-batch"])]
    seconds = time.perf_counter() - tick
    meta_parameters = [p for p in encoder.model.parameters() if p.requires_grad]
    with measure(encoder.device) as cost:
        for episode in episodes:
            torch.autograd.grad(learner.meta_loss([episode]).loss, meta_parameters, allow_unused=True)
    planned = plan(learner, episodes)
    return Measured(cost, seconds, len(episodes) * (planned.operations or 0), planned.memory_mib)


def which_of(ways: int) -> Task:
    """Which of some bundled tasks a text is from; texts are joined, so that they are as long as is asked for."""
    rows = []
    for n, task in enumerate([task for task in load_tasks("samples") if not task.pair][:ways]):
        texts = [task.train_split[i].text for i in range(len(task.train_split))]
        rows += [Example(" ".join([*texts[i:], *texts[:i]][:6]), label=n) for i in range(30)]
    return Task("which", {"train": ListSplit(rows)}, tuple(str(n) for n in range(ways)))


def fit_line(points: list[CostPoint]) -> Line:
    """Return the straight line through the seconds, and how much of their variance it explains."""
    x = np.array([point.value for point in points], dtype=float)
    seconds = np.array([point.seconds for point in points])
    slope, start = np.polyfit(x, seconds, 1)
    mib_per_unit, _ = np.polyfit(x, [point.more_mib for point in points], 1)
    r2 = 1 - ((seconds - slope * x - start) ** 2).sum() / ((seconds - seconds.mean()) ** 2).sum()
    return Line(float(slope), float(start), float(r2), float(mib_per_unit))


def draw(result: Costs, file: Path) -> None:
    figure, axes = plt.subplots(
        2, len(result.lines), figsize=(3 * len(result.lines), 5.5), layout="constrained", sharey="row", squeeze=False
    )
    for (top, bottom), (size, line) in zip(axes.T, result.lines.items(), strict=True):
        points = result.points(size)
        x = [point.value for point in points]
        top.plot(x, [point.seconds for point in points], "o", label="measured")
        top.plot(
            x, [line.seconds_at_0 + line.seconds_per_unit * value for value in x], "-", label=f"R² = {line.r2:.3f}"
        )
        bottom.plot(x, [point.more_mib for point in points], "o", label="measured")
        bottom.plot(x, [point.planned_mib for point in points], "-", label="planned")
        bottom.set_xlabel(size)
        for axis in (top, bottom):
            axis.legend(frameon=False)
            axis.spines[["top", "right"]].set_visible(False)
    for axis, label in zip(axes[:, 0], ("seconds", "memory, MiB"), strict=True):
        axis.set(ylim=(0, None), ylabel=label)  # after all plots: the axes of a row share their limits
    figure.savefig(file, dpi=110)


def show(result: Costs) -> None:
    print("| size | seconds per unit | R² | MiB per unit | data, % of the time |\n|---|---|---|---|---|")
    for size, line in result.lines.items():
        data = 100 * statistics.median(point.data_fraction for point in result.points(size))
        cells = f"{line.seconds_per_unit:.3f} | {line.r2:.3f} | {line.mib_per_unit:.0f} | {data:.1f}"
        print(f"| {size} | {cells} |")
    print(json.dumps(result.versions))


if __name__ == "__main__":
    main()
