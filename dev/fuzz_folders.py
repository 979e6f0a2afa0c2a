"""Fuzz of folders: files of models, runs, checkpoints and comparisons are changed as their formats allow, and told.

    python dev/fuzz_folders.py --inputs 10000                      of each kind of folder
    python dev/fuzz_folders.py --inputs 40 --kinds checkpoint      the short form, which the tests run

A change keeps the file's syntax: a value of another type, a key that is missing, a huge or negative number, NaN, lists
nested too deep; in safetensors another shape, type, place or name of a tensor, or values that are no numbers. In half
of the inputs all hashes and seals are made again, as a stranger could, so that the change comes through to the code
behind them. What raises another error, takes too long, gives a message without the folder, or a model whose
probabilities are no numbers, is a fault. Exits with 1 if there is one.
"""

import argparse
import json
import random
import signal
import struct
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from damage_trial import copy_of, make_folders, quick_pages
from fuzz import _too_long

from quickstudy import api
from quickstudy.build import build_learner
from quickstudy.config import load_recipe
from quickstudy.errors import QuickstudyError, RunError
from quickstudy.report.comparison.files import read_comparison
from quickstudy.report.run.facts import read_run
from quickstudy.runs import Run
from quickstudy.settings import OuterSettings
from quickstudy.storage.manifest import NAME, hash_file
from quickstudy.storage.reading import seal
from quickstudy.training.checkpoint import STATE, load_checkpoint
from quickstudy.training.outer import LAST, make_optimizer

LIMIT = 60  # seconds for one input; a machine that does other work is slow
GOOD = ("read", "refused")
DEEP = "a list that is nested too deep"  # stands for it until the text is written
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**63, -(2**63), 10**400, 1e308, -0.5, float("nan"), float("inf"), -float("inf")),
    *("", "text", "../../x", "/etc/passwd", "\0", "\x1b[2J", "9" * 5000, [], {}, [[]], [None], {"a": 1}, DEEP),
)
Change = Callable[[bytes, random.Random], bytes]


def main() -> int:
    """Run the fuzzer, and print for each kind of folder how many inputs were read, and how many were refused."""
    options = _options()
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _too_long)
    with TemporaryDirectory() as scratch, quick_pages():
        make_folders(Path(scratch))
        faults = [fault for kind in options.kinds for fault in try_kind(kind, Path(scratch), options)]
    print(*faults, f"{len(faults)} faults", sep="\n")
    return 1 if faults else 0


def try_kind(kind: str, inputs: Path, options: argparse.Namespace) -> list[str]:
    """Return the faults of one kind of folder, each with the number of its input and what was changed."""
    chooser, outcomes, faults = random.Random(f"{options.seed} {kind}"), Counter[str](), []
    source, use = KINDS[kind](inputs)
    folder = copy_of(inputs, source)
    files = sorted(f for f in folder.rglob("*") if f.suffix in CHANGES and f.is_file() and (use.takes(f)))
    for number in range(options.inputs):
        whole = {file: file.read_bytes() for file in folder.rglob("*.json") if file.name in (NAME, STATE)}
        file = chooser.choice(files)
        whole |= {file: file.read_bytes()}
        try:
            file.write_bytes(CHANGES[file.suffix](whole[file], chooser))
            if chooser.random() < 0.5:
                renew_hashes(folder)
            outcome = judge(use, folder)
        finally:
            for changed, content in whole.items():
                changed.write_bytes(content)
        outcomes[outcome if outcome in GOOD else "fault"] += 1
        if outcome not in GOOD:
            faults.append(f"{kind}, input {number}, {file.relative_to(folder)}: {outcome}")
            print(faults[-1], file=sys.stderr, flush=True)
    print(f"{kind:10} {options.inputs:,} inputs: {dict(sorted(outcomes.items()))}", flush=True)
    return faults


def judge(use: "Use", folder: Path) -> str:
    """Use a folder; return `read`, `refused`, or what is wrong with how that ended."""
    signal.alarm(LIMIT)
    try:
        use(folder)
    except QuickstudyError as error:
        return "refused" if str(folder) in str(error) else f"a message without the folder: {error}"
    except Exception:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    return "read"


def renew_hashes(folder: Path) -> None:
    """Write the hashes and the seals of a folder again, as far as its files can still be read."""
    for file in sorted(folder.rglob("*.json"), key=lambda file: file.name == NAME):
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            for key in ("sha256", "records"):
                if isinstance(values.get(key), dict):
                    known = {name: file.parent / name for name in values[key]}
                    values[key] = {n: hash_file(f) if f.is_file() else values[key][n] for n, f in known.items()}
            if "seal" in values:
                file.write_text(json.dumps(seal({k: v for k, v in values.items() if k != "seal"})), encoding="utf-8")
        except (OSError, ValueError, AttributeError, TypeError, RecursionError):
            continue  # this file was changed so that it has no hashes, or no seal


def change_json(content: bytes, chooser: random.Random) -> bytes:
    """Return a JSON file in which one value is another one, is missing, or has another name."""
    values = json.loads(content)
    places = list(_places(values))
    if not places or chooser.random() < 0.05:
        return _text(chooser.choice(VALUES)).encode()
    parent, key = chooser.choice(places)
    kind = chooser.randrange(4)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[chooser.choice(("", "x", f"{key} ", "../x"))] = parent.pop(key)
    elif kind == 1:
        parent.extend(parent[:] * chooser.choice((1, 20)))
    else:
        parent[key] = chooser.choice(VALUES)
    return _text(values).encode("utf-8", "surrogatepass")


