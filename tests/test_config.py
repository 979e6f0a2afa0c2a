"""Recipes: what is written is what is read back, --set means what it says, and the recipes that ship are sound."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import tiny_encoder
from quickstudy.build import build_learner
from quickstudy.config import Recipe, check_recipe, dump_recipe, load_recipe
from quickstudy.errors import RecipeError
from quickstudy.methods.catalog import METHODS, make
from quickstudy.settings import OuterSettings
from quickstudy.tasks.episode import EpisodeSpec

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))

AWKWARD = ('a "quoted" \\ text', "two\nlines\r\n", "tab\t", "naïve 😀 \u2028", "\x00\x7f\x85", "# [x]", "'''")

texts = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), st.sampled_from(AWKWARD))
rates = st.floats(min_value=1e-12, max_value=1e6)
sizes = st.one_of(st.integers(2, 9), st.tuples(st.integers(2, 4), st.integers(4, 9)))


@given(
    name=texts.filter(lambda name: not {"/", "\\"} & set(name)),
    train=st.lists(texts, min_size=1, max_size=3),
    seed=st.integers(-(2**40), 2**40),
    n_way=sizes,
    outer_lr=rates,
    normalize=st.sampled_from([None, True, False]),
    inner_lr=rates,
    adapts=texts,
    dropped=st.floats(0, 1),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # one file, rewritten
def test_a_dumped_recipe_is_read_back_equal(
    tmp_path: Path,
    name: str,
    train: list[str],
    seed: int,
    n_way: int | tuple[int, int],
    outer_lr: float,
    normalize: bool | None,
    inner_lr: float,
    adapts: str,
    dropped: float,
) -> None:
    recipe = check_recipe(
        {
            "name": name,
            "seed": seed,
            "encoder": {"normalize": normalize},
            "method": {"name": "fomaml", "inner_lr": inner_lr, "adapts": adapts},
            "tasks": {"train": train},
            "episodes": {"n_way": n_way, "names": {"dropped": dropped}},
            "outer": {"outer_lr": outer_lr},
        }
    )
    again = load_recipe(_write(tmp_path, dump_recipe(recipe)))
    assert again == recipe
    assert again.method.settings == {"inner_lr": inner_lr, "adapts": adapts}
    assert dump_recipe(again) == dump_recipe(recipe)


def test_what_toml_cannot_hold_is_refused() -> None:
    with pytest.raises(RecipeError, match="head_lr cannot be None"):
        check_recipe({"method": {"name": "fomaml", "head_lr": None}, "tasks": {"train": ["samples"]}})


def test_only_the_training_tasks_have_no_default(tmp_path: Path) -> None:
    recipe = load_recipe(_write(tmp_path, '[tasks]\ntrain = ["samples"]\n'))
    assert recipe == Recipe.model_validate({"tasks": {"train": ["samples"], "validation": []}})
    assert (recipe.name, recipe.seed) == ("run", 0)
    assert (recipe.encoder.name, recipe.encoder.pooling, recipe.encoder.pair) == ("minilm", None, None)
    assert (recipe.method.name, recipe.method.settings) == ("protonet", {})
    with pytest.raises(RecipeError, match=r"the setting 'tasks.train' is missing"):
        load_recipe(_write(tmp_path, "[tasks]\n"))


@pytest.mark.parametrize(
    ("override", "place", "value"),
    [
        ("seed=7", ("seed",), 7),
        ("seed = 7", ("seed",), 7),
        ("outer.outer_lr=2e-4", ("outer", "outer_lr"), 2e-4),
        ("outer.outer_lr=1", ("outer", "outer_lr"), 1.0),
        ("name=second", ("name",), "second"),
        ('name="two words"', ("name",), "two words"),
        ("name=two words", ("name",), "two words"),
        ("encoder.name=/models/tiny-encoder", ("encoder", "name"), "/models/tiny-encoder"),
        ("encoder.normalize=true", ("encoder", "normalize"), True),
        ("episodes.n_way=[2, 3]", ("episodes", "n_way"), (2, 3)),
        ("episodes.n_way=3", ("episodes", "n_way"), 3),
        ("episodes.names.dropped=0.25", ("episodes", "names", "dropped"), 0.25),
        ('tasks.train=["a.csv", "b.csv"]', ("tasks", "train"), ["a.csv", "b.csv"]),
        ('tasks.train=["glue:rte?path=data/glue&label=y"]', ("tasks", "train"), ["glue:rte?path=data/glue&label=y"]),
        ("tasks.validation=[]", ("tasks", "validation"), []),
        ("method.inner_lr=0.5", ("method", "settings", "inner_lr"), 0.5),
        ("method.adapts=layers:-1", ("method", "settings", "adapts"), "layers:-1"),
    ],
)
def test_an_override_sets_one_value(tmp_path: Path, override: str, place: tuple[str, ...], value: object) -> None:
    file = _write(tmp_path, '[tasks]\ntrain = ["samples"]\nvalidation = ["other.csv"]\n')
    changed = load_recipe(file, [override])
    setting: Any = changed
    for name in place:
        setting = setting[name] if isinstance(setting, dict) else getattr(setting, name)
    assert setting == value
    assert type(setting) is type(value)
    rest, before = changed.model_dump(), load_recipe(file).model_dump()
    for name in (p for p in place[:-1] if p != "settings"):
        rest, before = rest[name], before[name]
    assert {k: v for k, v in rest.items() if k != place[-1]} == {k: v for k, v in before.items() if k != place[-1]}


def test_the_last_override_of_a_setting_wins(tmp_path: Path) -> None:
    file = _write(tmp_path, 'seed = 1\n[tasks]\ntrain = ["samples"]\n')
    assert load_recipe(file, ["seed=2", "seed=3"]).seed == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "not a setting"),
        ("=3", "not a setting"),
        ("outer..outer_lr=3", "not a setting"),
        ("seed.low=3", "'seed' is not a section"),
        ("outer.outer_step=3", "Did you mean 'outer_steps'?"),
        ("outer.outer_lr=fast", "outer.outer_lr = 'fast'"),
        ("outer.outer_lr=inf", "outer.outer_lr = inf"),
        ("outer.outer_lr=nan", "outer.outer_lr = nan"),
        ("language.shares=0.1", "unknown setting 'language.shares'\n  Did you mean 'share'?"),
        ("episodes.names.drop=0.1", "unknown setting 'episodes.names.drop'\n  Did you mean 'dropped'?"),
        ("episodes.names.coded=1.5", "episodes.names.coded = 1.5"),
    ],
)
def test_a_bad_override_is_refused_by_name(tmp_path: Path, override: str, message: str) -> None:
    file = _write(tmp_path, 'seed = 1\n[tasks]\ntrain = ["samples"]\n')
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, [override])
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"--set {override}")


def test_settings_of_the_outer_loop_that_are_given_as_an_object_are_checked_too() -> None:
    tasks = {"train": ["samples"]}
    assert check_recipe({"tasks": tasks, "outer": OuterSettings(outer_steps=3)}).outer.warmup == 0
    with pytest.raises(RecipeError, match=r"outer\.outer_steps = 0"):
        check_recipe({"tasks": tasks, "outer": OuterSettings(outer_steps=0)})


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_that_ships_can_be_used(file: Path) -> None:
    recipe = load_recipe(file)
    assert recipe.name == file.stem
    assert check_recipe(recipe.model_dump()) == recipe
    assert (recipe.outer.warmup_steps or 0) < recipe.outer.outer_steps
    assert not set(recipe.tasks.train) & set(recipe.tasks.validation)
    assert recipe.method.name in METHODS
    EpisodeSpec(recipe.episodes.n_way, recipe.episodes.k_shot, recipe.episodes.n_query)
    assert make(recipe.method.name, tiny_encoder(), recipe.method.settings).meta_trains


def test_the_seed_of_a_recipe_reaches_what_a_method_starts_with() -> None:
    def start(seed: int) -> torch.Tensor:
        recipe = check_recipe({"seed": seed, "method": {"name": "relation"}, "tasks": {"train": ["samples"]}})
        return torch.cat([p.flatten() for p in build_learner(recipe, tiny_encoder()).parameters()])

    assert torch.equal(start(0), start(0))
    assert not torch.equal(start(0), start(1))


def test_every_method_that_meta_trains_has_a_recipe() -> None:
    methods = {load_recipe(file).method.name for file in RECIPES}
    assert methods == {name for name in METHODS if make(name, tiny_encoder()).meta_trains}


def _write(folder: Path, text: str) -> Path:
    file = folder / "recipe.toml"
    file.write_text(text, encoding="utf-8")
    return file
