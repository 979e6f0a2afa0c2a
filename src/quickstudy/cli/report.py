"""The verb `report`: write the page of a run or of a comparison again."""

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.ending import say_next
from quickstudy.cli.terminal import say


def report(folder: Annotated[Path, typer.Argument(help="Folder of a run or of a comparison.")]) -> None:
    """Write the page of a run or of a comparison again from its files."""
    from quickstudy.evaluation.results_file import CELLS
    from quickstudy.report.comparison.page import write_pages
    from quickstudy.report.run.page import write_report

    page = write_pages(folder) if (folder / CELLS).is_dir() else write_report(folder)
    say(str(page))
    say_next(f"open {page} in a browser")
