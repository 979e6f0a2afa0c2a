"""Kill trial: a meta-training is killed again and again, and must end as if nothing had happened.

    python dev/kill_trial.py --kills 120                       about ten minutes on one core
    python dev/kill_trial.py --kills 4 --methods protonet      the short form, which the tests run

Each round empties the cache, kills a meta-training one to three times with SIGKILL, and then lets it end. Half of the
kills come at a random moment; the other half come while a file or a checkpoint is being written. Then the SHA-256 of
the weights, of the optimizer and of the log (without its times) must be those of the training that was never killed,
the run folder must hold the same files, and nothing unfinished may be left there, beside it or in the cache. Two more
trainings are not of one method: one reads its episodes and passages from a folder of text, and one runs in two
processes, of which one or both are killed. Exits with 1 if something differs.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from hashlib import sha256
from itertools import cycle
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from matplotlib.figure import Figure

from quickstudy import api
from quickstudy.storage.files import UNFINISHED
from quickstudy.testing.tiny import WORDS, tiny_encoder, word_task

GRADIENT: dict[str, object] = {"inner_lr": 0.03, "head_lr": 3.0, "inner_steps": 1}
METHODS: dict[str, dict[str, object]] = {
    "protonet": {},
    "r2d2": {},
    "lstm-reader": {"hidden": 8},
    "fomaml": GRADIENT,
    "maml": GRADIENT,
    "meta-sgd": GRADIENT,
    "reptile": GRADIENT,
    "multi-task": {},
}
FROM_TEXT, TWO_PROCESSES = "from-text", "two-processes"
SPECIAL = {FROM_TEXT: "protonet", TWO_PROCESSES: "maml"}  # the methods of the trainings that differ in something else
# What differs from run to run: times, and the hashes of what holds them.
TIMES = ("seconds", "episodes_per_second", "waited", "peak_mib", "seal", "records")
LIMIT = 600.0  # seconds for one training
PATIENCE = 60.0  # seconds for a process to end by itself, after another one was killed
# A clean process that has imported everything and done nothing forks the trainings: a process that has already computed
# has threads, whose locks a fork of it may wait for without end.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["quickstudy.pretraining", "quickstudy.api", "quickstudy.data.text.word_tables", "matplotlib.backends.backend_svg"]
)


def main() -> int:
    """Run the trial, and print what was killed where."""
    options = _options()
    torch.set_num_threads(1)
    chooser, moments, killed, wrong = random.Random(options.seed), Counter[str](), Counter[str](), []
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_inputs(folder)
        first = CONTEXT.Process(target=int)  # the imports of the clean process are not to be timed below
        first.start()
        first.join()
        wholes = {method: _whole(folder, method) for method in options.methods}
        turns = cycle(options.methods)
        while sum(moments.values()) < options.kills:
            method = next(turns)
            run, (seconds, facts) = folder / "killed", wholes[method]
            shutil.rmtree(folder / "cache", ignore_errors=True)
            for _ in range(min(chooser.choice((1, 1, 2, 3)), options.kills - sum(moments.values()))):
                moment = kill_once(run, folder, method, chooser, seconds)
                if moment is None:
                    break
                moments[moment] += 1
                killed[method] += 1
            _finish(run, folder, method)
            wrong += [f"{method}: {difference}" for difference in compare(facts, describe(run))]
            wrong += [f"{method}: {path.relative_to(folder)} is left" for path in folder.rglob(f".*{UNFINISHED}")]
            shutil.rmtree(run)
            print(f"{dict(killed)}; different: {wrong}", file=sys.stderr, flush=True)
    print(f"{sum(moments.values())} kills of {len(killed)} methods: {dict(moments)}, {dict(killed)}")
    print(*wrong, f"{len(wrong)} differences", sep="\n")
    return 1 if wrong else 0


def make_inputs(folder: Path) -> None:
    """Write a tiny encoder, the files of three tasks, and a folder of text."""
    (folder / "tiny").mkdir()
    tiny_encoder().save(folder / "tiny")
    for name in ("alpha", "beta", "gamma"):
        rows = word_task(name).train_split
        lines = [json.dumps({"text": rows[i].text, "label": f"class{rows[i].label}"}) for i in range(40)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    chooser = random.Random(0)
    (folder / "notes").mkdir()
    for number in range(60):
        sentences = [" ".join(chooser.choices(WORDS, k=8)).capitalize() + "." for _ in range(8)]
        (folder / "notes" / f"{number}.txt").write_text(" ".join(sentences), encoding="utf-8")
    os.environ["QUICKSTUDY_CACHE"] = str(folder / "cache")


def recipe(folder: Path, method: str) -> dict[str, Any]:
    """Return the recipe of a method; it saves and validates every second step."""
    references = [str(folder / f"{name}.jsonl") for name in ("alpha", "beta")]
    more: dict[str, Any] = {}
    if method == FROM_TEXT:
        references = [f"text:{folder / 'notes'}?tasks=smlmt,order"]
        more["language"] = {"text": str(folder / "notes"), "share": 0.5, "batch_size": 4}
    method = SPECIAL.get(method, method)
    return more | {
        "name": "killed",
        "encoder": {"name": str(folder / "tiny")},
        "method": {"name": method, **METHODS.get(method, {})},
        "tasks": {
            "train": references,
            "validation": [str(folder / "gamma.jsonl")],
        },
        "episodes": {"n_way": 2, "k_shot": 2, "n_query": 2},
        "outer": {
            "outer_steps": 12,
            "outer_lr": 1e-3,
            "meta_batch_size": 2,
            "validate_every": 2,
            "validation_episodes": 4,
        },
    }


def train(run: Path, folder: Path, method: str, environment: dict[str, str]) -> None:
    """Run a training, or go on with one; the process ends with it."""
    torch.set_num_threads(1)
    os.environ |= {"QUICKSTUDY_CACHE": str(folder / "cache"), **environment}
    try:
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (the process ends below)
        threading.Thread(target=_note_meeting, args=(folder,), daemon=True).start()
        with patch.object(Figure, "savefig", _save_blank):
            api.pretrain(recipe(folder, method), run, resume=(run / "config.toml").exists())
        os._exit(0)
    except BaseException:
        (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        os._exit(1)


def _note_meeting(folder: Path) -> None:
    """Leave a file once this process has met the other one."""
    while not torch.distributed.is_initialized():
        time.sleep(0.002)
    _met_file(folder, os.getpid()).touch()


def _met_file(folder: Path, pid: int | None) -> Path:
    return folder / f"met-{pid}"


def _save_blank(_: Figure, file: Path, **_more: object) -> None:
    """Stand for a drawing, which would take half of the time."""
    Path(file).write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"></svg>', encoding="utf-8")


def start(run: Path, folder: Path, method: str) -> list[ForkServerProcess]:
    """Start a training in processes of its own, or go on with one."""
    environments: list[dict[str, str]] = [{}]
    if method == TWO_PROCESSES:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        environments = [meeting | {"RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    processes = [CONTEXT.Process(target=train, args=(run, folder, method, each)) for each in environments]
    for process in processes:
        process.start()
    return processes


def kill_once(run: Path, folder: Path, method: str, chooser: random.Random, seconds: float) -> str | None:
    """Start or go on with a training and kill it; return when that was, or None if it ended before.

    Of two processes one is killed or both; the one that is left has to end by itself. Only if the other was killed
    before they met, it may wait as long as PyTorch does, half an hour, so then it is killed too.
    """
    processes, began = start(run, folder, method), time.monotonic()
    at_write, wait = chooser.random() < 0.5, chooser.random() * seconds
    victims = chooser.sample(processes, chooser.randint(1, len(processes)))
    while all(process.is_alive() for process in processes) and time.monotonic() - began < wait:
        time.sleep(0.001)
    while at_write and not _writes(run) and all(process.is_alive() for process in processes):
        time.sleep(0.0002)
    moment = f"{'while writing' if _writes(run) else 'between writes'}, {_stage(run)}"
    for process in victims:
        process.kill()
    for process in processes:
        process.join(PATIENCE)
        if process.is_alive() and not _met_file(folder, process.pid).exists():
            print(f"{method}: a process that waited for another one was killed too", flush=True)
            process.kill()
    _wait(processes, method)
    return moment if all(process.exitcode == -signal.SIGKILL for process in victims) else None


def _wait(processes: list[ForkServerProcess], method: str) -> None:
    """Wait until all processes have ended."""
    for process in processes:
        process.join(LIMIT)
    if any(process.is_alive() for process in processes):
        for process in processes:
            process.kill()
        raise SystemExit(f"{method}: a process did not end within {LIMIT:.0f} s")


def _writes(run: Path) -> bool:
    places = (run.parent, run.parent / "cache", run, run / "checkpoints")
    return any(any(place.glob(f".*{UNFINISHED}")) for place in places)


def _stage(run: Path) -> str:
    if not run.exists():
        return "before the run folder"
    if (run / "meta_learner.safetensors").exists():
        return "after the last step"
    return "among the steps" if (run / "checkpoints" / "last").exists() else "before the first checkpoint"


def _finish(run: Path, folder: Path, method: str) -> None:
    error = folder / "error.txt"
    error.unlink(missing_ok=True)
    processes = start(run, folder, method)
    _wait(processes, method)
    codes = [process.exitcode for process in processes]
    if any(codes):
        why = error.read_text(encoding="utf-8") if error.exists() else f"exit codes {codes}"
        raise SystemExit(f"{method} did not end:\n{why}")


def _whole(folder: Path, method: str) -> tuple[float, dict[str, str]]:
    """Return how long a training takes that is not killed, and what it leaves."""
    run, began = folder / "killed", time.monotonic()
    _finish(run, folder, method)
    seconds, facts = time.monotonic() - began, describe(run)
    shutil.rmtree(run)
    return seconds, facts


def describe(run: Path) -> dict[str, str]:
    """Return the SHA-256 of the files of a run that may not differ; an empty text for those that may."""
    files = {path.relative_to(run).as_posix(): path for path in sorted(run.rglob("*"))}
    return {name: sha256(_content(path)).hexdigest() if _counts(path) else "" for name, path in files.items()}


def _counts(path: Path) -> bool:
    return path.suffix in (".safetensors", ".toml", ".jsonl", ".json")


def _content(path: Path) -> bytes:
    if path.name not in ("metrics.jsonl", "state.json", "manifest.json"):
        return path.read_bytes()
    text = path.read_text(encoding="utf-8")
    records = [json.loads(each) for each in (text.splitlines() if path.suffix == ".jsonl" else [text])]
    return json.dumps([{key: record[key] for key in record if key not in TIMES} for record in records]).encode()


def compare(whole: dict[str, str], again: dict[str, str]) -> list[str]:
    """Return what differs between two runs."""
    return [
        f"{name} {'differs' if name in whole and name in again else 'is in one of them only'}"
        for name in sorted({*whole, *again})
        if whole.get(name) != again.get(name)
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=120)
    parser.add_argument("--methods", nargs="+", default=[*METHODS, *SPECIAL])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
