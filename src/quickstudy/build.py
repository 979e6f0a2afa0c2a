"""Build: the only place where settings become objects."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from quickstudy.config import Recipe
from quickstudy.data.catalog import load_tasks
from quickstudy.errors import RecipeError
from quickstudy.evaluation.episodic import episodic_score
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import make
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
    train_tasks, validation_tasks = (
        load_tasks(recipe.tasks.train, base=base),
        load_tasks(recipe.tasks.validation, base=base),
    )
    shared = {task.name for task in train_tasks} & {task.name for task in validation_tasks}
    if shared:
        raise RecipeError(
            f"meta-training and meta-validation share the task {sorted(shared)[0]!r}",
            fix="A task is validated on tasks it was not trained on: take it out of one of the two lists.",
        )
    spec = EpisodeSpec(recipe.episodes.n_way, recipe.episodes.k_shot, recipe.episodes.n_query)
    weighting, temperature = recipe.episodes.weighting, recipe.episodes.temperature
    sampler = EpisodeSampler(train_tasks, spec, seed=recipe.seed, weighting=weighting, temperature=temperature)
    validate = None
    if validation_tasks:
        held = EpisodeSampler(validation_tasks, spec, seed=recipe.seed + 1)
        validate = episodic_score(held, recipe.outer.validation_episodes)
    learner = build_learner(recipe)
    if not learner.meta_trains:
        raise RecipeError(
            f"{recipe.method.name!r} is a baseline: it learns nothing across tasks",
            fix="Evaluate it directly, or choose another method.",
        )
    names = {field.name for field in fields(OuterSettings)}
    outer = OuterSettings(**{key: value for key, value in recipe.outer.model_dump().items() if key in names})
    return Built(learner, sampler, outer, validate)


def build_learner(recipe: Recipe, encoder: Encoder | None = None) -> MetaLearner:
    """Make the recipe's method on an encoder, by default the recipe's own, untouched."""
    return make(recipe.method.name, encoder or build_encoder(recipe), recipe.method.settings)


def build_encoder(recipe: Recipe) -> Encoder:
    """Load the recipe's untouched encoder."""
    choices = recipe.encoder.model_dump(exclude_none=True, exclude={"name"})
    return Encoder.load(recipe.encoder.name, **choices)
