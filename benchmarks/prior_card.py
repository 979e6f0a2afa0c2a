"""Prior card: writes the README of the shipped prior: what it is, what was measured, and what it was trained on.

    python benchmarks/prior_card.py DATA

Figures come from leaderboard/tables.json, the list of data sets from recipes/prior.toml and the index files
in DATA.
"""

import json
import sys
from pathlib import Path
from typing import Any

from leaderboard import gains_by_task, scored
from records import read
from split import read_split
from tournament_tables import ALL, Gain, Tables

from quickstudy.config import load_recipe
from quickstudy.evaluation.results_file import read_results
from quickstudy.storage.files import write_text
from quickstudy.storage.layout import PRIOR_FOLDER

ROOT = Path(__file__).parents[1]
_NOTABLE = 2  # points behind the linear probe that are said
INTRODUCTION = """---
library_name: quickstudy
base_model: sentence-transformers/all-MiniLM-L6-v2
pipeline_tag: text-classification
license: apache-2.0
tags: [meta-learning, few-shot]
---
# The prior of quickstudy

This folder holds the encoder that quickstudy uses if you name no run. It is all-MiniLM-L6-v2 (22.7 million parameters,
Apache-2.0) after meta-training on {count} data sets. `delta.safetensors` holds what the training changed: for each
weight matrix the best approximation of rank 32, in half precision. The untouched encoder is loaded first, and the
change is added to it. No other encoder accepts the change.

The head is ridge regression with a free intercept. Label names count as further examples, and a meta-learned gate says
how much: more if there are few examples and if the names explain them well. For each task, leaving out each example
once decides how sure the answers are, and, if the examples speak clearly for it, a change: the encoder without its
meta-training, another weight of the names, or another penalty. After gradient steps (`steps=`) nothing of this is done.

```bash
quickstudy adapt --data few.csv --out model/
quickstudy predict model/ "a new text"
```

`make prior` makes it again from `recipes/prior.toml`: {steps:,} outer steps of {episodes} episodes with seed {seed},
then 300 steps that fit the head on the trained encoder. That takes about two hours on one core.
"""

LIMITS = """
## Limits

The texts are English, and most of them are short: tweets, reviews, questions, headlines, sentences of papers. In
meta-training they were cut after {length} tokens. Accuracy from a handful of labels varies with the labels; measure it
on your own task before you rely on it. The encoder has seen hateful texts so that it can tell them apart, and it may
have learned what such texts say about people. It must not decide alone about a person: about health, credit, work or
law.

`seen.npy` holds fingerprints of all texts that it was trained on. `quickstudy compare` uses them to refuse tasks that
the prior knows.
"""


def main() -> None:
    data = Path(sys.argv[1])
    recipe = load_recipe(ROOT / "recipes" / "prior.toml")
    index = {name: entry for folder in ("", "more/") for name, entry in read_index(data, folder)}
    names = [reference.removeprefix("data/") for reference in recipe.tasks.train]
    outer = recipe.outer
    text = INTRODUCTION.format(
        count=len(names), steps=outer.outer_steps, episodes=outer.meta_batch_size, seed=recipe.seed
    )
    text += measured(ROOT / "benchmarks" / "leaderboard" / "tables.json")
    text += LIMITS.format(length=outer.max_length)
    text += "\n".join(training_lines(names, index)) + "\n"
    write_text(PRIOR_FOLDER / "README.md", text)


def read_index(data: Path, folder: str) -> list[tuple[str, dict[str, Any]]]:
    entries = json.loads((data / folder / "index.json").read_text(encoding="utf-8"))
    return [(f"{folder}tasks/{entry['name']}", entry) for entry in entries]


def measured(file: Path) -> str:
    """Return the gains over the linear probe, by kind of task; the test sets are those of the leaderboard."""
    if not file.exists():
        return ""
    tables = read(file, Tables)
    gains = [gain for gain in tables.gains if gain.over == "linear-probe" and gain.method == "prior"]
    shots = sorted({gain.shots for gain in gains})
    lines = [
        "",
        "## Measured",
        "",
        "Gain over a linear probe on the untouched encoder, in points of the main metric, over "
        f"{len(tables.tasks[ALL])} held-out data sets.",
        "Brackets hold the 95 % interval over data sets.",
        "`python benchmarks/leaderboard.py DATA` makes the figures again.",
        "",
        f"| kind of task | sets | {' | '.join(f'{k} shots' for k in shots)} |",
        f"|---|---|{'---|' * len(shots)}",
    ]
    for kind, tasks in tables.tasks.items():
        cells = [_cell(gain) for k in shots for gain in gains if (gain.kind, gain.shots) == (kind, k)]
        lines.append(f"| {kind} | {len(tasks)} | {' | '.join(cells)} |")
    draws = read_results(file.with_name("results.json"), "run leaderboard.py").draws
    fewest, few = next(iter(gains_by_task([scored(draw) for draw in draws]).items()))
    worse = sorted((gain, task) for task, gain in few.items() if gain < -_NOTABLE)
    names = ", ".join(f"{task} ({gain:+.1f})" for gain, task in worse)
    lines += [
        "",
        f"With {fewest} examples per class it is more than {_NOTABLE} points behind on these sets:",
        f"{names}.",
    ]
    return "\n".join(lines) + "\n"


def training_lines(names: list[str], index: dict[str, dict[str, Any]]) -> list[str]:
    """Return the table of the data sets, each with its licence, its source and its paper."""
    split = read_split()
    lines = ["", "## Meta-training data", "", "| data set | kind | licence | source | paper |", "|---|---|---|---|---|"]
    for name in names:
        entry = index[name]
        source = ", ".join(entry["source"])
        cells = Path(name).name, split[name].kind, entry["licence"], source, entry["paper"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cell(gain: Gain) -> str:
    return f"{gain.mean:+.1f}" + ("" if gain.low is None or gain.tasks < 3 else f" [{gain.low:+.1f}, {gain.high:+.1f}]")


if __name__ == "__main__":
    main()
