"""Domain adaptation: does reading raw texts of a domain help MiniLM, before it learns from a few labels?

    python benchmarks/domain_adaptation.py DATA --out FOLDER --core-seconds 300
    python benchmarks/domain_adaptation.py DATA --out FOLDER --core-seconds 300 --tables
    python benchmarks/domain_adaptation.py DATA --out FOLDER2 --core-seconds 600 --by domain --seeds 0,1,2

    language          masked-language modelling on the raw texts, from MiniLM (recipes/domain_adaptation.toml)
    language-tasks    the same budget, in turns with tasks from the same texts
    frozen            MiniLM as it is; a language head is trained on it alone, for the perplexity before

The sets are those of finance and medicine on the sides of split.json that `--sides` names. Their labels are not seen:
only the texts of their train splits are read, and raw_texts.py says which of them are dropped, because a scored row is
like them. The output says how many there are. With `--by domain`, the texts of all sets of a domain are put together.

Afterwards each set is learned from 8 labels per class, by two learners: a linear probe, and ProtoNet. Both are scored
on the same draws before and after. The tables give the difference with its interval over other sets, and with its
interval over other draws and rows of these sets; and gains by domain, as tournament_tables.py has them. How runs are
computed, kept and gone on with: experiment.py.
"""

import argparse
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from experiment import (
    UNTRAINED,
    Figures,
    Spent,
    add_scoring,
    agree,
    begin,
    call,
    collect,
    commit,
    finish,
    keep,
    last_perplexity,
    learners_after,
    make_parser,
    meta_train,
    parse,
    plan_of,
    protocol,
    run_all,
    score,
)
from raw_texts import RawTexts, write_raw_texts
from records import read, write
from split import Split, read_index, read_split, references
from tournament_tables import PROBE, print_tables, tables_of

from quickstudy.build import build
from quickstudy.comparison.learner import named_learner
from quickstudy.config import Recipe, check_recipe, load_recipe
from quickstudy.data.reference import load_corpus, load_tasks
from quickstudy.errors import DataError
from quickstudy.evaluation.draws import most_shots
from quickstudy.evaluation.hashing import hash_of
from quickstudy.evaluation.pairs import compare_all
from quickstudy.evaluation.plan import plan_tasks
from quickstudy.evaluation.record import Draw
from quickstudy.evaluation.rows import rows_by_task, scores_by_task
from quickstudy.tasks.task import Task
from quickstudy.training.budget import CoreSeconds
from quickstudy.training.outer import schedule

RECIPE = Path(__file__).parents[1] / "recipes" / "domain_adaptation.toml"
DOMAINS = ("finance", "medicine")
FROZEN = "frozen"
ARMS = {"language": 1.0, "language-tasks": 0.5}  # the share of masked-language modelling
METHOD = "protonet"  # that of the recipe
BEFORE = {"": METHOD, " probe": PROBE}  # which learner is what before, by what is added to the name of an arm
HEAD_RATE = 1e-3  # of a language head that is trained alone


@dataclass(frozen=True)
class Corpora:
    """The raw texts of each group of sets, and what is left out and why."""

    groups: dict[str, RawTexts]
    left_out: dict[str, str]


def main() -> None:
    options = parse_options()
    if options.single:
        work(options, options.single)
        return
    if not options.tables:
        begin(options)
        corpora = write_corpora(options)
        agree(options, asked(options, corpora))
    corpora = read(options.out / "texts.json", Corpora)
    entries = [f"{FROZEN} {group} 0" for group in corpora.groups]
    entries += [f"{arm} {group} {seed}" for seed in options.seeds for group in corpora.groups for arm in ARMS]
    if not options.tables:
        run_all(options, [UNTRAINED, *entries])
    merge(options, corpora, entries)


def parse_options() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--sides", type=lambda text: text.split(","), default=["validation", "test"])
    parser.add_argument("--by", choices=("set", "domain"), default="set", help="Whose texts are put together.")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="Settings of the recipe.")
    parser.add_argument("--precision", choices=("bf16", "no"), default="bf16")
    parser.add_argument("--max-length", type=int, default=64, help="Tokens that pre-training reads of a text.")
    add_scoring(parser, shots=(8,), draws=5, limit=500)
    return parse(parser)


