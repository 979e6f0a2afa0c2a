"""The same meta-gradient, ours and the peers': higher, TorchOpt, a plain torch.func loop and a plain torch.autograd loop.

    python benchmarks/peers.py [--cases maml,fomaml,anil,top2,memory] [--runs 5] [--device cpu]

MiniLM, 5 ways, 5 support and 5 query examples each, real texts of mixed length, 5 inner steps of SGD; `memory` is second order
with 10 steps, with our steps all stored, half of them or none. In every case the gradients are compared
(to 1e-5 of the largest) before anything is timed, and the runs are interleaved: one of each, then again. A peer gets what its
user would write: one padded batch for the support set and one for the query set, a fused kernel where the order allows and the
exact MATH kernel where it does not. Prints medians, ratios with their spread, the memory that a meta-gradient needs beyond what
was there, and times the floor; memory is taken in a run of its own, since measuring it gives memory back to the system, which a
training step never does and which costs time to get again. Writes peers.json, where a case that is run again replaces the old
one. `bf16` is our second order in single precision against bf16 autocast, whose gradient is compared by its angle.

The floor counts matrix products on tokens, without padding, that any exact method must do: F for a pass forward, 2F more for a
gradient, 6F more to go back through that gradient, at the matrix rate that is measured in the same run.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import higher
import torch
import torchopt
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from quickstudy.cost import measure
from quickstudy.data.reference import load_tasks
from quickstudy.methods.catalog import make
from quickstudy.models.batch import EncodedEpisode, EncodedSet, encode_episode
from quickstudy.models.encoder import Encoder
from quickstudy.storage.files import write_json
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
    """What is computed: the order, and which parameters adapt."""

    order: str
    adapts: str
    method: str
    steps: int = 5
    stored: tuple[int | None, ...] = (None,)

    @property
    def second(self) -> bool:
        return self.order == "second"


CASES = {
    "maml": Case("second", "all", "maml"),
    "fomaml": Case("first", "all", "fomaml"),
    "anil": Case("second", "head", "maml"),
    "top2": Case("second", "layers:-2", "maml"),
    "memory": Case("second", "all", "maml", steps=10, stored=(None, 5, 0)),
    "bf16": Case("second", "all", "maml"),
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
        return self.head(self.pool(states, inputs["attention_mask"]))


@dataclass
class Work:
    """One episode for the peers: padded batches, labels, and which parameters adapt."""

    classifier: Classifier
    support: dict[str, Tensor]
    query: dict[str, Tensor]
    support_labels: Tensor
    query_labels: Tensor
    adapts: set[str]
    steps: int
    second: bool

    def loss(self, params: Grads, query: bool = False) -> Tensor:
        inputs, labels = (self.query, self.query_labels) if query else (self.support, self.support_labels)
        return nn.functional.cross_entropy(functional_call(self.classifier, params, (inputs,)), labels)

    @property
    def theta(self) -> Grads:
        return {name: p for name, p in self.classifier.named_parameters() if "pooler" not in name}

    def rate(self, name: str) -> float:
        return HEAD_RATE if name.startswith("head.") else RATE


def ours(
    episode: EncodedEpisode, encoder: Encoder, case: Case, stored: int | None = None, *, bf16: bool = False
) -> Step:
    settings = {"adapts": case.adapts, "inner_lr": RATE, "head_lr": HEAD_RATE, "inner_steps": case.steps}
    learner = make(case.method, encoder, settings)
    learner.stored_steps = stored
    named = {f"model.{name}": p for name, p in encoder.model.named_parameters() if "pooler" not in name}

    def step() -> Grads:
        with torch.autocast(encoder.device.type, torch.bfloat16, enabled=bf16):
            loss = learner.meta_loss([episode]).loss
        return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))

    return step


def plain_autograd(work: Work) -> Grads:
    params = theta = work.theta
    for _ in range(work.steps):
        adapting = {name: params[name] for name in work.adapts}
        grads = torch.autograd.grad(work.loss(params), list(adapting.values()), create_graph=work.second)
        params = params | {n: p - work.rate(n) * g for (n, p), g in zip(adapting.items(), grads, strict=True)}
    found = torch.autograd.grad(work.loss(params, query=True), list(theta.values()))
    return dict(zip(theta, found, strict=True))


def torch_func(work: Work) -> Grads:
    def meta(theta: Grads) -> Tensor:
        params = theta
        for _ in range(work.steps):
            adapting = {name: params[name] for name in work.adapts}
            grads = torch.func.grad(lambda own, params=params: work.loss(params | own))(adapting)
            if not work.second:
                grads = {name: g.detach() for name, g in grads.items()}
            params = params | {n: p - work.rate(n) * grads[n] for n, p in adapting.items()}
        return work.loss(params, query=True)

    return torch.func.grad(meta)({name: p.detach() for name, p in work.theta.items()})


def with_higher(work: Work) -> Grads:
    model = work.classifier
    adapting = [{"params": [p], "lr": work.rate(n)} for n, p in model.named_parameters() if n in work.adapts]
    optimizer = torch.optim.SGD(adapting, RATE)
    context = higher.innerloop_ctx(model, optimizer, copy_initial_weights=False, track_higher_grads=work.second)
    with context as (inner, rule):
        for _ in range(work.steps):
            rule.step(nn.functional.cross_entropy(inner(work.support), work.support_labels))
        loss = nn.functional.cross_entropy(inner(work.query), work.query_labels)
        # In first order the copies are cut off from the initial parameters: the gradient is that at the last copy.
        at = work.theta if work.second else {n: p for n, p in inner.named_parameters() if n in work.theta}
        return dict(zip(at, torch.autograd.grad(loss, list(at.values())), strict=True))


def with_torchopt(work: Work) -> Grads:
    params = theta = work.theta
    rules = {name: torchopt.sgd(work.rate(name)) for name in work.adapts}
    states = {name: rule.init({name: theta[name]}) for name, rule in rules.items()}
    for _ in range(work.steps):
        adapting = {name: params[name] for name in work.adapts}
        grads = torch.autograd.grad(work.loss(params), list(adapting.values()), create_graph=work.second)
        moved = {}
        for (name, p), g in zip(adapting.items(), grads, strict=True):
            updates, states[name] = rules[name].update({name: g}, states[name], inplace=False)
            moved |= torchopt.apply_updates({name: p}, updates, inplace=False)
        params = params | moved
    found = torch.autograd.grad(work.loss(params, query=True), list(theta.values()))
    return dict(zip(theta, found, strict=True))


PEERS: dict[str, Callable[[Work], Grads]] = {
    "higher": with_higher,
    "TorchOpt": with_torchopt,
    "torch.func": torch_func,
    "torch.autograd": plain_autograd,
}


def work_of(episode: EncodedEpisode, encoder: Encoder, case: Case) -> Work:
    classifier = Classifier(encoder, episode.n_way)
    layers = encoder.model.config.num_hidden_layers
    top = {"all": 0, "head": layers}.get(case.adapts) if ":" not in case.adapts else layers - int(case.adapts[8:])
    chosen = {f"model.encoder.layer.{i}." for i in range(top or 0, layers)} | {"head."}
    names = {n for n, _ in classifier.named_parameters() if "pooler" not in n}
    adapts = names if case.adapts == "all" else {n for n in names if n.startswith(tuple(chosen))}
    support, query = padded(episode.support, encoder), padded(episode.query, encoder)
    return Work(
        classifier, support, query, episode.support.labels, episode.query.labels, adapts, case.steps, case.second
    )


def padded(part: EncodedSet, encoder: Encoder) -> dict[str, Tensor]:
    rows = [{"input_ids": list(ids)} for ids in part.sequences.ids]
    return dict(encoder.tokenizer.pad(rows, return_tensors="pt").to(encoder.device))


def floor(episode: EncodedEpisode, encoder: Encoder, case: Case) -> float:
    """Return the operations that an exact meta-gradient takes."""
    steps = case.steps
    config = encoder.model.config
    size, layers = config.hidden_size, config.num_hidden_layers
    linear = 2 * (4 * size**2 + 2 * size * config.intermediate_size) * layers

    def forward(part: EncodedSet) -> float:
        return sum(linear * len(ids) + 4 * len(ids) ** 2 * size * layers for ids in part.sequences.ids)

    support, query = forward(episode.support), forward(episode.query)
    if case.adapts == "head":
        return 3 * (support + query)
    if not case.second:
        return 3 * (steps * support + query)
    top = 1.0 if case.adapts == "all" else int(case.adapts[8:]) / layers
    return 3 * (1 - top) * support + 9 * steps * top * support + 3 * query


def which_task() -> Task:
    """A task of real texts: which of five bundled tasks a text is from."""
    sources = [task for task in load_tasks("samples") if not task.pair][:5]
    rows: Iterable[Example] = (
        Example(task.train_split[i].text, label=n) for n, task in enumerate(sources) for i in range(30)
    )
    return Task("which", {"train": ListSplit(rows)}, tuple(task.name for task in sources))


def episode_of(encoder: Encoder) -> EncodedEpisode:
    return encode_episode(encoder, EpisodeSampler([which_task()], SPEC, seed=0)[0])


def run_case(name: str, encoder: Encoder, options: argparse.Namespace, rate: float) -> dict[str, Any]:
    case, episode = CASES[name], episode_of(encoder)
    steps: dict[str, Step] = {}
    for stored in case.stored:
        steps["quickstudy" if stored is None else f"quickstudy, {stored} stored"] = ours(episode, encoder, case, stored)
    if name == "bf16":
        steps["quickstudy, bf16"] = ours(episode, encoder, case, bf16=True)
    else:
        work = work_of(episode, encoder, case)
        for peer, function in PEERS.items():
            steps[peer] = lambda function=function: function(work)
    taken: dict[str, list[float]] = {each: [] for each in steps}
    memory: dict[str, float] = {}
    kernel = [SDPBackend.MATH] if case.second else list(SDPBackend.__members__.values())
    compare({each: _run(step, each, kernel) for each, step in steps.items()})
    for each, step in steps.items():
        with measure(encoder.device) as cost:
            _run(step, each, kernel)
        memory[each] = cost.more_mib or 0
    for _ in range(options.runs):
        for each, step in steps.items():
            tick = time.perf_counter()
            _run(step, each, kernel)
            if encoder.device.type == "cuda":
                torch.cuda.synchronize()
            taken[each].append(time.perf_counter() - tick)
    operations = floor(episode, encoder, case)
    rows = []
    for each, own in taken.items():
        ratios = [seconds / mine for seconds, mine in zip(own, taken["quickstudy"], strict=True)]
        rows.append(
            {
                "name": each,
                "seconds": statistics.median(own),
                "more_mib": memory[each],
                "times_ours": statistics.median(ratios),
                "spread": [min(ratios), max(ratios)],
                "times_floor": statistics.median(own) * rate / operations,
            }
        )
    peers = [row for row in rows if row["name"] in PEERS]
    best = min(peers, key=lambda row: row["seconds"])["name"] if peers else None
    return {"case": name, "best_peer": best, "operations": operations, "rate": rate, "runs": options.runs, "rows": rows}


def _run(step: Step, name: str, kernel: list[SDPBackend]) -> Grads:
    """Take a meta-gradient, ours with the kernel that we choose."""
    with sdpa_kernel(kernel) if name in PEERS else nullcontext():
        return step()


def compare(found: dict[str, Grads]) -> None:
    """Check that all gradients are the same; that of bf16 points the same way."""
    own = found["quickstudy"]
    largest = max(float(g.abs().max()) for g in own.values())
    for peer, theirs in found.items():
        if "bf16" in peer:
            ours, other = (torch.cat([g.flatten().double() for g in of.values()]) for of in (own, theirs))
            assert torch.cosine_similarity(ours, other, dim=0) > 0.999, peer
            continue
        for name, g in own.items():
            apart = float((g - theirs[name]).abs().max())
            assert apart <= 1e-5 * largest, f"{peer} differs by {apart:.1e} in {name}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    encoder = Encoder.load("minilm").to(options.device)
    settings = {
        "device": options.device,
        "threads": torch.get_num_threads(),
        "versions": versions("higher", "torchopt"),
    }
    results = json.loads(options.out.read_text())["cases"] if options.out.exists() else {}
    for name in options.cases.split(","):
        results[name] = run_case(name, encoder, options, matrix_rate(encoder.device)) | settings
        print_case(results[name])
        write_json(options.out, {"cases": {case: results[case] for case in CASES if case in results}})


def print_case(result: dict[str, Any]) -> None:
    print(
        f"\n{result['case']}: {result['operations'] / 1e9:.0f} GFLOP at least, matrix products {result['rate'] / 1e9:.0f} "
        f"GFLOP/s, {result['threads']} threads; best peer {result['best_peer']}"
    )
    print("| | seconds | × ours | spread | × floor | more MiB |\n|---|---|---|---|---|---|")
    for row in result["rows"]:
        spread = f"{row['spread'][0]:.2f} to {row['spread'][1]:.2f}"
        cells = f"{row['seconds']:.2f} | {row['times_ours']:.2f} | {spread} | {row['times_floor']:.2f}"
        print(f"| {row['name']} | {cells} | {row['more_mib']:.0f} |")


if __name__ == "__main__":
    main()
