"""Options: what several verbs have in common: their shared options, what `--json` prints, and a list of shots."""

import json
import re
import sys
from typing import Annotated, Any

import typer

from quickstudy.errors import DataError

# JSON lets these characters stand, and terminals obey some of them; see `quickstudy.visible`.
_UNESCAPED = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
HeldOutTasks = Annotated[
    list[str], typer.Option(help="Held-out tasks, e.g. samples:meta-test or a folder. Repeatable.")
]
TextColumn = Annotated[str, typer.Option(help="Column of the texts; auto takes it if only one fits.")]
PairColumn = Annotated[
    str, typer.Option(help="Column of the second texts of pairs; auto takes it if there is one; none: no pairs.")
]
SkipBadRows = Annotated[bool, typer.Option("--skip-bad-rows", help="Leave out unusable rows, and say how many.")]
Limit = Annotated[int | None, typer.Option(help="Score at most so many test rows of a task, a fixed sample.", min=1)]
AllowOverlap = Annotated[bool, typer.Option(help="Score also texts that a run has seen; the report counts them.")]


def parse_shots(text: str) -> list[int]:
    """Return the numbers of a list like `4,8,16`, few first.

    Raises:
        DataError: It is no such list.
    """
    try:
        values = sorted({int(word) for word in text.split(",")})
    except ValueError:
        values = []
    if not values or values[0] < 1:
        raise DataError(f"--shots {text!r} is not a list of whole numbers above 0", fix="Write it like 4,8,16.")
    return values


def print_json(value: Any) -> None:
    """Print a value as JSON, with null instead of NaN and infinity."""
    from quickstudy.storage.files import finite

    ascii_alone = "utf" not in (sys.stdout.encoding or "utf-8").lower()  # of another coding JSON has its own escapes
    text = json.dumps(finite(value), ensure_ascii=ascii_alone, indent=2, allow_nan=False)
    print(_UNESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text))
