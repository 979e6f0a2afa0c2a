"""Hub: any data set of the Hugging Face Hub as a task, by its id and the names of its columns.

The rows stay where `datasets` keeps them, mapped into memory. Label names come from the data set's `ClassLabel`;
without one, the different values are the labels. Published data sets mark withheld and undecided labels with -1 or
null, and a few of their texts are empty. Rows without a text or a label are left out. A split without any other row is
left out too.

A data set of a given revision is that of one commit. `datasets` would take any other commit from its cache if the Hub
does not answer, so the commit of what it found is checked, and a commit that is in the cache is taken from there.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quickstudy.data.columns import Columns, choose_columns, say_choice
from quickstudy.data.table import ArrowSplit, sort_labels
from quickstudy.errors import DataError, did_you_mean
from quickstudy.storage.revision import find_commit, is_commit
from quickstudy.tasks.split import SPLIT_NAMES, Split, SubsetSplit
from quickstudy.tasks.task import Kind, Task

if TYPE_CHECKING:
    import datasets

# `datasets` brings pandas along: it is imported when a data set of the Hub is asked for.

_OTHER_COLUMN = "Name another column behind the data set: ?text=..., ?pair=... or ?label=..."


def fetch(repository: str, config: str | None = None, revision: str | None = None) -> "datasets.DatasetDict":
    """Return all splits of a Hub data set, downloaded or from the local cache, or of a saved one in a local folder.

    Args:
        repository: Its id.
        config: Name of the configuration, where there are several.
        revision: Branch, tag or commit; None for the main branch.

    Raises:
        DataError: No such data set or revision, or the Hub is out of reach.
    """
    import datasets

    with explain_hub_errors(repository, config):
        return datasets.load_dataset(repository, config) if revision is None else _pinned(repository, config, revision)


@contextmanager
def explain_hub_errors(repository: str, config: str | None) -> Iterator[None]:
    """Turn any error of the Hub's client into a `DataError` that says what to do."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # it raises many kinds of errors; each means that there are no data
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        fix = "Check the id and the network. Offline: use local files, or the bundled tasks (samples)."
        if lines[0].startswith("Config name is missing"):
            fix = f"Name one: hub:{repository}?config=... {' '.join(lines[1:2])}"
        raise DataError(
            f"the data set {repository!r}{f' ({config})' if config else ''} could not be loaded: {lines[0]}", fix=fix
        ) from error


def pin(repository: str, config: str | None, revision: str | None) -> str | None:
    """Return the commit that a revision of a data set is; None for a local folder, or if nothing knows it."""
    if Path(repository).is_dir():
        return None
    if commit := find_commit(repository, revision, "dataset"):
        return commit
    cached = [] if revision else _cached(repository, config, "*")
    return max(cached, key=lambda folder: folder.stat().st_mtime).name if cached else None


def _pinned(repository: str, config: str | None, revision: str) -> "datasets.DatasetDict":
    """Return all splits of one commit of a data set."""
    import datasets
    from datasets.packaged_modules.cache.cache import Cache

    named = f"the data set {repository!r}{f' ({config})' if config else ''}"
    if Path(repository).is_dir():
        raise DataError(f"{named} is a folder, and has no revision", fix="Leave revision out.")
    commit = pin(repository, config, revision)
    if commit and len(cached := _cached(repository, config, commit)) == 1:
        # This is how `datasets` itself takes a data set from its cache, but there it is the latest of all commits.
        *_, name, version, found = cached[0].parts
        last = repository.rpartition("/")[2]
        builder = Cache(dataset_name=last, repo_id=repository, config_name=name, version=version, hash=found)
    else:
        builder = datasets.load_dataset_builder(repository, config, revision=commit or revision)
        if builder.hash != commit:
            raise DataError(
                f"the revision {revision!r} of {named} is not on this machine, and the Hub did not give it",
                fix="Check the revision and the network.",
            )
    builder.download_and_prepare()
    return builder.as_dataset()


def _cached(repository: str, config: str | None, commit: str) -> list[Path]:
    """Return the folders of the cache of `datasets` that hold a commit of a data set, one for each configuration."""
    import datasets
    from datasets.naming import camelcase_to_snakecase

    *owner, name = repository.split("/")
    root = Path(datasets.config.HF_DATASETS_CACHE) / "___".join([*owner, camelcase_to_snakecase(name)])
    return [folder for folder in root.glob(f"{config or '*'}/*/{commit}") if folder.is_dir() and is_commit(folder.name)]


