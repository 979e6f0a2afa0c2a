"""Leakage: false alarms of the search for seen texts on real data, what of planted texts it finds, and what it costs.

    python benchmarks/leakage.py DATA [--before SRC] [--show]

    false alarms   Sets of different sources (different kin in split.json) are searched for in each other. What is
                   flagged is counted by kind. Some of it is shared indeed; --show prints it, to be read.
    recall         Real texts are trained on. They are scored after they were changed in a known way.
    cost           100,000 trained and 20,000 scored texts; with --before also those of the code in another src folder.

Prints tables and writes leakage.json.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, combinations, pairwise
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter
from records import write
from split import read_split, references, side

from quickstudy.data.reference import load_tasks
from quickstudy.evaluation.draws import all_examples
from quickstudy.evaluation.leakage.search import FEWEST_WORDS, Search
from quickstudy.evaluation.leakage.units import split_units
from quickstudy.seeding import rng
from quickstudy.tasks.split import Example, ListSplit

HERE = Path(__file__).parent
Rows = Sequence[Example]
SetSearch = tuple[Sequence[str], Sequence[str]]  # sets that are trained on, and sets that are scored
Change = Callable[[list[str], np.random.Generator], list[str]]

PAIRS = 30  # of sets, drawn from all, and as many from sets of the same kind
EQUAL = ("exact", "normalised")
PLANTED = 1000  # texts for each length
WORDS = (4, 8, 13, 24, 48, 101, 1000)  # where each class of lengths begins
TRAINED, SCORED = 100_000, 20_000
RUNS = 3  # the quickest counts


@dataclass(frozen=True)
class LeakAlarms:
    """Rows that were flagged, by kind, where sets of different sources were searched for in each other."""

    drawn: str
    searches: int
    with_flags: int
    scored: int
    flagged: dict[str, int]
    equal_short: int  # the same words as a trained text, and hardly any

    def rate(self) -> float:
        return sum(self.flagged.values()) / self.scored


@dataclass(frozen=True)
class LeakRecall:
    """Planted rows that were flagged, as a share of them, by number of words (from, to)."""

    change: str
    words: tuple[int, int]
    planted: int
    flagged: float
    kinds: dict[str, int]


@dataclass(frozen=True)
class LeakCost:
    """What a search costs; memory is what it takes beside the texts."""

    code: str
    trained: int
    scored: int
    seconds: float
    memory: float


@dataclass(frozen=True)
class Leakage:
    alarms: tuple[LeakAlarms, ...]
    recall: tuple[LeakRecall, ...]
    cost: tuple[LeakCost, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--before", type=Path, help="The src folder of the code to measure beside this.")
    parser.add_argument("--show", action="store_true", help="Print what is flagged in sets of different sources.")
    options = parser.parse_args()
    kinds = {"one set in one of any kind": False, "one set in one of the same kind": True}
    searches = {name: draw_searches(same_kind) for name, same_kind in kinds.items()}
    searches["all that is held out"] = [split_search()]
    alarms = [count_alarms(drawn, each, options.data, show=options.show) for drawn, each in searches.items()]
    recall = [*recall_of_texts(options.data), *recall_of_pairs(options.data)]
    sources = {"now": HERE.parent / "src"} | ({"before": options.before} if options.before else {})
    cost = [measure_cost(code, src, options.data) for code, src in sources.items()]
    result = Leakage(tuple(alarms), tuple(recall), tuple(cost))
    write(HERE / "leakage.json", result)
    show_tables(result)


def draw_searches(same_kind: bool) -> list[SetSearch]:
    """Return searches for one set in another that is no kin, both ways."""
    split = {name: member for name, member in read_split().items() if has_train_split(name)}
    pairs = [(a, b) for a, b in combinations(split, 2) if split[a].kin != split[b].kin]
    pairs = [(a, b) for a, b in pairs if not same_kind or split[a].kind == split[b].kind]
    drawn = [pairs[row] for row in rng(0, "pairs of sets", int(same_kind)).choice(len(pairs), PAIRS, replace=False)]
    return [([seen], [held]) for a, b in drawn for seen, held in ((a, b), (b, a))]


def split_search() -> SetSearch:
    """Return the search for all sets of meta-test and meta-validation in all sets of meta-training."""
    split = {name: member for name, member in read_split().items() if has_train_split(name)}
    return side(split, "train"), [*side(split, "test"), *side(split, "validation")]


def has_train_split(name: str) -> bool:
    """Return whether a set can be trained on; LEOPARD's have draws to evaluate on alone."""
    return not name.startswith("leopard/")


