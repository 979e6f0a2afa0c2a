"""Hybrid: do tasks from text without labels help, beside labelled tasks? With equal processor time.

    python benchmarks/hybrid.py DATA --out FOLDER --core-seconds 600 --shares 10,30    # validation sets: which share
    python benchmarks/hybrid.py DATA --out FOLDER2 --core-seconds 1800 --seeds 0,1,2 --shares 10 --side test
    python benchmarks/hybrid.py DATA --out FOLDER2 --core-seconds 1800 --seeds 0,1,2 --shares 10 --side test --tables

    supervised    meta-training on the train sets of split.json
    hybrid-30     the same, and 30 % of its episodes are from text without labels, by `tasks.weights`

Both begin with MiniLM, and have the tasks, episodes and rates of tournament.py; among labelled tasks the weighting is
the same in both. The text is that of the train sets (see raw_texts.py, which says what is dropped), or the
documentation of the Python installation. Runs are scored on the sets of `--side` on identical draws, beside a linear
probe and the same method on the untouched encoder. The tables are those of tournament_tables.py: gains over the linear
probe and over `supervised`, by kind of task, with intervals over tasks. The seeds of an arm are averaged first.

How runs are computed, kept and gone on with: experiment.py.
"""

import argparse

import numpy as np
import tournament
from experiment import (
    UNTRAINED,
    add_scoring,
    agree,
    begin,
    call,
    collect,
    finish,
    make_parser,
    meta_train,
    parse,
    plan_of,
    protocol,
    run_all,
    score,
    scored_tasks,
    show_tables,
)
from raw_texts import TRAIN_SETS, add_text, prepare_text, text_source
from split import read_split
from tournament_tables import PROBE

from quickstudy.comparison.learner import named_learner, trained_learner
from quickstudy.config import Recipe, check_recipe
from quickstudy.data.reference import load_task_groups
from quickstudy.evaluation.hashing import hash_of
from quickstudy.evaluation.plan import plan_tasks
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.tasks.task import Task

SUPERVISED = "supervised"


def main() -> None:
    options = parse_options()
    if options.single:
        work(options, options.single)
        return
    arms = [SUPERVISED, *(f"hybrid-{share}" for share in options.shares)]
    entries = [f"{arm} {seed}" for seed in options.seeds for arm in arms]
    if not options.tables:
        begin(options)
        agree(options, asked(options))
        run_all(options, [UNTRAINED, *entries])
    there = collect(options, [UNTRAINED, *entries])
    if UNTRAINED in there:
        draws = [draw for figures in there.values() for draw in figures.draws]
        show_tables(options, draws, SUPERVISED)
    finish(there, [UNTRAINED, *entries])


def parse_options() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--side", choices=("validation", "test"), default="validation", help="Sets that are scored.")
    parser.add_argument("--shares", type=percents, default=[30], help="Percent of the episodes that are from text.")
    parser.add_argument("--text-tasks", default="smlmt,clusters", help="Kinds of tasks from text.")
    parser.add_argument("--method", default="protonet")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--precision", choices=("bf16", "no"), default="bf16")
    parser.add_argument("--max-length", type=int, default=64, help="Tokens that meta-training reads of a text.")
    add_text(parser, default=TRAIN_SETS)
    add_scoring(parser, shots=(4, 16), draws=2)
    return parse(parser)


def percents(text: str) -> list[int]:
    """Return the numbers of a list of percents.

    >>> percents("10,30")
    [10, 30]
    """
    shares = [int(share) for share in text.split(",")]
    if not all(0 < share < 100 for share in shares):
        raise ValueError("a percent is a whole number from 1 to 99")
    return shares


def asked(options: argparse.Namespace) -> dict[str, object]:
    """Return what the figures follow from; on the way the text is read."""
    names = ("core_seconds", "sets", "side", "shots", "draws", "limit", "text_tasks", "method", "encoder")
    asked = {name: getattr(options, name) for name in (*names, "precision", "max_length")}
    text = prepare_text(options, plan_tasks(protocol(options), tasks_of(options)))
    return {**asked, "split": hash_of(repr(read_split())), "text": text}


def tasks_of(options: argparse.Namespace) -> list[Task]:
    """Return the tasks that are scored."""
    return scored_tasks(options.data, options.side, options.shots, options.sets)


def work(options: argparse.Namespace, name: str) -> None:
    """Meta-train and score one arm with one seed, or score what the arms are compared with."""
    if name == UNTRAINED:
        specs = [named_learner(method, options.encoder) for method in (PROBE, options.method)]
        score(options, name, plan_of(options, specs, tasks_of(options)))
        return
    arm, seed = name.rsplit(" ", 1)
    share = 0.0 if arm == SUPERVISED else int(arm.rpartition("-")[2]) / 100
    folder, recipe = options.out / "runs" / name, recipe_of(options, share, int(seed))
    _, spent = meta_train(recipe, folder, options.core_seconds, method=arm, seed=int(seed))
    score(options, name, plan_of(options, [trained_learner(folder, name)], tasks_of(options)), spent)


def recipe_of(options: argparse.Namespace, share: float, seed: int) -> Recipe:
    """Return the recipe of a method with a share of its episodes from text, and the rest as in the final stage."""
    recipe = tournament.recipe_of(options.data, options.method, seed, "final")
    values = recipe.model_dump(mode="json", exclude_none=True)
    values["encoder"] = {"name": options.encoder}
    values["outer"] |= {"mixed_precision": options.precision, "max_length": options.max_length}
    if share:
        labelled = [(1 - share) * weight for weight in weights(recipe)]
        text = f"text:{text_source(options)}?tasks={options.text_tasks}"
        values["tasks"] = {"train": [*recipe.tasks.train, text], "weights": [*labelled, share]}
    return check_recipe(values)


def weights(recipe: Recipe) -> list[float]:
    """Return how often the tasks of each reference are drawn, as the weighting of the recipe says; they add up to 1."""
    episodes, groups = recipe.episodes, load_task_groups(recipe.tasks.train)
    sampler = EpisodeSampler(
        [task for group in groups for task in group],
        EpisodeSpec(episodes.n_way, episodes.k_shot, episodes.n_query),
        seed=recipe.seed,
        weighting=episodes.weighting,
        temperature=episodes.temperature,
    )
    ends = np.cumsum([len(group) for group in groups])
    return [float(sum(of_group)) for of_group in np.split(sampler.weights, ends[:-1])]


if __name__ == "__main__":
    call(main)
