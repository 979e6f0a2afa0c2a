"""Peers: the same meta-gradient from us, higher, TorchOpt, a plain torch.func loop and a plain torch.autograd loop.

    python benchmarks/peers.py [--cases maml,fomaml,anil,top2,memory,bf16] [--runs 5] [--device cpu]

All cases use MiniLM, 5 ways, 5 support and 5 query examples of each label, real texts of mixed length, and 5 inner
steps of SGD. The case `memory` is second order with 10 steps; ours runs with all steps stored, with half of them, and
with none. The case `bf16` compares our second order in single precision with our second order under bf16 autocast.

Before anything is timed, the gradients are compared: to 1e-5 of the largest entry, that of bf16 by its angle. The runs
take turns: one of each, then one of each again. A peer gets what its user would write: one padded batch for the
support set and one for the query set, a fused kernel where the order allows it and the exact MATH kernel where it does
not. Memory is measured in a run that is not timed, because measuring gives freed memory back to the system, and it
takes time to get it again; a training step never does that. Prints medians, ratios with their spread, and the memory
that a meta-gradient needs beyond what was there before. Writes peers.json, where a case that runs again replaces the
old figures of that case.

The floor is the time of the matrix products on tokens, without padding, that any exact method must compute: F for a
forward pass, 2F more for a gradient, 6F more to go back through that gradient; at the matrix rate that is measured in
the same run.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import higher
import torch
import torchopt
from records import PeerCase, PeerRow, Peers, read, write
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from quickstudy.cost import measure
from quickstudy.data.reference import load_tasks
from quickstudy.methods.catalog import make
from quickstudy.methods.gradient import GradientMetaLearner
from quickstudy.models.batch import EncodedEpisode, EncodedSet, encode_episode
from quickstudy.models.encoder import Encoder
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.tasks.split import Example, ListSplit
from quickstudy.tasks.task import Task
from quickstudy.training.explain import matrix_rate
from quickstudy.versions import versions

RATE, HEAD_RATE = 0.01, 1.0
SPEC = EpisodeSpec(n_way=5, k_shot=5, n_query=5)
Grads = dict[str, Tensor]
Step = Callable[[], Grads]


@dataclass(frozen=True)
class Case:
    """What is computed.

    Attributes:
        second: Whether the meta-gradient goes through the inner steps.
        adapts: Which parameters adapt: `all`, `head`, or the top layers, as `layers:-2`.
        method: Ours.
        steps: Inner steps.
        stored: How many of them ours stores, one run for each number; None for all.
    """

    second: bool
    adapts: str
    method: str
    steps: int = 5
    stored: tuple[int | None, ...] = (None,)

    def top_layers(self, layers: int) -> int:
        """Return how many of the encoder's layers adapt."""
        if ":" in self.adapts:
            return int(self.adapts.removeprefix("layers:-"))
        return layers if self.adapts == "all" else 0


CASES = {
    "maml": Case(True, "all", "maml"),
    "fomaml": Case(False, "all", "fomaml"),
    "anil": Case(True, "head", "maml"),
    "top2": Case(True, "layers:-2", "maml"),
    "memory": Case(True, "all", "maml", steps=10, stored=(None, 5, 0)),
    "bf16": Case(True, "all", "maml"),
}