def asked(options: argparse.Namespace, corpora: Corpora) -> dict[str, object]:
    """Return what the figures follow from."""
    names = ("core_seconds", "sides", "by", "sets", "shots", "draws", "limit", "encoder", "settings", "precision")
    texts = {group: load_corpus(text_file(options, group)).folder.name for group in corpora.groups}
    asked = {name: getattr(options, name) for name in (*names, "max_length")}
    return {**asked, "split": hash_of(repr(read_split())), "texts": texts}


def domains(options: argparse.Namespace) -> dict[str, str]:
    """Return the domain of each set that is taken, by its name in the split."""
    split, index = read_split(), read_index(options.data)
    chosen = [name for name in split if split[name].side in options.sides and index[name].get("domain") in DOMAINS]
    return {name: index[name]["domain"] for name in chosen[: options.sets]}


def write_corpora(options: argparse.Namespace) -> Corpora:
    """Write the raw texts of each group of sets, and leave out groups with too little of them."""
    groups: dict[str, list[Task]] = {}
    left_out = {}
    for name, domain in domains(options).items():
        (task,) = load_tasks(references([name], options.data))
        if task.kind != "classification" or most_shots(task) < max(options.shots):
            left_out[task.name] = f"a label has fewer than {max(options.shots)} examples, or there are no labels"
        else:
            groups.setdefault(task.name if options.by == "set" else domain, []).append(task)
    written = {}
    scored = plan_tasks(protocol(options), [task for tasks in groups.values() for task in tasks])
    for group, tasks in groups.items():
        file = Path(text_file(options, group))
        file.parent.mkdir(exist_ok=True)
        texts = write_raw_texts(tasks, scored, file)
        try:
            build(recipe_of(options, "language-tasks", group, 0))  # what cannot be trained is known now
            written[group] = texts
            print(f"{group}: {texts.texts} raw texts, {texts.dropped} dropped, like scored ones", flush=True)
        except DataError as error:
            left_out[group] = f"{texts.texts} raw texts: {error.what}"
    corpora = Corpora(written, left_out)
    write(options.out / "texts.json", corpora)
    return corpora


def text_file(options: argparse.Namespace, group: str) -> str:
    return str(options.out / "texts" / f"{group.replace(':', '-')}.jsonl")


def tasks_of(options: argparse.Namespace, corpora: Corpora, group: str | None = None) -> list[Task]:
    """Return the tasks of a group, or of all groups."""
    wanted = {name for g, texts in corpora.groups.items() if group in (None, g) for name in texts.sets}
    return [task for task in load_tasks(references(domains(options), options.data)) if task.name in wanted]


def work(options: argparse.Namespace, name: str) -> None:
    """Pre-train and score one arm on one group with one seed, or score what there was before."""
    corpora = read(options.out / "texts.json", Corpora)
    if name == UNTRAINED:
        specs = [named_learner(method, options.encoder) for method in BEFORE.values()]
        score(options, name, plan_of(options, specs, tasks_of(options, corpora)))
        return
    arm, group, seed = name.split(" ")
    if arm == FROZEN:
        keep(options, name, train_head(recipe_of(options, "language", group, 0), f"{arm} {group}", options))
        return
    folder, recipe = options.out / "runs" / name.replace(":", "-"), recipe_of(options, arm, group, int(seed))
    run, spent = meta_train(recipe, folder, options.core_seconds, method=f"{arm} {group}", seed=int(seed))
    specs = learners_after(folder, arm, int(seed))
    score(options, name, plan_of(options, specs, tasks_of(options, corpora, group)), spent, last_perplexity(run))


def recipe_of(options: argparse.Namespace, arm: str, group: str, seed: int) -> Recipe:
    """Return the recipe of an arm: that of the library, on the raw texts of a group."""
    text = text_file(options, group)
    settings = [f"seed={seed}", f"language.share={ARMS[arm]}", f"outer.mixed_precision={options.precision}"]
    settings += [f"outer.max_length={options.max_length}", "outer.validate_every=1000000", "outer.keep=last"]
    values = load_recipe(RECIPE, [*settings, *options.settings]).model_dump(mode="json", exclude_none=True)
    values["tasks"], values["encoder"] = {"train": [f"text:{text}"]}, {"name": options.encoder}
    values["language"]["text"] = text
    return check_recipe(values)


