"""Traversal trial: folders of a stranger that reach outside, carry code, or claim absurd sizes are opened.

    python dev/traversal_trial.py --folders 500        a few minutes on one core
    python dev/traversal_trial.py --folders 30         the short form, which the tests run

Each round plants one attack in a copy of a run, a model or a comparison, without a manifest, and does with the folder
what users do. A folder beside it must not be opened or changed, no planted code may run, and what is raised must be an
error of quickstudy. Exits with 1 otherwise.
"""

import argparse
import json
import os
import pickle
import random
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NoReturn

import torch
from damage_trial import USES, copy_of, make_folders, quick_pages

from quickstudy.errors import QuickstudyError

NAMES = ("run", "model", "comparison")
LIMIT = 60  # seconds that a folder may take
_OUTSIDE: list[str] = []  # the paths that Python opened in the folder outside
_watched: list[Path] = []
Attack = Callable[[Path, Path, random.Random], object]


def main() -> int:
    """Run the trial, and print what became of the attacks."""
    options = _options()
    torch.set_num_threads(1)
    chooser, outcomes, wrong = random.Random(options.seed), Counter[str](), []
    sys.addaudithook(_watch)
    signal.signal(signal.SIGALRM, _too_long)
    with TemporaryDirectory() as scratch, quick_pages():
        inputs = Path(scratch)
        make_folders(inputs)
        for number in range(options.folders):
            name, attack = chooser.choice(NAMES), list(ATTACKS)[number % len(ATTACKS)]
            folder, outside = copy_of(inputs, name), _new_outside(inputs)
            (folder / "manifest.json").unlink(missing_ok=True)
            before = _content(outside)
            ATTACKS[attack](folder, outside, chooser)
            _OUTSIDE.clear()
            _watched[:] = [outside]
            outcome = _try(name, folder, inputs)
            _watched.clear()
            faults = [outcome] if outcome not in ("refused", "opened") else []
            faults += [f"{path} was opened" for path in _OUTSIDE]
            faults += ["the folder outside was changed"] if _content(outside) != before else []
            faults += ["planted code ran"] if (inputs / "ran").exists() else []
            (inputs / "ran").unlink(missing_ok=True)
            outcomes[f"{attack}: {'wrong' if faults else outcome}"] += 1
            wrong += [f"folder {number}, {name}, {attack}: {fault}" for fault in faults]
    print(*(f"{count:5} {outcome}" for outcome, count in sorted(outcomes.items())), sep="\n")
    print(*wrong, f"{options.folders} folders, {len(wrong)} wrong", sep="\n")
    return 1 if wrong else 0


def _try(name: str, folder: Path, inputs: Path) -> str:
    signal.alarm(LIMIT)
    try:
        USES[name](folder, inputs)
    except QuickstudyError:
        return "refused"
    except Exception:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    return "opened"


def _link_file(folder: Path, outside: Path, chooser: random.Random) -> None:
    file = chooser.choice(_files(folder))
    file.unlink()
    target = outside / "secret.json"
    file.symlink_to(target if chooser.random() < 0.5 else os.path.relpath(target, file.parent))


def _link_folder(folder: Path, outside: Path, chooser: random.Random) -> None:
    folders = [path for path in folder.rglob("*") if path.is_dir()] or [folder / "plots"]
    place = chooser.choice(folders)
    shutil.rmtree(place, ignore_errors=True)
    place.symlink_to(outside, target_is_directory=True)


def _link_twice(folder: Path, outside: Path, chooser: random.Random) -> None:
    (folder / "through").symlink_to(outside, target_is_directory=True)
    file = chooser.choice([path for path in _files(folder) if not path.is_symlink()])
    file.unlink()
    file.symlink_to(os.path.relpath(folder / "through" / "secret.json", file.parent))


def _device(folder: Path, _: Path, chooser: random.Random) -> None:
    file = chooser.choice(_files(folder))
    file.unlink()
    if chooser.random() < 0.5:
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")


def _manifest(folder: Path, outside: Path, chooser: random.Random) -> None:
    names = ("../outside/secret.json", str(outside / "secret.json"), "a/../../outside/secret.json", "..\\secret.json")
    hashes = {chooser.choice(names): "0" * 64}
    (folder / "manifest.json").write_text(json.dumps({"sha256": hashes, "records": hashes}), encoding="utf-8")


