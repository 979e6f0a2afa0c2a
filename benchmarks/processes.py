"""What a second process gives on one machine, and what adding up the gradients costs.

    python benchmarks/processes.py [--method maml] [--encoder minilm] [--size 2] [--runs 3] [--sums 10]

The same outer steps by one process with two threads, and by two processes (gloo) with one thread each, interleaved: one run of
each, then again. Both keep the same two cores busy, so the ratio is what processes cost or save beside threads. Then the time to
add up a flat buffer of as many floats as there are meta-parameters, in the two processes, with nothing else to do.
Prints tables and writes processes.json. With --model: no measurement, but the tables that docs/scaling.md works out.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROCESSES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="maml")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--trains", default="all", choices=["all", "layers"])
    parser.add_argument("--size", type=int, default=2, help="episodes per outer step")
    parser.add_argument("--steps", type=int, default=3, help="outer steps of a run; the first is not counted")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sums", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--part", help=argparse.SUPPRESS)  # one process of a run
    parser.add_argument("--model", action="store_true", help="print the cost model of docs/scaling.md, measure nothing")
    options = parser.parse_args()
    if options.model:
        print_model()
        return
    if options.part:
        _measure(options)
        return
    found: dict[int, list[dict[str, Any]]] = {1: [], PROCESSES: []}
    for run in range(options.runs):
        for world in found:
            found[world].append(_run(world))
            print(
                f"run {run + 1}/{options.runs}, {world} processes: {found[world][-1]['seconds_per_episode']:.2f} s",
                flush=True,
            )
    results = _summary(options, found)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"written: {options.out}")


def _run(world: int) -> dict[str, Any]:
    """Start the processes of one run; return what the main one measured."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        words = [sys.executable, __file__, *sys.argv[1:], "--part", folder]
        shared = os.environ | {"OMP_NUM_THREADS": str(PROCESSES // world)}
        together = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        started = [
            subprocess.Popen(
                words, env=shared | (together | {"RANK": str(i), "LOCAL_RANK": str(i)} if world > 1 else {})
            )
            for i in range(world)
        ]
        codes = [process.wait() for process in started]
        if any(codes):
            raise SystemExit(f"a process ended with code {max(codes)}")
        measured: dict[str, Any] = json.loads((Path(folder) / "measured.json").read_text(encoding="utf-8"))
    return measured


def _measure(options: argparse.Namespace) -> None:
    """One process: the outer steps, then the sums."""
    import torch
    from accelerate import Accelerator

    from quickstudy.data.reference import load_tasks
    from quickstudy.methods.catalog import make
    from quickstudy.models.encoder import Encoder
    from quickstudy.processes import all_reduce, is_main, together, world_size
    from quickstudy.settings import OuterSettings
    from quickstudy.tasks.episode import EpisodeSpec
    from quickstudy.tasks.sampler import EpisodeSampler
    from quickstudy.training.outer import train
    from quickstudy.training.record import StepRecord

    records: list[StepRecord] = []
    with together():
        learner = make(options.method, Encoder.load(options.encoder))
        sampler = EpisodeSampler(load_tasks("samples:meta-train"), EpisodeSpec((2, 5), 5, 5), seed=0)
        settings = OuterSettings(
            outer_steps=options.steps,
            meta_batch_size=options.size,
            trains=options.trains,
            validate_every=options.steps + 1,
        )
        folder = Path(options.part) / "checkpoints"
        train(learner, sampler, settings, accelerator=Accelerator(), folder=folder, on_step=records.append)
        floats = sum(p.numel() for p in learner.parameters() if p.requires_grad)
        sums = []
        if world_size() > 1:
            buffer = torch.ones(floats)
            for _ in range(options.sums + 1):
                tick = time.perf_counter()
                all_reduce(buffer)
                sums.append(time.perf_counter() - tick)
                buffer.fill_(1.0)
        if is_main():
            facts = {
                "seconds_per_episode": statistics.median(1 / record.episodes_per_second for record in records[1:]),
                "loss": [record.loss for record in records],
                "peak_mib": records[-1].peak_mib,
                "floats": floats,
                "sum_seconds": sums[1:],
                "threads": torch.get_num_threads(),
            }
            (Path(options.part) / "measured.json").write_text(json.dumps(facts), encoding="utf-8")


def _summary(options: argparse.Namespace, found: dict[int, list[dict[str, Any]]]) -> dict[str, Any]:
    """Print the tables; return what goes into the file."""
    from quickstudy.versions import versions

    print(
        "\n| processes | threads each | s per episode, median | least | most | peak MiB each |\n|---|---|---|---|---|---|"
    )
    for world, runs in found.items():
        seconds = [run["seconds_per_episode"] for run in runs]
        figures = " | ".join(f"{f(seconds):.3f}" for f in (statistics.median, min, max))
        print(f"| {world} | {runs[0]['threads']} | {figures} | {runs[-1]['peak_mib'] or 0:.0f} |")
    ratios = [one["seconds_per_episode"] / two["seconds_per_episode"] for one, two in zip(*found.values(), strict=True)]
    apart = max(
        abs(a - b)
        for one, two in zip(*found.values(), strict=True)
        for a, b in zip(one["loss"], two["loss"], strict=True)
    )
    sums = [second for run in found[PROCESSES] for second in run["sum_seconds"]]
    floats = found[PROCESSES][0]["floats"]
    middle = statistics.median(sums)
    print(
        f"\nthroughput, {PROCESSES} processes to 1: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )
    print(f"losses differ by {apart:.1e} at most")
    print(
        f"sum of {floats / 1e6:.1f} M floats: {middle:.3f} s, {min(sums):.3f} to {max(sums):.3f} "
        f"({4 * floats / middle / 1e9:.2f} GB/s through each process)"
    )
    settings = {name: value for name, value in vars(options).items() if name not in {"out", "part", "model"}}
    measured = {"throughput_ratios": ratios, "loss_difference": apart, "sum_seconds": sums, "floats": floats}
    return {
        "settings": settings,
        "versions": versions(),
        **measured,
        "runs": {str(world): runs for world, runs in found.items()},
    }


def print_model(floats: float = 22.7e6) -> None:
    """Print the cost model: time of the sum, efficiency, speed-up, and the share of time that uneven episodes leave."""
    import numpy as np

    worlds = (8, 64, 1000)
    links = {  # seconds per episode; bytes per second and seconds of latency of the slowest link
        "GPU": (0.1, {8: (450e9, 2e-6), 64: (50e9, 5e-6), 1000: (50e9, 5e-6)}),
        "CPU": (3.8, dict.fromkeys(worlds, (1.25e9, 50e-6))),
    }
    print("| | P | sum, ms | weak, 1 episode each | weak, 8 each | strong, M = 64: s per step | speed-up |")
    print("|---|---|---|---|---|---|---|")
    for device, (episode, of_world) in links.items():
        for world, (speed, latency) in of_world.items():
            summed = 2 * (world - 1) / world * 4 * floats / speed + 2 * (world - 1) * latency
            weak = " | ".join(f"{100 * m * episode / (m * episode + summed):.1f} %" for m in (1, 8))
            step = -(-64 // world) * episode + summed
            print(f"| {device} | {world} | {1e3 * summed:.2f} | {weak} | {step:.3f} | {64 * episode / step:.1f} |")
    random = np.random.default_rng(0)
    print("\n| episodes per process | P = 2 | 8 | 64 | 1000 |\n|---|---|---|---|---|")
    for m in (1, 4, 16):
        shares = []
        for world in (2, *worlds):
            size = (max(200, min(4000, 2_000_000 // (world * m))), world, m)
            costs = (random.integers(2, 6, size) * (random.integers(2, 9, size) + 4)).sum(-1)  # N (K + Q) examples
            shares.append(costs.mean() / costs.max(1).mean())
        print(f"| {m} | " + " | ".join(f"{100 * share:.0f} %" for share in shares) + " |")


if __name__ == "__main__":
    main()