class Classifier(nn.Module):
    """Encoder and head as a peer's user writes them: one padded batch in, logits out."""

    def __init__(self, encoder: Encoder, n_way: int) -> None:
        super().__init__()
        self.model, self.pool = encoder.model, encoder.pool
        self.head = nn.Linear(encoder.feature_size(pair=False), n_way, device=encoder.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        states = self.model(**inputs).last_hidden_state
        logits: Tensor = self.head(self.pool(states, inputs["attention_mask"]))
        return logits


@dataclass
class PeerEpisode:
    """One episode for the peers: padded batches, labels, and which parameters adapt."""

    classifier: Classifier
    support: dict[str, Tensor]
    query: dict[str, Tensor]
    support_labels: Tensor
    query_labels: Tensor
    adapts: set[str]
    steps: int
    second: bool

    def support_loss(self, params: Grads) -> Tensor:
        return nn.functional.cross_entropy(self._logits(params, self.support), self.support_labels)

    def query_loss(self, params: Grads) -> Tensor:
        return nn.functional.cross_entropy(self._logits(params, self.query), self.query_labels)

    def _logits(self, params: Grads, inputs: dict[str, Tensor]) -> Tensor:
        logits: Tensor = functional_call(self.classifier, params, (inputs,))
        return logits

    @property
    def theta(self) -> Grads:
        return {name: p for name, p in self.classifier.named_parameters() if "pooler" not in name}

    def rate(self, name: str) -> float:
        return HEAD_RATE if name.startswith("head.") else RATE


def ours(
    episode: EncodedEpisode, encoder: Encoder, case: Case, stored: int | None = None, *, bf16: bool = False
) -> Step:
    settings = {"adapts": case.adapts, "inner_lr": RATE, "head_lr": HEAD_RATE, "inner_steps": case.steps}
    learner = make(case.method, encoder, settings | {"start": "zero"})  # as the heads of the others start
    assert isinstance(learner, GradientMetaLearner)
    learner.stored_steps = stored
    named = {f"model.{name}": p for name, p in encoder.model.named_parameters() if "pooler" not in name}

    def step() -> Grads:
        with torch.autocast(encoder.device.type, torch.bfloat16, enabled=bf16):
            loss = learner.meta_loss([episode]).loss
        return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))

    return step


def plain_autograd(episode: PeerEpisode) -> Grads:
    params = theta = episode.theta
    for _ in range(episode.steps):
        adapting = {name: params[name] for name in episode.adapts}
        loss = episode.support_loss(params)
        grads = torch.autograd.grad(loss, list(adapting.values()), create_graph=episode.second)
        params = params | {n: p - episode.rate(n) * g for (n, p), g in zip(adapting.items(), grads, strict=True)}
    grads = torch.autograd.grad(episode.query_loss(params), list(theta.values()))
    return dict(zip(theta, grads, strict=True))


def torch_func(episode: PeerEpisode) -> Grads:
    def support_loss(adapting: Grads, params: Grads) -> Tensor:
        return episode.support_loss(params | adapting)

    def meta_loss(theta: Grads) -> Tensor:
        params = theta
        for _ in range(episode.steps):
            adapting = {name: params[name] for name in episode.adapts}
            grads = torch.func.grad(support_loss)(adapting, params)
            if not episode.second:
                grads = {name: g.detach() for name, g in grads.items()}
            params = params | {n: p - episode.rate(n) * grads[n] for n, p in adapting.items()}
        return episode.query_loss(params)

    grads: Grads = torch.func.grad(meta_loss)({name: p.detach() for name, p in episode.theta.items()})
    return grads


def with_higher(episode: PeerEpisode) -> Grads:
    model = episode.classifier
    adapting = [{"params": [p], "lr": episode.rate(n)} for n, p in model.named_parameters() if n in episode.adapts]
    optimizer = torch.optim.SGD(adapting, RATE)
    context = higher.innerloop_ctx(model, optimizer, copy_initial_weights=False, track_higher_grads=episode.second)
    with context as (inner, rule):
        for _ in range(episode.steps):
            rule.step(nn.functional.cross_entropy(inner(episode.support), episode.support_labels))
        loss = nn.functional.cross_entropy(inner(episode.query), episode.query_labels)
        # In first order the copies are cut off from the initial parameters: the gradient is that at the last copy.
        copies = {n: p for n, p in inner.named_parameters() if n in episode.theta}
        params = episode.theta if episode.second else copies
        return dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))


