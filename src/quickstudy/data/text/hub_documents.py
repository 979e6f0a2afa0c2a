"""Hub documents: the texts of a data set of the Hugging Face Hub, as documents, without a download of all of it.

Rows are streamed: they come one after another, and what is not read is not fetched. A row is a document, as in a table.
The name of a corpus in the cache follows from the revision of the data set, so a changed one is read again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from quickstudy.data.columns import AUTO, Columns, choose_columns, say_choice
from quickstudy.data.hub import explain_hub_errors
from quickstudy.data.text.documents import Document
from quickstudy.errors import DataError, did_you_mean


@dataclass(frozen=True, slots=True)
class HubText:
    """Which texts of a data set.

    Attributes:
        repository: Id of the data set, or the folder of one on this machine.
        config: Name of its configuration, where there are several.
        part: Which of its splits. Others may hold what is to be scored later.
        rows: At most so many rows, from the first one; None for all.
        column: Column of the texts; by default it is looked for, see `data.columns`.
    """

    repository: str
    config: str | None = None
    part: str = "train"
    rows: int | None = None
    column: str = AUTO


def version_of_hub_text(text: HubText) -> str:
    """Return what the texts follow from: the choices, and the revision of the files.

    Raises:
        DataError: There is no such data set, or the Hub is out of reach.
    """
    import datasets  # it brings pandas along, and takes long

    with explain_hub_errors(text.repository, text.config):
        builder = datasets.load_dataset_builder(text.repository, text.config)
    files = builder.config.data_files or {}
    revisions = [files[part].origin_metadata for part in files if str(part) == text.part]
    return f"{text}|{builder.config_id}|{builder.hash}|{revisions}"


def read_hub_documents(text: HubText) -> Iterator[Document]:
    """Yield a document for each row that has a text.

    Raises:
        DataError: It cannot be loaded, or there is no such column.
    """
    import datasets

    with explain_hub_errors(text.repository, text.config):
        stream = datasets.load_dataset(text.repository, text.config, split=text.part, streaming=True)
        rows = iter(islice(stream, text.rows))
        first = next(rows, None)
    if first is None:
        return
    names = _columns(text, list(first))
    while first is not None:
        texts = [value for name in names if isinstance(value := first.get(name), str) and value.strip()]
        if texts:
            yield Document("\n".join(texts), texts[0])
        with explain_hub_errors(text.repository, text.config):
            first = next(rows, None)


def _columns(text: HubText, names: list[str]) -> list[str]:
    reference = f"hub:{text.repository}"
    asked = Columns(text.column, AUTO if text.column == AUTO else None)
    chosen = choose_columns(names, asked, reference, labelled=False)
    if chosen.text not in names:
        raise DataError(
            f"{reference} has no column {chosen.text!r}; it has: {', '.join(names)}",
            fix=f"{did_you_mean(chosen.text, names)} Name the column: text:{reference}?text=...",
        )
    say_choice(asked, chosen, reference, labelled=False)
    return [name for name in (chosen.text, chosen.text_pair) if name]
