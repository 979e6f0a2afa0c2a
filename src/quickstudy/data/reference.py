"""Reference: a line of text that names tasks; recipes and the command line use the same references.

    samples                         all bundled tasks          samples:meta-test          a meta split of them
    samples:fin_company_tone        one bundled task           glue, glue:rte,sst2        all of GLUE, some of it
    glue:rte?path=data/glue         from a local folder        hub:ag_news?label=label    any Hub data set
    few.csv?text=note&label=code    a file                     corpora/                   a folder (see `files`)
    text:notes/?tasks=smlmt,cloze   text without labels (see `text.corpus`): a file, a folder, or `python-docs`
    text:hub:allenai/c4?config=en&rows=200000       the texts of a Hub data set (see `text.hub_documents`)
    python-docs:meta-test           which package does a sentence document (see `text.python_docs`)?

| option after `?` | for | meaning |
|---|---|---|
| `tasks` | text | kinds of self-supervised tasks: `smlmt`, `clusters`, `pairs`, `order`, `cloze` |
| `split` | text | which documents: `meta-train` (90 %, the default), `meta-validation` or `meta-test` |
| `text` | text | name of the column of the texts in tables |
| `part`, `rows` | text of the Hub | which split is read (`train` by default), and how many of its rows (all) |
| `text`, `pair`, `label` | Hub, files | names of the columns (see `columns`); `pair=none` takes no second text |
| `kind` | Hub, files | `classification` or `regression` |
| `lineage` | Hub, files | source of the texts, e.g. `imdb`; tasks of the same source are not held out from each other |
| `bad` | files | `skip` leaves out rows that cannot be used |
| `config` | Hub, text of the Hub | the configuration of the data set |
| `revision` | Hub, GLUE | a branch, a tag or a commit of the data set; a run keeps the commit that it loaded |
| `path` | GLUE | a local folder |
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args
from urllib.parse import parse_qsl, urlencode

from quickstudy.data.columns import AUTO, Columns
from quickstudy.data.files import load_path
from quickstudy.data.glue import GLUE, HUB_ID, load_glue
from quickstudy.data.hub import load_hub, pin
from quickstudy.data.samples import load_samples
from quickstudy.data.source import explain_os_errors
from quickstudy.data.text.corpus import Source, load_text_tasks, open_corpus
from quickstudy.data.text.hub_documents import HubText
from quickstudy.data.text.package_tasks import load_package_tasks
from quickstudy.data.text.python_docs import PYTHON_DOCS
from quickstudy.data.text.store import SIDES, TextStore
from quickstudy.errors import DataError, did_you_mean
from quickstudy.storage.revision import is_commit
from quickstudy.tasks.task import Kind, Task

_COLUMNS = ("text", "pair", "label", "kind", "lineage")
_FILE = (*_COLUMNS, "bad")
_TEXT, _HUB_TEXT = ("tasks", "split", "text"), ("config", "part", "rows")
_HUB = "hub:"
_OPTIONS = {
    "samples": (),
    "glue": ("path", "revision"),
    "hub": (*_COLUMNS, "config", "revision"),
    "text": _TEXT,
    PYTHON_DOCS: (),
}


def load_tasks(references: str | Iterable[str], *, base: Path = Path()) -> list[Task]:
    """Load the tasks that one or more references name.

    Args:
        references: One reference or several; see the first lines of this file.
        base: Folder that relative paths start from.

    Raises:
        DataError: A reference names nothing, or its data cannot be used.

    >>> [task.name for task in load_tasks("samples:meta-test")][:2]
    ['samples:fin_claim_support', 'samples:fin_company_tone']
    """
    if isinstance(references, str):
        references = [references]
    return [task for group in load_task_groups(references, base=base) for task in group]


def load_task_groups(references: Iterable[str], *, base: Path = Path()) -> list[list[Task]]:
    """Load the tasks that each of several references names; see `load_tasks`."""
    groups = [_load_reference(reference, base) for reference in references]
    counts = Counter(task.name for group in groups for task in group)
    for name, count in counts.items():
        if count > 1:
            raise DataError(f"task {name!r} is named twice", fix="Remove one of the references, or rename a file.")
    return groups


def with_whole_paths(reference: str, base: Path = Path()) -> str:
    """Return a reference that names the same data from any folder.

    Args:
        reference: A task reference.
        base: Folder that its path starts from, if it has one.

    >>> with_whole_paths("samples:spam"), with_whole_paths("few.csv?label=code", Path("/data"))
    ('samples:spam', '/data/few.csv?label=code')
    """
    target, question, query = reference.partition("?")
    source = target.partition(":")[0]
    if source == "glue":
        options = dict(parse_qsl(query, keep_blank_values=True))
        if "path" in options:
            query = urlencode({**options, "path": (base / options["path"]).absolute()}, safe="/")
    elif source == "text":
        target = f"text:{with_whole_source(target.partition(':')[2], base)}"
    elif source not in _OPTIONS:
        target = str((base / target).absolute())
    return f"{target}{question}{query}"


def with_commit(reference: str) -> str:
    """Return a reference that names the commit of its data set on the Hub; others stay as they are."""
    target, _, query = reference.partition("?")
    source, _, name = target.partition(":")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if source not in ("hub", "glue") or "path" in options:
        return reference
    repository = HUB_ID if source == "glue" else name
    commit = pin(repository, options.get("config"), options.get("revision"))
    return reference if commit is None else _with_options(target, {**options, "revision": commit})


def names_commit(reference: str) -> bool:
    """Return whether a reference says which commit of a data set on the Hub it names."""
    return is_commit(dict(parse_qsl(reference.partition("?")[2])).get("revision"))


def without_revision(reference: str) -> str:
    """Return a reference that does not say which revision of a data set it names.

    >>> without_revision("hub:ag_news?revision=v1&label=topic"), without_revision("samples:spam")
    ('hub:ag_news?label=topic', 'samples:spam')
    """
    target, _, query = reference.partition("?")
    if target.partition(":")[0] not in ("hub", "glue"):
        return reference
    options = dict(parse_qsl(query, keep_blank_values=True))
    options.pop("revision", None)
    return _with_options(target, options)


def _with_options(target: str, options: Mapping[str, str]) -> str:
    return f"{target}?{urlencode(options, safe='/,')}" if options else target


def with_whole_source(reference: str, base: Path = Path()) -> str:
    """Return the reference to a corpus that is the same from any folder; see `load_corpus`."""
    source, question, query = reference.partition("?")
    return (
        reference
        if source == PYTHON_DOCS or source.startswith(_HUB)
        else f"{(base / source).absolute()}{question}{query}"
    )


def load_corpus(reference: str, *, base: Path = Path()) -> TextStore:
    """Return the sentences of a corpus.

    Args:
        reference: A file, a folder or `python-docs`, with `?text=COLUMN` for the column of the texts in tables; or
            `hub:` and a data set of the Hub.
        base: Folder that a relative path starts from.

    Raises:
        DataError: It cannot be read.
    """
    source, _, query = reference.partition("?")
    options = _options(reference, query, ("text", *_more_options(source)))
    return open_corpus(_corpus(source, options, reference), base, column=options.get("text", AUTO))


def _more_options(source: str) -> tuple[str, ...]:
    """Return the options of a corpus that no other corpus has."""
    return _HUB_TEXT if source.startswith(_HUB) else ()


def _corpus(source: str, options: Mapping[str, str], reference: str) -> Source:
    """Return the corpus that a reference names."""
    if not source.startswith(_HUB):
        return source
    rows = options.get("rows")
    if rows is not None and not (rows.isdecimal() and int(rows)):
        raise DataError(f"rows={rows} in {reference!r} is not possible", fix="Give a whole number above 0.")
    return HubText(
        source.removeprefix(_HUB),
        options.get("config"),
        options.get("part", "train"),
        None if rows is None else int(rows),
        options.get("text", AUTO),
    )


def _load_reference(reference: str, base: Path) -> list[Task]:
    tasks, options = _load_from(reference, base)
    lineage = frozenset(name for name in options.get("lineage", "").split(",") if name)
    return [replace(task, lineage=task.lineage | lineage) for task in tasks] if lineage else tasks


def _load_from(reference: str, base: Path) -> tuple[list[Task], dict[str, str]]:
    target, _, query = reference.partition("?")
    source, _, names = target.partition(":")
    more = _more_options(names) if source == "text" else ()
    options = _options(reference, query, (*_OPTIONS.get(source, _FILE), *more))
    chosen = [name for name in names.split(",") if name]
    if source == "samples":
        return load_samples(chosen), options
    if source == "glue":
        path = base / options["path"] if "path" in options else None
        if path and "revision" in options:
            raise DataError(f"{reference!r} has both a path and a revision", fix="A folder has none: leave one out.")
        return [load_glue(name, path, options.get("revision")) for name in chosen or GLUE], options
    if source == PYTHON_DOCS:
        return load_package_tasks(chosen), options
    if source == "text":
        return _load_text(names, options, reference, base), options
    kind = options.get("kind", "classification")
    if kind not in get_args(Kind):
        raise DataError(f"kind {kind!r} in {reference!r} is unknown", fix=did_you_mean(kind, get_args(Kind)))
    columns = Columns(options.get("text", AUTO), options.get("pair", AUTO), options.get("label", AUTO))
    if source == "hub":
        return [
            load_hub(names, columns, cast(Kind, kind), config=options.get("config"), revision=options.get("revision"))
        ], options
    if options.get("bad", "skip") != "skip":
        raise DataError(f"bad={options['bad']} in {reference!r} is unknown", fix="Write bad=skip, or leave it out.")
    path = base / target
    with explain_os_errors(path):
        if not path.exists():
            raise DataError(
                f"{reference!r} is neither a file or folder nor a known source",
                fix="Give a path, or samples, glue, glue:NAME, hub:ID, text:PATH or python-docs.",
            )
    return load_path(path, columns, cast(Kind, kind), skip_bad_rows="bad" in options), options


def _load_text(source: str, options: Mapping[str, str], reference: str, base: Path) -> list[Task]:
    if not source.removeprefix(_HUB):
        fix = f"Write text:FILE, text:FOLDER, text:{PYTHON_DOCS} or text:{_HUB}ID."
        raise DataError(f"{reference!r} names no text", fix=fix)
    side = options.get("split", SIDES[0])
    if side not in SIDES:
        raise DataError(f"split={side} in {reference!r} is unknown", fix=did_you_mean(side, SIDES))
    families = [family for family in options.get("tasks", "").split(",") if family]
    corpus = _corpus(source, options, reference)
    return load_text_tasks(corpus, base, families=families, side=side, column=options.get("text", AUTO))


def _options(reference: str, query: str, allowed: Sequence[str]) -> dict[str, str]:
    """Return the options of a reference; an option that would change nothing is refused."""
    options: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in allowed:
            fix = did_you_mean(key, allowed) if allowed else "It takes no options: leave out what stands after '?'."
            raise DataError(f"option {key!r} in {reference!r} is unknown", fix=fix)
        if not value.strip():
            raise DataError(f"option {key!r} in {reference!r} has no value", fix=f"Write {key}=..., or leave it out.")
        if key in options:
            raise DataError(f"option {key!r} in {reference!r} is given twice", fix="Leave one of them out.")
        options[key] = value
    return options
