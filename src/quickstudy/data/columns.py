"""Columns: which columns of a table hold the text, the second text of pairs and the label.

A column called `text`, `text_pair` or `label` is taken. Without it the usual names of such columns are looked for, in
upper or lower case, and if there is none, names that end in such a word ("Customer message"). If there is a single one
it is taken, which is said; of several none is. In a table of two columns, of which one is found, the other one is taken
too. A column that is asked for may be written in another case, and with spaces, dashes or _ alike.
"""

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from quickstudy.errors import DataError
from quickstudy.tasks.task import Kind

AUTO = "auto"

TEXT_NAMES = (
    *("sentence", "content", "body", "review", "tweet", "message", "utterance", "question", "comment", "description"),
    *("document", "post", "query", "headline", "title", "abstract", "narrative", "complaint", "note", "feedback"),
)
LABEL_NAMES = (
    *("category", "class", "sentiment", "intent", "topic", "target", "tag", "emotion", "polarity", "gold_label"),
    "classification",
)
SCORE_NAMES = ("score", "rating", "stars", "similarity", "similarity_score", "value", "target")
PAIR_NAMES = (
    *(("sentence1", "sentence2"), ("question1", "question2"), ("text1", "text2"), ("premise", "hypothesis")),
    *(("sentence_1", "sentence_2"), ("question_1", "question_2"), ("text_1", "text_2"), ("claim", "evidence")),
    *(("sentence_a", "sentence_b"), ("question_a", "question_b"), ("text_a", "text_b"), ("query", "passage")),
)

