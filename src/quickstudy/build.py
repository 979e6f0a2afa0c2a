"""Build: the only place where settings become objects."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from quickstudy.config import Recipe
from quickstudy.data.reference import load_tasks
from quickstudy.errors import QuickstudyError, RecipeError
from quickstudy.evaluation.episodic import episodic_score
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import check_method, check_setting, make
from quickstudy.models.cut import layer_stack
from quickstudy.models.encoder import Encoder
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.training.outer import OuterSettings


@dataclass(frozen=True)
class Built:
    """What a recipe describes, ready to run.

    Attributes:
        learner: The meta-learner on its untouched encoder.
        sampler: Meta-training episodes.
        outer: Settings of the outer loop.
        validate: Meta-validation score of a learner; None without validation tasks.
    """

    learner: MetaLearner
    sampler: EpisodeSampler
    outer: OuterSettings
    validate: Callable[[MetaLearner], float] | None


def build(recipe: Recipe, *, base: Path = Path()) -> Built:
    """Make everything a recipe describes.

    Args:
        recipe: The settings.
        base: Folder that relative data paths start from.

    Raises:
        QuickstudyError: Data, encoder or method cannot be had, or do not fit together.
    """
    _check_method(recipe)
    _check_outer(recipe)
    with _placed(recipe, "tasks.train"):
        train_tasks = load_tasks(recipe.tasks.train, base=base)
    with _placed(recipe, "tasks.validation"):
        validation_tasks = load_tasks(recipe.tasks.validation, base=base)
    shared = {task.name for task in train_tasks} & {task.name for task in validation_tasks}
    if shared:
        raise RecipeError(
            f"meta-training and meta-validation share the task {sorted(shared)[0]!r}",
            where=recipe.place("tasks.validation"),
            fix="A task is validated on tasks it was not trained on: take it out of one of the two lists.",
        )
    sizes = {name: getattr(recipe.episodes, name) for name in ("n_way", "k_shot", "n_query")}
    for name, size in sizes.items():
        with _placed(recipe, f"episodes.{name}"):
            EpisodeSpec(**{name: size})  # one by one, so that a message names the right line
    spec = EpisodeSpec(**sizes)
    weighting, temperature = recipe.episodes.weighting, recipe.episodes.temperature
    validate = None
    with _placed(recipe, "episodes.n_way"):
        sampler = EpisodeSampler(train_tasks, spec, seed=recipe.seed, weighting=weighting, temperature=temperature)
        if validation_tasks:
            held = EpisodeSampler(validation_tasks, spec, seed=recipe.seed + 1)
            validate = episodic_score(held, recipe.outer.validation_episodes)
    learner = build_learner(recipe)
    if not learner.meta_trains:
        raise RecipeError(
            f"{recipe.method.name!r} is a baseline: it learns nothing across tasks",
            where=recipe.place("method.name"),
            fix="Evaluate it directly, or choose another method.",
        )
    learner.prepare(train_tasks)
    names = {field.name for field in fields(OuterSettings)}
    chosen = {key: value for key, value in recipe.outer.model_dump().items() if key in names}
    if chosen["warmup_steps"] is None:
        chosen["warmup_steps"] = min(50, recipe.outer.outer_steps // 10)
    outer = OuterSettings(**chosen)
    if outer.trains == "layers":
        with _placed(recipe, "outer.trains"):
            layer_stack(learner.encoder.model)
    return Built(learner, sampler, outer, validate)


def build_learner(recipe: Recipe, encoder: Encoder | None = None) -> MetaLearner:
    """Make the recipe's method on an encoder, by default the recipe's own, untouched."""
    _check_method(recipe)
    name, settings = recipe.method.name, recipe.method.settings
    encoder = encoder or build_encoder(recipe)
    with _placed(recipe, "method.adapts"):
        return make(name, encoder, settings)


def build_encoder(recipe: Recipe) -> Encoder:
    """Load the recipe's untouched encoder."""
    choices = recipe.encoder.model_dump(exclude_none=True, exclude={"name"})
    with _placed(recipe, "encoder.name"):
        return Encoder.load(recipe.encoder.name, **choices)


def _check_method(recipe: Recipe) -> None:
    with _placed(recipe, "method.name"):
        check_method(recipe.method.name)
    for key, value in recipe.method.settings.items():
        with _placed(recipe, f"method.{key}"):
            check_setting(recipe.method.name, key, value)


def _check_outer(recipe: Recipe) -> None:
    outer = recipe.outer
    if outer.patience and not recipe.tasks.validation:
        raise RecipeError(
            "patience counts meta-validations, and there is no validation task",
            where=recipe.place("outer.patience"),
            fix="Give tasks.validation, or leave patience out.",
        )
    if outer.warmup_steps is not None and outer.warmup_steps >= outer.outer_steps:
        raise RecipeError(
            f"{outer.warmup_steps} steps of warm-up do not end within {outer.outer_steps} outer steps",
            where=recipe.place("outer.warmup_steps"),
            fix="Use fewer; left out, it is a tenth of the outer steps.",
        )


@contextmanager
def _placed(recipe: Recipe, key: str) -> Iterator[None]:
    """Name the line of a setting in an error that has no place of its own."""
    try:
        yield
    except QuickstudyError as error:
        if error.where:
            raise
        raise type(error)(error.what, where=recipe.place(key), fix=error.fix) from error
