"""The verb `recommend`: say which learner to take."""

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.ending import interruptible, say_next
from quickstudy.cli.options import Json, print_json
from quickstudy.cli.terminal import say


def recommend(
    comparison: Annotated[
        Path, typer.Argument(help="Folder that compare wrote; with --tasks, one to write or go on with.")
    ],
    tasks: Annotated[list[str] | None, typer.Option(help="Your tasks: compare on them first. May be repeated.")] = None,
    learner: Annotated[
        list[str] | None,
        typer.Option(help="With --tasks: runs, recipes or methods to choose from, beside the baselines."),
    ] = None,
    shots: Annotated[int | None, typer.Option(help="Labelled examples per class that you will have.", min=1)] = None,
    most_seconds: Annotated[float | None, typer.Option(help="Seconds that adapting to a task may take.", min=0)] = None,
    most_mib: Annotated[float | None, typer.Option(help="MiB that adapting and predicting may take.", min=0)] = None,
    encoder: Annotated[str, typer.Option(help="With --tasks: encoder of the baselines.")] = "minilm",
    allow_overlap: Annotated[bool, typer.Option(help="With --tasks: score also texts that a run has seen.")] = False,
    no_gpu: Annotated[
        bool, typer.Option("--no-gpu", help="Only learners whose costs were measured without a GPU.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say which learner to take, and what the evidence decides: from a comparison, or for your tasks (step 5)."""
    from dataclasses import asdict

    from quickstudy.report.comparison.files import read_comparison
    from quickstudy.report.comparison.recommend import Limits
    from quickstudy.report.comparison.recommend import recommend as choose

    if tasks:
        from quickstudy.cli.progress import CellProgress
        from quickstudy.comparison.compare import compare_for

        way_on = f"give the same command again to go on; what is finished in {comparison} is kept"
        with interruptible(lambda: way_on), CellProgress(quiet=as_json) as progress:
            results = compare_for(
                tasks,
                comparison,
                learner or (),
                shots=shots,
                encoder=encoder,
                allow_overlap=allow_overlap,
                on_cell=progress.cell,
            )
    else:
        results = read_comparison(comparison).results
    choice = choose(results, Limits(shots, most_seconds, most_mib, no_gpu))
    if as_json:
        print_json(asdict(choice))
    else:
        verdict = f": {choice.verdict}" if choice.verdict else ""
        say(f"{choice.learner}{verdict}\n  {choice.why}")
        say_next("quickstudy adapt RUN --data FILE --out model/")
