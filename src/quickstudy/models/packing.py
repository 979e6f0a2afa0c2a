"""Packing: several sequences share a row, so that hardly any arithmetic is on padding.

    row          [CLS] a a [SEP] [CLS] b [SEP] .        positions    0 1 2 3 0 1 2 .
    attention    a token sees the tokens of its own sequence, so its state is what it would be alone

Texts of mixed length leave a quarter of a padded batch empty. Cut into batches of similar length, they make small
matrix products, which are slower. Packed, they are one batch of full rows. In a long row, attention is also computed
for pairs of tokens that do not see each other, so the length of a row is a compromise. Packing works only for
families whose positions and masks can be given from outside. A small input shows whether the model in use is one of
them.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from quickstudy.models.cut import UNFIT
from quickstudy.models.position import find_first_position
from quickstudy.models.tokens import Batch, Sequences, batch_tokens, batches, call_tokens, cuts

# The families whose positions and masks can be given from outside.
_PACKED_FAMILIES = {"bert", "distilbert", "electra", "roberta", "xlm-roberta", "camembert"}
_ATTENTION = 1000  # in a row of this length, a token costs as much in attention as in the layers (dev/LOG.md)
_WASTE = 1.05  # if padded batches have less padding than this, packing is not tried


def first_position(model: nn.Module, pad_id: int) -> int | None:
    """Return the position id of a packed sequence's first token, or None if the model cannot run packed rows."""
    if str(model.config.model_type) not in _PACKED_FAMILIES:  # type: ignore[union-attr]
        return None
    first = find_first_position(model)
    parameter = next(model.parameters())
    apart = Sequences(((5, 6, 7), (8, 9, 10, 11)), None, pairs=False)
    together = _batch(apart, [[0, 1]], 8, pad_id, first, parameter)
    with torch.no_grad():
        try:
            states = together.states(model(**together.inputs).last_hidden_state)
            alone = [
                model(input_ids=torch.tensor([ids], device=parameter.device)).last_hidden_state[0] for ids in apart.ids
            ]
        except UNFIT:  # attention that takes no such mask
            return None
    pairs = ((states[row, : len(expected)], expected) for row, expected in enumerate(alone))
    same = (torch.allclose(packed_states, expected, rtol=1e-4, atol=1e-4) for packed_states, expected in pairs)
    return first if all(same) else None


def packed(sequences: Sequences, pad_id: int, first: int | None, like: Tensor) -> Iterator[Batch]:
    """Cut sequences into batches with the least work in total: packed if that pays, else padded.

    Args:
        sequences: Token ids.
        pad_id: The token id that fills up rows.
        first: From `first_position`; with None nothing is packed.
        like: A parameter of the model, for device and type.
    """
    most = batch_tokens(like.device)
    best = None if first is None else _best_rows([len(ids) for ids in sequences.ids], call_tokens(like.device), most)
    if first is None or best is None:
        yield from batches(sequences, pad_id, like.device)
        return
    rows, room = best
    count = -(-len(rows) * room // most)
    for i in range(count):
        chosen = rows[len(rows) * i // count : len(rows) * (i + 1) // count]
        yield _batch(sequences, chosen, room, pad_id, first, like)


def _best_rows(lengths: list[int], call: int, most: int) -> tuple[list[list[int]], int] | None:
    """Return the rows that cost least, and their length; None if padded batches cost less."""
    ascending = sorted(lengths)
    plain = [(stop - start, ascending[stop - 1]) for start, stop in cuts(ascending, call, most)]
    if sum(count * longest for count, longest in plain) <= _WASTE * sum(lengths):
        return None
    least, best, total = sum(_cost(*shape) + call for shape in plain), None, sum(lengths)

    def cost(rows: int, room: int) -> float:
        return _cost(rows, room) + call * -(-rows * room // most)

    # Lengths are tried in the order of the least that they could cost: filling rows takes time, and few are worth it.
    for bound, room in sorted((cost(-(-total // room), room), room) for room in _rooms(lengths, most)):
        if bound >= least:
            break
        rows = fill(lengths, room)
        if cost(len(rows), room) < least:
            least, best = cost(len(rows), room), (rows, room)
    return best


def fill(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Return rows of positions in `lengths`, each of which fits into `room`.

    The longest sequences come first, and each goes into the first row that has room for it.

    >>> fill([3, 9, 4, 6], 10)
    [[1], [3, 2], [0]]
    """
    rows: list[list[int]] = []
    left: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, free in enumerate(left) if free >= lengths[i]), len(rows))
        if row == len(rows):
            rows.append([])
            left.append(room)
        rows[row].append(i)
        left[row] -= lengths[i]
    return rows


def _rooms(lengths: Sequence[int], most: int) -> set[int]:
    """Return lengths that full rows could have, up to three times the longest sequence."""
    longest, total = max(lengths), sum(lengths)
    most = max(longest, min(3 * longest, most))
    full = [-(-total // count) for count in range(1, len(lengths) + 1)]
    return {longest} | {room + more for room in full for more in (0, 1) if longest <= room + more <= most}


def _cost(rows: int, length: int) -> float:
    return rows * length * (1 + length / _ATTENTION)


def _batch(sequences: Sequences, rows: list[list[int]], room: int, pad_id: int, first: int, like: Tensor) -> Batch:
    """Return one batch of packed rows."""
    order = [i for row in rows for i in row]
    longest = max(len(sequences.ids[i]) for i in order)
    ids, positions, types = ([[fill] * room for _ in rows] for fill in (pad_id, first, 0))
    owner = [[-1] * room for _ in rows]  # padding counts as one more sequence: a softmax over nothing would be NaN
    where, mask = [], []
    for r, row in enumerate(rows):
        start = 0
        for i in row:
            size = len(sequences.ids[i])
            place = slice(start, start + size)
            ids[r][place], positions[r][place] = sequences.ids[i], range(first, first + size)
            owner[r][place] = [i] * size
            if sequences.types is not None:
                types[r][place] = sequences.types[i]
            padding = longest - size
            where.append([*range(r * room + start, r * room + start + size), *[0] * padding])
            mask.append([1] * size + [0] * padding)
            start += size

    def tensor(values: list[list[int]]) -> Tensor:
        return torch.tensor(values, device=like.device)

    owners = tensor(owner)
    apart = owners.unsqueeze(1) != owners.unsqueeze(2)  # (R, T, T)
    sees = torch.zeros_like(apart, dtype=like.dtype).masked_fill(apart, torch.finfo(like.dtype).min).unsqueeze(1)
    inputs = {"input_ids": tensor(ids), "attention_mask": sees, "position_ids": tensor(positions)}
    if sequences.types is not None:
        inputs["token_type_ids"] = tensor(types)
    return Batch(torch.tensor(order, device=like.device), inputs, tensor(mask), tensor(where))
