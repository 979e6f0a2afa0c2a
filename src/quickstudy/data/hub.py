"""Hub: any classification data set of the Hugging Face Hub, by id and column mapping.

The rows stay where `datasets` keeps them, mapped into memory. Label names come from the data set's `ClassLabel`, else
from the values found.
"""

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quickstudy.data.table import ArrowSplit, Columns
from quickstudy.errors import DataError, did_you_mean
from quickstudy.tasks.split import Split
from quickstudy.tasks.task import Kind, Task

_SPLIT_NAMES = {"dev": "validation", "valid": "validation"}


def fetch(repository: str, config: str | None = None) -> datasets.DatasetDict:
    """Download (or find in the local cache) all splits of a Hub data set, or load a saved one from a local folder.

    Raises:
        DataError: No such data set, or the Hub is out of reach.
    """
    try:
        return datasets.load_dataset(repository, config)
    except Exception as error:  # the Hub client raises many kinds of errors; all of them mean "could not be had"
        raise DataError(
            f"the data set {repository!r}{f' ({config})' if config else ''} could not be loaded: {_first_line(error)}",
            fix="Check the id and the network. Offline: use local files, or the bundled tasks (samples).",
        ) from error


def load_hub(
    repository: str, columns: Columns = Columns(), kind: Kind = "classification", *, config: str | None = None
) -> Task:
    """Load a Hub data set as one task.

    Args:
        repository: Hub id, e.g. `ag_news`.
        columns: Which columns hold text, second text and label.
        kind: Labels are classes or numbers.
        config: Name of the configuration, where there are several.

    Raises:
        DataError: It cannot be loaded, or a column is missing.
    """
    found = fetch(repository, config)
    first = next(iter(found.values()))
    pair = columns.text_pair
    if pair == "auto":
        pair = "text_pair" if "text_pair" in first.column_names else None
    label = columns.label or "label"
    columns = Columns(columns.text, pair, label)
    for name in filter(None, (columns.text, pair, label)):
        if name not in first.column_names:
            raise DataError(
                f"the data set {repository!r} has no column {name!r}; it has: {', '.join(first.column_names)}",
                fix=f"{did_you_mean(name, first.column_names)} Name the columns: hub:{repository}?text=...&label=...",
            )
    names = _label_names(found, label) if kind == "classification" else []
    splits: dict[str, Split] = {}
    for split, rows in found.items():
        labels = _labels(rows, label, names, kind)
        if (labels >= 0).all() or kind == "regression":  # -1 marks a test split whose labels are withheld
            splits[_SPLIT_NAMES.get(split, split)] = ArrowSplit(rows, columns, labels)
    return Task(f"hub:{repository}", splits, tuple(names), kind, columns.text_pair is not None)


def _label_names(found: datasets.DatasetDict, column: str) -> list[str]:
    feature = next(iter(found.values())).features[column]
    if isinstance(feature, datasets.ClassLabel):
        return list(feature.names)
    values = {str(v) for rows in found.values() for v in pc.unique(rows.data.column(column)).to_pylist()}
    return sorted(values)


def _labels(rows: datasets.Dataset, column: str, names: list[str], kind: Kind) -> np.ndarray:
    values = rows.data.column(column)
    if kind == "regression":
        return np.asarray(values.to_numpy(), dtype=np.float64)
    if isinstance(rows.features[column], datasets.ClassLabel):
        return np.asarray(values.to_numpy(), dtype=np.int64)
    positions = pc.index_in(pc.cast(values, pa.string()), value_set=pa.array(names))
    return np.asarray(positions.to_numpy(), dtype=np.int64)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
