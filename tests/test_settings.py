"""The settings of the methods: each is documented, checked by its annotation, and reaches the learner."""

import re
from inspect import signature

import pytest

from conftest import tiny_encoder
from quickstudy.errors import RecipeError
from quickstudy.methods.catalog import METHODS, check_setting, make
from quickstudy.methods.catalog.baseline_family import label_names
from quickstudy.methods.inner_loop import InnerLoop
from quickstudy.methods.label_names import LabelNames
from quickstudy.methods.setting import Setting, arrange, read_meanings, read_settings

FUNCTIONS = {**METHODS, "label-names": label_names}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_method_documents_every_argument_an_equation_an_example_and_its_source(name: str) -> None:
    function = FUNCTIONS[name]
    text = function.__doc__ or ""
    assert read_meanings(text).keys() == signature(function).parameters.keys()
    assert all(setting.meaning for setting in read_settings(function).values())
    assert "    >>> learner = " in text
    assert re.search(r"\n\n {8}.*(=|→|←|min_)", text), "no equation"
    assert re.search(r"(19|20)\d\d|no reference", text.split(">>>")[-1]), "no reference"


def test_the_fields_of_the_inner_loop_are_settings_with_the_defaults_of_the_method() -> None:
    settings = read_settings(METHODS["proto-maml"])
    assert list(settings) == ["adapts", "inner_lr", "head_lr", "inner_steps", "adapt_steps", "order", "scale", "names"]
    assert [settings[key].default for key in ("head_lr", "inner_steps", "order")] == [0.5, 5, "second"]
    assert {key for key, setting in settings.items() if setting.group == "inner"} == set(list(settings)[:5])


def test_a_method_of_one_s_own_needs_no_docstring() -> None:
    def method(encoder: object, *, scale: float = 2.0) -> None:
        raise AssertionError(scale)

    setting = read_settings(method)["scale"]
    assert (setting.default, setting.meaning) == (2.0, "")


def test_what_meta_trains_is_no_baseline() -> None:
    baselines = {"majority", "nearest-neighbour", "linear-probe", "finetune"}
    assert {name for name in METHODS if not make(name, tiny_encoder()).meta_trains} == baselines
    assert not LabelNames(tiny_encoder()).meta_trains


def test_values_are_arranged_into_the_arguments_of_the_function() -> None:
    arguments = arrange(METHODS["proto-maml"], {"inner_lr": 0.1, "scale": 2.0})
    assert arguments == {"inner": InnerLoop(inner_lr=0.1, head_lr=0.5), "scale": 2.0}
    learner = make("proto-maml", tiny_encoder(), {"adapts": "layers:-1", "inner_steps": 2, "adapt_steps": 7})
    assert (learner.partition.adapts, learner.inner_steps, learner.adapt_steps) == ("layers:-1", 2, 7)


@pytest.mark.parametrize(
    ("method", "key", "value", "message"),
    [
        ("anil", "adapts", "all", "method 'anil' has no setting 'adapts'\n  Did you mean 'adapt_steps'?"),
        ("fomaml", "order", "second", "method 'fomaml' has no setting 'order'"),
        ("maml", "inner", 1, "method 'maml' has no setting 'inner'"),
        ("maml", "encoder", 1, "method 'maml' has no setting 'encoder'"),
        ("linear-probe", "name", "x", "method 'linear-probe' has no setting 'name'"),
        ("maml", "inner_steps", 2.0, "inner_steps = 2.0: method 'maml' takes int here"),
        ("maml", "inner_steps", True, "inner_steps = True: method 'maml' takes int here"),
        ("maml", "adapts", 3, "adapts = 3: method 'maml' takes str here"),
        ("maml", "head_lr", "1", "head_lr = '1': method 'maml' takes float here"),
        ("maml", "inner_lr", -0.1, "inner_lr = -0.1 is not possible\n  Give a finite number that is not negative."),
        ("imaml", "strength", float("inf"), "strength = inf is not possible\n  Give a finite number"),
        ("imaml", "cg_steps", 0, "cg_steps = 0 is not possible\n  Give a number above 0."),
        ("meta-sgd", "rates", "step", "rates = 'step': method 'meta-sgd' takes one of these\n"),
    ],
)
def test_a_value_that_cannot_be_is_refused(method: str, key: str, value: object, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        check_setting(method, key, value)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("key", "value"),
    [("inner_lr", 0), ("head_lr", None), ("inner_steps", 1), ("inner_steps", 10_000), ("exact_steps", 2)],
)
def test_a_value_at_the_edge_of_its_range_is_taken(key: str, value: object) -> None:
    check_setting("maml", key, value)


def test_the_type_of_a_setting_is_written_as_in_a_signature() -> None:
    settings: dict[str, Setting] = read_settings(METHODS["meta-sgd"])
    assert [settings[key].type_text for key in ("adapts", "head_lr", "rates")] == [
        "str",
        "float | None",
        "Literal['entry', 'layer', 'layer-step']",
    ]
