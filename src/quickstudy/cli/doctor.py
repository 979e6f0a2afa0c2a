"""The verb `doctor`: say whether quickstudy can work here, what is missing, and how fast it will be."""

from dataclasses import asdict
from typing import Annotated

import typer

from quickstudy.cli.ending import say_next
from quickstudy.cli.options import Json, print_json
from quickstudy.cli.terminal import say
from quickstudy.storage.layout import PRIOR

CANNOT_WORK = 1


def doctor(
    encoder: Annotated[
        str, typer.Option(help="Encoder to measure with; by default the prior that comes with quickstudy.")
    ] = PRIOR,
    as_json: Json = False,
) -> None:
    """Look at this machine: versions, devices, the Hub, speed. Exit code 0: quickstudy can work; 1: it cannot."""
    from quickstudy.cli.machine import examine

    health = examine(encoder)
    if as_json:
        print_json(asdict(health) | {"can_work": health.can_work})
    else:
        for name, value in health.lines():
            say(f"{name:12} {value}")
        for problem in health.problems:
            say(f"{'problem' if problem.stops else 'note':12} {problem.what}\n{'':12} {problem.fix}")
        say_next("quickstudy init FILES --out recipe.toml" if health.can_work else "mend the problems above")
    if not health.can_work:
        raise typer.Exit(CANNOT_WORK)
