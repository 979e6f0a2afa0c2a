"""Recipe: every setting of a meta-training run, checked before anything starts.

A recipe is a TOML file, and `--set a.b=c` changes one setting. Unknown keys, wrong types and impossible values are
refused with the line on which they are written. The run folder keeps the recipe with all defaults filled in.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from quickstudy.errors import RecipeError, did_you_mean
from quickstudy.settings import OuterSettings, Positive, Rate
from quickstudy.storage.layout import RunFiles
from quickstudy.storage.reading import UnreadableError, parse_toml, read_text

SCRATCH = "scratch"  # the name of an encoder that is made for the run
Size = Positive | tuple[Positive, Positive]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
_UNKNOWN = {
    "extra_forbidden",
    "unexpected_keyword_argument",
}  # pydantic's names of the error, of models and of dataclasses
Place = Callable[[tuple[str, ...]], str]  # ("outer", "outer_lr") -> "recipe.toml:12"


def _in_memory(key: tuple[str, ...]) -> str:
    return "recipe: " + ".".join(key)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ScratchConfig(_Section):
    """A new encoder: the text that its tokenizer is trained on, and its size; see `quickstudy.models.scratch`."""

    text: str
    vocabulary: Annotated[int, Field(ge=100)] = 8000
    layers: Positive = 4
    hidden_size: Positive = 256
    heads: Positive = 4


class EncoderConfig(_Section):
    """Which encoder, and how it reads texts; None stands for the default of that kind of encoder.

    `revision` is a branch, a tag or a commit of an encoder on the Hub. A run keeps the commit that it loaded.
    """

    name: str = "minilm"
    revision: Annotated[str, Field(min_length=1)] | None = None
    pooling: Literal["mean", "cls", "pooler"] | None = None
    pair: Literal["joint", "separate"] | None = None
    normalize: bool | None = None
    max_length: Annotated[int, Field(ge=8)] = 128
    from_scratch: ScratchConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_new(cls, values: Any) -> Any:
        """Give a new encoder its name; it has no other."""
        if not isinstance(values, Mapping) or values.get("from_scratch") is None:
            return values
        if values.get("name", SCRATCH) != SCRATCH:
            raise ValueError(f"an encoder from scratch has no other name: leave out name = {values['name']!r}")
        return {**values, "name": SCRATCH}


class MethodConfig(BaseModel):
    """Which method; all other keys are settings of that method."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = "protonet"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the method."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _no_none(self) -> Self:
        # TOML has no null. None would be lost in the run's recipe, and the run would be opened with another setting.
        for key, value in self.settings.items():
            if value is None:
                raise ValueError(f"{key} cannot be None; leave it out for the default")
        return self


class TasksConfig(_Section):
    """Task references (see `quickstudy.data.reference`) for meta-training and meta-validation.

    `weights` says how often an episode is drawn from each reference of `train`, and `weights_end` how often at the end
    of the training; the weights move from one to the other in a straight line. Without them, all tasks count alike.
    """

    train: Annotated[list[str], Field(min_length=1)]
    validation: list[str] = []
    weights: list[Weight] | None = None
    weights_end: list[Weight] | None = None


class LanguageConfig(_Section):
    """Masked-language modelling beside the episodes; see `quickstudy.training.language`.

    The text is a reference to a corpus (see `quickstudy.data.reference`); by default that of the new encoder.
    """

    text: str | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    batch_size: Positive = 32
    masked: Annotated[float, Field(gt=0, lt=1)] = 0.15
    head_lr: Rate | None = None


class NamesConfig(_Section):
    """In which share of the episodes label texts are missing, wrong, or say nothing; see `tasks.name_mix`."""

    dropped: Share = 0.0
    shuffled: Share = 0.0
    coded: Share = 0.0


class EpisodesConfig(_Section):
    """The size of the episodes, how often each task is drawn, and what is done to label texts."""

    n_way: Size = (2, 5)
    k_shot: Size = (2, 8)
    n_query: Size = 4
    weighting: Literal["uniform", "size", "temperature"] = "uniform"
    temperature: Rate = 2.0
    names: NamesConfig = NamesConfig()


@dataclass(frozen=True)
class _Origin:
    """Where the settings were written. It does not count when recipes are compared."""

    place: Place = field(compare=False)