def load_hub(
    repository: str,
    columns: Columns = Columns(),
    kind: Kind = "classification",
    *,
    config: str | None = None,
    revision: str | None = None,
) -> Task:
    """Load a Hub data set as one task.

    Args:
        repository: Hub id, e.g. `ag_news`.
        columns: Which columns hold text, second text and label.
        kind: Labels are classes or numbers.
        config: Name of the configuration, where there are several.
        revision: Branch, tag or commit; None for the main branch.

    Raises:
        DataError: It cannot be loaded, a column is missing, or it holds something else.
    """
    published = fetch(repository, config, revision)
    reference = f"hub:{repository}"
    names = list(dict.fromkeys(name for rows in published.values() for name in rows.column_names))
    chosen = choose_columns(names, columns, reference, kind)
    say_choice(columns, chosen, reference, labelled=True)
    columns = chosen
    published = {split: _select_columns(rows, columns, reference, split) for split, rows in published.items()}
    labels = _label_names(published, columns.label) if kind == "classification" else []
    splits: dict[str, Split] = {}
    for split, rows in published.items():
        if (usable := _usable_rows(rows, columns, labels, kind)) is not None:
            usual_name = SPLIT_NAMES.get(split, split)
            splits[split if usual_name in published or usual_name in splits else usual_name] = usable
    if not splits:
        fix = f"Name other columns: {reference}?text=...&label=..."
        raise DataError(f"no row of {repository!r} has both a text and a label", fix=fix)
    name = f"hub:{repository}{f'?config={config}' if config else ''}"
    return Task(name, splits, tuple(labels), kind, columns.text_pair is not None)


def read_labels(rows: "datasets.Dataset", column: str, names: Sequence[str], kind: Kind) -> np.ndarray:
    """Return (B,) label positions or scores of a column; -1 or NaN where there is no label."""
    if kind == "regression":
        return np.asarray(_cast(rows, column, pa.float64()).to_numpy(), dtype=np.float64)
    if _class_names(rows, column) is not None:
        positions = rows.data.column(column)
    else:
        positions = pc.index_in(_cast(rows, column, pa.string()), value_set=pa.array(names, pa.string()))
    return np.asarray(pc.fill_null(positions, -1).to_numpy(), dtype=np.int64)


def _usable_rows(rows: "datasets.Dataset", columns: Columns, names: Sequence[str], kind: Kind) -> Split | None:
    """Return the rows that have a text and a label; None if there are none."""
    labels = read_labels(rows, columns.label, names, kind)
    usable = np.isfinite(labels) if kind == "regression" else labels >= 0
    for column in filter(None, (columns.text, columns.text_pair)):
        usable &= _has_text(rows, column)
    whole = ArrowSplit(rows, columns, labels)
    if usable.all():
        return whole if len(whole) else None
    return SubsetSplit(whole, np.flatnonzero(usable)) if usable.any() else None


def _select_columns(rows: "datasets.Dataset", columns: Columns, reference: str, split: str) -> "datasets.Dataset":
    """Return the rows with the needed columns alone; other columns (images, long documents) are never decoded."""
    needed = dict.fromkeys(name for name in (columns.text, columns.text_pair, columns.label) if name)
    for name in needed:
        if name not in rows.column_names:
            raise DataError(
                f"the split {split!r} of {reference} has no column {name!r}; it has: {', '.join(rows.column_names)}",
                fix=f"{did_you_mean(name, rows.column_names)} Name the columns: {reference}?text=...&label=...",
            )
    return rows.select_columns(list(needed))


def _label_names(splits: Mapping[str, "datasets.Dataset"], column: str) -> list[str]:
    names = _class_names(next(iter(splits.values())), column)
    if names is not None:
        return names
    texts = (_cast(rows, column, pa.string()) for rows in splits.values())
    return sort_labels(value for column in texts for value in pc.unique(column).to_pylist() if value and value.strip())


def _class_names(rows: "datasets.Dataset", column: str) -> list[str] | None:
    """Return the label names that a data set publishes; None if it names none."""
    from datasets import ClassLabel

    feature = rows.features[column]
    return list(feature.names) if isinstance(feature, ClassLabel) else None


def _has_text(rows: "datasets.Dataset", column: str) -> np.ndarray:
    """Return (B,) whether a row's text is there and not blank."""
    values = rows.data.column(column)
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        raise DataError(f"the column {column!r} holds {values.type}, not text", fix=_OTHER_COLUMN)
    texts = pc.cast(values, pa.large_string())
    blank = pc.or_(pc.equal(pc.binary_length(texts), 0), pc.utf8_is_space(texts))
    return ~np.asarray(pc.fill_null(blank, True).to_numpy(), dtype=bool)


def _cast(rows: "datasets.Dataset", column: str, kind: pa.DataType) -> pa.ChunkedArray:
    values = rows.data.column(column)
    try:
        return pc.cast(values, kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        what = f"the column {column!r} holds {values.type}, not {'numbers' if kind == pa.float64() else 'text'}"
        raise DataError(what, fix=_OTHER_COLUMN) from None
