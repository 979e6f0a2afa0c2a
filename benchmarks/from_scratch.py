"""From scratch: does it help to train a new encoder on episodes of its text, beside masked-language modelling?

    python benchmarks/from_scratch.py DATA --out FOLDER --core-seconds 3600 --seeds 0,1,2
    python benchmarks/from_scratch.py DATA --out FOLDER --core-seconds 3600 --seeds 0,1,2 --tables

    language             masked-language modelling alone
    language-episodes    the recipe as it is: masked-language modelling, in turns with episodes (SMLMT)

Both arms have the same text and tokenizer, and for each seed the same start. They take an equal number of operations:
those of a step of each kind are counted, and the first arm has as many more steps as that gives. How many steps that
is follows from `--core-seconds`, by what a step takes on this machine; it is measured once and kept in OUT/steps.json.
So the rates of both arms fall over all of their steps. A run that was stopped goes on from its last checkpoint.

Both are scored on the sets of `--side` on identical draws. For scale there are rows of the new encoder untouched
("random"), of MiniLM ("protonet", "linear-probe"), and of TF-IDF with logistic regression. The tables are those of
tournament_tables.py: gains over MiniLM's linear probe and over `language`, by kind of task, with intervals over tasks.
The perplexity on held-out text is beside them. How runs are computed, kept and gone on with: experiment.py.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from experiment import (
    UNTRAINED,
    Spent,
    add_scoring,
    agree,
    begin,
    call,
    collect,
    figures_file,
    finish,
    last_perplexity,
    learners_after,
    make_parser,
    parse,
    plan_of,
    protocol,
    run_all,
    score,
    scored_tasks,
    show_tables,
)
from practice import bags
from raw_texts import add_text, prepare_text, text_source
from records import read, write
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from split import read_split
from torch.utils.flop_counter import FlopCounterMode
from tournament_tables import PROBE, Scored

import quickstudy
from quickstudy.build import build
from quickstudy.comparison.learner import LearnerSpec, named_learner
from quickstudy.config import Recipe, dump_recipe, load_recipe
from quickstudy.data.text.python_docs import PYTHON_DOCS
from quickstudy.errors import RecipeError, RunError
from quickstudy.evaluation.hashing import hash_of
from quickstudy.evaluation.leakage.search import texts_of
from quickstudy.evaluation.plan import plan_tasks
from quickstudy.evaluation.trial import PlannedTask, Trial
from quickstudy.runs import Run
from quickstudy.storage.files import write_text
from quickstudy.tasks.task import Task
from quickstudy.training.meta_batch import MetaBatch
from quickstudy.training.outer import meta_parameters

RECIPE = Path(__file__).parents[1] / "recipes" / "scratch_python_docs.toml"
LANGUAGE, EPISODES = "language", "language-episodes"
TFIDF = "tf-idf"
METHOD = "protonet"  # that of the recipe
COUNTED = 12  # steps of each kind whose operations and time are measured


@dataclass(frozen=True)
class Steps:
    """How many steps each arm takes, and what that follows from.

    Attributes:
        budget: The processor seconds that `language-episodes` is meant to take.
        operations: Of a step of masked-language modelling, and of a step of episodes.
        core_seconds: The same in processor seconds.
        of_arm: Steps of each arm.
    """

    budget: float
    operations: dict[str, float]
    core_seconds: dict[str, float]
    of_arm: dict[str, int]


@dataclass(frozen=True)
class PlainDraw:
    """The accuracy of a learner that is none of the library's, on one support set."""

    learner: str
    task: str
    shots: int
    draw: int
    score: float


def main() -> None:
    options = parse_options()
    if options.single:
        work(options, options.single)
        return
    entries = [f"{arm} {seed}" for seed in options.seeds for arm in (LANGUAGE, EPISODES)]
    if not options.tables:
        begin(options)
        agree(options, asked(options))
        run_all(options, [UNTRAINED, *entries])
    there = collect(options, [UNTRAINED, *entries])
    draws: list[Scored] = [draw for figures in there.values() for draw in figures.draws]
    if UNTRAINED in there:
        draws += read(figures_file(options, TFIDF), tuple[PlainDraw, ...])
        show_tables(options, draws, LANGUAGE)
    finish(there, [UNTRAINED, *entries])


def parse_options() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--side", choices=("validation", "test"), default="validation", help="Sets that are scored.")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--set", action="append", default=[], dest="settings", help="Settings of the recipe.")
    parser.add_argument("--encoder", default="minilm", help="The trained encoder that gives rows for scale.")
    parser.add_argument("--precision", choices=("bf16", "no"), default="bf16")
    add_text(parser, default=PYTHON_DOCS)
    add_scoring(parser, shots=(4, 16), draws=2)
    return parse(parser)


def asked(options: argparse.Namespace) -> dict[str, object]:
    """Return what the figures follow from; on the way the text is read, and the steps of the arms are settled."""
    scored = plan_tasks(protocol(options), tasks_of(options))
    text = prepare_text(options, scored)
    file = options.figures / "steps.json"
    if not file.exists():
        write(file, count_steps(recipe_of(options, 0, 0), options.core_seconds))
    steps = read(file, Steps)
    if steps.budget != options.core_seconds:
        fix = f"Give --core-seconds {steps.budget:g}, or another --figures."
        raise RunError("these steps are for another budget", where=str(file), fix=fix)
    names = ("core_seconds", "sets", "side", "shots", "draws", "limit", "settings", "encoder", "precision")
    asked = {name: getattr(options, name) for name in names} | {"split": hash_of(repr(read_split())), "text": text}
    return {**asked, "recipe": hash_of(options.recipe.read_text("utf-8")), "steps": steps.of_arm}


