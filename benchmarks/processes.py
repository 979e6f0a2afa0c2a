"""Processes: what a second process gives on one machine, and what the sum of the gradients costs.

    python benchmarks/processes.py [--method maml] [--encoder minilm] [--size 2] [--runs 3] [--sums 10]

The same outer steps are taken by one process with two threads, and by two processes (gloo) with one thread each. They
take turns: one run of each, then one run of each again. Both keep the same two cores busy, so that the ratio is what
processes cost or save beside threads. Then the two processes sum a flat buffer of as many floats as there are
meta-parameters, with nothing else to do. Prints tables and writes processes.json. With --model nothing is measured:
the tables of docs/scaling.md are computed and printed.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from records import Processes, ProcessRun, Spread, read, write

from quickstudy.data.reference import load_tasks
from quickstudy.methods.catalog import make
from quickstudy.models.encoder import Encoder
from quickstudy.processes import all_reduce, is_main, together, world_size
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.training.outer import OuterSettings, StepRecord, train
from quickstudy.versions import versions

PROCESSES = 2
MEASURED = "measured.json"


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
    parser.add_argument("--process", type=Path, help=argparse.SUPPRESS)  # this is one process of a run; its folder
    parser.add_argument("--model", action="store_true", help="print the cost model of docs/scaling.md, measure nothing")
    options = parser.parse_args()
    if options.model:
        print_model()
    elif options.process:
        measure(options)
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Run one process and several in turn, and write what they measured."""
    runs: dict[int, list[ProcessRun]] = {1: [], PROCESSES: []}
    for number in range(options.runs):
        for count in runs:
            runs[count].append(start(count))
            seconds = runs[count][-1].seconds_per_episode
            print(f"run {number + 1}/{options.runs}, {count} processes: {seconds:.2f} s per episode", flush=True)
    result = summarize(options, runs)
    write(options.out, result)
    show(result)
    print(f"written: {options.out}")


def start(count: int) -> ProcessRun:
    """Start the processes of one run; return what the main one measured."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, __file__, *sys.argv[1:], "--process", folder]
        shared = os.environ | {"OMP_NUM_THREADS": str(PROCESSES // count)}
        if count > 1:
            shared |= {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        ranks = [{"RANK": str(i), "LOCAL_RANK": str(i)} if count > 1 else {} for i in range(count)]
        started = [subprocess.Popen(words, env=shared | rank) for rank in ranks]
        codes = [process.wait() for process in started]
        if any(codes):
            raise SystemExit(f"a process ended with code {max(codes)}")
        return read(Path(folder) / MEASURED, ProcessRun)


def measure(options: argparse.Namespace) -> None:
    """One process: the outer steps, then the sums."""
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
        folder = options.process / "checkpoints"
        train(learner, sampler, settings, accelerator=Accelerator(), folder=folder, on_step=records.append)
        floats = sum(p.numel() for p in learner.parameters() if p.requires_grad)
        sums = time_sums(floats, options.sums) if world_size() > 1 else []
        if is_main():
            seconds = statistics.median(1 / record.episodes_per_second for record in records[1:])
            losses, threads = tuple(record.loss for record in records), torch.get_num_threads()
            run = ProcessRun(seconds, losses, records[-1].peak_mib, floats, tuple(sums), threads)
            write(options.process / MEASURED, run)


def time_sums(floats: int, count: int) -> list[float]:
    """Return the seconds of each sum over the processes; one more comes first and does not count."""
    seconds = []
    buffer = torch.ones(floats)
    for _ in range(count + 1):
        tick = time.perf_counter()
        all_reduce(buffer)
        seconds.append(time.perf_counter() - tick)
        buffer.fill_(1.0)
    return seconds[1:]


def summarize(options: argparse.Namespace, runs: dict[int, list[ProcessRun]]) -> Processes:
    pairs = list(zip(runs[1], runs[PROCESSES], strict=True))
    return Processes(
        {name: value for name, value in vars(options).items() if name not in {"out", "process", "model"}},
        versions(),
        tuple(alone.seconds_per_episode / several.seconds_per_episode for alone, several in pairs),
        max(abs(a - b) for alone, several in pairs for a, b in zip(alone.loss, several.loss, strict=True)),
        tuple(second for run in runs[PROCESSES] for second in run.sum_seconds),
        runs[PROCESSES][0].floats,
        {str(count): tuple(measured) for count, measured in runs.items()},
    )


def show(result: Processes) -> None:
    print("\n| processes | threads each | s per episode: median (range) | peak MiB each |\n|---|---|---|---|")
    for count, runs in result.runs.items():
        seconds = Spread.over(run.seconds_per_episode for run in runs).text(3)
        print(f"| {count} | {runs[0].threads} | {seconds} | {runs[-1].peak_mib or 0:.0f} |")
    print(f"\nthroughput, {PROCESSES} processes to 1: {Spread.over(result.throughput_ratios).text()}")
    print(f"losses differ by {result.loss_difference:.1e} at most")
    sums = Spread.over(result.sum_seconds)
    print(
        f"sum of {result.floats / 1e6:.1f} M floats: {sums.text(3)} s, "
        f"{4 * result.floats / sums.median / 1e9:.2f} GB/s through each process"
    )


def print_model(floats: float = 22.7e6) -> None:
    """Print the cost model: time of the sum, efficiency, speed-up, and how much of the time uneven episodes leave."""
    counts = (8, 64, 1000)
    links = {  # seconds per episode; bytes per second and seconds of latency of the slowest link
        "GPU": (0.1, {8: (450e9, 2e-6), 64: (50e9, 5e-6), 1000: (50e9, 5e-6)}),
        "CPU": (3.8, dict.fromkeys(counts, (1.25e9, 50e-6))),
    }
    print("| | P | sum, ms | weak, 1 episode each | weak, 8 each | strong, M = 64: s per step | speed-up |")
    print("|---|---|---|---|---|---|---|")
    for device, (episode, by_count) in links.items():
        for count, (speed, latency) in by_count.items():
            summed = 2 * (count - 1) / count * 4 * floats / speed + 2 * (count - 1) * latency
            weak = " | ".join(f"{100 * m * episode / (m * episode + summed):.1f} %" for m in (1, 8))
            step = -(-64 // count) * episode + summed
            print(f"| {device} | {count} | {1e3 * summed:.2f} | {weak} | {step:.3f} | {64 * episode / step:.1f} |")
    random = np.random.default_rng(0)
    print("\n| episodes per process | P = 2 | 8 | 64 | 1000 |\n|---|---|---|---|---|")
    for m in (1, 4, 16):
        busy = []
        for count in (2, *counts):
            size = (max(200, min(4000, 2_000_000 // (count * m))), count, m)
            costs = (random.integers(2, 6, size) * (random.integers(2, 9, size) + 4)).sum(-1)  # N (K + Q) examples
            busy.append(costs.mean() / costs.max(1).mean())
        print(f"| {m} | " + " | ".join(f"{100 * fraction:.0f} %" for fraction in busy) + " |")


if __name__ == "__main__":
    main()