def change_lines(content: bytes, chooser: random.Random) -> bytes:
    """Return a file of JSON lines in which one line is changed, missing, there twice, or elsewhere."""
    lines = content.splitlines()
    place, kind = chooser.randrange(len(lines)), chooser.randrange(5)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(chooser.randrange(len(lines)), lines[place])
    else:
        lines[place] = change_json(lines[place], chooser)
    return b"\n".join(lines) + b"\n"


def change_toml(content: bytes, chooser: random.Random) -> bytes:
    """Return a recipe in which one setting has another value or another name, is missing, or is there twice."""
    lines = content.decode().splitlines()
    place = chooser.choice([i for i, line in enumerate(lines) if "=" in line])
    name, _, value = lines[place].partition(" = ")
    other = chooser.choice(lines).partition(" = ")[2] or '"text"'
    texts = [_text(v) for v in VALUES if v is not None and v is not DEEP] + [other, "[" * 3000, "1979-05-27", "nan"]
    kind = chooser.randrange(6)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(place, lines[place])
    elif kind == 2:
        lines[place] = f"{chooser.choice(('x', 'name', 'a.b.c'))} = {value}"
    else:
        lines[place] = f"{name} = {chooser.choice(texts)}"
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def change_tensors(content: bytes, chooser: random.Random) -> bytes:
    """Return a file of safetensors whose header or whose numbers are others."""
    (size,) = struct.unpack("<Q", content[:8])
    header, body = content[8 : 8 + size], bytearray(content[8 + size :])
    kind = chooser.randrange(6)
    if kind == 0:
        return struct.pack("<Q", chooser.choice((0, 1, size - 1, size + 1, 2**40, 2**64 - 1))) + content[8:]
    if kind == 1 and len(body) >= 4:
        place = 4 * chooser.randrange(len(body) // 4)
        bad = chooser.choice((float("nan"), float("inf"), -float("inf"), 3e38, -1e30))
        body[place : place + 4] = struct.pack("<f", bad)
    elif kind == 2:
        header = _change_shape(header, chooser)
    elif kind == 3:
        body = body[: chooser.randrange(len(body) + 1)] if chooser.random() < 0.5 else body + bytes(64)
    else:
        header = change_json(header, chooser)
    return struct.pack("<Q", len(header)) + header + bytes(body)


def _change_shape(header: bytes, chooser: random.Random) -> bytes:
    """Return a header in which a tensor of as many bytes has another shape, type or name."""
    values = json.loads(header)
    name = chooser.choice([key for key in values if key != "__metadata__"])
    shape = values[name]["shape"]
    kind = chooser.randrange(4)
    if kind == 0:
        values[name]["shape"] = shape[::-1]
    elif kind == 1:
        values[name]["shape"] = [1, *shape]
    elif kind == 2:
        values[name]["dtype"] = chooser.choice(("F64", "F16", "BF16", "I64", "I32", "BOOL", "U8", "X1"))
    else:
        values[chooser.choice(("x", "weight", f"{name}.x"))] = values.pop(name)
    return json.dumps(values).encode()


def _places(values: Any) -> Any:
    """Yield every place in nested values, as the list or object that it is in, and its key."""
    pairs = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in pairs:
        yield values, key
        yield from _places(value)


def _text(value: Any) -> str:
    return json.dumps(value).replace(json.dumps(DEEP), "[" * 4000 + "]" * 4000)


CHANGES: dict[str, Change] = {
    ".json": change_json,
    ".jsonl": change_lines,
    ".toml": change_toml,
    ".safetensors": change_tensors,
}


class Use:
    """What is done with a folder of one kind.

    Args:
        function: Does it.
        below: The folder in it whose files are changed; all by default.
    """

    def __init__(self, function: Callable[[Path], object], below: str = "") -> None:
        self._function, self._below = function, below

    def __call__(self, folder: Path) -> None:
        """Use a folder."""
        self._function(folder)

    def takes(self, file: Path) -> bool:
        """Return whether a file is one of those that are changed."""
        return self._below in file.as_posix()


def _use_model(folder: Path) -> None:
    model = api.load_model(folder)
    try:
        probabilities = model.predict_proba(["a good film", "very bad"])
    except RunError as error:  # weights that are far too large; a model in memory knows its texts and not its folder
        if "gives NaN or infinity for this text" not in str(error):
            raise
        return
    if not torch.as_tensor(probabilities).isfinite().all():
        raise ArithmeticError("a probability is NaN or infinite")


def _use_run(folder: Path) -> None:
    run = Run.open(folder)
    run.check_recipe()
    run.meta_train_tasks(), run.meta_validation_tasks()
    read_run(folder)
    run.learner()


def _checkpoint(inputs: Path) -> tuple[str, Use]:
    untrained = build_learner(load_recipe(inputs / "training"))

    def use(folder: Path) -> None:
        learner = deepcopy(untrained)  # building it takes ten times as long as all else
        load_checkpoint(folder / "checkpoints" / LAST, learner, make_optimizer(learner, OuterSettings()))

    return "training", Use(use, f"checkpoints/{LAST}")


KINDS: dict[str, Callable[[Path], tuple[str, Use]]] = {
    "checkpoint": _checkpoint,
    "comparison": lambda _: ("comparison", Use(read_comparison)),
    "run": lambda _: ("run", Use(_use_run)),
    "model": lambda _: ("model", Use(_use_model)),
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