def with_torchopt(episode: PeerEpisode) -> Grads:
    params = theta = episode.theta
    rules = {name: torchopt.sgd(episode.rate(name)) for name in episode.adapts}
    states = {name: rule.init({name: theta[name]}) for name, rule in rules.items()}
    for _ in range(episode.steps):
        adapting = {name: params[name] for name in episode.adapts}
        loss = episode.support_loss(params)
        grads = torch.autograd.grad(loss, list(adapting.values()), create_graph=episode.second)
        moved: Grads = {}
        for (name, p), g in zip(adapting.items(), grads, strict=True):
            updates, states[name] = rules[name].update({name: g}, states[name], inplace=False)
            moved |= torchopt.apply_updates({name: p}, updates, inplace=False)
        params = params | moved
    grads = torch.autograd.grad(episode.query_loss(params), list(theta.values()))
    return dict(zip(theta, grads, strict=True))


PEERS: dict[str, Callable[[PeerEpisode], Grads]] = {
    "higher": with_higher,
    "TorchOpt": with_torchopt,
    "torch.func": torch_func,
    "torch.autograd": plain_autograd,
}


def for_peers(episode: EncodedEpisode, encoder: Encoder, case: Case) -> PeerEpisode:
    classifier = Classifier(encoder, episode.target.size)
    names = {name for name, _ in classifier.named_parameters() if "pooler" not in name}
    layers = encoder.model.config.num_hidden_layers
    top = {f"model.encoder.layer.{i}." for i in range(layers - case.top_layers(layers), layers)}
    return PeerEpisode(
        classifier,
        pad(episode.support, encoder),
        pad(episode.query, encoder),
        episode.support.labels,
        episode.query.labels,
        names if case.adapts == "all" else {name for name in names if name.startswith(("head.", *top))},
        case.steps,
        case.second,
    )


def pad(examples: EncodedSet, encoder: Encoder) -> dict[str, Tensor]:
    rows = [{"input_ids": list(ids)} for ids in examples.sequences.ids]
    return dict(encoder.tokenizer.pad(rows, return_tensors="pt").to(encoder.device))


def floor(episode: EncodedEpisode, encoder: Encoder, case: Case) -> float:
    """Return the operations that an exact meta-gradient takes."""
    config = encoder.model.config
    size, layers = int(config.hidden_size), int(config.num_hidden_layers)
    linear = 2 * (4 * size**2 + 2 * size * int(config.intermediate_size)) * layers

    def forward(examples: EncodedSet) -> float:
        return sum(linear * len(ids) + 4 * len(ids) ** 2 * size * layers for ids in examples.sequences.ids)

    support, query = forward(episode.support), forward(episode.query)
    if case.adapts == "head":
        return 3 * (support + query)
    if not case.second:
        return 3 * (case.steps * support + query)
    top = case.top_layers(layers) / layers
    return 3 * (1 - top) * support + 9 * case.steps * top * support + 3 * query


def which_task() -> Task:
    """A task of real texts: which of five bundled tasks a text is from."""
    sources = [task for task in load_tasks("samples") if not task.pair][:5]
    rows: Iterable[Example] = (
        Example(task.train_split[i].text, label=n) for n, task in enumerate(sources) for i in range(30)
    )
    return Task("which", {"train": ListSplit(rows)}, tuple(task.name for task in sources))


def run_case(name: str, encoder: Encoder, runs: int, rate: float) -> PeerCase:
    """Compare the gradients of a case, then measure its memory, then its time.

    Args:
        name: Of the case.
        encoder: On the device.
        runs: How many are timed.
        rate: Operations per second of matrix products.
    """
    case, episode = CASES[name], encode_episode(encoder, EpisodeSampler([which_task()], SPEC, seed=0)[0])
    steps = steps_of(name, episode, encoder)
    compare({label: step() for label, step in steps.items()})
    memory = {}
    for label, step in steps.items():
        with measure(encoder.device) as cost:
            step()
        memory[label] = cost.more_mib or 0
    seconds = time_steps(steps, encoder.device, runs)
    operations = floor(episode, encoder, case)
    rows = tuple(peer_row(label, seconds, memory[label], operations / rate) for label in steps)
    peers = [row for row in rows if row.name in PEERS]
    best_peer = min(peers, key=lambda row: row.seconds).name if peers else None
    about = versions("higher", "torchopt")
    return PeerCase(name, best_peer, operations, rate, runs, rows, encoder.device.type, torch.get_num_threads(), about)


