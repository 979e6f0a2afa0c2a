"""Leakage: texts that are scored and were meta-trained on, and tasks made from the same source.

    exact         the same text (of a pair: the same two)
    normalised    the same words, whatever their case, accents' encoding, punctuation and spaces
    13-gram       thirteen words in a row in common: a quotation, a longer or shorter cut of the same document
    lineage       both tasks declare a common source, e.g. SST-2 and MR, which are the same film reviews

Each scored row counts once, under the strictest kind that it meets. Thirteen words are what Brown et al. 2020,
arXiv:2005.14165, use for the same purpose: chance repetitions of that length are rare, and set phrases are shorter.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from quickstudy.errors import DataError
from quickstudy.evaluation.results import Overlap, OverlapKind
from quickstudy.evaluation.trial import PlannedTask
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Task

MOST = 0.005  # of a task's scored rows: a stray set phrase is no leak

_GRAM = 13
_EXAMPLES = 3
_WORD = re.compile(r"\w+")


def find_overlap(trained: Sequence[Task], evaluated: Iterable[PlannedTask]) -> tuple[Overlap, ...]:
    """Look for what is scored among what was meta-trained on.

    Args:
        trained: Meta-train tasks; their train splits are read once.
        evaluated: Tasks with the examples that are scored.

    Returns:
        One entry per evaluated task that has something in common with a meta-train task.
    """
    known = _Known(trained)
    overlaps = [_overlap(known, planned) for planned in evaluated]
    return tuple(overlap for overlap in overlaps if overlap.rows or overlap.lineage)


def refuse_overlap(overlaps: Iterable[Overlap]) -> None:
    """Refuse to score what was meta-trained on.

    Raises:
        DataError: More than `MOST` of a task's scored rows overlap, or it shares a source with a meta-train task.
    """
    for overlap in overlaps:
        sources = ", ".join(overlap.sources[:_EXAMPLES])
        if overlap.overlapping_fraction > MOST:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in overlap.rows.items())
            percent = f"{100 * overlap.overlapping_fraction:.1f} %"
            what = f"{percent} of the scored rows of task {overlap.task!r} were meta-trained on in {sources}"
            what += f" ({kinds} of {overlap.total:,}; the first: {_cut(overlap.examples[0])!r})"
        elif overlap.lineage:
            what = f"task {overlap.task!r} is made from the same source as {sources}: {', '.join(overlap.lineage)}"
        else:
            continue
        raise DataError(what, fix="Evaluate on other tasks, or go on with --allow-overlap: the report will say so.")


def _overlap(known: "_Known", planned: PlannedTask) -> Overlap:
    sources: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    examples: list[str] = []
    for example in planned.scored:
        if hit := known.find(example):
            kind, source = hit
            rows[kind] += 1
            sources[source] += 1
            if len(examples) < _EXAMPLES:
                examples.append(" | ".join(_fields(example)))
    # A task that is itself a meta-train task is reported elsewhere. The sources it shares with itself are left out.
    task = planned.task
    shared = {
        n: task.lineage & known.lineage[n] for n in known.lineage if task.lineage & known.lineage[n] and n != task.name
    }
    names = [*(name for name, _ in sources.most_common()), *(name for name in shared if name not in sources)]
    lineage = tuple(sorted(frozenset[str]().union(*shared.values())))
    return Overlap(task.name, dict(rows), len(planned.scored), tuple(names), lineage, tuple(examples))


class _Known:
    """The meta-train texts, as hashes: whole texts, their words, and their 13-grams, each with the task it is from."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.lineage = {task.name: task.lineage for task in tasks}
        self._names = [task.name for task in tasks]
        self._exact: dict[int, int] = {}
        self._normalised: dict[int, int] = {}
        self._grams: dict[int, int] = {}
        for number, task in enumerate(tasks):
            split = task.train_split
            for example in (split[row] for row in range(len(split))):
                fields = _fields(example)
                words = [_words(text) for text in fields]
                # A single text is looked for among the parts of pairs too.
                for start, stop in {(0, len(fields)), *((i, i + 1) for i in range(len(fields)))}:
                    self._exact.setdefault(hash(fields[start:stop]), number)
                    self._normalised.setdefault(hash(tuple(words[start:stop])), number)
                for gram in _grams(words):
                    self._grams.setdefault(gram, number)

    def find(self, example: Example) -> tuple[OverlapKind, str] | None:
        fields = _fields(example)
        if (number := self._exact.get(hash(fields))) is not None:
            return "exact", self._names[number]
        words = [_words(text) for text in fields]
        if (number := self._normalised.get(hash(tuple(words)))) is not None:
            return "normalised", self._names[number]
        for gram in _grams(words):
            if (number := self._grams.get(gram)) is not None:
                return "13-gram", self._names[number]
        return None


def _fields(example: Example) -> tuple[str, ...]:
    return (example.text,) if example.text_pair is None else (example.text, example.text_pair)


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def _grams(fields: Iterable[tuple[str, ...]]) -> Iterator[int]:
    for words in fields:
        for start in range(len(words) - _GRAM + 1):
            yield hash(words[start : start + _GRAM])


def _cut(text: str, length: int = 60) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
