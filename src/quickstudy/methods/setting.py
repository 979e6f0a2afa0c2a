"""Setting: what a recipe can set of a method. It is read from the signature and the docstring of the method's function.

    scale: AboveZero = 10.0                      a setting, with its type, its range and its default
    inner: InnerLoop = InnerLoop()               a dataclass: each of its fields is a setting
    Args: scale: Initial factor ..               the meaning of a setting

A range is part of the annotation, so there is one place that says which values are possible.
"""

import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from quickstudy.errors import RecipeError, did_you_mean


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers that a setting can be.

    Attributes:
        zero: Whether 0 is one of them.
        most: The largest of them.
    """

    zero: bool
    most: float = math.inf


NotNegative = Annotated[float, Range(zero=True)]
AboveZero = Annotated[float, Range(zero=False)]
Count = Annotated[int, Range(zero=True)]
Steps = Annotated[int, Range(zero=False, most=10_000)]
Width = Annotated[int, Range(zero=False, most=8_192)]  # of a network: more would take gigabytes

_NOT_SETTINGS = {"encoder", "name"}  # parameters of a method's function that a recipe cannot set


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a method.

    Attributes:
        name: Its key in a recipe.
        kinds: The types that it can have; empty if it is one of some words.
        words: The words that it can be; empty if it has a type.
        zero: Whether a number may be 0.
        most: The largest that a number may be.
        default: Its value if the recipe says nothing.
        meaning: What it does, from the docstring.
        group: Name of the parameter that it is a field of; None if it is a parameter itself.
    """

    name: str
    kinds: tuple[type, ...]
    words: tuple[str, ...]
    zero: bool
    most: float
    default: object
    meaning: str
    group: str | None = None

    @property
    def type_text(self) -> str:
        """Its type as it is written in a signature.

        >>> Setting("c", (float, NoneType), (), False, math.inf, 1.0, "How much an example can pull.").type_text
        'float | None'
        """
        if self.words:
            return f"Literal[{', '.join(map(repr, self.words))}]"
        return " | ".join("None" if kind is NoneType else kind.__name__ for kind in self.kinds)

    def check(self, method: str, value: object) -> None:
        """Raise `RecipeError` unless the setting can have this value in a method of that name."""
        if self.words:
            if value not in self.words:
                what = f"{self.name} = {value!r}: method {method!r} takes one of these"
                raise RecipeError(what, fix=did_you_mean(str(value), self.words))
            return
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and float in self.kinds) and type(value) not in self.kinds:
            expected = " or ".join(kind.__name__ for kind in self.kinds if kind is not NoneType)
            raise RecipeError(f"{self.name} = {value!r}: method {method!r} takes {expected} here")
        if isinstance(value, int | float) and number:
            self._check_range(value)

    def _check_range(self, value: float) -> None:
        if not 0 <= value < math.inf:
            fix = "Give a finite number that is not negative."
        elif value == 0 and not self.zero:
            fix = "Give a number above 0."
        elif value > self.most:
            fix = f"Give at most {self.most:,}."
        else:
            return
        raise RecipeError(f"{self.name} = {value!r} is not possible", fix=fix)


def read_settings(function: Callable[..., Any]) -> dict[str, Setting]:
    """Return the settings of a method's function, by their key in a recipe, in the order of its signature.

    >>> from quickstudy.methods.catalog import METHODS
    >>> setting = read_settings(METHODS["protonet"])["scale"]
    >>> setting.default, setting.type_text, setting.zero
    (10.0, 'float', False)
    """
    hints, meanings = get_type_hints(function, include_extras=True), read_meanings(function.__doc__ or "")
    settings: dict[str, Setting] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in _NOT_SETTINGS:
            continue
        if is_dataclass(hints[name]):
            settings |= {each.name: each for each in _fields(name, hints[name], parameter.default)}
        else:
            settings[name] = _setting(name, hints[name], parameter.default, meanings.get(name, ""))
    return settings


def arrange(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a method's function for some values of its settings."""
    settings, parameters = read_settings(function), inspect.signature(function).parameters
    arguments = {key: value for key, value in values.items() if settings[key].group is None}
    for group in {settings[key].group for key in values} - {None}:
        assert group
        changed = {key: value for key, value in values.items() if settings[key].group == group}
        arguments[group] = replace(parameters[group].default, **changed)
    return arguments


def describe_parameters(function: Callable[..., Any]) -> list[str]:
    """Return the parameters of a method's function and its settings by default, one line each.

    >>> from quickstudy.methods.catalog import METHODS
    >>> describe_parameters(METHODS["matching"])
    ['encoder: quickstudy.models.encoder.Encoder', 'scale: float = 10.0']
    """
    settings = read_settings(function)
    lines = []
    for name, parameter in inspect.signature(function).parameters.items():
        held = [each for each in settings.values() if name in (each.name, each.group)]
        lines += [f"{each.name}: {each.type_text} = {each.default!r}" for each in held] or [str(parameter)]
    return lines


def read_meanings(docstring: str) -> dict[str, str]:
    r"""Return what the section `Args` or `Attributes` of a docstring says of each name, on one line.

    >>> read_meanings("A rule.\n\nArgs:\n    c: How much an example\n        can pull.\n\nMore.")
    {'c': 'How much an example can pull.'}
    """
    section = re.search(r"^(?:Args|Attributes):\n((?:    .*\n?)+)", inspect.cleandoc(docstring), re.MULTILINE)
    entries = re.split(r"^    (?=\w+: )", section[1], flags=re.MULTILINE) if section else []
    pairs = (entry.split(": ", 1) for entry in entries if entry)
    return {name: " ".join(text.split()) for name, text in pairs}


def _fields(group: str, kind: Any, default: Any) -> Iterator[Setting]:
    hints, meanings = get_type_hints(kind, include_extras=True), read_meanings(kind.__doc__ or "")
    for field in fields(kind):
        yield _setting(field.name, hints[field.name], getattr(default, field.name), meanings.get(field.name, ""), group)


def _setting(name: str, hint: Any, default: object, meaning: str, group: str | None = None) -> Setting:
    kinds, words, allowed = _read_hint(hint)
    return Setting(name, kinds, words, allowed.zero, allowed.most, default, meaning, group)


def _read_hint(hint: Any) -> tuple[tuple[type, ...], tuple[str, ...], Range]:
    """Return the types of an annotation, its words, and the range of a number."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return (), arguments, Range(zero=True)
    if origin is Annotated:
        kinds, words, allowed = _read_hint(arguments[0])
        return kinds, words, _narrowed(allowed, *(each for each in arguments[1:] if isinstance(each, Range)))
    if origin in (Union, UnionType):
        members = [_read_hint(argument) for argument in arguments]
        kinds = tuple(kind for each, _, _ in members for kind in each)
        return kinds, (), _narrowed(*(allowed for _, _, allowed in members))
    return (hint,), (), Range(zero=True)


def _narrowed(*ranges: Range) -> Range:
    return Range(all(each.zero for each in ranges), min(each.most for each in ranges))