def count_alarms(drawn: str, searches: Sequence[SetSearch], data: Path, *, show: bool) -> LeakAlarms:
    """Count what is flagged."""
    flagged: Counter[str] = Counter()
    scored = with_flags = short = 0
    for seen, held in searches:
        trained, rows = [read_rows(name, data) for name in seen], [read_rows(name, data) for name in held]
        flags = flag(trained, list(chain.from_iterable(rows)))
        flagged += Counter(kind for _, kind, _ in flags)
        short += sum(kind in EQUAL and len(split_units(_text(example))) < FEWEST_WORDS for example, kind, _ in flags)
        scored, with_flags = scored + sum(map(len, rows)), with_flags + bool(flags)
        if show:
            for example, kind, source in flags:
                print(f"{kind}\t{_text(example)}\n\t{seen[source]}\t{_text(closest(example, trained[source]))}")
    return LeakAlarms(drawn, len(searches), with_flags, scored, dict(flagged), short)


@cache
def read_rows(name: str, data: Path) -> tuple[Example, ...]:
    """Return the train rows of a set."""
    (task,) = load_tasks(references([name], data))
    return all_examples(task.train_split)


def flag(trained: Sequence[Rows], scored: Rows) -> list[tuple[Example, str, int]]:
    """Return what of the scored rows is flagged, with its kind and the number of the set it was seen in."""
    search = Search(scored)
    for source, rows in enumerate(trained):
        search.read(ListSplit(list(rows)), source)
    return [(example, *match) for example in scored if (match := search.kind(example))]


def closest(example: Example, rows: Rows) -> Example:
    """Return the row with the most words in common."""
    words = set(split_units(_text(example)))
    return max(rows, key=lambda row: len(words & (each := set(split_units(_text(row))))) / len(words | each))


def _text(example: Example) -> str:
    return example.text if example.text_pair is None else f"{example.text} | {example.text_pair}"


def recall_of_texts(data: Path) -> list[LeakRecall]:
    """Plant changed single texts, by number of words."""
    texts = pool(data)
    counts = np.array([len(text.split()) for text in texts])
    results = []
    for low, high in pairwise(WORDS):
        rows = np.flatnonzero((counts >= low) & (counts < high))
        chosen = [texts[row] for row in rng(0, "planted", low).choice(rows, PLANTED, replace=False)]
        for name, change in CHANGES.items():
            random = rng(0, "changes", name, low)
            changed = [_row(" ".join(change(text.split(), random))) for text in chosen]
            results.append(_recall(name, (low, high - 1), [_row(text) for text in chosen], changed))
    return results


def recall_of_pairs(data: Path) -> list[LeakRecall]:
    """Plant changed pairs of two sets of sentences."""
    pairs = [*read_rows("tasks/snli_mini", data), *read_rows("more/tasks/mnli_small", data)]
    rows = [_row(row.text, row.text_pair) for row in pairs if _shortest(row) >= 8]
    rows = [rows[row] for row in rng(0, "planted pairs").permutation(len(rows))[: 2 * PLANTED]]
    firsts, seconds, random = [row.text for row in rows], [str(row.text_pair) for row in rows], rng(0, "changed pairs")
    fresh = [" ".join(f"n{number}" for number in random.integers(10**6, size=12)) for _ in rows]
    changed = [" ".join(_replace(text.split(), 1, random)) for text in firsts]
    planted = {
        "pair, texts swapped": (rows, _pairs(seconds, firsts)),
        "pair, a word of a text changed": (rows, _pairs(changed, seconds)),
        "pair, swapped and a word changed": (rows, _pairs(seconds, changed)),
        "new pair of two trained texts": (rows, _pairs(firsts, [*seconds[1:], seconds[0]])),
        "pair with one trained single text": ([_row(text) for text in firsts], _pairs(fresh, firsts)),
    }
    return [_recall(name, (8, 100), trained, scored) for name, (trained, scored) in planted.items()]


