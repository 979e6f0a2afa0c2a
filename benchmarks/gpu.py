"""One GPU: meta-steps per second of a meta-batch of 16 beside the same peers, the share of the peak matrix rate, and a profile.

    python benchmarks/gpu.py [--runs 5] [--meta-batch 16] [--out benchmarks/gpu.json]

Runs the cases of peers.py on the GPU (gradients compared, then timed), our second-order MAML of a whole meta-batch in single
precision and in bf16, one episode after the other, and torch.profiler on one meta-batch. Needs CUDA. Not tried so far.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from peers import CASES, SPEC, floor, ours, run_case, which_task
from torch.profiler import ProfilerActivity, profile

from quickstudy.cost import measure
from quickstudy.models.batch import EncodedEpisode, encode_episode
from quickstudy.models.encoder import Encoder
from quickstudy.storage import write_json
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.training.explain import matrix_rate
from quickstudy.versions import versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--meta-batch", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("this benchmark needs a GPU")
    encoder = Encoder.load("minilm").to("cuda")
    rates = {"single": matrix_rate(encoder.device), "bf16": matrix_rate(encoder.device, torch.bfloat16)}
    cases = {name: run_case(name, encoder, options, rates["single"]) for name in ("maml", "fomaml", "anil", "top2")}
    episodes = _episodes(encoder, options.meta_batch)
    batch = {name: _meta_batch(encoder, episodes, options.runs, bf16=name == "bf16") for name in rates}
    for name, row in batch.items():
        row["share_of_matrix_rate"] = row["operations"] / row["seconds"] / rates[name]
        speed = options.meta_batch / row["seconds"]
        print(f"{name}: {speed:.1f} episodes/s, {row['share_of_matrix_rate']:.0%} of the matrix rate")
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        _meta_batch(encoder, episodes, 1)
    table = profiled.key_averages().table(sort_by="self_cuda_time_total", row_limit=25)
    print(table)
    about = {"device": torch.cuda.get_device_name(), "versions": versions("higher", "torchopt"), "rates": rates}
    write_json(options.out, about | {"cases": cases, "meta_batch": batch, "profile": table})


def _episodes(encoder: Encoder, count: int) -> list[EncodedEpisode]:
    sampler = EpisodeSampler([which_task()], SPEC, seed=0)
    return [encode_episode(encoder, sampler[i]) for i in range(count)]


def _meta_batch(encoder: Encoder, episodes: list[EncodedEpisode], runs: int, *, bf16: bool = False) -> dict[str, Any]:
    """Return seconds and memory of the second-order meta-gradient of all episodes."""
    steps = [ours(episode, encoder, CASES["maml"], bf16=bf16) for episode in episodes]
    costs = []
    for _ in range(runs + 1):
        with measure(encoder.device) as cost:
            for step in steps:
                step()
        costs.append(cost)
    operations = sum(floor(episode, encoder, CASES["maml"]) for episode in episodes)
    seconds = statistics.median(cost.seconds for cost in costs[1:])
    return {"seconds": seconds, "more_mib": max(cost.more_mib or 0 for cost in costs[1:]), "operations": operations}


if __name__ == "__main__":
    main()