# Words at the end of a name, such as "Customer message", that say enough if no column has a usual name.
LAST_TEXT_WORDS = (
    "text",
    "message",
    "comment",
    "review",
    "description",
    "complaint",
    "feedback",
    "narrative",
    "sentence",
)
LAST_LABEL_WORDS = ("label", "category", "class", "sentiment", "intent", "topic", "team", "department", "queue")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns that hold the text, the second text of pairs and the label.

    `auto` looks for the column; see the top of this file. `text_pair` is None, or "none", for no second text.
    """

    text: str = AUTO
    text_pair: str | None = AUTO
    label: str = AUTO

    def __post_init__(self) -> None:
        if self.text_pair == "none":
            object.__setattr__(self, "text_pair", None)


def choose_columns(
    names: Sequence[str], columns: Columns, source: str, kind: Kind = "classification", *, labelled: bool = True
) -> Columns:
    """Return the columns with a name in place of each `auto`; the usual name where there is no such column.

    Args:
        names: The columns that there are.
        columns: What the user asks for.
        source: The reference of the file, e.g. `few.csv`, for messages.
        kind: Whether labels are classes or numbers.
        labelled: Whether a label is needed. If not, the only column of a table is the text.

    Raises:
        DataError: Several columns could be meant, or one is meant twice.

    >>> choose_columns(["id", "Sentence", "Sentiment"], Columns(), "few.csv")
    Columns(text='Sentence', text_pair=None, label='Sentiment')
    >>> choose_columns(["message", "team"], Columns(), "few.csv")
    Columns(text='message', text_pair=None, label='team')
    >>> choose_columns(["Ticket no.", "Customer message", "Team", "Date"], Columns(), "tickets.xlsx")
    Columns(text='Customer message', text_pair=None, label='Team')
    """
    known: dict[str, str] = {}
    for name in names:  # of names that differ in case alone the first one counts
        known.setdefault(_plain(name), name)
    chosen = Columns(
        _spelt(columns.text, names, known),
        columns.text_pair and _spelt(columns.text_pair, names, known),
        _spelt(columns.label, names, known),
    )
    if labelled and columns.label == AUTO:
        free = {word: name for word, name in known.items() if name not in (chosen.text, chosen.text_pair)}
        if kind == "classification":
            chosen = replace(chosen, label=_choose("label", free, LABEL_NAMES, LAST_LABEL_WORDS, source))
        else:
            chosen = replace(chosen, label=_choose("label", free, SCORE_NAMES, (), source))
    if (columns.text, columns.text_pair) == (AUTO, AUTO) and "text" not in known:
        pairs = [(known[first], known[second]) for first, second in PAIR_NAMES if {first, second} <= known.keys()]
        if len(pairs) > 1:
            raise _several("pair", [second for _, second in pairs], source)
        if pairs:
            chosen = replace(chosen, text=pairs[0][0], text_pair=pairs[0][1])
    if chosen.text_pair == AUTO:
        chosen = replace(chosen, text_pair=known.get("text_pair"))
    if chosen.text == AUTO:
        free = {word: name for word, name in known.items() if name not in (chosen.label, chosen.text_pair)}
        only = names[0] if len(names) == 1 and not labelled else None
        chosen = replace(chosen, text=only or _choose("text", free, TEXT_NAMES, LAST_TEXT_WORDS, source))
    if labelled and len(names) == 2:
        chosen = _with_the_other_column(names, columns, chosen)
    _refuse_twice(names, chosen, source, labelled=labelled)
    return chosen


def _refuse_twice(names: Sequence[str], chosen: Columns, source: str, *, labelled: bool) -> None:
    """Raise `DataError` if a column would be read as two things, such as the text and its own label."""
    roles = {"text": chosen.text, "pair": chosen.text_pair} | ({"label": chosen.label} if labelled else {})
    for role, name in roles.items():
        other = next(first for first, taken in roles.items() if taken == name)
        if other != role and name in names:
            raise DataError(
                f"the column {name!r} would be both {other} and {role}; the columns are: {', '.join(map(repr, names))}",
                where=source,
                fix=f"Name another one: --{role}-column (for no second text: --pair-column none), "
                f"or in a task reference {source}?{role}=...",
            )


def _with_the_other_column(names: Sequence[str], asked: Columns, chosen: Columns) -> Columns:
    """Return the columns of a table of two: where only the text or the label is found, the other one is the rest."""
    text, label = chosen.text in names, chosen.label in names
    if text and not label and asked.label == AUTO and chosen.text_pair is None:
        return replace(chosen, label=next(name for name in names if name != chosen.text))
    if label and not text and asked.text == AUTO and chosen.text_pair is None:
        return replace(chosen, text=next(name for name in names if name != chosen.label))
    return chosen


def say_choice(asked: Columns, chosen: Columns, source: str, *, labelled: bool) -> None:
    """Say which columns were taken, unless they were named or have the usual names."""
    taken = [(chosen.text, asked.text, "text"), (chosen.text_pair, asked.text_pair, "text_pair")]
    if labelled:
        taken.append((chosen.label, asked.label, "label"))
    if any(name not in (None, usual) and wanted == AUTO for name, wanted, usual in taken):
        words = [f"{usual.replace('_pair', ' 2')} from {name!r}" for name, _, usual in taken if name is not None]
        _log.info("%s: %s", source, ", ".join(words))


def _spelt(asked: str, names: Sequence[str], known: Mapping[str, str]) -> str:
    """Return a column that was asked for as the table spells it; as it was asked for if there is none."""
    return asked if asked in (AUTO, *names) else known.get(_plain(asked), asked)


def _choose(role: str, known: Mapping[str, str], usual: Sequence[str], last_words: Sequence[str], source: str) -> str:
    """Return the only column that fits a role."""
    if role in known:
        return known[role]
    fitting = [known[word] for word in usual if word in known]
    if not fitting:
        fitting = [name for word, name in known.items() if word.rpartition("_")[2] in last_words]
    if len(fitting) > 1:
        raise _several(role, fitting, source)
    return fitting[0] if fitting else role


def _several(role: str, names: Collection[str], source: str) -> DataError:
    first = next(iter(names))
    return DataError(
        f"several columns could be the {'second text' if role == 'pair' else role}: {', '.join(map(repr, names))}",
        where=source,
        fix=f"Name the right one, e.g. --{role}-column {first!r} (adapt, predict), "
        f"or in a task reference {source}?{role}={first}",
    )


def _plain(name: str) -> str:
    """Return a name in lower case, with _ for spaces and dashes.

    >>> _plain(" Gold-Label ")
    'gold_label'
    """
    return re.sub(r"[\s-]+", "_", name.strip()).casefold()
