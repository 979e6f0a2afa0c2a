"""Damage trial: files of runs, models, comparisons and caches are damaged, and no figure may change without a word.

    python dev/damage_trial.py --damages 1000          about ten minutes on one core
    python dev/damage_trial.py --damages 20            the short form, which the tests run

Each round flips a bit of one file or cuts it off, and then does with the folder what users do. That must end with an
error of quickstudy, or give what the whole folder gives. Exits with 1 if it gives something else, or if another error
is raised. Files whose content nobody reads again (pages, cards, drawings) count as damaged without effect.
"""

import argparse
import random
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from accelerate.state import AcceleratorState
from kill_trial import describe, make_inputs, recipe

from quickstudy import api
from quickstudy.comparison.compare import compare
from quickstudy.data.reference import load_tasks
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation.protocol import Protocol
from quickstudy.evaluation.results import Results
from quickstudy.evaluation.results_file import write_results
from quickstudy.report.comparison.files import read_comparison, write_figures
from quickstudy.report.run.facts import read_run
from quickstudy.training.record import StepRecord

TEXTS = ["a good film", "the bad book is late", "very poor", "it was great and fine"]
Use = Callable[[Path, Path], object]  # (damaged folder, inputs) -> what must not change


def main() -> int:
    """Run the trial, and print what became of the damages."""
    options = _options()
    torch.set_num_threads(1)
    chooser, outcomes, wrong = random.Random(options.seed), Counter[str](), []
    with TemporaryDirectory() as scratch, quick_pages():
        inputs = Path(scratch)
        make_folders(inputs)
        expected = {name: use(copy_of(inputs, name), inputs) for name, use in USES.items()}
        for number in range(options.damages):
            name = chooser.choices(list(USES), WEIGHTS)[0]
            folder = copy_of(inputs, name)
            what = damage(folder, chooser)
            outcome = _try(USES[name], folder, inputs, expected[name])
            outcomes[f"{name}: {outcome.splitlines()[-1] if outcome in GOOD else 'wrong'}"] += 1
            if outcome not in GOOD:
                wrong.append(f"damage {number}, {name}, {what}: {outcome}")
    print(*(f"{count:6} {outcome}" for outcome, count in sorted(outcomes.items())), sep="\n")
    print(*wrong, f"{options.damages} damages, {len(wrong)} wrong", sep="\n")
    return 1 if wrong else 0


@contextmanager
def quick_pages() -> Iterator[None]:
    """Write no pages while a block runs: drawings take most of the time, and follow from the figures."""
    with (
        patch("quickstudy.pretraining.write_report"),
        patch("quickstudy.pretraining.write_card"),
        patch("quickstudy.comparison.compare.write_comparison", _write_results),
    ):
        yield


def make_folders(inputs: Path) -> None:
    """Make one folder of each kind."""
    make_inputs(inputs)
    run = api.pretrain(recipe(inputs, "meta-sgd"), inputs / "run")
    write_results(run.files.results, _compare(inputs, inputs / "comparison"))
    api.adapt(run, inputs / "alpha.jsonl").save(inputs / "model")
    AcceleratorState._reset_state(reset_partial_state=True)
    with suppress(KeyboardInterrupt):
        api.pretrain(recipe(inputs, "protonet"), inputs / "training", on_step=_stop)


def _stop(record: StepRecord) -> None:
    if record.step == 9:
        raise KeyboardInterrupt


def damage(folder: Path, chooser: random.Random) -> str:
    """Flip a bit of a file of a folder, or cut the file off; return what was done."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.stat().st_size)
    file = chooser.choice(files)
    content, place = bytearray(file.read_bytes()), chooser.randrange(file.stat().st_size)
    if chooser.random() < 0.75:
        content[place] ^= 1 << chooser.randrange(8)
        file.write_bytes(content)
        return f"{file.relative_to(folder)}, a bit of byte {place}"
    file.write_bytes(content[:place])
    return f"{file.relative_to(folder)}, cut at {place}"


GOOD = ("refused", "the same")


def _try(use: Use, folder: Path, inputs: Path, expected: object) -> str:
    try:
        given = use(folder, inputs)
    except QuickstudyError:
        return "refused"
    except Exception:
        return traceback.format_exc()
    return "the same" if given == expected else f"other figures: {_difference(given, expected)}"


def _difference(given: object, expected: object) -> str:
    """Show where two texts of figures begin to differ."""
    texts = repr(given), repr(expected)
    place = next((i for i, pair in enumerate(zip(*texts, strict=False)) if pair[0] != pair[1]), min(map(len, texts)))
    return " in place of ".join(text[max(0, place - 60) : place + 60] for text in texts)


def _use_run(folder: Path, inputs: Path) -> object:
    facts = read_run(folder)
    model = api.adapt(folder, inputs / "alpha.jsonl")
    return facts.curve, facts.kept, facts.results, facts.recipe_text, model.predict_proba(TEXTS).tolist()


def _use_training(folder: Path, _: Path) -> object:
    AcceleratorState._reset_state(reset_partial_state=True)
    api.pretrain(folder, resume=True)
    return {name: value for name, value in describe(folder).items() if value}


def _use_model(folder: Path, _: Path) -> object:
    model = api.load_model(folder)
    return model.label_names, model.learned, model.predict_proba(TEXTS).tolist()


def _use_comparison(folder: Path, inputs: Path) -> object:
    figures = read_comparison(folder).results
    _compare(inputs, folder)
    return figures, (folder / "results.jsonl").read_text(encoding="utf-8")


def _use_cache(folder: Path, inputs: Path) -> object:
    with patch.dict("os.environ", {"QUICKSTUDY_CACHE": str(folder)}):
        (task,) = load_tasks(str(inputs / "alpha.jsonl"))
    return task.label_names, [task.train_split[i] for i in range(len(task.train_split))]


USES: dict[str, Use] = {
    "run": _use_run,
    "training": _use_training,
    "model": _use_model,
    "comparison": _use_comparison,
    "cache": _use_cache,
}
WEIGHTS = (3, 2, 2, 2, 1)


def _compare(inputs: Path, folder: Path) -> Results:
    protocol, learners = Protocol(shots=(2,), draws=2), ["majority", "linear-probe"]
    return compare(learners, str(inputs / "gamma.jsonl"), folder, protocol=protocol, encoder=str(inputs / "tiny"))


def _write_results(folder: Path, results: Results) -> None:
    write_figures(folder, results)
    write_results(folder / "results.json", results)


def copy_of(inputs: Path, name: str) -> Path:
    """Return a fresh copy of one of the folders."""
    target = inputs / "damaged" / name
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(inputs / name, target))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--damages", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
