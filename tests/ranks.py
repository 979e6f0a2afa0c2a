"""Ranks: real processes for the tests, forked from a process that has imported everything, as by a launcher.

Reads requests from standard input, a JSON object on each line: one of CALLS, the number of processes, a folder, and
the options of the call. Process i writes `i.out` and `i.err` into the folder, and may write more. Answers with the
exit codes (-9: killed) and the seconds. After 60 s all processes are killed.
"""

import errno
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from quickstudy import pretraining
from quickstudy.cli.main import main
from quickstudy.data import table
from quickstudy.data.columns import Columns
from quickstudy.errors import DataError
from quickstudy.evaluation import episodic
from quickstudy.methods.base import MetaLearner, MetaLoss
from quickstudy.methods.catalog import make
from quickstudy.methods.feature import FeatureMetaLearner
from quickstudy.models.batch import EncodedEpisode
from quickstudy.processes import rank, together
from quickstudy.settings import OuterSettings
from quickstudy.tasks.episode import Episode, EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.testing.tiny import score_task, tiny_encoder, word_task
from quickstudy.training import meta_batch, outer, reduction
from quickstudy.training.record import StepRecord

LIMIT = 60.0
METHODS: dict[str, dict[str, str | float]] = {
    "maml": {"inner_lr": 0.03, "head_lr": 3.0, "inner_steps": 2},
    "protonet": {"scale": 2.0},
    "reptile": {"adapts": "layers:-1", "inner_lr": 0.1, "head_lr": 1.0, "inner_steps": 2},
}
SETTINGS = OuterSettings(outer_steps=1, meta_batch_size=2, warmup_steps=0, clip_norm=1e9, trains="all")


@dataclass(frozen=True)
class Request:
    """What the test asks for."""

    call: str
    world_size: int
    folder: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """How the processes ended, in the order of their ranks; a process that had to be killed after LIMIT has no code."""

    codes: list[int | None]
    seconds: float


def gradient(folder: Path, method: str, dtype: str, size: int, summed: bool = True) -> None:
    """One outer step; every process writes its meta-gradient before AdamW, and the episodes that it drew."""
    drawn: list[int] = []

    class RecordingSampler(EpisodeSampler):
        def __getitem__(self, index: int) -> Episode:
            drawn.append(index)
            return super().__getitem__(index)

    def save_gradient(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        params = [p for group in optimizer.param_groups for p in group["params"]]
        grads = {str(i): p.grad.clone() for i, p in enumerate(params) if p.grad is not None}
        save_file(grads, folder / f"{rank()}.safetensors")

    if not summed:
        patch.object(reduction, "all_reduce", lambda _: None).start()
    hook = register_optimizer_step_pre_hook(save_gradient)
    tasks = [word_task("a"), word_task("b", n_way=3, pair=True), score_task()]
    with together():
        learner = make(method, tiny_encoder(normalize=True), METHODS[method]).to(getattr(torch, dtype))
        sampler = RecordingSampler(tasks, EpisodeSpec((2, 3), (1, 3), 2), seed=3)
        records = _train(folder, learner, sampler, replace(SETTINGS, meta_batch_size=size))
    hook.remove()
    _write(folder, {"drawn": drawn, "loss": records[0].loss, "accuracy": records[0].accuracy})


def patience(folder: Path) -> None:
    """Train with scores that differ between processes: only those of the main process may count."""
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.1] if rank() == 0 else [0.1, 0.0, 0.2, 0.3, 0.4, 0.5])
    with together():
        learner = make("protonet", tiny_encoder(normalize=True), METHODS["protonet"])
        if rank():  # another start, as from another revision of an encoder
            for parameter in learner.parameters():
                parameter.data.add_(0.01)
        sampler = EpisodeSampler([word_task()], EpisodeSpec(2, 2, 2), seed=0)
        settings = replace(SETTINGS, outer_steps=5, validate_every=1, patience=2)
        records = _train(folder, learner, sampler, settings, validate=lambda _: next(scores))
    save_file({name: p.detach() for name, p in learner.named_parameters()}, folder / f"{rank()}.safetensors")
    _write(folder, [[record.step, record.validation] for record in records])


def command(folder: Path, words: list[str], fault: str = "", at: int = 1) -> None:
    """Run the command line; the process of rank `at` fails in its own way."""
    os.environ["QUICKSTUDY_CACHE"] = str(folder / "cache")
    if rank() == at and fault:
        FAULTS[fault]()
    sys.argv = ["quickstudy", *words]
    main()


