"""Checkpoint: meta-parameters, optimizer moments and a step number, as safetensors and JSON; nothing is pickled.

    meta_parameters.safetensors    optimizer.safetensors    state.json (step, best, hashes of the two files)

A checkpoint replaces the one before it in a single rename, and its hashes are checked when it is read, so a half-written or
damaged one is refused and never trained from.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from quickstudy.errors import RunError
from quickstudy.manifest import find_changed, hash_files
from quickstudy.storage import new_folder, write_json

_WEIGHTS, _MOMENTS, _STATE = "meta_parameters.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True, slots=True)
class TrainState:
    """Where the outer loop stands.

    Attributes:
        step: Steps done.
        best: Best meta-validation score so far; None without meta-validation.
        stale: Meta-validations since then.
        seconds: Time spent.
    """

    step: int = 0
    best: float | None = None
    stale: int = 0
    seconds: float = 0.0


def save_checkpoint(
    folder: Path, learner: nn.Module, optimizer: torch.optim.Optimizer | None = None, **state: Any
) -> None:
    """Write a checkpoint; fields of `TrainState` and the optimizer are for going on with the training."""
    fresh = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    with new_folder(fresh) as part:
        save_file({name: p.detach().contiguous() for name, p in learner.named_parameters()}, part / _WEIGHTS)
        if optimizer:
            save_file(_moments(optimizer), part / _MOMENTS)
        hashes = hash_files(part, sorted(file.name for file in part.iterdir()))
        write_json(part / _STATE, {**asdict(TrainState(**state)), "sha256": hashes})
    if folder.exists():
        old = folder.with_name(f"{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        folder.replace(old)
        fresh.replace(folder)
        shutil.rmtree(old)
    else:
        fresh.replace(folder)


def load_checkpoint(
    folder: Path, learner: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> TrainState | None:
    """Read a checkpoint into the learner (and the optimizer); return where training stood, None if there is none.

    Raises:
        RunError: It is damaged.
    """
    for candidate in (folder, folder.with_name(f"{folder.name}.new"), folder.with_name(f"{folder.name}.old")):
        if (candidate / _STATE).is_file():
            folder = candidate
            break
    else:
        return None
    try:
        values = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        hashes = dict(values.pop("sha256"))
        state = TrainState(**values)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(folder / _STATE) from None
    for name in find_changed(folder, hashes):
        raise _damaged(folder / name)
    weights = load_file(folder / _WEIGHTS)
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            parameter.copy_(weights[name])
    if optimizer:
        _restore(optimizer, load_file(folder / _MOMENTS))
    return state


def _damaged(file: Path) -> RunError:
    return RunError("this checkpoint is damaged", where=str(file), fix="Remove its folder and train again.")


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state, keyed by the parameter's place in the groups."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        f"{place}.{name}": value.contiguous()
        for place, parameter in enumerate(params)
        for name, value in optimizer.state[parameter].items()
    }


def _restore(optimizer: torch.optim.Optimizer, moments: dict[str, Tensor]) -> None:
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for key, value in moments.items():
        place, name = key.split(".")
        parameter = params[int(place)]
        optimizer.state[parameter][name] = value if name == "step" else value.to(parameter.device)
