"""Inputs: what people call X, as examples.

    list, tuple, Series, 1-D array, column of a data set    texts, or (text, second text) pairs
    DataFrame, 2-D array, table, data set                   one column: texts; two columns: pairs

A table with more columns is refused, because nothing says which of them holds the text. No library of tables is
imported: a table is known by what it can do.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from quickstudy.errors import DataError
from quickstudy.tasks.split import Example
from quickstudy.tasks.text import parse_texts

_COLUMNS = "Give one column for texts, or two for pairs, e.g. X[['text']] or X[['text', 'text_pair']]."


def parse_inputs(X: Any) -> list[Example]:
    """Return X as examples, all single texts or all pairs.

    Raises:
        DataError: There is none, one is no text or empty, pairs and single texts are mixed, or it is not clear which
            column holds the text.

    >>> parse_inputs(np.array([["a claim", "its evidence"]], dtype=object))
    [Example(text='a claim', text_pair='its evidence', label=None)]
    """
    if isinstance(X, str | Example):
        raise DataError("X is a single text", fix='Give a list: ["..."].')
    if hasattr(X, "toarray"):
        raise DataError("X is a sparse matrix, not texts", fix="Give the texts themselves.")
    examples = parse_texts(_rows(X))
    if not examples:
        raise DataError("X holds no text: 0 sample(s)", fix="Give at least one text.")
    pairs = [example.text_pair is not None for example in examples]
    if len(set(pairs)) > 1:
        where = f"X[{pairs.index(not pairs[0])}]"
        raise DataError("texts and pairs are mixed", where=where, fix="Give a second text everywhere or nowhere.")
    return examples


def _rows(X: Any) -> Iterable[Any]:
    """Return one entry per row: a text, or a tuple of two."""
    names = _column_names(X)
    if names is not None:
        _check_columns(len(names), f"X has {len(names)} columns ({', '.join(map(str, names)) or 'none'})")
        columns = [_column(X, i, name) for i, name in enumerate(names)]
        return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
    if isinstance(X, np.ndarray) and X.ndim != 1:
        if X.ndim != 2:
            raise DataError(f"X is an array of {X.ndim} dimensions", fix="Give a list of texts.")
        _check_columns(X.shape[1], f"X has {X.shape[1]} columns")
        return X[:, 0] if X.shape[1] == 1 else [tuple(row) for row in X.tolist()]
    return X  # type: ignore[no-any-return]


def _check_columns(count: int, what: str) -> None:
    if count not in (1, 2):
        raise DataError(f"{what}, and it is not clear which of them holds the text", fix=_COLUMNS)


def _column_names(X: Any) -> Sequence[Any] | None:
    """Return the names of the columns of a table; None for anything else."""
    for attribute in ("column_names", "columns"):  # data sets and tables of Arrow; data frames
        names = getattr(X, attribute, None)
        if names is not None and not callable(names):
            return list(names)
    return None


def _column(X: Any, position: int, name: Any) -> Iterable[Any]:
    """Return a column of a table; two columns of a data frame may have the same name."""
    column = X.iloc[:, position] if hasattr(X, "iloc") else X[name]
    return column.to_pylist() if hasattr(column, "to_pylist") else column  # type: ignore[no-any-return]