def steps_of(name: str, episode: EncodedEpisode, encoder: Encoder) -> dict[str, Step]:
    """Return what is compared in a case, by the name that its row has."""
    case = CASES[name]
    steps = {
        "quickstudy" if stored is None else f"quickstudy, {stored} stored": ours(episode, encoder, case, stored)
        for stored in case.stored
    }
    if name == "bf16":
        return steps | {"quickstudy, bf16": ours(episode, encoder, case, bf16=True)}
    peer_episode = for_peers(episode, encoder, case)
    return steps | {peer: partial(run_peer, function, peer_episode) for peer, function in PEERS.items()}


def run_peer(function: Callable[[PeerEpisode], Grads], episode: PeerEpisode) -> Grads:
    """Take a peer's meta-gradient with the exact kernel where the order asks for it; we choose ours ourselves."""
    with sdpa_kernel([SDPBackend.MATH]) if episode.second else nullcontext():
        return function(episode)


def time_steps(steps: dict[str, Step], device: torch.device, runs: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {label: [] for label in steps}
    for _ in range(runs):
        for label, step in steps.items():
            tick = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[label].append(time.perf_counter() - tick)
    return seconds


def peer_row(label: str, seconds: dict[str, list[float]], more_mib: float, floor_seconds: float) -> PeerRow:
    median = statistics.median(seconds[label])
    ratios = [theirs / mine for theirs, mine in zip(seconds[label], seconds["quickstudy"], strict=True)]
    spread = min(ratios), max(ratios)
    return PeerRow(label, median, more_mib, statistics.median(ratios), spread, median / floor_seconds)


def compare(gradients: dict[str, Grads]) -> None:
    """Check that all gradients are the same; that of bf16 points the same way."""
    ours = gradients["quickstudy"]
    largest = max(float(g.abs().max()) for g in ours.values())
    for label, theirs in gradients.items():
        if "bf16" in label:
            single, half = (torch.cat([g.flatten().double() for g in grads.values()]) for grads in (ours, theirs))
            assert torch.cosine_similarity(single, half, dim=0) > 0.999, label
            continue
        for name, g in ours.items():
            difference = float((g - theirs[name]).abs().max())
            assert difference <= 1e-5 * largest, f"{label} differs by {difference:.1e} in {name}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    encoder = Encoder.load("minilm").to(options.device)
    results = read(options.out, Peers).cases if options.out.exists() else {}
    for name in options.cases.split(","):
        results[name] = run_case(name, encoder, options.runs, matrix_rate(encoder.device))
        print_case(results[name])
        write(options.out, Peers({case: results[case] for case in CASES if case in results}))


def print_case(result: PeerCase) -> None:
    print(
        f"\n{result.case}: {result.operations / 1e9:.0f} GFLOP at least, matrix products {result.rate / 1e9:.0f} "
        f"GFLOP/s, {result.threads} threads; best peer {result.best_peer}"
    )
    print("| | seconds | × ours | spread | × floor | more MiB |\n|---|---|---|---|---|---|")
    for row in result.rows:
        spread = f"{row.spread[0]:.2f} to {row.spread[1]:.2f}"
        cells = f"{row.seconds:.2f} | {row.times_ours:.2f} | {spread} | {row.times_floor:.2f}"
        print(f"| {row.name} | {cells} | {row.more_mib:.0f} |")


if __name__ == "__main__":
    main()