def train_head(recipe: Recipe, method: str, options: argparse.Namespace) -> Figures:
    """Train a language head alone, on the encoder as it is, and return the perplexity that it reaches."""
    built, outer = build(recipe), recipe.outer
    language = built.language
    assert language
    accelerator = Accelerator(mixed_precision=outer.mixed_precision)
    built.learner.to(accelerator.device)
    language.head.to(accelerator.device)
    language.encoder.model.requires_grad_(False)
    optimizer = torch.optim.AdamW(language.head.parameters(), lr=HEAD_RATE)
    budget, step = CoreSeconds(options.core_seconds, outer.outer_steps), 0
    budget.begin()
    while (position := budget.position(step)) < outer.outer_steps:
        totals = torch.zeros(3, device=accelerator.device)
        language.add(totals, step, accelerator, scale=1.0)
        for group in optimizer.param_groups:
            group["lr"] = HEAD_RATE * schedule(position, outer)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
    spent = Spent(method, recipe.seed, options.core_seconds, budget.spent, step, 0.0)
    return Figures(commit(), spent, {}, (), perplexity=language.perplexity(accelerator))


def merge(options: argparse.Namespace, corpora: Corpora, entries: Sequence[str]) -> None:
    """Print texts, perplexities and differences of what is finished."""
    there = collect(options, [UNTRAINED, *entries])
    print_texts(corpora, there, options.seeds)
    whole = [group for group in corpora.groups if all(e in there for e in entries if e.split(" ")[1] == group)]
    sets = {name for group in whole for name in corpora.groups[group].sets}
    draws = [draw for figures in there.values() for draw in figures.draws if draw.task in sets]
    if UNTRAINED in there and sets:
        split = by_domain(read_split(), domains(options))
        tables = tables_of(draws, split, options.shots, control=METHOD)
        write(options.out / "tables.json", tables)
        print_differences(draws, options)
        print_tables(tables)
    finish(there, [UNTRAINED, *entries])


def by_domain(split: Split, chosen: Mapping[str, str]) -> Split:
    """Return the sets that are taken, with their domain as their kind."""
    return {name: replace(split[name], kind=domain) for name, domain in chosen.items()}


def print_texts(corpora: Corpora, there: Mapping[str, Figures], seeds: Sequence[int]) -> None:
    """Print how many raw texts each group has, and the perplexities before and after."""
    print(f"\n| texts of | sets | raw texts | dropped | perplexity, {' | '.join((FROZEN, *ARMS))} |")
    print(f"|---|---|---|---|{'---|' * (1 + len(ARMS))}")
    for group, texts in corpora.groups.items():
        runs = [[there.get(f"{arm} {group} {seed}") for seed in seeds] for arm in ARMS]
        measured = [[there.get(f"{FROZEN} {group} 0")], *runs]
        means = [[f.perplexity for f in figures if f and f.perplexity is not None] for figures in measured]
        cells = [f"{statistics.mean(values):.1f}" if values else "" for values in means]
        print(f"| {group} | {len(texts.sets)} | {texts.texts} | {texts.dropped} | {' | '.join(cells)} |")
    for name, why in corpora.left_out.items():
        print(f"left out: {name} ({why})")


def print_differences(draws: Sequence[Draw], options: argparse.Namespace) -> None:
    """Print by how many points each learner is better after than before, with both intervals."""
    print("\n| after | before | shots | seed | points | over other sets | over other draws and rows of these sets |")
    print("|---|---|---|---|---|---|---|")
    for line in differences(draws, options):
        print(f"| {' | '.join(line)} |")


def differences(draws: Sequence[Draw], options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each line of the table of differences."""
    for shots in options.shots:
        by_learner: dict[str, list[Draw]] = {}
        for draw in draws:
            if draw.shots == shots:
                by_learner.setdefault(draw.learner, []).append(draw)
        for arm in ARMS:
            for ending, before in BEFORE.items():
                for seed in options.seeds:
                    pair = {name: by_learner[name] for name in (f"{arm}{ending} {seed}", before)}
                    scores = {name: scores_by_task(each) for name, each in pair.items()}
                    (test,) = compare_all(scores, {name: rows_by_task(each) for name, each in pair.items()})
                    sign = -100 if test.a == before else 100
                    intervals = (test.other_tasks, test.these_tasks)
                    ends = [[sign * end for end in (i.low, i.high) if end is not None] for i in intervals]
                    cells = [f"[{min(both):+.1f}, {max(both):+.1f}]" if both else "" for both in ends]
                    yield f"{arm}{ending}", before, str(shots), str(seed), f"{sign * test.mean:+.1f}", *cells


if __name__ == "__main__":
    call(main)
