"""Write faults: each write of a save fails once, in turn, and what was there before must still be there.

    python dev/write_faults.py                     two minutes; needs Linux and a C compiler
    python dev/write_faults.py checkpoint JSON     only these saves

For every kind of save and every one of its writes, renames and requests to the disk to keep a file (fsync): no space
(ENOSPC), a broken disk (EIO), and a write that writes only a half. The first two must end with an error of quickstudy,
leave the state before, and nothing half-written. The third is legal, and must change nothing. Exits with 1 otherwise.
"""

import ctypes
import errno
import json
import os
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

import torch

from quickstudy.adaptation.few import adapt_task
from quickstudy.errors import RunError
from quickstudy.methods.catalog import make
from quickstudy.models.adapted import AdaptedModel
from quickstudy.storage.files import append_line, save_tensors, write_json
from quickstudy.testing.tiny import tiny_encoder, word_task
from quickstudy.training.checkpoint import TrainState, load_checkpoint, save_checkpoint

KINDS = {"no space": errno.ENOSPC, "broken disk": errno.EIO, "short write": 0}
LEARNER = make("protonet", tiny_encoder())
OPTIMIZER = torch.optim.AdamW(LEARNER.parameters())


@dataclass(frozen=True)
class Save:
    """A kind of save.

    Attributes:
        write: Writes a state, by its number, into a folder.
        read: Returns the number of the state that can be read there; 0 for none.
    """

    write: Callable[[Path, int], object]
    read: Callable[[Path], int]


def main() -> int:
    """Let every write fail, and print how many did."""
    if "write_faults" not in os.environ.get("LD_PRELOAD", ""):
        return _again_with_faults()
    faults, outcomes, wrong = ctypes.CDLL(None), Counter[str](), []
    with TemporaryDirectory() as scratch:
        for name in sys.argv[1:] or SAVES:
            save = SAVES[name]
            for kind, number in KINDS.items():
                for at in range(1000):
                    folder = Path(scratch) / "saved"
                    rmtree(folder, ignore_errors=True)
                    folder.mkdir()
                    save.write(folder, 1)
                    faults.fault_arm(str(folder).encode(), ctypes.c_long(at), number)
                    said = _try(save, folder)
                    if not faults.fault_disarm():
                        break
                    outcomes[f"{name}, {kind}"] += 1
                    fault = _judge(save, folder, said, fails=bool(number))
                    wrong += [f"{name}, {kind}, write {at}: {fault}"] if fault else []
    print(*(f"{count:5} {outcome}" for outcome, count in outcomes.items()), sep="\n")
    print(*wrong, f"{outcomes.total()} faults, {len(wrong)} wrong", sep="\n")
    return 1 if wrong else 0


def _try(save: Save, folder: Path) -> str:
    try:
        save.write(folder, 2)
    except RunError as error:
        return str(error)
    except Exception:
        return traceback.format_exc()
    return ""


def _judge(save: Save, folder: Path, said: str, *, fails: bool) -> str:
    """Return what is wrong after a fault; an empty text if nothing is."""
    if "Traceback" in said:
        return said
    if not said and fails and save.read(folder) != 2:
        return "nothing was said, and the state is not there"
    if said and not fails:
        return f"a short write failed: {said}"
    if said and str(folder) not in said:
        return f"the message does not say where: {said}"
    if (state := save.read(folder)) != (1 if said else 2):
        return f"state {state} is there; said: {said}"
    left = [
        path.name for path in folder.rglob("*") if path.name.startswith(".") or path.name.endswith((".new", ".old"))
    ]
    return f"{left} is left" if left else ""


def _write_model(folder: Path, number: int) -> None:
    AdaptedModel.save(MODEL, folder / str(number))


def _read_model(folder: Path) -> int:
    names = {path.name for path in folder.iterdir()}
    for name in names:
        AdaptedModel.load(folder / name)
    return max(map(int, names))


def _read_log(folder: Path) -> int:
    lines = (folder / "log").read_text(encoding="utf-8").split("\n")
    assert lines[-1] == ""
    return int(lines[-2][:1])


def _read_checkpoint(folder: Path) -> int:
    state = load_checkpoint(folder / "last", LEARNER, OPTIMIZER)
    return state.step if state else 0


MODEL = adapt_task(make("protonet", tiny_encoder()), word_task(rows=8))
SAVES = {
    "checkpoint": Save(
        lambda folder, number: save_checkpoint(folder / "last", LEARNER, TrainState(number), OPTIMIZER),
        _read_checkpoint,
    ),
    "model": Save(_write_model, _read_model),
    "JSON": Save(
        lambda folder, number: write_json(folder / "a.json", [number] * 9000),
        lambda folder: int(json.loads((folder / "a.json").read_text(encoding="utf-8"))[0]),
    ),
    "tensors": Save(
        lambda folder, number: save_tensors({"a": torch.full((9000,), float(number))}, folder / "a.safetensors"),
        lambda folder: int((folder / "a.safetensors").read_bytes()[-1] == 64) + 1,  # 2.0 ends with this byte
    ),
    "log": Save(lambda folder, number: append_line(folder / "log", str(number) * 9000), _read_log),
}


def _again_with_faults() -> int:
    """Compile the faults, and start again with them."""
    with TemporaryDirectory() as scratch:
        library = Path(scratch) / "write_faults.so"
        source = Path(__file__).with_suffix(".c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        environment = os.environ | {"LD_PRELOAD": str(library)}
        return subprocess.run([sys.executable, "-W", "ignore", *sys.argv], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
