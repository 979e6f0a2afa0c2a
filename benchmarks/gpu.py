"""One GPU: meta-steps per second of a meta-batch of 16 beside the same peers, the share of the peak matrix rate, and a profile.

    python benchmarks/gpu.py [--runs 5] [--meta-batch 16] [--device cuda] [--out benchmarks/gpu.json]

Runs the cases of peers.py on the GPU (gradients compared, then timed), our second-order MAML of a whole meta-batch in single
precision and in bf16, one episode after the other, and torch.profiler on one meta-batch. Tried with --device cpu alone so far.
"""

import argparse
import statistics
import sys
from pathlib import Path

import torch
from peers import CASES, SPEC, Step, floor, ours, run_case, which_task
from torch.profiler import ProfilerActivity, profile

from quickstudy.cost import measure
from quickstudy.models.batch import EncodedEpisode, encode_episode
from quickstudy.models.encoder import Encoder
from quickstudy.storage.files import write_json
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.training.explain import matrix_rate
from quickstudy.versions import versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--meta-batch", type=int, default=16)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("this benchmark needs a GPU")
    encoder = Encoder.load("minilm").to(options.device)
    rates = {"single": matrix_rate(encoder.device), "bf16": matrix_rate(encoder.device, torch.bfloat16)}
    cases = {name: run_case(name, encoder, options, rates["single"]) for name in ("maml", "fomaml", "anil", "top2")}
    episodes = _episodes(encoder, options.meta_batch)
    steps = {name: [ours(e, encoder, CASES["maml"], bf16=name == "bf16") for e in episodes] for name in rates}
    operations = sum(floor(episode, encoder, CASES["maml"]) for episode in episodes)
    batch = {name: _meta_batch(steps[name], encoder.device, options.runs) for name in rates}
    for name, row in batch.items():
        row["share_of_matrix_rate"] = operations / row["seconds"] / rates[name]
        speed = options.meta_batch / row["seconds"]
        print(f"{name}: {speed:.1f} episodes/s, {row['share_of_matrix_rate']:.0%} of the matrix rate")
    on_gpu = options.device == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiled:
        for step in steps["single"]:
            step()
    table = profiled.key_averages().table(sort_by=f"self_{'device' if on_gpu else 'cpu'}_time_total", row_limit=25)
    print(table)
    about = {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "versions": versions("higher", "torchopt"),
        "rates": rates,
    }
    write_json(options.out, about | {"cases": cases, "meta_batch": batch, "profile": table})


def _episodes(encoder: Encoder, count: int) -> list[EncodedEpisode]:
    sampler = EpisodeSampler([which_task()], SPEC, seed=0)
    return [encode_episode(encoder, sampler[i]) for i in range(count)]


def _meta_batch(steps: list[Step], device: torch.device, runs: int) -> dict[str, float]:
    """Return seconds and memory of the second-order meta-gradient of all episodes."""
    costs = []
    for _ in range(runs + 1):
        with measure(device) as cost:
            for step in steps:
                step()
        costs.append(cost)
    seconds = statistics.median(cost.seconds for cost in costs[1:])
    return {"seconds": seconds, "more_mib": max(cost.more_mib or 0 for cost in costs[1:])}


if __name__ == "__main__":
    main()
