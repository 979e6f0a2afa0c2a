"""Compare: learners × tasks × shots, in cells that are computed once.

    comparison/
      cells/<key>.json                    the draws of one learner on one task at one number of shots
      draws.json                          the protocol and what it drew
      results.jsonl, results.parquet      the figures of every draw
      results.json                        intervals, paired tests, ranks, costs, and what the report shows
      report.html, report.md, report.csv  the report, and its drawings in plots/

A cell whose file is there is never computed again: an interrupted comparison goes on, and one more learner, task or
number of shots costs its own cells only.
"""

from pathlib import Path

from quickstudy.comparison.collect import results_of
from quickstudy.comparison.overlap import with_overlap
from quickstudy.comparison.plan import Learners, Tasks, load_all, plan_comparison
from quickstudy.comparison.pool import OnCell, run_missing
from quickstudy.errors import DataError
from quickstudy.evaluation.draws import most_shots
from quickstudy.evaluation.protocol import Protocol
from quickstudy.evaluation.results import Results
from quickstudy.evaluation.results_file import CELLS
from quickstudy.report.comparison.page import write_comparison
from quickstudy.storage.files import remove_abandoned
from quickstudy.storage.layout import PLOTS
from quickstudy.storage.lock import locked

_BASELINES = ("majority", "label-names", "nearest-neighbour", "linear-probe", "protonet")
_SHOTS = (4, 8, 16)


def compare(
    learners: Learners,
    tasks: Tasks,
    out: str | Path,
    *,
    protocol: Protocol = Protocol(),
    encoder: str = "minilm",
    workers: int = 1,
    ray: str | None = None,
    allow_overlap: bool = False,
    texts: bool = False,
    on_cell: OnCell = lambda _done, _all, _what: None,
) -> Results:
    """Compare learners on tasks, or go on with a comparison; writes its results and report.

    Args:
        learners: Run folders (meta-trained), recipe files (their method on their untouched encoder), or names of
            methods.
        tasks: Task references, or tasks.
        out: Folder of the comparison; what it holds already is used.
        protocol: What learners adapt to and are scored on.
        encoder: Encoder of learners that are named by their method alone.
        workers: Processes; the processor's cores are dealt to them.
        ray: Address of a Ray cluster to compute on; `local` starts one on this machine.
        allow_overlap: Go on although scored texts were meta-trained on; the report says so.
        texts: Keep support sets and wrongly predicted texts in the results, for the report to show.
        on_cell: Told of every finished job: how many cells are done, of how many, and which.

    Returns:
        What `results.json` holds.

    Raises:
        QuickstudyError: Unknown learners or tasks, a folder that holds something else, or scored texts that were
            meta-trained on.
    """
    plan = plan_comparison(learners, tasks, Path(out), protocol, encoder)
    described = with_overlap(plan.learners, plan.specs, plan.tasks, allow=allow_overlap)
    (plan.folder / CELLS).mkdir(parents=True, exist_ok=True)
    with locked(plan.folder):
        for place in (plan.folder, plan.folder / CELLS, plan.folder / PLOTS):
            remove_abandoned(place)
        run_missing(plan, workers, ray, on_cell)
        draws = [draw for cell in plan.cells for draw in cell.read()]
        results = results_of(protocol, described, plan.tasks, draws, texts=texts)
        write_comparison(plan.folder, results)
    return results


def compare_for(
    tasks: Tasks,
    out: str | Path,
    learners: Learners = (),
    *,
    shots: int | None = None,
    encoder: str = "minilm",
    allow_overlap: bool = False,
    on_cell: OnCell = lambda _done, _all, _what: None,
) -> Results:
    """Compare what there is to choose from on one's own tasks: the given learners, and baselines that need no run.

    Args:
        tasks: Task references, or tasks.
        out: Folder of the comparison.
        learners: Run folders, recipe files or names of methods.
        shots: Labelled examples per class that there will be; fewer where the tasks' own examples do not suffice to
            measure that.
        encoder: Encoder of learners that are named by their method alone.
        allow_overlap: Go on although scored texts were meta-trained on; the report says so.
        on_cell: As for `compare`.
    """
    loaded = load_all(tasks)
    possible = [{k for k, _ in task.fixed_draws} or set(range(1, most_shots(task) + 1)) for task in loaded]
    counts = {
        max((k for k in set.intersection(*possible) if k <= wanted), default=0)
        for wanted in ([shots] if shots else _SHOTS)
    }
    if not max(counts):
        raise DataError(
            "a task has too few examples of a label to adapt to some and score others",
            fix="Add examples, or ask for more --shots where the published draws have more.",
        )
    given = [str(name) for name in ([learners] if isinstance(learners, str | Path) else learners)]
    return compare(
        [*given, *(name for name in _BASELINES if name not in given)],
        loaded,
        out,
        protocol=Protocol(shots=tuple(counts - {0})),
        encoder=encoder,
        allow_overlap=allow_overlap,
        on_cell=on_cell,
    )
