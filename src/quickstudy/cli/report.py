"""The verb `report`: write the page of a run or of a comparison again."""

from pathlib import Path
from typing import Annotated

import typer


def report(folder: Annotated[Path, typer.Argument(help="Folder of a run or of a comparison.")]) -> None:
    """Write the page of a run or of a comparison again from its files."""
    from quickstudy.report.comparison import write_comparison
    from quickstudy.report.page import write_report

    print(write_comparison(folder) if (folder / "cells").is_dir() else write_report(folder))