def _recall(change: str, words: tuple[int, int], trained: Rows, scored: Rows) -> LeakRecall:
    flags = flag([trained], scored)
    kinds = dict(Counter(kind for _, kind, _ in flags))
    return LeakRecall(change, words, len(scored), len(flags) / len(scored), kinds)


def _row(text: str, text_pair: str | None = None) -> Example:
    return Example(text, text_pair, label=0)


def _pairs(firsts: Iterable[str], seconds: Iterable[str]) -> list[Example]:
    return [_row(first, second) for first, second in zip(firsts, seconds, strict=True)]


def _shortest(row: Example) -> int:
    return min(len(row.text.split()), len(str(row.text_pair).split()))


def _replace(words: list[str], count: int, random: np.random.Generator) -> list[str]:
    """Return the words with other words at some places."""
    places = set(random.choice(len(words), min(count, len(words)), replace=False).tolist())
    return [f"other{place}" if place in places else word for place, word in enumerate(words)]


def _leave_out(words: list[str], random: np.random.Generator) -> list[str]:
    place = int(random.integers(len(words)))
    return words[:place] + words[place + 1 :]


CHANGES: Mapping[str, Change] = {
    "no change": lambda words, _: words,
    "case and punctuation": lambda words, _: [*" ".join(words).swapcase().split(), "!!"],
    "within a longer text": lambda words, _: ["as", "they", "said", *words, "and", "so", "on"],
    "cut in half": lambda words, _: words[: (len(words) + 1) // 2],
    "one word changed": lambda words, random: _replace(words, 1, random),
    "one word left out": _leave_out,
    "one word in 12 changed": lambda words, random: _replace(words, max(1, len(words) // 12), random),
    "one word in 8 changed": lambda words, random: _replace(words, max(1, len(words) // 8), random),
}


@cache
def pool(data: Path) -> list[str]:
    """Return the single texts of all sets, each once, in an order that is chance."""
    names = filter(has_train_split, read_split())
    rows = chain.from_iterable(read_rows(name, data) for name in names)
    texts = dict.fromkeys(row.text for row in rows if row.text_pair is None)
    ordered = list(texts)
    return [ordered[row] for row in rng(0, "pool").permutation(len(ordered))]


def measure_cost(code: str, src: Path, data: Path) -> LeakCost:
    """Search for many texts in many more, in a process of its own, by the code of a src folder."""
    texts = "\n".join(map(json.dumps, pool(data)[: TRAINED + SCORED]))
    command = [sys.executable, str(HERE / "leakage_cost.py"), str(TRAINED)]
    environment = os.environ | {"PYTHONPATH": str(src)}

    def measure() -> list[float]:
        done = subprocess.run(command, input=texts, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        return TypeAdapter(list[float]).validate_json(done.stdout)

    seconds, memory = min(measure() for _ in range(RUNS))
    return LeakCost(code, TRAINED, SCORED, seconds, memory)


def show_tables(result: Leakage) -> None:
    table("drawn from", "searches", "scored rows", "flagged, %", "as", "equal and of up to 3 words")
    for alarm in result.alarms:
        flagged = f"{100 * alarm.rate():.3f} | {_counts(alarm.flagged)} | {alarm.equal_short}"
        print(f"| {alarm.drawn} | {alarm.searches} | {alarm.scored:,} | {flagged} |")
    table("planted, flagged in %", *(f"{low} to {high - 1} words" for low, high in pairwise(WORDS)))
    for change in CHANGES:
        shares = [f"{100 * row.flagged:.1f}" for row in result.recall if row.change == change]
        print(f"| {change} | {' | '.join(shares)} |")
    table("planted pairs", "flagged, %", "as")
    for row in result.recall:
        if row.change not in CHANGES:
            print(f"| {row.change} | {100 * row.flagged:.1f} | {_counts(row.kinds)} |")
    table("code", "trained", "scored", "core seconds", "MiB")
    for cost in result.cost:
        print(f"| {cost.code} | {cost.trained:,} | {cost.scored:,} | {cost.seconds:.1f} | {cost.memory:.0f} |")


def table(*columns: str) -> None:
    print(f"\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")


def _counts(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())


if __name__ == "__main__":
    main()
