"""Recipe: every setting of a meta-training run, checked before anything starts.

A recipe is a TOML file; `--set a.b=c` changes one setting. Unknown keys, wrong types and impossible values are refused with
the line they stand on. The resolved recipe is kept in the run folder as `config.toml`.
"""

import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from quickstudy.errors import RecipeError, did_you_mean

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Size = Positive | tuple[Positive, Positive]
Place = Callable[[tuple[str, ...]], str]  # ("outer", "outer_lr") -> "recipe.toml:12"


def _in_memory(key: tuple[str, ...]) -> str:
    return "recipe: " + ".".join(key)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EncoderConfig(_Section):
    """Which encoder, and how it reads (None: the default for its kind)."""

    name: str = "minilm"
    pooling: Literal["mean", "cls", "pooler"] | None = None
    pair: Literal["joint", "separate"] | None = None
    normalize: bool | None = None
    max_length: Annotated[int, Field(ge=8)] = 128


class MethodConfig(BaseModel):
    """Which method; all other keys are its own settings."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = "protonet"

    @property
    def settings(self) -> dict[str, Any]:
        """The method's own settings."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _no_none(self) -> Self:
        # TOML has no null: it would be lost in `config.toml`, and the run would be opened with another setting.
        for key, value in self.settings.items():
            if value is None:
                raise ValueError(f"{key} cannot be None; leave it out for the default")
        return self


class TasksConfig(_Section):
    """Task references (see `quickstudy.data.reference`) for meta-training and meta-validation."""

    train: Annotated[list[str], Field(min_length=1)]
    validation: list[str] = []


class EpisodesConfig(_Section):
    """Size of the episodes and how often each task comes."""

    n_way: Size = (2, 5)
    k_shot: Size = (2, 8)
    n_query: Size = 4
    weighting: Literal["uniform", "size", "temperature"] = "uniform"
    temperature: Rate = 2.0


class OuterConfig(_Section):
    """The outer loop (see `quickstudy.training.outer.OuterSettings`)."""

    outer_steps: Positive = 500
    outer_lr: Rate = 3e-5
    method_lr: Rate = 1e-2
    meta_batch_size: Positive = 4
    warmup_steps: Annotated[int, Field(ge=0)] | None = None  # a tenth of the steps, 50 at most
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: Rate = 1.0
    trains: Literal["all", "layers"] = "layers"
    validate_every: Positive = 100
    patience: Annotated[int, Field(ge=0)] = 0
    keep: Literal["best", "last"] = "best"
    validation_episodes: Positive = 40
    mixed_precision: Literal["no", "bf16"] = "no"  # fp16 would need its gradients unscaled
    trackers: list[str] = []


@dataclass(frozen=True)
class _Origin:
    """Where the settings were written; recipes are equal wherever they come from."""

    place: Place = field(compare=False)


class Recipe(_Section):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[^/\\]+$")] = "run"  # it names the run folder
    seed: int = 0
    encoder: EncoderConfig = EncoderConfig()
    method: MethodConfig = MethodConfig()
    tasks: TasksConfig
    episodes: EpisodesConfig = EpisodesConfig()
    outer: OuterConfig = OuterConfig()
    _origin: _Origin = PrivateAttr(_Origin(_in_memory))

    def place(self, key: str) -> str:
        """Return where a setting was written, for messages: `recipe.toml:12`, or `--set outer.outer_lr=1`."""
        return self._origin.place(tuple(key.split(".")))


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: TOML file.
        overrides: `section.key=value` settings; values are TOML, or plain text.

    Raises:
        RecipeError: With `file:line` (or the override) and the way out.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"the recipe cannot be read ({error})", where=str(file), fix="Check the path; a recipe is UTF-8 text."
        ) from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        line = found[1] if found else len(text.splitlines())  # without a number it means the end of the file
        raise RecipeError(
            f"not valid TOML ({error})",
            where=f"{file}:{line}",
            fix="Texts need quotes, lists need brackets, each setting its own line.",
        ) from None
    origin: dict[tuple[str, ...], str] = {}
    for override in overrides:
        key, where = _apply(values, override)
        origin[key] = where

    def place(key: tuple[str, ...]) -> str:
        overriding = [override for name, override in origin.items() if name[: len(key)] == key]
        return overriding[0] if overriding else f"{file}:{_line_of(text, key)}"

    return check_recipe(values, place)


def check_recipe(values: Mapping[str, Any], place: Place = _in_memory) -> Recipe:
    """Check settings given as nested mappings.

    Args:
        values: Sections of settings.
        place: Says where a setting was written.

    Raises:
        RecipeError: The first thing wrong, and how many more there are.
    """
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        problems = error.errors()
        first = min(
            problems, key=lambda problem: problem["type"] != "extra_forbidden"
        )  # a typo explains what is missing
        key = tuple(map(str, first["loc"][:2]))  # what follows is a position in a list or a branch of a union
        raise RecipeError(_what(first, key, len(problems) - 1), where=place(key), fix=_fix(first, key)) from None
    recipe._origin = _Origin(place)
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """Return the resolved recipe as TOML."""
    values = recipe.model_dump(mode="json", exclude_none=True)
    lines = [f"{key} = {_toml(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for section, entries in values.items():
        if isinstance(entries, dict):
            lines += ["", f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in entries.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    # For finite numbers, booleans, texts and lists of them JSON is TOML, once DEL is escaped.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")


def _apply(values: dict[str, Any], override: str) -> tuple[tuple[str, ...], str]:
    name, equals, raw = override.partition("=")
    key = tuple(name.strip().split("."))
    where = f"--set {override}"
    if not equals or not all(key):
        raise RecipeError("not a setting", where=where, fix="Write --set section.key=value.")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    place = values
    for part in key[:-1]:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise RecipeError(f"{part!r} is not a section", where=where, fix="Write --set section.key=value.")
    place[key[-1]] = value
    return key, where


def _line_of(text: str, key: tuple[str, ...]) -> int:
    """Return the line a key stands on; of its section if it is missing, 1 if that is missing too."""
    section, found = "", 1
    wanted, name = ".".join(key[:-1]), key[-1] if key else ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
            section = header[1]
            if section in {wanted, ".".join(key)}:
                found = number
        elif section == wanted and re.match(rf"\s*{re.escape(name)}\s*=", line):
            return number
    return found


def _what(problem: Any, key: tuple[str, ...], more: int) -> str:
    name, others = ".".join(key), f" (and {more} more)" if more else ""
    if problem["type"] == "extra_forbidden":
        return f"unknown setting {name!r}{others}"
    if problem["type"] == "missing":
        return f"the setting {name!r} is missing{others}"
    return f"{name} = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}{others}"


def _fix(problem: Any, key: tuple[str, ...]) -> str | None:
    if problem["type"] == "missing":
        return 'A recipe needs at least: [tasks] train = ["samples:meta-train"]'
    if problem["type"] != "extra_forbidden":
        return None
    model: Any = Recipe
    for part in key[:-1]:
        model = model.model_fields[part].annotation
    return did_you_mean(key[-1], model.model_fields)
