"""Corpus: text without labels, its sentences and self-supervised tasks kept in the cache folder, and opened by name.

The first use of a corpus writes its sentences (`store`) and the tables of its tasks; later ones open them. The name in
the cache is a hash of the content, so a corpus that changes is read again. Sentences that occur several times count
once, whichever sides their documents are on: so no text of a side is in a task of another side. The tasks are made of
at most 400,000 sentences, whose documents are drawn from the whole corpus; a corpus of any size gives tables of about
the same size. Tasks of meta-validation and meta-test have half of the rows of each label in `test`.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from hashlib import blake2b, sha256
from pathlib import Path

import numpy as np

from quickstudy.data.cache import make_once
from quickstudy.data.columns import AUTO
from quickstudy.data.source import explain_os_errors
from quickstudy.data.text.documents import Document, list_text_files, read_documents
from quickstudy.data.text.hub_documents import HubText, read_hub_documents, version_of_hub_text
from quickstudy.data.text.python_docs import PACKAGE_SHARES, PYTHON_DOCS, read_python_docs, version_of_python_docs
from quickstudy.data.text.sentence_tables import order_tables, pair_tables
from quickstudy.data.text.store import SHARES, SIDES, Side, TextStore, sample_documents, write_store
from quickstudy.data.text.table import Ints, Table, TextSplit, balance, keep_usable
from quickstudy.errors import DataError, did_you_mean
from quickstudy.storage.files import write_json
from quickstudy.storage.manifest import hash_file
from quickstudy.tasks.split import Split, hold_out
from quickstudy.tasks.task import Task

Source = str | HubText
FAMILIES = ("smlmt", "clusters", "pairs", "order", "cloze")

_FORMAT = 2  # raise it when the files in the cache, or the rules by which they are made, change
_SENTENCES = 400_000

_log = logging.getLogger(__name__)


def load_text_tasks(
    source: Source,
    base: Path = Path(),
    *,
    families: Sequence[str] = (),
    side: Side = "meta-train",
    column: str = AUTO,
) -> list[Task]:
    """Return the self-supervised tasks of a corpus.

    Args:
        source: A file, a folder, `python-docs`, or a data set of the Hub.
        base: Folder that a relative path starts from.
        families: Which kinds of tasks; all that the corpus gives by default.
        side: Which documents they are made of.
        column: Column of the texts in tables; of a data set of the Hub, it is said there.

    Raises:
        DataError: The corpus cannot be read, a kind of task is unknown, or there is too little text for one.
    """
    where = _name(source)
    for family in families:
        if family not in FAMILIES:
            raise DataError(f"there are no tasks {family!r}", where=where, fix=did_you_mean(family, FAMILIES))
    folder = _open_folder(source, base, column)
    store, tables = TextStore(folder), _read_tables(folder, side)
    for family in families or ("",):
        if not any(of == family or not family for of, _ in tables):
            raise DataError(
                f"there is too little text in {side!r} for tasks {family!r}".removesuffix(" ''"),
                where=where,
                fix="Give more text: a word counts if it is in 24 sentences, and pairs need documents of eight "
                "sentences or more.",
            )
    name = f"text:{Path(where).name}" + ("" if side == "meta-train" else f":{side}")
    return [_task(name, store, table, side) for family, table in tables if not families or family in families]


def open_corpus(source: Source, base: Path = Path(), *, column: str = AUTO) -> TextStore:
    """Return the sentences of a corpus; see `load_text_tasks`."""
    return TextStore(_open_folder(source, base, column))


def _task(name: str, store: TextStore, table: Table, side: Side) -> Task:
    splits: dict[str, Split] = {"train": TextSplit(store, table)}
    if side != SIDES[0]:
        splits["train"], splits["test"] = hold_out(splits["train"], 0.5, seed=0)
    return Task(
        name=f"{name}/{table.name}",
        splits=splits,
        label_names=table.label_names,
        pair=table.form in ("pair", "order"),
        description=table.description,
    )


def _name(source: Source) -> str:
    return source if isinstance(source, str) else source.repository


def _open_folder(source: Source, base: Path, column: str) -> Path:
    """Return the folder of a corpus in the cache; it is made if it is not there."""
    read: Callable[[], Iterator[Document]]
    if isinstance(source, HubText):
        key, read = f"hub|{version_of_hub_text(source)}", partial(read_hub_documents, source)
    elif source == PYTHON_DOCS:
        key, read = f"{PYTHON_DOCS}|{version_of_python_docs()}", read_python_docs
    else:
        path = base / source
        files = list_text_files(path)
        with explain_os_errors(path):
            key = f"{column}|{path.is_dir()}" + "".join(f"|{file.name}:{hash_file(file)}" for file in files)
        read = partial(read_documents, path, column)

    def write(new: Path) -> None:
        _log.info("%s: reading the texts for the first time", _name(source))
        write_store(read(), new, _name(source), PACKAGE_SHARES if source == PYTHON_DOCS else SHARES)
        _write_tables(TextStore(new), new)

    return make_once(f"text-{sha256(f'{_FORMAT}|{key}'.encode()).hexdigest()}", write)


def _write_tables(store: TextStore, folder: Path) -> None:
    """Make the tables of all sides, and write them."""
    sides, numbers, documents = _distinct_sentences(store)
    for position, side in enumerate(SIDES):
        chosen = sides == position
        tables = list(_tables(store, numbers[chosen], documents[chosen]))
        arrays = {
            f"{kind}-{i}": getattr(table, kind) for i, (_, table) in enumerate(tables) for kind in ("rows", "labels")
        }
        np.savez(folder / f"{side}.npz", **arrays)
        texts = [
            {key: value for key, value in {**asdict(table), "family": family}.items() if key not in ("rows", "labels")}
            for family, table in tables
        ]
        write_json(folder / f"{side}.json", texts)


def _read_tables(folder: Path, side: Side) -> list[tuple[str, Table]]:
    """Return the tables of a side, each with the family of its task."""
    texts = json.loads((folder / f"{side}.json").read_text(encoding="utf-8"))
    tables = []
    with np.load(folder / f"{side}.npz") as arrays:
        for i, text in enumerate(texts):
            family, names = text.pop("family"), tuple(text.pop("label_names"))
            rows, labels = arrays[f"rows-{i}"], arrays[f"labels-{i}"]
            tables.append((family, Table(label_names=names, rows=rows, labels=labels, **text)))
    return tables


def _tables(store: TextStore, numbers: Ints, documents: Ints) -> Iterator[tuple[str, Table]]:
    """Yield the tables that some sentences give, each with its family."""
    # scikit-learn takes long to import, and only a corpus that is read for the first time needs it
    from quickstudy.data.text.word_tables import cloze_tables, cluster_tables, smlmt_tables

    sentences = _Sentences(store, numbers)
    families: Mapping[str, Callable[[], Iterator[Table]]] = {
        "smlmt": lambda: smlmt_tables(sentences, numbers),
        "clusters": lambda: cluster_tables(sentences, numbers),
        "pairs": lambda: pair_tables(numbers, documents),
        "order": lambda: order_tables(numbers, documents),
        "cloze": lambda: cloze_tables(sentences, numbers),
    }
    for family, make in families.items() if len(numbers) else ():
        for table in make():
            balanced = balance(table)
            usable = balance(keep_usable(balanced, store)) if balanced else None
            if usable:
                yield family, usable


class _Sentences:
    """Some sentences of a store, read again whenever they are gone through."""

    def __init__(self, store: TextStore, numbers: Ints) -> None:
        self._store, self._numbers = store, numbers

    def __iter__(self) -> Iterator[str]:
        return (self._store[number] for number in self._numbers.tolist())


def _distinct_sentences(store: TextStore) -> tuple["np.ndarray[tuple[int], np.dtype[np.uint8]]", Ints, Ints]:
    """Return side, number and document of the sentences that tasks are made of: each once, those of usual length."""
    numbers: list[int] = []
    documents: list[int] = []
    seen: set[bytes] = set()
    for document in sample_documents(store, _SENTENCES):
        first, last = store.documents[document : document + 2].tolist()
        for number, sentence in enumerate(store.read(first, last), first):
            key = blake2b(sentence.casefold().encode(), digest_size=8).digest()
            if key not in seen:
                seen.add(key)
                numbers.append(number)
                documents.append(document)
    places = np.array(documents, dtype=np.int64)
    return np.array(store.sides)[places], np.array(numbers, dtype=np.int64), places
