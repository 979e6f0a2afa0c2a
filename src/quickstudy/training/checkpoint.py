"""Checkpoint: meta-parameters, the optimizer's moments and a step number, as safetensors and JSON. Nothing is pickled.

    meta_parameters.safetensors
    optimizer.safetensors
    state.json                     where training stands, and the hashes of the two files

A new checkpoint takes the place of the old one only when it is whole, and its hashes are checked when it is read. So a
half-written or damaged checkpoint is refused, and training never starts from it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from torch import Tensor, nn

from quickstudy.errors import RunError
from quickstudy.models.weights import find_not_finite
from quickstudy.storage.files import finite, replaced_folder, save_tensors, surviving_folder, write_json
from quickstudy.storage.manifest import find_changed, hash_files
from quickstudy.storage.reading import read_json, seal, unseal
from quickstudy.training.kept import is_better

_NAMES = ("step", "exp_avg", "exp_avg_sq")  # of AdamW's state of a parameter
_WEIGHTS, _MOMENTS = "meta_parameters.safetensors", "optimizer.safetensors"
STATE = "state.json"  # by this file a checkpoint is recognised


@dataclass(frozen=True, slots=True)
class TrainState:
    """Where the outer loop stands.

    Attributes:
        step: Outer steps done.
        best: The best meta-validation score so far; None without meta-validation.
        stale: Meta-validations since then.
        seconds: Seconds spent.
        left_out: Episodes that were left out in each of the last outer steps; see `training.sick`.
    """

    step: int = 0
    best: float | None = None
    stale: int = 0
    seconds: float = 0.0
    left_out: tuple[int, ...] = ()

    def validated(self, score: float) -> "TrainState":
        """Return the state after a meta-validation.

        >>> TrainState(best=0.5).validated(0.4).validated(0.4)
        TrainState(step=0, best=0.5, stale=2, seconds=0.0, left_out=())
        """
        if is_better(score, self.best):
            return replace(self, best=score, stale=0)
        return replace(self, stale=self.stale + 1)


def save_checkpoint(
    folder: Path, learner: nn.Module, state: TrainState, optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Write a checkpoint.

    Args:
        folder: Where; the checkpoint that is there is replaced.
        learner: Whose parameters to save.
        state: Where training stands.
        optimizer: Whose moments to save; they are needed only to go on with the training.

    Raises:
        RunError: It cannot be written; the checkpoint that was there stays.
    """
    with replaced_folder(folder) as new:
        save_tensors(dict(learner.named_parameters()), new / _WEIGHTS)
        if optimizer:
            save_tensors(_moments(optimizer), new / _MOMENTS)
        hashes = hash_files(new, sorted(file.name for file in new.iterdir()))
        write_json(new / STATE, seal(finite({**asdict(state), "sha256": hashes})))


def load_checkpoint(
    folder: Path, learner: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> TrainState | None:
    """Read a checkpoint into the learner, and into the optimizer if one is given.

    Returns:
        Where training stood; None if there is no checkpoint.

    Raises:
        RunError: The checkpoint is damaged.
    """
    whole = surviving_folder(folder, STATE)
    if whole is None:
        return None
    state = _checked_state(whole)
    weights = _read_tensors(whole / _WEIGHTS)
    for name, parameter in learner.named_parameters():
        if name not in weights or weights[name].shape != parameter.shape:
            raise RunError(
                f"this checkpoint does not fit the method, which learns {name!r} of the shape {tuple(parameter.shape)}",
                where=str(whole / _WEIGHTS),
                fix="Another version of quickstudy wrote it: finish it with that version, or start a new run.",
            )
    moments = _checked_moments(optimizer, whole / _MOMENTS) if optimizer else {}
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            parameter.copy_(weights[name])
    if optimizer:
        _restore(optimizer, moments)
    return state


def _read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file; one whose hash is right can still be one that somebody else wrote."""
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except Exception as error:  # a damaged file fails in many ways
        raise _damaged(file) from error
    if any(not tensor.is_floating_point() for tensor in tensors.values()) or find_not_finite(tensors):
        raise _damaged(file)
    return tensors


def _checked_moments(optimizer: torch.optim.Optimizer, file: Path) -> dict[str, Tensor]:
    """Return the optimizer's state, each entry in the shape of its parameter, or a single number."""
    moments, parameters = _read_tensors(file), _parameters(optimizer)
    for key, value in moments.items():
        place, _, name = key.partition(".")
        fits = place.isdecimal() and int(place) < len(parameters) and name in _NAMES
        if not fits or value.shape != (() if name == "step" else parameters[int(place)].shape):
            raise _damaged(file)
    places = {key.partition(".")[0] for key in moments}
    if any(f"{place}.{name}" not in moments for place in places for name in _NAMES):
        raise _damaged(file)
    return moments


def read_state(folder: Path) -> TrainState | None:
    """Return where training stood at a checkpoint; None if there is no checkpoint.

    Raises:
        RunError: The checkpoint is damaged.
    """
    whole = surviving_folder(folder, STATE)
    return None if whole is None else _checked_state(whole)


def _checked_state(folder: Path) -> TrainState:
    """Return the state of a checkpoint once the hashes of its files are checked."""
    try:
        values = unseal(read_json(folder / STATE))
        hashes = dict(values.pop("sha256"))
        values["left_out"] = tuple(values.get("left_out", ()))
        known = TrainState(**values)  # which refuses a name that it does not know; its types are checked next
        state = TypeAdapter(TrainState).validate_python(asdict(known))
        if min(state.step, state.stale, state.seconds, *state.left_out) < 0:
            raise ValueError("a count is negative")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(folder / STATE) from None
    for name in find_changed(folder, hashes):
        raise _damaged(folder / name)
    return state


def _damaged(file: Path) -> RunError:
    return RunError("this checkpoint is damaged", where=str(file), fix="Remove its folder and train again.")


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state by `place.name`; the place is that of the parameter in the optimizer's groups."""
    return {
        f"{place}.{name}": value
        for place, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state[parameter].items()
    }


def _restore(optimizer: torch.optim.Optimizer, moments: Mapping[str, Tensor]) -> None:
    parameters = _parameters(optimizer)
    for key, value in moments.items():
        place, name = key.split(".")
        parameter = parameters[int(place)]
        optimizer.state[parameter][name] = value if name == "step" else value.to(parameter.device)


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