def _names(folder: Path, outside: Path, chooser: random.Random) -> None:
    """Put paths where names of learners, tasks and runs stand."""
    for file in _files(folder):
        if file.suffix in (".json", ".toml", ".jsonl"):
            text = file.read_text(encoding="utf-8")
            evil = chooser.choice((f"{outside}/secret", "../../outside/secret", "../outside/secret.json"))
            for name in ("majority", "gamma", "killed"):
                text = text.replace(name, evil.replace("\\", "\\\\"))
            file.write_text(text, encoding="utf-8")


class _Code:
    """Leaves a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def _pickle(folder: Path, outside: Path, chooser: random.Random) -> None:
    """Put pickles in place of weights and arrays, and beside them."""
    content = pickle.dumps(_Code(outside.parent / "ran"))
    binary = [file for file in _files(folder) if file.suffix in (".safetensors", ".npy", ".parquet")]
    for file in [chooser.choice(binary or _files(folder))]:
        file.write_bytes(content)
    for place in (folder, folder / "encoder"):
        if place.is_dir():
            for name in ("pytorch_model.bin", "seen.npy", "optimizer.pt", "training_args.bin"):
                (place / name).write_bytes(content)


def _module(folder: Path, outside: Path, chooser: random.Random) -> None:
    """Let the configuration name code in the folder."""
    code = f"import os\nos.mkdir({str(outside.parent / 'ran')!r})\nclass Evil: pass\n"
    for place in (folder, folder / "encoder"):
        if place.is_dir():
            for name in ("modeling_evil.py", "__init__.py", "conftest.py", "sitecustomize.py"):
                (place / name).write_text(code, encoding="utf-8")
    mapped = {"auto_map": {f"Auto{kind}": "modeling_evil.Evil" for kind in ("Config", "Model", "Tokenizer")}}
    changes: dict[str, object] = {
        "config.json": chooser.choice(
            (
                mapped,
                mapped | {"model_type": "evil"},
                {"_attn_implementation": "org/kernel"},
                {"architectures": ["Evil"]},
            )
        ),
        "tokenizer_config.json": {
            "auto_map": {"AutoTokenizer": ["modeling_evil.Evil", None]},
            "tokenizer_class": "Evil",
        },
        "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "modeling_evil.Evil"}],
    }
    for file in _files(folder):
        change = changes.get(file.name)
        if isinstance(change, dict):
            file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | change), encoding="utf-8")
        elif change:
            file.write_text(json.dumps(change), encoding="utf-8")


def _claims(folder: Path, _: Path, chooser: random.Random) -> None:
    """Let a file claim a size that no machine has."""
    for file in _files(folder):
        if file.suffix == ".safetensors" and chooser.random() < 0.5:
            header = json.dumps(
                {"a": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4 * 10**18]}}
            ).encode()
            file.write_bytes(chooser.choice((2**62, len(header))).to_bytes(8, "little") + header)
        if file.name == "config.json":
            values = json.loads(file.read_text(encoding="utf-8"))
            sizes = [key for key, value in values.items() if isinstance(value, int) and not key.endswith("_id")]
            if sizes:
                values[chooser.choice(sizes)] = chooser.choice((10**9, 10**12, 10**30))
            file.write_text(json.dumps(values), encoding="utf-8")
    shape = f"{{'descr': '<u4', 'fortran_order': False, 'shape': ({10**12},), }}\n".encode()
    (folder / "seen.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(shape).to_bytes(2, "little") + shape)


ATTACKS: dict[str, Attack] = {
    "a link to a file outside": _link_file,
    "a link to a folder outside": _link_folder,
    "a link through a link": _link_twice,
    "a pipe or a device": _device,
    "a manifest that names files outside": _manifest,
    "paths in place of names": _names,
    "pickles": _pickle,
    "code of its own": _module,
    "absurd sizes": _claims,
}


def _new_outside(inputs: Path) -> Path:
    outside = inputs / "damaged" / "outside"
    shutil.rmtree(outside, ignore_errors=True)
    outside.mkdir(parents=True)
    (outside / "secret.json").write_text('{"secret": 1}', encoding="utf-8")
    return outside


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _watched and isinstance(arguments[0], str | bytes):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if path.startswith(str(_watched[0].resolve())):
            _OUTSIDE.append(path)


def _too_long(_number: int, _frame: FrameType | None) -> NoReturn:
    raise TimeoutError(f"it took more than {LIMIT} s")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folders", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
