"""Raw texts: the texts of labelled sets without their labels, as a corpus for pre-training.

Taken are the texts of train splits alone, each once. Nothing that is scored is among them: a text is dropped if a
scored text is like it in one of the ways that the library looks for (`evaluation.leakage`): the same text, the same
words, thirteen words in a row, or a copy in which at most one word in eight is changed. Texts of support sets are not
dropped: who labels eight of his texts has them without labels too.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from split import read_split, references, side

from quickstudy.data.reference import load_corpus, load_tasks
from quickstudy.data.text.python_docs import PYTHON_DOCS
from quickstudy.evaluation.draws import with_test_split
from quickstudy.evaluation.leakage.search import texts_of
from quickstudy.evaluation.leakage.text_index import TextIndex
from quickstudy.evaluation.trial import PlannedTask
from quickstudy.storage.files import write_text
from quickstudy.tasks.task import Task

TRAIN_SETS = "train-sets"


@dataclass(frozen=True)
class RawTexts:
    """What was written: how many texts of which sets, and how many were dropped because they are like scored ones."""

    sets: tuple[str, ...]
    texts: int
    characters: int
    dropped: int


def add_text(parser: argparse.ArgumentParser, *, default: str) -> None:
    """Let a parser take which text there is: that of the train sets, or the documentation of Python."""
    parser.add_argument("--text", choices=(TRAIN_SETS, PYTHON_DOCS), default=default)


def text_source(options: argparse.Namespace) -> str:
    """Return the corpus that was asked for."""
    return PYTHON_DOCS if options.text == PYTHON_DOCS else str(options.out / "texts.jsonl")


def prepare_text(options: argparse.Namespace, scored: Iterable[PlannedTask]) -> str:
    """Write the texts of the train sets if they were asked for, cut the corpus into tasks, and return its hash."""
    source = text_source(options)
    if options.text == TRAIN_SETS:
        train = load_tasks(references(side(read_split(), "train"), options.data))
        written = write_raw_texts(train, scored, Path(source))
        print(f"{written.texts} raw texts of {len(written.sets)} sets; {written.dropped} dropped, like scored ones")
    return load_corpus(source).folder.name


def write_raw_texts(tasks: Sequence[Task], scored: Iterable[PlannedTask], file: Path, *, seed: int = 0) -> RawTexts:
    """Write the texts of the train splits of tasks to a JSONL file, without those that are like scored texts.

    Args:
        tasks: Their train splits are read; of a task without a test split, what is left when half is held out.
        scored: What is scored, on any task.
        file: The file to write.
        seed: That of the protocol, which decides what is held out.
    """
    splits = [with_test_split(task, seed).train_split for task in tasks]
    texts = dict.fromkeys(text for split in splits for row in range(len(split)) for text in texts_of(split[row]))
    tests = dict.fromkeys(chain.from_iterable(texts_of(example) for task in scored for example in task.scored))
    kept = without_like(list(texts), list(tests))
    write_text(file, "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in kept))
    sizes = len(kept), sum(map(len, kept)), len(texts) - len(kept)
    return RawTexts(tuple(task.name for task in tasks), *sizes)


def without_like(texts: list[str], scored: Sequence[str]) -> list[str]:
    """Return texts without those that a scored text is like."""
    while alike := TextIndex(scored).read(texts) if scored and texts else {}:
        # The index reports the strictest likeness of each scored text first, so weaker ones need another look.
        texts = [text for number, text in enumerate(texts) if number not in alike]
    return texts
