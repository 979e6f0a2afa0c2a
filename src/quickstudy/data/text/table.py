"""Table: the rows of a self-supervised task, as numbers of sentences and labels; texts are made when asked for.

| form | text of a row | label |
|---|---|---|
| masked | its sentence, with a mask in place of a word | the word |
| plain | its sentence | a group of sentences |
| pair | its two sentences, as a pair | how they belong together |
| order | its two sentences, as a pair: as they are, or the second before the first | which |
| spans | its sentence: as it is, or with two spans exchanged | which |

In a table no sentence is in two rows. So no text is in both the support and the query set of an episode, however it is
drawn.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from quickstudy.data.text.sentences import MASK, has_word, mask_word
from quickstudy.data.text.store import TextStore
from quickstudy.seeding import derive_seed, rng
from quickstudy.tasks.split import Example

Ints = NDArray[np.int64]
Form = Literal["masked", "plain", "pair", "order", "spans"]
FORMS: tuple[Form, ...] = get_args(Form)

FEWEST_ROWS, MOST_ROWS = 24, 200  # of a label: enough for 16 shots and 8 queries; more would say the same again
FEWEST_LABELS = 5  # of a task of many labels
_MOST_ROWS_OF_TWO = 20_000  # of each of two labels
SPAN_WORDS = 8  # the fewest words of a sentence whose spans are exchanged


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a task.

    Attributes:
        name: What its task is called, e.g. `smlmt-rare`.
        form: How texts are made of its rows.
        label_names: Names of the labels.
        rows: (B, 1) or (B, 2) numbers of sentences.
        labels: (B,) positions in the names.
        description: The question that a label answers.
    """

    name: str
    form: Form
    label_names: tuple[str, ...]
    rows: Ints
    labels: Ints
    description: str


class TextSplit:
    """The rows of a table as a split; a text is read and made when it is asked for."""

    def __init__(self, store: TextStore, table: Table) -> None:
        self._store, self._table = store, table
        self._make = _MAKERS[table.form]
        self.labels = table.labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> Example:
        label = int(self.labels[index])
        numbers: list[int] = self._table.rows[index].tolist()
        texts = self._make([self._store[number] for number in numbers], self._table.label_names[label], label)
        return Example(texts[0], texts[1] if len(texts) > 1 else None, label)


def keep_usable(table: Table, store: TextStore) -> Table:
    """Return a table without the rows whose text would not show its label, or is that of a row before.

    A masked text must hold the mask, and exchanged spans must change the sentence. Two sentences that differ in their
    masked words alone give the same text, which can then have only one label.
    """
    split, seen = TextSplit(store, table), set[bytes]()
    kept = []
    for row in range(len(split)):
        example = split[row]
        key = blake2b(f"{example.text}\0{example.text_pair}".encode(), digest_size=8).digest()
        name = table.label_names[int(table.labels[row])]
        if key not in seen and _shows_label(table.form, example, name, store, table.rows[row]):
            seen.add(key)
            kept.append(row)
    return replace(table, rows=table.rows[kept], labels=table.labels[kept])


def balance(table: Table) -> Table | None:
    """Return a table of the labels that have enough rows; None if there are too few of them.

    Of many labels each has no more rows than the most, chosen at random; two labels have as many rows as each other.
    """
    random = rng(0, "balance", table.name)
    counts = np.bincount(table.labels, minlength=len(table.label_names))
    labels = np.flatnonzero(counts >= FEWEST_ROWS)
    two = len(table.label_names) == 2
    if len(labels) < (2 if two else FEWEST_LABELS):
        return None
    most = min(_MOST_ROWS_OF_TWO, counts.min()) if two else MOST_ROWS
    by_label = (np.flatnonzero(table.labels == label) for label in labels)
    chosen = [np.sort(random.permutation(rows)[:most]) for rows in by_label]
    return replace(
        table,
        label_names=tuple(table.label_names[label] for label in labels),
        rows=table.rows[np.concatenate(chosen)],
        labels=np.repeat(np.arange(len(labels)), [len(rows) for rows in chosen]),
    )


def exchange_spans(sentence: str) -> str:
    """Return a sentence with two spans of words that follow each other exchanged; the same ones every time.

    >>> exchange_spans("one two three four five six seven eight")
    'one four five two three six seven eight'
    """
    words = sentence.split(" ")
    third, seed = len(words) // 3, derive_seed(0, "spans", sentence)
    first = 1 + seed % third
    middle = first + 1 + seed // 97 % third
    last = min(len(words), middle + 1 + seed // 9409 % third)
    return " ".join([*words[:first], *words[middle:last], *words[first:middle], *words[last:]])


def _shows_label(form: Form, example: Example, name: str, store: TextStore, numbers: Iterable[int]) -> bool:
    if form == "masked":
        return MASK in example.text and not has_word(example.text, name)  # the word "mask" stands in the mask
    if form == "spans":
        sentence = store[int(next(iter(numbers)))]
        return sentence.count(" ") + 1 >= SPAN_WORDS and exchange_spans(sentence) != sentence
    return True


def _masked(sentences: Sequence[str], name: str, _label: int) -> list[str]:
    return [mask_word(sentences[0], name)]


def _as_they_are(sentences: Sequence[str], _name: str, _label: int) -> list[str]:
    return list(sentences)


def _ordered(sentences: Sequence[str], _name: str, label: int) -> list[str]:
    return list(sentences[::-1] if label else sentences)


def _exchanged(sentences: Sequence[str], _name: str, label: int) -> list[str]:
    return [exchange_spans(sentences[0]) if label else sentences[0]]


_MAKERS: Mapping[Form, Callable[[Sequence[str], str, int], list[str]]] = {
    "masked": _masked,
    "plain": _as_they_are,
    "pair": _as_they_are,
    "order": _ordered,
    "spans": _exchanged,
}
