"""Build: the only place where settings become objects."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from quickstudy.config import SCRATCH, Recipe
from quickstudy.cost import is_out_of_memory
from quickstudy.data.cache import make_once
from quickstudy.data.reference import load_corpus, load_task_groups, load_tasks
from quickstudy.data.text.passages import Passages
from quickstudy.errors import QuickstudyError, RecipeError
from quickstudy.evaluation.episodic import episodic_score
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import check_method, check_setting, make
from quickstudy.models.cut import layer_stack
from quickstudy.models.encoder import Encoder
from quickstudy.models.scratch import ScratchSize, make_encoder
from quickstudy.settings import OuterSettings
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.mix import Mix
from quickstudy.tasks.name_mix import NameMix
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.tasks.task import Task
from quickstudy.training.language import LanguageModel, LanguageSettings

_SCRATCH_FORMAT = 2  # raise it when a new encoder is made in another way
_TOKENIZER_SENTENCES = 400_000  # about; more change a vocabulary hardly

_log = logging.getLogger(__name__)

Validate = Callable[[MetaLearner], float]


@dataclass(frozen=True)
class Built:
    """What a recipe describes, ready to run.

    Attributes:
        learner: The meta-learner on its untouched encoder.
        sampler: Meta-training episodes.
        outer: Settings of the outer loop.
        validate: Meta-validation score of a learner; None without validation tasks.
        validation_tasks: Names of these tasks.
        language: Masked-language modelling beside the episodes; None for none.
    """

    learner: MetaLearner
    sampler: EpisodeSampler
    outer: OuterSettings
    validate: Validate | None
    validation_tasks: tuple[str, ...] = ()
    language: LanguageModel | None = None


def build(recipe: Recipe, *, base: Path = Path()) -> Built:
    """Make everything that a recipe describes.

    Args:
        recipe: The settings.
        base: The folder that relative data paths start from.

    Raises:
        QuickstudyError: Data, encoder or method cannot be loaded, or do not fit together.
    """
    _check_method(recipe)
    _check_outer(recipe)
    groups, validation_tasks = _load_tasks(recipe, base)
    train_tasks = [task for group in groups for task in group]
    spec = _episode_spec(recipe)
    sampler, validate = _samplers(recipe, spec, groups, validation_tasks)
    learner = build_learner(recipe, build_encoder(recipe, base=base))
    _check_trains(recipe, learner)
    read = learner.encoder.settings.max_length
    if recipe.outer.max_length is not None and recipe.outer.max_length > read:
        _log.warning(
            "outer.max_length = %d: the encoder reads %d tokens, and cuts there", recipe.outer.max_length, read
        )
    learner.prepare(train_tasks)
    language = _language(recipe, learner.encoder, base) if recipe.language else None
    return Built(learner, sampler, recipe.outer, validate, tuple(task.name for task in validation_tasks), language)


def build_learner(recipe: Recipe, encoder: Encoder | None = None) -> MetaLearner:
    """Make the method of a recipe on an encoder; by default on the recipe's untouched encoder."""
    _check_method(recipe)
    encoder = encoder or build_encoder(recipe)
    with _placed(recipe, "method.adapts"):
        try:
            return make(recipe.method.name, encoder, recipe.method.settings, seed=recipe.seed)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise RecipeError("there is not enough memory for this method", fix="Choose smaller settings.") from error


def build_encoder(recipe: Recipe, *, base: Path = Path()) -> Encoder:
    """Load the recipe's untouched encoder; one from scratch is made if it is not there."""
    choices = recipe.encoder.model_dump(exclude_none=True, exclude={"name", "from_scratch"})
    with _placed(recipe, "encoder.revision" if recipe.encoder.revision else "encoder.name"):
        return Encoder.load(encoder_source(recipe, base=base), **choices)


def encoder_source(recipe: Recipe, *, base: Path = Path()) -> str:
    """Return the name of the recipe's untouched encoder, or the folder of one that is made from scratch.

    Raises:
        QuickstudyError: The text of a new encoder cannot be read, or its sizes do not fit together.
    """
    new = recipe.encoder.from_scratch
    if new is None:
        return recipe.encoder.name
    with _placed(recipe, "encoder.from_scratch"):
        size = ScratchSize(new.vocabulary, new.layers, new.hidden_size, new.heads, recipe.encoder.max_length)
        corpus = load_corpus(new.text, base=base)
        texts = Passages(corpus, "meta-train")
        key = sha256(f"{_SCRATCH_FORMAT}|{corpus.folder.name}|{size}|{recipe.seed}".encode()).hexdigest()
        return str(
            make_once(
                f"{SCRATCH}-{key}",
                lambda folder: make_encoder(texts.sample(_TOKENIZER_SENTENCES), size, seed=recipe.seed).save(folder),
            )
        )


