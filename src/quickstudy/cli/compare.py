"""The verb `compare`: compare runs and methods on held-out tasks."""

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from quickstudy.cli.ending import interruptible, say_next
from quickstudy.cli.options import AllowOverlap, HeldOutTasks, Json, Limit, parse_shots, print_json
from quickstudy.cli.terminal import say
from quickstudy.errors import DataError
from quickstudy.importing import quick_imports

_LEARNERS = (
    "Run folders, prior, recipe files (untouched encoder), names of methods, or label-names. "
    "Each may have an ending: :no-names, :opaque-names or :20-steps."
)
_PROTOCOLS = "standard (published draws, else few-shot), few-shot, fixed-draws, episodic, full, or a draws.json."


def compare(
    learners: Annotated[list[str], typer.Argument(help=_LEARNERS)],
    tasks: HeldOutTasks,
    out: Annotated[Path, typer.Option(help="Folder of the comparison, in which the same command also goes on.")],
    protocol: Annotated[str, typer.Option(help=_PROTOCOLS)] = "standard",
    shots: Annotated[str | None, typer.Option(help="Labelled examples per class; default: 4,8,16.")] = None,
    draws: Annotated[int | None, typer.Option(help="Support sets, episodes or seeds; default: 10.", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed: which support sets are drawn; default: 0.")] = None,
    limit: Limit = None,
    n_way: Annotated[int | None, typer.Option(help="episodic: classes of an episode; default: 5.", min=2)] = None,
    n_query: Annotated[
        int | None, typer.Option(help="episodic: scored examples per class; default: 15.", min=1)
    ] = None,
    encoder: Annotated[str, typer.Option(help="Encoder of learners that are named by their method.")] = "minilm",
    workers: Annotated[int, typer.Option(help="Processes side by side.", min=1)] = 1,
    ray: Annotated[
        str | None, typer.Option(help="Compute on the Ray cluster at this address; local starts one here.")
    ] = None,
    allow_overlap: AllowOverlap = False,
    texts: Annotated[bool, typer.Option(help="Show support sets and wrong predictions in the report.")] = False,
    as_json: Json = False,
) -> None:
    """Compare runs and methods on held-out tasks; what is finished is never computed again (step 5)."""
    counts = tuple(parse_shots(shots)) if shots else None
    with quick_imports():
        from quickstudy.cli.progress import CellProgress
        from quickstudy.cli.tables import print_comparison
        from quickstudy.comparison.compare import compare as run_comparison
        from quickstudy.evaluation.protocol import Protocol
        from quickstudy.evaluation.results_file import plain_results
        from quickstudy.evaluation.saved_draws import load_protocol

    given = {"shots": counts, "draws": draws, "seed": seed, "limit": limit, "n_way": n_way, "n_query": n_query}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    saved = protocol.endswith(".json")
    if saved and chosen:
        option = f"--{next(iter(chosen)).replace('_', '-')}"
        what = f"saved draws are taken as they are, without {option}"
        raise DataError(what, where=protocol, fix=f"Leave out {option}.")
    way_on = f"give the same command again to go on; what is finished in {out} is kept"
    with interruptible(lambda: way_on), CellProgress(quiet=as_json) as progress:
        results = run_comparison(
            learners,
            tasks,
            out,
            protocol=load_protocol(protocol) if saved else Protocol(**{"name": protocol, **chosen}),
            encoder=encoder,
            workers=workers,
            ray=ray,
            allow_overlap=allow_overlap,
            texts=texts,
            on_cell=progress.cell,
        )
    if as_json:
        print_json(plain_results(results))
    else:
        print_comparison(results)
        say(f"report: {out / 'report.html'}, figures of every draw: {out / 'results.parquet'}")
        say_next(f"quickstudy recommend {quote(str(out))}")