def tasks_of(options: argparse.Namespace) -> list[Task]:
    """Return the tasks that are scored."""
    return scored_tasks(options.data, options.side, options.shots, options.sets)


def recipe_of(options: argparse.Namespace, seed: int, steps: int) -> Recipe:
    """Return the recipe with a seed and so many steps; with 0 steps, with as many as it has."""
    text = text_source(options)
    settings = [f"seed={seed}", f"outer.mixed_precision={options.precision}", "outer.keep=last", "tasks.validation=[]"]
    settings += [f'tasks.train=["text:{text}?tasks=smlmt"]', f'encoder.from_scratch.text="{text}"']
    settings += [f"outer.outer_steps={steps}"] if steps else []
    return load_recipe(options.recipe, [*options.settings, *settings])


def work(options: argparse.Namespace, name: str) -> None:
    """Train and score one arm with one seed, or score what the arms are compared with."""
    tasks = tasks_of(options)
    if name == UNTRAINED:
        random = options.out / "random.toml"
        write_text(random, dump_recipe(recipe_of(options, options.seeds[0], 0)))
        specs = [named_learner(method, options.encoder) for method in (PROBE, METHOD)]
        specs += [LearnerSpec("random", recipe=random), LearnerSpec("random probe", recipe=random, method=PROBE)]
        write(figures_file(options, TFIDF), tfidf_draws(plan_tasks(protocol(options), tasks)))
        score(options, name, plan_of(options, specs, tasks))
        return
    arm, seed = name.rsplit(" ", 1)
    folder, steps = options.out / "runs" / name, read(options.figures / "steps.json", Steps).of_arm[arm]
    recipe = recipe_of(options, int(seed), steps)
    if arm == LANGUAGE and recipe.language:
        recipe = recipe.model_copy(update={"language": recipe.language.model_copy(update={"share": 1.0})})
    began = time.process_time()
    if not (folder.exists() and Run.open(folder).finished):
        quickstudy.pretrain(recipe, folder, resume=folder.exists())
    spent = Spent(arm, int(seed), 0.0, time.process_time() - began, steps, 0.0)  # since it last went on
    run = Run.open(folder)
    score(options, name, plan_of(options, learners_after(folder, arm, int(seed)), tasks), spent, last_perplexity(run))


def count_steps(recipe: Recipe, core_seconds: float) -> Steps:
    """Count the operations of a step of each kind, time them, and return how many steps each arm takes."""
    built = build(recipe)
    language, outer = built.language, recipe.outer
    if language is None:
        raise RecipeError("there is no section [language]", where=recipe.place("language"), fix="Add one.")
    meta_parameters(built.learner, outer.trains)
    accelerator = Accelerator(mixed_precision=outer.mixed_precision)
    built.learner.to(accelerator.device)
    language.head.to(accelerator.device)
    batch = MetaBatch(built.learner, built.sampler, outer.meta_batch_size, COUNTED, accelerator, outer.max_length)
    totals = torch.zeros(3, device=accelerator.device)
    kinds: dict[str, Callable[[int], None]] = {
        "language": lambda step: language.add(totals, step, accelerator, 1.0),
        "episodes": lambda step: batch.add(totals, step),
    }
    operations, seconds = {}, {}
    for kind, add in kinds.items():
        with FlopCounterMode(display=False) as counter:
            for step in range(COUNTED):
                add(step)
        began = time.process_time()
        for step in range(COUNTED):
            add(step)
        operations[kind] = counter.get_total_flops() / COUNTED
        seconds[kind] = (time.process_time() - began) / COUNTED
    share, many = language.settings.share, {LANGUAGE: 0, EPISODES: 0}
    many[EPISODES] = max(1, round(core_seconds / (share * seconds["language"] + (1 - share) * seconds["episodes"])))
    many[LANGUAGE] = round(many[EPISODES] * (share + (1 - share) * operations["episodes"] / operations["language"]))
    return Steps(core_seconds, operations, seconds, many)


def tfidf_draws(planned: Sequence[PlannedTask]) -> tuple[PlainDraw, ...]:
    """Return the accuracy of TF-IDF and logistic regression on each support set of tasks of classes."""
    return tuple(
        PlainDraw(TFIDF, task.name, int(trial.shots), trial.draw, tfidf_score(trial))
        for task in planned
        for trial in task.trials
        if trial.label_names
    )


def tfidf_score(trial: Trial) -> float:
    """Return the accuracy on one support set, as practice.py has it."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    words.fit([text for example in trial.support for text in texts_of(example)])
    model = LogisticRegression(C=10, class_weight="balanced", max_iter=1000)
    model.fit(bags(words, trial.support), [int(example.label or 0) for example in trial.support])
    right = model.predict(bags(words, trial.tests)) == np.array([example.label for example in trial.tests])
    return float(right.mean())


if __name__ == "__main__":
    call(main)