def cache(folder: Path, rows: int, start: float) -> None:
    """Read the same file into an empty cache, all at the same moment."""
    os.environ["QUICKSTUDY_CACHE"] = str(folder / "cache")
    while time.time() < start:
        time.sleep(0.001)
    read = table.read_table(folder / "rows.csv", Columns(), "classification")
    _write(folder, [len(read), read[0], read[rows - 1]])


CALLS: dict[str, Callable[..., None]] = {
    function.__name__: function for function in (gradient, patience, command, cache)
}


def _after(calls: int, function: Callable[..., Any], then: Callable[[], Any]) -> Callable[..., Any]:
    """Return the function, which ends in another way once it has been called so often."""
    seen = [0]

    def changed(*arguments: Any, **more: Any) -> Any:
        seen[0] += 1
        return function(*arguments, **more) if seen[0] <= calls else then()

    return changed


def _fail(error: Exception) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail


def _nan() -> None:
    meta_loss = FeatureMetaLearner.meta_loss

    def bad(self: FeatureMetaLearner, episodes: list[EncodedEpisode], progress: float = 1.0) -> MetaLoss:
        good = meta_loss(self, episodes, progress)
        return replace(good, loss=good.loss * (float("nan") if progress > 0 else 1.0))

    patch.object(FeatureMetaLearner, "meta_loss", bad).start()


def _infinite_gradient() -> None:
    put = reduction.Reduction.put

    def bad(self: reduction.Reduction, totals: torch.Tensor) -> float | None:
        next(p.grad for p in self.params if p.grad is not None).fill_(float("inf"))
        return put(self, totals)

    patch.object(reduction.Reduction, "put", bad).start()


def _set(owner: object, name: str, calls: int, then: Callable[[], Any]) -> Callable[[], None]:
    return lambda: setattr(owner, name, _after(calls, getattr(owner, name), then))


FAULTS: dict[str, Callable[[], None]] = {
    "episode": _set(meta_batch, "encode_episode", 3, _fail(ValueError("this episode is broken"))),
    "killed": _set(meta_batch, "encode_episode", 3, lambda: os.kill(os.getpid(), signal.SIGKILL)),
    "nan": _nan,
    "infinite gradient": _infinite_gradient,
    "update": _set(torch.optim.AdamW, "step", 1, _fail(RuntimeError("out of memory"))),
    "validation": _set(episodic, "encode_episode", 6, _fail(ValueError("cannot be scored"))),
    "data": _set(
        pretraining, "build", 0, _fail(DataError("there is no such file", where="a.csv", fix="Check the path."))
    ),
    "disk": _set(outer, "save_checkpoint", 1, _fail(OSError(errno.ENOSPC, "No space left on device", "last"))),
    "report": _set(
        pretraining, "write_report", 0, _fail(OSError(errno.ENOSPC, "No space left on device", "report.html"))
    ),
}


def _train(
    folder: Path,
    learner: MetaLearner,
    sampler: EpisodeSampler,
    settings: OuterSettings,
    validate: outer.Validate | None = None,
) -> list[StepRecord]:
    records: list[StepRecord] = []
    outer.train(
        learner,
        sampler,
        settings,
        accelerator=Accelerator(cpu=True),
        folder=folder / "checkpoints",
        on_step=records.append,
        validate=validate,
    )
    return records


def _write(folder: Path, value: Any) -> None:
    (folder / f"{rank()}.json").write_text(json.dumps(value))


def _start(request: Request, process: int, port: int) -> int:
    """Fork one process; return its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        folder = Path(request.folder)
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / f"{process}.{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), stream)
        if request.world_size > 1:
            ids = {"RANK": process, "LOCAL_RANK": process, "WORLD_SIZE": request.world_size, "MASTER_PORT": port}
            os.environ |= {name: str(value) for name, value in ids.items()} | {"MASTER_ADDR": "127.0.0.1"}
        CALLS[request.call](folder, **request.options)
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(request: Request) -> Answer:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    running = {_start(request, process, port): process for process in range(request.world_size)}
    codes: dict[int, int | None] = {}
    while running and time.monotonic() - began < LIMIT:
        for child in list(running):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                codes[running.pop(child)] = os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    for child, process in running.items():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        codes[process] = None
    return Answer([codes[process] for process in sorted(codes)], time.monotonic() - began)


def _serve(lines: Iterable[str]) -> None:
    for line in lines:
        print(json.dumps(asdict(_run(Request(**json.loads(line))))), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    _serve(sys.stdin)
