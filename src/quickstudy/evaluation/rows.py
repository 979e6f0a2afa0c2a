"""Rows: what each test row gives to the score of a draw, so that the noise of the test rows can be told.

    accuracy          1 where the prediction is right, 0 where it is not; their mean is the score
    other scores      the pseudo-values of the jackknife over G groups of rows: G · score - (G - 1) · score without g

Right and wrong are kept as bits in base64: 1,000 rows take 168 characters. Pseudo-values (Tukey 1958) stand for rows
where a score is not a mean over rows, such as a correlation: their mean is about the score, and their spread is that
of the score over samples of rows.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from quickstudy.evaluation.record import Draw, RowScores
from quickstudy.seeding import rng
from quickstudy.tasks.split import Example

_GROUPS = 50


@dataclass(frozen=True, slots=True)
class TaskRows:
    """What rows give to the scores of the draws of a task, or to paired differences of scores.

    Attributes:
        values: (D, R) by draw and row; None where each draw was scored on rows of its own.
        tests: Hashes of what was scored, for each draw.
    """

    values: NDArray[np.float64] | None
    tests: tuple[str, ...] = ()

    def minus(self, other: "TaskRows") -> "TaskRows":
        """Return the paired differences."""
        differences = None if self.values is None or other.values is None else self.values - other.values
        return TaskRows(differences, self.tests)


def tests_hash(tests: Sequence[Example]) -> str:
    """Return a short hash of the texts that are scored, by which draws that score the same ones know each other."""
    texts = "\x00".join(f"{example.text}\x01{example.text_pair or ''}" for example in tests)
    return blake2b(texts.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def right_rows(tests: Sequence[Example], right: NDArray[np.bool_]) -> RowScores:
    """Return which rows were predicted rightly.

    >>> unpack(right_rows([Example("a"), Example("b"), Example("c")], np.array([True, False, True])), 3)
    array([1., 0., 1.])
    """
    return RowScores(tests_hash(tests), right=pack(right))


def pack(right: NDArray[np.bool_]) -> str:
    """Return which rows are right as bits in base64.

    >>> pack(np.array([True, False, True]))
    'oA=='
    """
    return b64encode(np.packbits(right).tobytes()).decode("ascii")


def grouped_rows(tests: Sequence[Example], score: Callable[[NDArray[np.bool_]], float]) -> RowScores | None:
    """Return the pseudo-values of a score; None for fewer than three rows.

    Groups are made at random. If rows are sorted, every 50th row is a group that is like the others, more than samples
    of rows are.

    Args:
        tests: What is scored.
        score: Gives the score of the rows that are marked.
    """
    n = len(tests)
    groups = min(_GROUPS, n)
    if groups < 3:
        return None
    whole, group = score(np.ones(n, dtype=bool)), rng(0, "groups", n).permutation(n) % groups
    values = [groups * whole - (groups - 1) * score(group != g) for g in range(groups)]
    # Other groups were made before, every 50th row of each; rows that are grouped otherwise are not compared.
    return RowScores(f"{tests_hash(tests)} shuffled", pseudo=tuple(round(value, 5) for value in values))


def unpack(rows: RowScores, n_test: int) -> NDArray[np.float64]:
    """Return what each row, or group of rows, gives to the score."""
    if rows.right is None:
        return np.array(rows.pseudo, dtype=np.float64)
    packed = np.frombuffer(b64decode(rows.right), dtype=np.uint8)
    return np.unpackbits(packed, count=n_test).astype(np.float64)


def scores_by_task(draws: Sequence[Draw]) -> dict[str, list[float]]:
    """Return the main score of each draw of a learner, by task."""
    scores: dict[str, list[float]] = {}
    for draw in draws:
        scores.setdefault(draw.task, []).append(draw.score)
    return scores


def rows_by_task(draws: Sequence[Draw]) -> dict[str, TaskRows]:
    """Return what is known of the rows of a learner's tasks; a task without, or with a single row, is left out."""
    by_task: dict[str, list[Draw]] = {}
    for draw in draws:
        by_task.setdefault(draw.task, []).append(draw)
    known = {task: _task_rows(of_task) for task, of_task in by_task.items()}
    return {task: rows for task, rows in known.items() if rows is not None}


def row_differences(a: Mapping[str, TaskRows], b: Mapping[str, TaskRows]) -> dict[str, TaskRows]:
    """Return the paired differences of the tasks of which both were scored on the same rows, and these are known."""
    return {task: a[task].minus(b[task]) for task in a if task in b and a[task].tests == b[task].tests}


def _task_rows(draws: Sequence[Draw]) -> TaskRows | None:
    rows = [draw.rows for draw in draws if draw.rows is not None]
    if len(rows) < len(draws):
        return None
    tests = tuple(each.tests for each in rows)
    if len(set(tests)) == len(draws) > 1:
        return TaskRows(None, tests)
    values = [unpack(each, draw.n_test) for each, draw in zip(rows, draws, strict=True)]
    same = len(set(tests)) == 1 and len({len(of_draw) for of_draw in values}) == 1 < len(values[0])
    return TaskRows(np.stack(values), tests) if same else None
