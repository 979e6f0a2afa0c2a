"""The verb `init`: look at the user's files and write a recipe that meta-trains on them."""

from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from quickstudy.cli.ending import say_next
from quickstudy.cli.options import Json, print_json
from quickstudy.cli.terminal import say


def init(
    files: Annotated[list[str], typer.Argument(help="Files or folders with labelled texts, or other task references.")],
    out: Annotated[Path, typer.Option(help="New recipe file (TOML).")] = Path("recipe.toml"),
    encoder: Annotated[str, typer.Option(help="Encoder to meta-train.")] = "minilm",
    as_json: Json = False,
) -> None:
    """Look at your files, and write a commented recipe for pretrain (before step 3)."""
    from quickstudy.cli.recipe_text import recipe_text
    from quickstudy.cli.survey import divide, episode_sizes, survey
    from quickstudy.report.number import counted
    from quickstudy.storage.files import refuse_existing, write_text

    refuse_existing(out)
    seen = survey(files)
    sizes = episode_sizes(seen)
    train, validation = divide(seen)
    write_text(out, recipe_text(out.stem, encoder, train, validation, sizes))
    if as_json:
        tasks = [asdict(task) for task in seen]
        print_json({"recipe": str(out), "tasks": tasks, "validation": [task.name for task in validation]})
        return
    for task in seen:
        say(task.describe())
    say(f"{out}: meta-trains on {counted(len(train), 'task')}, meta-validates on {len(validation)}")
    if len(train) < 4:
        say("  few tasks teach an encoder little; add more files, or adapt without a run: the prior is then used")
    say_next(f"quickstudy pretrain {quote(str(out))}")
