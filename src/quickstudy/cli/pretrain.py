"""The verb `pretrain`: meta-train a recipe, or say what an outer step of it costs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.options import Json, print_json
from quickstudy.errors import RecipeError


def pretrain(
    recipe: Annotated[Path, typer.Argument(help="Recipe file (TOML).")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: outer.outer_steps=200. May be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New run folder. Default: runs/<name of the recipe>.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in --out.")] = False,
    explain: Annotated[
        bool, typer.Option(help="Only say what an outer step costs: reckoned, and measured on one. Trains nothing.")
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

    with together():
        if resume and settings:
            raise RecipeError(
                "a resumed run keeps its settings",
                where=f"--set {settings[0]}",
                fix="Leave out --set, or start a new run.",
            )
        checked = load_recipe(recipe, settings or ())
    target = out or Path("runs") / checked.name
    with TrainingProgress(checked.outer.outer_steps, quiet=as_json or not is_main()) as progress:
        from quickstudy import api

        run = api.pretrain(checked, target, resume=resume, on_step=progress.step)
    leave()
    if not is_main():
        return
    if as_json:
        print_json({"run": str(run.folder), "steps": run.metrics()[-1]["step"], "best": progress.best})
    else:
        print(f"encoder and report: {run.folder}")


def _explain(recipe: Path, settings: Sequence[str], runs: object, as_json: bool) -> None:
    if runs:
        raise RecipeError(
            "--explain trains nothing", where="--explain", fix="Leave out --out and --resume, or leave out --explain."
        )
    from dataclasses import asdict

    from quickstudy import api
    from quickstudy.cli.tables import print_explanation

    found = api.explain(recipe, overrides=settings)
    if as_json:
        print_json(asdict(found))
    else:
        print_explanation(found)
