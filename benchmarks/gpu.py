"""One GPU: the speed of a meta-batch of 16, beside the matrix rate; a profile; and the same peers.

    python benchmarks/gpu.py [--runs 5] [--meta-batch 16] [--device cuda] [--out benchmarks/gpu.json]

Runs four cases of peers.py on the GPU: the gradients are compared, then timed. Then it times our second-order MAML of
a whole meta-batch, one episode after the other, in single precision and in bf16, and profiles one meta-batch with
torch.profiler.
"""

import argparse
import statistics
import sys
from pathlib import Path

import torch
from peers import CASES, SPEC, Step, floor, ours, run_case, which_task
from records import Gpu, MetaBatchCost, write
from torch.profiler import ProfilerActivity, profile

from quickstudy.cost import measure
from quickstudy.models.batch import EncodedEpisode, encode_episode
from quickstudy.models.encoder import Encoder
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.training.explain import matrix_rate
from quickstudy.versions import versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--meta-batch", type=int, default=16)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--cases", default="maml,fomaml,anil,top2")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        sys.exit("this benchmark needs a GPU")
    encoder = Encoder.load("minilm").to(options.device)
    rates = {"single": matrix_rate(encoder.device), "bf16": matrix_rate(encoder.device, torch.bfloat16)}
    cases = {name: run_case(name, encoder, options.runs, rates["single"]) for name in options.cases.split(",")}
    episodes = draw_episodes(encoder, options.meta_batch)
    meta_batch = {name: measure_meta_batch(encoder, episodes, name, rates[name], options.runs) for name in rates}
    for name, cost in meta_batch.items():
        speed = options.meta_batch / cost.seconds
        print(f"{name}: {speed:.1f} episodes/s, {cost.share_of_matrix_rate:.0%} of the matrix rate")
    table = profile_steps([ours(episode, encoder, CASES["maml"]) for episode in episodes], on_gpu=on_gpu)
    print(table)
    device = torch.cuda.get_device_name() if on_gpu else "cpu"
    write(options.out, Gpu(device, versions("higher", "torchopt"), rates, cases, meta_batch, table))


def draw_episodes(encoder: Encoder, count: int) -> list[EncodedEpisode]:
    sampler = EpisodeSampler([which_task()], SPEC, seed=0)
    return [encode_episode(encoder, sampler[i]) for i in range(count)]


def measure_meta_batch(
    encoder: Encoder, episodes: list[EncodedEpisode], precision: str, rate: float, runs: int
) -> MetaBatchCost:
    """Measure the second-order meta-gradient of all episodes; the first run warms up and does not count."""
    steps = [ours(episode, encoder, CASES["maml"], bf16=precision == "bf16") for episode in episodes]
    costs = []
    for _ in range(runs + 1):
        with measure(encoder.device) as cost:
            for step in steps:
                step()
        costs.append(cost)
    seconds = statistics.median(cost.seconds for cost in costs[1:])
    operations = sum(floor(episode, encoder, CASES["maml"]) for episode in episodes)
    return MetaBatchCost(seconds, max(cost.more_mib or 0 for cost in costs[1:]), operations / seconds / rate)


def profile_steps(steps: list[Step], *, on_gpu: bool) -> str:
    """Return the table of torch.profiler of one meta-batch."""
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiled:
        for step in steps:
            step()
    table: str = profiled.key_averages().table(sort_by=f"self_{'device' if on_gpu else 'cpu'}_time_total", row_limit=25)
    return table


if __name__ == "__main__":
    main()
