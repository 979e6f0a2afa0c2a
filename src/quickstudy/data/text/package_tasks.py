"""Package tasks: which package does a sentence document? Labelled tasks from the Python installation itself.

Packages are split into meta-train, meta-validation and meta-test as in the corpus `text:python-docs`. Each split is a
task whose labels are its packages, so episodes of many different labels can be drawn from it. A meta-train task has all
of its rows in `train`; the others have half of the rows of each label in `test`. A sentence is under a single label:
those that several packages have (licences, for example) are left out.
"""

from collections.abc import Sequence
from functools import cache

from quickstudy.data.text.python_docs import PACKAGE_SHARES, PYTHON_DOCS, read_package_texts
from quickstudy.data.text.sentences import split_sentences
from quickstudy.data.text.store import SIDES, side_of
from quickstudy.errors import DataError, did_you_mean
from quickstudy.tasks.split import Example, ListSplit, Split, hold_out
from quickstudy.tasks.task import Task

_FEWEST, _MOST = 40, 400  # sentences of a package


def load_package_tasks(chosen: Sequence[str] = ()) -> list[Task]:
    """Return the tasks of some meta splits; of all of them when nothing is chosen.

    Raises:
        DataError: There is no such meta split, or the installation has too few documented packages for it.
    """
    for name in chosen:
        if name not in SIDES:
            raise DataError(f"{PYTHON_DOCS} has no {name!r}", fix=did_you_mean(name, SIDES))
    return [_task(position, side) for position, side in enumerate(SIDES) if not chosen or side in chosen]


def _task(position: int, side: str) -> Task:
    sentences = {
        package: rows
        for package, rows in _sentences_by_package().items()
        if side_of(package, PACKAGE_SHARES) == position
    }
    if len(sentences) < 2:
        raise DataError(f"this Python installation documents too few packages for {side}", fix="Install some more.")
    rows = ListSplit(
        Example(text, label=label) for label, texts in enumerate(sentences.values()) for text in texts[:_MOST]
    )
    splits: dict[str, Split] = {"train": rows}
    if position:
        splits["train"], splits["test"] = hold_out(rows, 0.5, seed=0)
    return Task(
        f"{PYTHON_DOCS}:{side}",
        splits,
        tuple(sentences),
        description="Which Python package does this sentence document?",
        domain="software",
    )


@cache
def _sentences_by_package() -> dict[str, list[str]]:
    """Return the sentences that only one package has, each once, of the packages that have enough of them."""
    packages: dict[str, set[str]] = {}
    texts = read_package_texts()
    by_package = {
        package: list(dict.fromkeys(sentence for text in modules for sentence in split_sentences(text)))
        for package, modules in texts.items()
    }
    for package, sentences in by_package.items():
        for sentence in sentences:
            packages.setdefault(sentence.casefold(), set()).add(package)
    alone = {
        package: [sentence for sentence in sentences if len(packages[sentence.casefold()]) == 1]
        for package, sentences in by_package.items()
    }
    return {package: sentences for package, sentences in sorted(alone.items()) if len(sentences) >= _FEWEST}
