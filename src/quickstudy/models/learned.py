"""Learned: what a model was adapted from, and how well that went, in a few figures. It goes into the model's card."""

import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

_MOST_NAMED = 12  # classes that are named one by one
_UNEVEN = 3  # from this ratio of the largest class to the smallest, it is said


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """How many rows were labelled rightly by a head that was made without them.

    Attributes:
        right: Rows labelled rightly.
        rows: Rows that were tried.
        low: Lower end of the 95 % interval of the accuracy (Wilson 1927).
        high: Its upper end.
    """

    right: int
    rows: int
    low: float
    high: float

    @property
    def accuracy(self) -> float:
        """The fraction that was labelled rightly."""
        return self.right / self.rows


@dataclass(frozen=True, slots=True)
class Learned:
    r"""What a model was adapted from.

    Attributes:
        method: The method.
        prior: What was adapted, by name: a run, or the prior that ships with the package.
        rows: Labelled rows that count.
        rows_per_class: Rows of each label, by name; empty for regression.
        conflicts: Texts that stand under two labels or more.
        cut: Texts that were longer than `max_length` tokens.
        max_length: Tokens that the encoder reads of a text.
        leave_one_out: The accuracy on rows that were left out one by one; None if it was not measured.
        why_not: Why it was not measured; empty if it was.
        chosen: What was chosen for these rows in place of what was meta-learned, in words; empty for nothing.

    >>> learned = Learned("protonet", "first", 5, {"fees": 4, "fraud": 1}, 0, 1, 128, LeaveOneOut(3, 4, 0.3, 0.954))
    >>> print(*learned.lines(), sep="\n")
    5 labelled rows: 4 of fees, 1 of fraud.
    The largest class has 4 times as many rows as the smallest.
    Classes with a single example: fraud.
    1 text has more than 128 tokens. What comes after them is not read.
    Leave-one-out accuracy: 75.0 % (95 % interval 30.0 to 95.4; 4 rows).
    """

    method: str
    prior: str
    rows: int
    rows_per_class: Mapping[str, int]
    conflicts: int
    cut: int
    max_length: int
    leave_one_out: LeaveOneOut | None
    why_not: str = ""
    chosen: str = ""

    @property
    def single(self) -> tuple[str, ...]:
        """The classes that have one example."""
        return tuple(name for name, count in self.rows_per_class.items() if count == 1)

    @property
    def described(self) -> tuple[str, ...]:
        """The classes that have no example, and are known by their description."""
        return tuple(name for name, count in self.rows_per_class.items() if not count)

    @property
    def alike(self) -> list[tuple[str, ...]]:
        """Groups of labels that differ in case, spaces or what is not seen: they are often one, typed in two ways."""
        groups = defaultdict(list)
        for name in self.rows_per_class:
            groups[_look(name)].append(name)
        return [tuple(names) for names in groups.values() if len(names) > 1]

    @property
    def imbalance(self) -> float:
        """Rows of the largest class, divided by those of the smallest that has any; 1 for regression."""
        counts = [count for count in self.rows_per_class.values() if count]
        return max(counts) / min(counts) if counts else 1.0

    def lines(self) -> list[str]:
        """Return the figures in plain sentences, one a line."""
        lines = [self._rows_line()]
        if self.imbalance >= _UNEVEN:
            lines.append(f"The largest class has {self.imbalance:.3g} times as many rows as the smallest.")
        if self.single:
            lines.append(f"Classes with a single example: {_some(self.single)}.")
        if self.described:
            lines.append(f"Classes without an example, found less often than others: {_some(self.described)}.")
        lines += [
            f"Labels that look alike, and count as different: {', '.join(map(_spelt, names))}." for names in self.alike
        ]
        if self.conflicts:
            lines.append(f"{_counted(self.conflicts, 'text stands', 'texts stand')} under more than one label.")
        if self.cut:
            longer = _counted(self.cut, "text has", "texts have")
            lines.append(f"{longer} more than {self.max_length} tokens. What comes after them is not read.")
        if self.chosen:
            lines.append(f"Chosen, because it predicts rows that are left out better: {self.chosen}.")
        return [*lines, self._accuracy_line()]

    def _rows_line(self) -> str:
        rows = _counted(self.rows, "labelled row", "labelled rows")
        if not self.rows_per_class:
            return f"{rows}."
        if len(self.rows_per_class) > _MOST_NAMED:
            counts = self.rows_per_class.values()
            return f"{rows} in {len(counts)} classes, {min(counts)} to {max(counts)} in a class."
        return f"{rows}: {', '.join(f'{count} of {_line(name)}' for name, count in self.rows_per_class.items())}."

    def _accuracy_line(self) -> str:
        if self.leave_one_out is None:
            return f"No leave-one-out accuracy: {self.why_not}."
        tried, accuracy = self.leave_one_out, self.leave_one_out.accuracy
        interval = f"95 % interval {100 * tried.low:.1f} to {100 * tried.high:.1f}; {tried.rows} rows"
        return f"Leave-one-out accuracy: {100 * accuracy:.1f} % ({interval})."


def _look(name: str) -> str:
    """Return what is left of a name without case, spaces, invisible characters and two ways to write an accent."""
    seen = (c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c) != "Cf" and not c.isspace())
    return unicodedata.normalize("NFC", "".join(seen).casefold())


def _spelt(name: str) -> str:
    r"""Return a name in quotes; with codes where it is written in the rarer way.

    >>> _spelt("caf\u00e9"), _spelt("cafe\u0301")
    ("'café'", "'cafe\\u0301'")
    """
    return repr(name) if unicodedata.is_normalized("NFC", name) else ascii(name)


def _counted(count: int, singular: str, plural: str) -> str:
    return f"{count:,} {singular if count == 1 else plural}"


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(map(_line, names[:_MOST_NAMED])) + more


def _line(name: str) -> str:
    return " ".join(name.split())
