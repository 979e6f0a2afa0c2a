"""The verb `evaluate`: measure a run on held-out tasks, beside two baselines."""

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.ending import interruptible, say_next
from quickstudy.cli.options import AllowOverlap, HeldOutTasks, Json, Limit, parse_shots, print_json
from quickstudy.cli.terminal import say
from quickstudy.importing import quick_imports


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    tasks: HeldOutTasks,
    shots: Annotated[str, typer.Option(help="Labelled examples per class: one number or several.")] = "4,8,16",
    draws: Annotated[int, typer.Option(help="Support sets per number of shots.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Seed: which support sets are drawn.")] = 0,
    limit: Limit = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the results that the run has.")] = False,
    allow_overlap: AllowOverlap = False,
    as_json: Json = False,
) -> None:
    """Measure a run on held-out tasks, beside two baselines on identical draws (step 5)."""
    counts = parse_shots(shots)
    with quick_imports():
        from quickstudy import api
        from quickstudy.cli.progress import DrawProgress
        from quickstudy.cli.tables import print_evaluation
        from quickstudy.evaluation.results_file import plain_results
        from quickstudy.storage.layout import RunFiles

    way_on = "nothing was written; give the same command again"
    with interruptible(lambda: way_on), DrawProgress(quiet=as_json) as progress:
        results = api.evaluate(
            run,
            tasks,
            shots=counts,
            draws=draws,
            seed=seed,
            limit=limit,
            overwrite=overwrite,
            allow_overlap=allow_overlap,
            on_draw=progress.draw,
        )
    if as_json:
        print_json(plain_results(results))
    else:
        print_evaluation(results)
        files = RunFiles(run)
        say(f"results and report: {files.results}, {files.report}")
        say_next(f"open {files.report} in a browser")
