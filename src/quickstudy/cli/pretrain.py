"""The verb `pretrain`: meta-train a recipe, or say what an outer step of it costs."""

import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.cli.ending import interruptible, say_next
from quickstudy.cli.options import Json, print_json
from quickstudy.cli.terminal import say
from quickstudy.errors import NothingLearnedWarning, RecipeError
from quickstudy.importing import quick_imports

if TYPE_CHECKING:
    from quickstudy.runs import Run


def pretrain(
    recipe: Annotated[Path, typer.Argument(help="Recipe file (TOML), or a run folder, whose recipe is taken.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: outer.outer_steps=200. May be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New run folder. Default: runs/<name of the recipe>.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in --out from its last checkpoint.")] = False,
    explain: Annotated[
        bool, typer.Option(help="Only say what an outer step costs: estimated, and measured on one. Trains nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Meta-pretrain an encoder over many tasks (step 3)."""
    if explain:
        _explain(recipe, settings or (), out or resume, as_json)
        return
    from quickstudy.cli.progress import TrainingProgress
    from quickstudy.config import load_recipe
    from quickstudy.processes import is_main, leave, together
    from quickstudy.storage.layout import choose_run_folder

    with together():
        asked = load_recipe(recipe, settings or ())
    folder = choose_run_folder(out, recipe, asked.name)
    quiet = as_json or not is_main()
    with interruptible(lambda: _way_on(folder)), TrainingProgress(asked.outer.outer_steps, quiet=quiet) as progress:
        with quick_imports():
            from quickstudy import api

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NothingLearnedWarning)  # said below, in the words of the command line
            run = api.pretrain(asked, folder, resume=resume, on_step=progress.step)
    leave()
    if is_main():
        _print_run(run, as_json)


def _way_on(folder: Path) -> str:
    """Say how to go on with an interrupted run."""
    from quickstudy.storage.layout import RunFiles

    if not RunFiles(folder).exist:
        return "nothing was written; give the same command again"
    return f"go on with: quickstudy pretrain {quote(str(folder))} --resume"


def _print_run(run: "Run", as_json: bool) -> None:
    """Say where the run is and which outer step it kept; warn if that is the untouched encoder."""
    kept = run.kept
    warning = kept.warning if kept else None
    if as_json:
        scores = [record.validation for record in run.metrics() if record.validation is not None]
        print_json(
            {
                "run": str(run.folder),
                "steps": kept.steps if kept else 0,
                "best": max(scores, default=None),
                "kept": {"step": kept.step, "validation": kept.validation} if kept else None,
                "warning": warning,
            }
        )
    else:
        say(f"kept: {kept.describe()}" if kept else "kept: unknown, because the log is not there")
        say(f"encoder and report: {run.folder}")
    left_out = Counter(task for record in run.metrics() for task in record.left_out)
    if left_out:
        names = ", ".join(f"{task} ({count})" for task, count in left_out.most_common())
        say(f"warning: {left_out.total()} episodes were left out, because they gave NaN: {names}", file=sys.stderr)
    if warning:
        say(f"warning: {warning}", file=sys.stderr)
    if not as_json:
        say_next(f"quickstudy adapt {quote(str(run.folder))} --data FILE --out model/")


def _explain(recipe: Path, settings: Sequence[str], runs: object, as_json: bool) -> None:
    if runs:
        raise RecipeError(
            "--explain trains nothing", where="--explain", fix="Leave out --out and --resume, or leave out --explain."
        )
    from dataclasses import asdict

    with quick_imports():
        from quickstudy import api
        from quickstudy.cli.tables import print_explanation

    explanation = api.explain(recipe, overrides=settings)
    if as_json:
        print_json(asdict(explanation))
    else:
        print_explanation(explanation)
        say_next(f"quickstudy pretrain {quote(str(recipe))}")
