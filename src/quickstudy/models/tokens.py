"""Tokens: each text is tokenised once, however many episodes draw it.

`Sequences` are token ids without padding. Padding is added when a batch is made, up to the longest sequence of that
batch: with short texts, most of the arithmetic in a carelessly padded batch is on padding. Sequences are sorted by
length and cut into batches so that the following sum is least:

    sum over batches of (sequences · longest + c)        c: what a call of the encoder costs, in tokens

On a processor a call costs little, so 25 texts of mixed length go into about five batches with hardly any padding. On
a GPU a call costs as much as thousands of tokens, and few batches are better.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from quickstudy.tasks.split import Example

_CACHE_TOKENS = 50_000_000  # about 1 GB of ids; above that the cache is emptied
BATCH_TOKENS = 4096  # padded tokens per encoder pass: enough to fill the matrix units, small enough for the caches
_THREAD_TOKENS = 1024  # per thread, for inference on a processor: the states between two layers then stay in its caches
_CALL_TOKENS = {"cpu": 64}  # c, measured in dev/LOG.md; any other device has BATCH_TOKENS
_LOCK = Lock()  # a tokenizer serves one thread at a time; training has a second thread, for the next step's episodes

Ids = tuple[int, ...]
Key = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Sequences:
    """Token ids of B examples.

    Attributes:
        ids: One id tuple per sequence: B of them, or 2B (all first texts, then all second texts) for separate pairs.
        types: Token type ids in the same layout, or None where the tokenizer gives none.
        pairs: Whether the sequences are separate pairs.
    """

    ids: tuple[Ids, ...]
    types: tuple[Ids, ...] | None
    pairs: bool

    def __len__(self) -> int:
        """Number of examples B."""
        return len(self.ids) // 2 if self.pairs else len(self.ids)

    def select(self, rows: Sequence[int]) -> "Sequences":
        """Return the sequences of some examples, given their positions."""
        places = [*rows, *(len(self) + row for row in rows)] if self.pairs else rows
        types = None if self.types is None else tuple(self.types[place] for place in places)
        return Sequences(tuple(self.ids[place] for place in places), types, self.pairs)


NO_SEQUENCES = Sequences((), None, pairs=False)


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of sequences.

    Attributes:
        rows: (B,) positions of its sequences in the `Sequences` from which it was cut.
        inputs: Keyword arguments of the encoder. A row of them holds one padded sequence, or several.
        mask: (B, T) which token states of a sequence exist.
        where: (B, T) their positions among the states of all rows; None if each row is one sequence.
    """

    rows: Tensor
    inputs: dict[str, Tensor]
    mask: Tensor
    where: Tensor | None = None

    def states(self, row_states: Tensor) -> Tensor:
        """Return the token states of each sequence, (B, T, D), given those of each row, as the encoder returns them."""
        if self.where is None:
            return row_states
        return row_states.flatten(0, 1).index_select(0, self.where.flatten()).view(*self.where.shape, -1)


@dataclass(frozen=True, slots=True)
class _Known:
    """What is remembered of a text or a joint pair: token ids, their types, and whether tokens were cut off."""

    ids: Ids
    types: Ids | None
    cut: bool