class Recipe(_Section):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[^/\\]+$")] = "run"  # it names the run folder
    seed: int = 0
    encoder: EncoderConfig = EncoderConfig()
    method: MethodConfig = MethodConfig()
    tasks: TasksConfig
    episodes: EpisodesConfig = EpisodesConfig()
    outer: OuterSettings = OuterSettings()
    language: LanguageConfig | None = None
    _origin: _Origin = PrivateAttr(_Origin(_in_memory))

    def place(self, key: str) -> str:
        """Return where a setting was written, for messages: `recipe.toml:12`, or `--set outer.outer_lr=1`."""
        return self._origin.place(tuple(key.split(".")))


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: A TOML file, or a run folder, whose recipe is read.
        overrides: `section.key=value` settings; values are TOML, or plain text.

    Raises:
        RecipeError: The recipe cannot be used; the error names the line or the override.
        RunError: A folder that is no run folder.
    """
    file = _recipe_file(Path(path))
    try:
        text = read_text(file)
    except UnreadableError as error:
        raise RecipeError(
            f"the recipe cannot be read ({error})",
            where=f"{file}:{error.line}" if error.line else str(file),
            fix="Check the path; a recipe is UTF-8 text.",
        ) from None
    try:
        values = parse_toml(text)
    except UnreadableError as error:
        raise RecipeError(
            f"not valid TOML ({error})",
            where=f"{file}:{error.line}" if error.line else str(file),
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


def _recipe_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = RunFiles(path)
    files.check_exist()
    return files.config


def check_recipe(values: Mapping[str, Any], place: Place = _in_memory) -> Recipe:
    """Check settings given as nested mappings.

    Args:
        values: Sections of settings.
        place: Says where a setting was written.

    Raises:
        RecipeError: The first mistake, and how many more there are.
    """
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        problems = error.errors()
        first = min(problems, key=lambda problem: problem["type"] not in _UNKNOWN)  # a typo explains what is missing
        key = _setting_key(first["loc"])
        raise RecipeError(_what(first, key, len(problems) - 1), where=place(key), fix=_fix(first, key)) from None
    recipe._origin = _Origin(place)
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """Return the resolved recipe as TOML."""
    return "\n".join(_toml_lines(recipe.model_dump(mode="json", exclude_none=True))) + "\n"


def _toml_lines(values: Mapping[str, Any], section: tuple[str, ...] = ()) -> list[str]:
    """Return the lines of a section: its settings first, then the sections in it."""
    lines = ["", f"[{'.'.join(section)}]"] if section else []
    lines += [f"{key} = {_toml(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for key, value in values.items():
        if isinstance(value, dict):
            lines += _toml_lines(value, (*section, key))
    return lines


def describe_differences(run: Recipe, asked: Recipe) -> list[str]:
    """Return the settings in which the recipe of a run and another one differ, each with both values.

    >>> run = check_recipe({"tasks": {"train": ["samples"]}})
    >>> asked = check_recipe({"seed": 1, "method": {"scale": 2.0}, "tasks": {"train": ["samples"]}})
    >>> describe_differences(run, asked)
    ['seed: the run has 0, asked for 1', 'method.scale: the run has no value, asked for 2.0']
    """
    before, after = _values(run), _values(asked)
    return [
        f"{key}: the run has {before.get(key, 'no value')}, asked for {after.get(key, 'no value')}"
        for key in dict.fromkeys((*before, *after))
        if before.get(key) != after.get(key)
    ]


def _values(recipe: Recipe) -> dict[str, str]:
    """Return every setting that has a value, as TOML, by its name (`outer.outer_lr`)."""
    return _flat_values(recipe.model_dump(mode="json", exclude_none=True))


def _flat_values(entries: Mapping[str, Any], section: str = "") -> dict[str, str]:
    values: dict[str, str] = {}
    for name, entry in entries.items():
        key = f"{section}{name}"
        values |= _flat_values(entry, f"{key}.") if isinstance(entry, dict) else {key: _toml(entry)}
    return values


def _toml(value: object) -> str:
    # JSON is TOML for finite numbers, booleans, texts and lists of them, once DEL is escaped.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")


def _apply(values: dict[str, Any], override: str) -> tuple[tuple[str, ...], str]:
    """Change one setting of a recipe's TOML values; return its key, and where it was written."""
    name, equals, raw = override.partition("=")
    key = tuple(name.strip().split("."))
    where = f"--set {override}"
    if not equals or not all(key):
        raise RecipeError("not a setting", where=where, fix="Write --set section.key=value.")
    try:
        value = parse_toml(f"value = {raw}")["value"]
    except UnreadableError:
        value = raw
    section = values
    for heading in key[:-1]:
        section = section.setdefault(heading, {})
        if not isinstance(section, dict):
            raise RecipeError(f"{heading!r} is not a section", where=where, fix="Write --set section.key=value.")
    section[key[-1]] = value
    return key, where


def _line_of(text: str, key: tuple[str, ...]) -> int:
    """Return the line on which a key is written, else the line of its section, else 1."""
    section, section_line = "", 1
    wanted, name = ".".join(key[:-1]), key[-1] if key else ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
            section = header[1]
            if section in {wanted, ".".join(key)}:
                section_line = number
        elif section == wanted and re.match(rf"\s*{re.escape(name)}\s*=", line):
            return number
    return section_line


def _what(problem: ErrorDetails, key: tuple[str, ...], more: int) -> str:
    """Return what is wrong, in one sentence."""
    name, others = ".".join(key), f" (and {more} more)" if more else ""
    if problem["type"] in _UNKNOWN:
        return f"unknown setting {name!r}{others}"
    if problem["type"] == "missing":
        return f"the setting {name!r} is missing{others}"
    return f"{name} = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}{others}"


def _fix(problem: ErrorDetails, key: tuple[str, ...]) -> str | None:
    """Return how to mend it; None if `_what` already says so."""
    if problem["type"] == "missing":
        return 'A recipe needs at least: [tasks] train = ["samples:meta-train"]'
    if problem["type"] not in _UNKNOWN:
        return None
    return did_you_mean(key[-1], _section_fields(key[:-1]))


def _setting_key(place: Sequence[int | str]) -> tuple[str, ...]:
    """Return the setting at a place of pydantic's, which goes on with a position in a list or a branch of a union."""
    key: tuple[str, ...] = ()
    while len(key) < len(place) and _section_fields(key):
        key = (*key, str(place[len(key)]))
    return key


def _section_fields(section: tuple[str, ...]) -> Mapping[str, object]:
    """Return the settings and sections in a section by name, each with its type; none if it is no section."""
    kind: Any = Recipe
    for name in section:
        kind = _fields_of(kind).get(name)
    return _fields_of(kind)


def _fields_of(kind: Any) -> Mapping[str, object]:
    if isinstance(kind, type) and is_dataclass(kind):
        return {entry.name: entry.type for entry in fields(kind)}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: entry.annotation for name, entry in kind.model_fields.items()}
    return next(filter(None, map(_fields_of, get_args(kind))), {})  # a section that may be missing: `Section | None`