def _language(recipe: Recipe, encoder: Encoder, base: Path) -> LanguageModel:
    """Return the masked-language modelling of a recipe."""
    chosen, new = recipe.language, recipe.encoder.from_scratch
    assert chosen
    text = chosen.text or (new.text if new else None)
    if text is None:
        raise RecipeError(
            "masked-language modelling needs a text", where=recipe.place("language"), fix='Give e.g. text = "notes/".'
        )
    if recipe.outer.trains == "none":
        raise RecipeError(
            "masked-language modelling trains the encoder, and nothing of it is to be trained",
            where=recipe.place("outer.trains"),
            fix='Use trains = "all" or "layers", or leave out the section [language].',
        )
    with _placed(recipe, "language.text"):
        corpus = load_corpus(text, base=base)
        texts, held_out = Passages(corpus, "meta-train"), Passages(corpus, "meta-validation")
    length = min(recipe.outer.max_length or encoder.settings.max_length, encoder.settings.max_length)
    settings = LanguageSettings(chosen.share, chosen.batch_size, chosen.masked, length, head_lr=chosen.head_lr)
    with _placed(recipe, "encoder.name"):
        return LanguageModel(encoder, texts, held_out, settings, seed=recipe.seed)


def _load_tasks(recipe: Recipe, base: Path) -> tuple[list[list[Task]], list[Task]]:
    """Return the tasks of meta-training, by reference, and those of meta-validation; they share none."""
    with _placed(recipe, "tasks.train"):
        groups = load_task_groups(recipe.tasks.train, base=base)
    with _placed(recipe, "tasks.validation"):
        validation_tasks = load_tasks(recipe.tasks.validation, base=base)
    shared = {task.name for group in groups for task in group} & {task.name for task in validation_tasks}
    if shared:
        raise RecipeError(
            f"meta-training and meta-validation share the task {sorted(shared)[0]!r}",
            where=recipe.place("tasks.validation"),
            fix="A task is validated on tasks it was not trained on: take it out of one of the two lists.",
        )
    return groups, validation_tasks


def _mix(recipe: Recipe, groups: Sequence[Sequence[Task]]) -> Mix | None:
    """Return how often each reference is drawn from; None if the recipe does not say."""
    start, end = recipe.tasks.weights, recipe.tasks.weights_end
    if start is None and end is None:
        return None
    with _placed(recipe, "tasks.weights" if start is not None else "tasks.weights_end"):
        if start is None:
            raise RecipeError("there are weights_end and no weights", fix="Give the weights of the beginning too.")
        episodes = recipe.outer.outer_steps * recipe.outer.meta_batch_size
        sizes = tuple(len(group) for group in groups)
        return Mix(sizes, tuple(start), None if end is None else tuple(end), episodes)


def _episode_spec(recipe: Recipe) -> EpisodeSpec:
    episodes = recipe.episodes
    sizes = {"n_way": episodes.n_way, "k_shot": episodes.k_shot, "n_query": episodes.n_query}
    for name, size in sizes.items():
        with _placed(recipe, f"episodes.{name}"):
            EpisodeSpec(**{name: size})  # each size alone, so that a message names the right line
    return EpisodeSpec(**sizes)


def _samplers(
    recipe: Recipe, spec: EpisodeSpec, groups: Sequence[Sequence[Task]], validation_tasks: Sequence[Task]
) -> tuple[EpisodeSampler, Validate | None]:
    """Return the episodes of meta-training, and the meta-validation if there are tasks for it."""
    with _placed(recipe, "episodes.names"):
        names = NameMix(**recipe.episodes.names.model_dump())
    mix = _mix(recipe, groups)
    with _placed(recipe, "episodes.n_way"):
        sampler = EpisodeSampler(
            [task for group in groups for task in group],
            spec,
            seed=recipe.seed,
            weighting=recipe.episodes.weighting,
            temperature=recipe.episodes.temperature,
            names=names,
            mix=mix,
        )
        if not validation_tasks:
            return sampler, None
        validation = EpisodeSampler(validation_tasks, spec, seed=recipe.seed + 1)
        return sampler, episodic_score(validation, recipe.outer.validation_episodes)


def _check_trains(recipe: Recipe, learner: MetaLearner) -> None:
    """Check that there is something to meta-train."""
    if not learner.meta_trains:
        raise RecipeError(
            f"{recipe.method.name!r} is a baseline: it learns nothing across tasks",
            where=recipe.place("method.name"),
            fix="Evaluate it directly, or choose another method.",
        )
    if recipe.outer.trains == "none" and all(name.startswith("encoder.") for name, _ in learner.named_parameters()):
        raise RecipeError(
            f"{recipe.method.name!r} learns nothing beside the encoder, so that there is nothing to train",
            where=recipe.place("outer.trains"),
            fix='Train the encoder: trains = "layers".',
        )
    if recipe.outer.trains == "layers":
        with _placed(recipe, "outer.trains"):
            layer_stack(learner.encoder.model)


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
            fix="Use fewer, or leave it out: then it is a tenth of the outer steps.",
        )


@contextmanager
def _placed(recipe: Recipe, key: str) -> Iterator[None]:
    """Add the line of a setting to an error that names no place."""
    try:
        yield
    except QuickstudyError as error:
        if error.where:
            raise
        raise type(error)(error.what, where=recipe.place(key), fix=error.fix) from error