class TokenCache:
    """Tokenises texts, and remembers them.

    Args:
        tokenizer: A Hugging Face tokenizer.
        max_length: Longer sequences are cut. In a joint pair, the longer text is cut first.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self._tokenizer, self._max_length = tokenizer, max_length
        self._known: dict[Key, _Known] = {}
        self._size = 0

    def __call__(self, examples: Iterable[Example], *, separate: bool) -> Sequences:
        """Return the sequences of some examples, all single texts or all pairs."""
        entries, pairs = self._look_up(list(examples), separate)
        types = (
            None if any(e.types is None for e in entries) else tuple(e.types for e in entries if e.types is not None)
        )
        return Sequences(tuple(e.ids for e in entries), types, pairs)

    def count_cut(self, examples: Iterable[Example], *, separate: bool) -> int:
        """Return how many examples have a text, or joint pair, that is longer than the sequences that are read."""
        entries, pairs = self._look_up(list(examples), separate)
        if not pairs:
            return sum(entry.cut for entry in entries)
        half = len(entries) // 2
        return sum(first.cut or second.cut for first, second in zip(entries[:half], entries[half:], strict=True))

    def forget(self) -> None:
        """Forget all texts: of a stream of them none comes again."""
        with _LOCK:
            self._known.clear()
            self._size = 0

    def _look_up(self, examples: Sequence[Example], separate: bool) -> tuple[list[_Known], bool]:
        """Return what is known of each sequence, and whether they are separate pairs; see `Sequences`."""
        pairs = separate and bool(examples) and examples[0].text_pair is not None
        keys: list[Key] = [(e.text, None if pairs else e.text_pair) for e in examples]
        if pairs:
            keys += [(e.text_pair or "", None) for e in examples]
        with _LOCK:
            if self._size > _CACHE_TOKENS:  # before the look-up, so that nothing this call needs is forgotten
                self._known.clear()
                self._size = 0
            self._learn([key for key in dict.fromkeys(keys) if key not in self._known])
            return [self._known[key] for key in keys], pairs

    def _learn(self, keys: Sequence[Key]) -> None:
        for paired in (False, True):
            wanted = [key for key in keys if (key[1] is not None) == paired]
            if not wanted:
                continue
            second = [key[1] for key in wanted] if paired else None
            out = self._tokenizer([key[0] for key in wanted], second, truncation=True, max_length=self._max_length)
            types = out.get("token_type_ids") or [None] * len(wanted)
            # Tokenizers written in Python do not say what they cut off; a text of just the limit then counts as cut.
            cuts = [bool(e.overflowing) for e in out.encodings] if out.is_fast else None
            for i, (key, ids, type_ids) in enumerate(zip(wanted, out["input_ids"], types, strict=True)):
                cut = cuts[i] if cuts else len(ids) >= self._max_length
                self._known[key] = _Known(tuple(ids), None if type_ids is None else tuple(type_ids), cut)
                self._size += len(ids)


def describe_cut(cut: int, max_length: int) -> str:
    """Say how many texts are longer than a model reads.

    >>> describe_cut(1, 128)
    '1 text is longer than 128 tokens, and only its first 128 are read (encoder.max_length in the recipe)'
    """
    if cut == 1:
        words = f"1 text is longer than {max_length} tokens, and only its first {max_length} are read"
    else:
        words = f"{cut:,} texts are longer than {max_length} tokens, and only their first {max_length} are read"
    return f"{words} (encoder.max_length in the recipe)"


def concatenate(sets: Sequence[Sequences]) -> Sequences:
    """Join sets of sequences, all of separate pairs or none. Of pairs, all first texts come before all second texts."""
    pairs = sets[0].pairs
    types = None if any(sequences.types is None for sequences in sets) else [s.types or () for s in sets]
    return Sequences(_join([s.ids for s in sets], pairs), None if types is None else _join(types, pairs), pairs)


def _join(sets: Sequence[tuple[Ids, ...]], pairs: bool) -> tuple[Ids, ...]:
    if not pairs:
        return tuple(ids for rows in sets for ids in rows)
    first = tuple(ids for rows in sets for ids in rows[: len(rows) // 2])
    return first + tuple(ids for rows in sets for ids in rows[len(rows) // 2 :])


def batches(sequences: Sequences, pad_id: int, device: torch.device) -> Iterator[Batch]:
    """Cut sequences into padded batches of similar length, with the least work in all."""
    order = sorted(range(len(sequences.ids)), key=lambda row: len(sequences.ids[row]))
    lengths = [len(sequences.ids[row]) for row in order]
    for start, stop in cuts(lengths, call_tokens(device), batch_tokens(device)):
        yield pad(sequences, order[start:stop], pad_id, device)


def call_tokens(device: torch.device) -> int:
    """Return c, what a call of the encoder costs on a device, in tokens."""
    return _CALL_TOKENS.get(device.type, BATCH_TOKENS)


def batch_tokens(device: torch.device) -> int:
    """Return how many tokens, with padding, a batch may have."""
    if device.type == "cpu" and not torch.is_grad_enabled():
        return min(BATCH_TOKENS, _THREAD_TOKENS * torch.get_num_threads())
    return BATCH_TOKENS


def cuts(lengths: Sequence[int], call: int, most: int) -> list[tuple[int, int]]:
    """Return where to cut sequences into batches, as (start, stop).

    Args:
        lengths: The lengths of the sequences in tokens, ascending.
        call: What a batch costs beside its tokens, in tokens.
        most: The most padded tokens of a batch, unless a single sequence is longer. A larger batch is divided evenly.

    >>> cuts([5, 5, 6, 30, 31], 8, 4096), cuts([5, 5, 6, 30, 31], 1000, 4096), cuts([5, 5, 5, 5], 8, 10)
    ([(0, 3), (3, 5)], [(0, 5)], [(0, 2), (2, 4)])
    """
    ends = [i for i in range(1, len(lengths) + 1) if i == len(lengths) or lengths[i] > lengths[i - 1]]
    starts = [0, *ends[:-1]]
    # For each end: the least cost of all sequences up to it, and where the last batch then starts. To cut between
    # sequences of the same length gains nothing.
    least, first = [0], []
    for j, end in enumerate(ends):
        cost, i = min((least[i] + (end - starts[i]) * lengths[end - 1] + call, i) for i in range(j + 1))
        least.append(cost)
        first.append(i)
    backwards: list[tuple[int, int]] = []
    j = len(ends)
    while j:
        start, stop = starts[first[j - 1]], ends[j - 1]
        count = -(-(stop - start) // max(1, most // lengths[stop - 1]))
        edges = [start + (stop - start) * i // count for i in range(count + 1)]
        backwards += reversed(list(pairwise(edges)))
        j = first[j - 1]
    return backwards[::-1]


def pad(sequences: Sequences, rows: Sequence[int], pad_id: int, device: torch.device) -> Batch:
    """Return the batch of some rows of sequences, padded to the longest of them."""
    longest = max(len(sequences.ids[row]) for row in rows)

    def padded(values: tuple[Ids, ...], fill: int) -> Tensor:
        return torch.tensor([values[row] + (fill,) * (longest - len(values[row])) for row in rows], device=device)

    inputs = {
        "input_ids": padded(sequences.ids, pad_id),
        "attention_mask": padded(tuple((1,) * len(ids) for ids in sequences.ids), 0),
    }
    if sequences.types is not None:
        inputs["token_type_ids"] = padded(sequences.types, 0)
    return Batch(torch.tensor(rows, device=device), inputs, inputs["attention_mask"])
