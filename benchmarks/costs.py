"""Cost against size: time and memory of a meta-gradient over inner steps, shots, ways, tokens and meta-batch.

    python benchmarks/costs.py [--runs 3] [--adapts layers:-2] [--out benchmarks/costs.json]

Second-order MAML on MiniLM, real texts. One size is varied at a time from 5 ways, 5 shots, 5 query examples, 5 steps, 25 tokens
and one episode. Sizes are interleaved, the median of the runs counts. Beside it what `Plan` reckons, the straight line through
the medians with its R², and what sampling and tokenising take. Writes JSON and a plot.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from peers import HEAD_RATE, RATE

from quickstudy.cost import Cost, measure
from quickstudy.data.reference import load_tasks
from quickstudy.methods.catalog import make
from quickstudy.models.batch import EncodedEpisode, encode_episode
from quickstudy.models.encoder import Encoder
from quickstudy.storage.files import write_json
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--adapts", default="layers:-2")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    points = [(size, value) for size, values in SIZES.items() for value in values]
    costs: dict[tuple[str, int], list[Cost]] = {point: [] for point in points}
    data: dict[tuple[str, int], float] = {}
    reckoned: dict[tuple[str, int], dict[str, float]] = {}
    for turn in range(options.runs + 1):
        for point in points:
            size, value = point
            cost, data[point], found = take(USUAL | {size: value}, options.adapts)
            if turn:
                costs[point].append(cost)
                reckoned[point] = found
    rows = [
        {
            "size": size,
            "value": value,
            "seconds": statistics.median(c.seconds for c in costs[size, value]),
            "more_mib": statistics.median(c.more_mib or 0 for c in costs[size, value]),
            "data_seconds": data[size, value],
            **reckoned[size, value],
        }
        for size, value in points
    ]
    lines = {size: line([row for row in rows if row["size"] == size]) for size in SIZES}
    write_json(
        options.out,
        {"adapts": options.adapts, "runs": options.runs, "versions": versions(), "lines": lines, "rows": rows},
    )
    draw(rows, lines, options.out.with_suffix(".png"))
    show(rows, lines)


_ENCODERS: list[Encoder] = []


def take(sizes: dict[str, int], adapts: str) -> tuple[Cost, float, dict[str, float]]:
    """Return the cost of one meta-gradient, the seconds of its data, and what was reckoned."""
    if not _ENCODERS:
        _ENCODERS.append(Encoder.load("minilm"))
    encoder = _ENCODERS[0]
    encoder.settings = type(encoder.settings)(**{**_fields(encoder), "max_length": sizes["tokens"]})
    encoder = Encoder(encoder.model, encoder.tokenizer, encoder.settings)  # a new cache: every text is tokenised anew
    settings = {"adapts": adapts, "inner_lr": RATE, "head_lr": HEAD_RATE, "inner_steps": sizes["inner steps"]}
    learner = make("maml", encoder, settings)
    spec = EpisodeSpec(sizes["ways"], sizes["shots"], 5)
    sampler = EpisodeSampler([_task(sizes["ways"])], spec, seed=0)
    tick = time.perf_counter()
    episodes: list[EncodedEpisode] = [encode_episode(encoder, sampler[i]) for i in range(sizes["meta-batch"])]
    seconds = time.perf_counter() - tick
    wanted = [p for p in encoder.model.parameters() if p.requires_grad]
    with measure(encoder.device) as cost:
        for episode in episodes:
            loss = learner.meta_loss([episode]).loss
            torch.autograd.grad(loss, wanted, allow_unused=True)
    found, many = plan(learner, episodes), len(episodes)
    return cost, seconds, {"operations": many * (found.operations or 0), "reckoned_mib": found.memory_mib}


def _fields(encoder: Encoder) -> dict[str, Any]:
    return {name: getattr(encoder.settings, name) for name in encoder.settings.__slots__}


def _task(ways: int) -> Task:
    """Which of some bundled tasks a text is from; texts are joined, so that they fill whatever length is asked for."""
    rows = []
    for n, task in enumerate([task for task in load_tasks("samples") if not task.pair][:ways]):
        texts = [task.train_split[i].text for i in range(len(task.train_split))]
        rows += [Example(" ".join([*texts[i:], *texts[:i]][:6]), label=n) for i in range(30)]
    return Task("which", {"train": ListSplit(rows)}, tuple(str(n) for n in range(ways)))


def line(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the straight line through the seconds, and how much of their variance it explains."""
    x, y = (np.array([row[key] for row in rows], dtype=float) for key in ("value", "seconds"))
    slope, start = np.polyfit(x, y, 1)
    memory = np.array([row["more_mib"] for row in rows])
    more, _ = np.polyfit(x, memory, 1)
    r2 = 1 - ((y - slope * x - start) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    return {
        "seconds_per_unit": float(slope),
        "seconds_at_0": float(start),
        "r2": float(r2),
        "mib_per_unit": float(more),
    }


def draw(rows: list[dict[str, Any]], lines: dict[str, dict[str, float]], file: Path) -> None:
    figure, axes = plt.subplots(2, len(SIZES), figsize=(15, 5.5), layout="constrained", sharey="row")
    for column, size in enumerate(SIZES):
        own = [row for row in rows if row["size"] == size]
        x = [row["value"] for row in own]
        top, bottom = axes[0][column], axes[1][column]
        top.plot(x, [row["seconds"] for row in own], "o", label="measured")
        found = lines[size]
        top.plot(
            x, [found["seconds_at_0"] + found["seconds_per_unit"] * v for v in x], "-", label=f"R² = {found['r2']:.3f}"
        )
        top.legend(frameon=False)
        bottom.plot(x, [row["more_mib"] for row in own], "o", label="measured")
        bottom.plot(x, [row["reckoned_mib"] for row in own], "-", label="reckoned")
        bottom.legend(frameon=False)
        bottom.set_xlabel(size)
        for axis in (top, bottom):
            axis.spines[["top", "right"]].set_visible(False)
    for axis, label in zip(axes[:, 0], ("seconds", "memory, MiB"), strict=True):
        axis.set(ylim=(0, None), ylabel=label)  # when all is drawn: the first plot's limits would be everyone's
    figure.savefig(file, dpi=110)


def show(rows: list[dict[str, Any]], lines: dict[str, dict[str, float]]) -> None:
    print("| size | seconds per unit | R² | MiB per unit | data, % of the time |\n|---|---|---|---|---|")
    for size, found in lines.items():
        own = [row for row in rows if row["size"] == size]
        share = statistics.median(row["data_seconds"] / (row["data_seconds"] + row["seconds"]) for row in own)
        cells = f"{found['seconds_per_unit']:.3f} | {found['r2']:.3f} | {found['mib_per_unit']:.0f} | {100 * share:.1f}"
        print(f"| {size} | {cells} |")
    print(json.dumps(versions()))


if __name__ == "__main__":
    main()
