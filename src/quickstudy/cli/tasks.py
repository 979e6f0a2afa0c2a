"""The verb `tasks`: list tasks and show some of their texts."""

from typing import Annotated

import typer

from quickstudy.cli.ending import say_next
from quickstudy.cli.options import Json, print_json


def tasks(
    references: Annotated[
        list[str] | None,
        typer.Argument(help="samples, glue:rte, hub:ID, text:FOLDER, a file, a folder. Default: the bundled samples."),
    ] = None,
    show: Annotated[int, typer.Option(help="Show so many example texts per label.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """List tasks with their rows and labels; --show N prints examples (steps 1 and 2)."""
    from quickstudy.cli.tables import print_tasks, task_summary
    from quickstudy.data.reference import load_tasks

    loaded = load_tasks(references or ["samples"])
    if as_json:
        print_json([task_summary(task, show) for task in loaded])
    else:
        print_tasks(loaded, show)
        say_next("quickstudy pretrain RECIPE, or quickstudy init FILES --out recipe.toml to write one")
