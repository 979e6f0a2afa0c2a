"""Tables: what the verbs print, with rich on a terminal and as plain lines in a pipe."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from quickstudy.cli.prediction import Prediction
from quickstudy.evaluation.results import Results
from quickstudy.report import table as reported
from quickstudy.report.headline import gain_sentences, headline
from quickstudy.report.number import count, counted, seconds
from quickstudy.report.overlap import overlap_notes
from quickstudy.report.table import means_table, ranks_table, score_name, tasks_table
from quickstudy.report.view import best_first, in_order
from quickstudy.tasks.split import readable
from quickstudy.tasks.task import Task
from quickstudy.visible import visible

if TYPE_CHECKING:
    from quickstudy.training.explain import Explanation, LanguageCost


def plain(text: str) -> str:
    r"""Return text for a table of rich: no markup, no control characters.

    >>> plain("[bold]\x1b[2J")
    '\\[bold]␛[2J'
    """
    return escape(visible(text))


def _console() -> Console:
    console = Console(highlight=False, emoji=False)  # ":x:" in a text is no sign
    # In a pipe there is no terminal width to fit: let lines be as long as they need.
    return console if console.is_terminal else Console(highlight=False, emoji=False, width=200)


def task_summary(task: Task, show: int = 0) -> dict[str, Any]:
    """Return what there is to know of a task, as plain values."""
    summary: dict[str, Any] = {
        "name": task.name,
        "kind": task.kind,
        "pair": task.pair,
        "domain": task.domain,
        "labels": list(task.label_names),
        "rows": {name: len(split) for name, split in task.splits.items()},
        "fixed_draws": len(task.fixed_draws),
        "metric": task.metric,
        "description": task.description,
    }
    if show:
        summary["examples"] = _examples(task, show)
    return summary


def print_tasks(tasks: list[Task], show: int) -> None:
    """Print a line per task, and examples if asked for."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("task", "rows", "labels", "pair", "domain", "decides"):
        table.add_column(column, overflow="fold")
    for task in tasks:
        rows = ", ".join(f"{name} {len(split):,}" for name, split in task.splits.items())
        if task.fixed_draws:
            rows += f", {counted(len(task.fixed_draws), 'fixed draw')}"
        names = task.label_names
        labels = "a number" if not names else ", ".join(names) if len(names) <= 6 else f"{len(names)} labels"
        pair = "yes" if task.pair else "no"
        table.add_row(*map(plain, (task.name, rows, labels, pair, task.domain, task.description)))
    console = _console()
    console.print(table)
    for task in tasks if show else ():
        console.print(f"\n[bold]{plain(task.name)}[/bold]")
        for example in _examples(task, show):
            second = f"  |  {example['text_pair']}" if example["text_pair"] else ""
            console.print(f"  [cyan]{plain(str(example['label']))}[/cyan]  {plain(example['text'] + second)}")


def print_predictions(predictions: Sequence[Prediction]) -> None:
    """Print label, probability and text of each prediction; of a regression, value and text."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    regression = predictions[0].probabilities is None
    for column in ("value", "text") if regression else ("label", "probability", "text"):
        table.add_column(column, overflow="fold", justify="right" if column in ("probability", "value") else "left")
    for prediction in predictions:
        if prediction.probabilities is None:
            table.add_row(f"{prediction.answer:.3f}", plain(prediction.text))
        else:
            chance = f"{100 * prediction.probabilities[str(prediction.answer)]:.1f} %"
            table.add_row(plain(str(prediction.answer)), chance, plain(prediction.text))
    _console().print(table)


def print_evaluation(results: Results) -> None:
    """Print what an evaluation of a run gave: the scores of each task, their means, and what meta-training gained."""
    console, view = _console(), in_order(results)
    for shown in (tasks_table(view, minus=view.gain), means_table(view)):
        _print_table(console, shown)
        console.print()
    for sentence in headline(view) + gain_sentences(view):
        console.print(plain(sentence))
    protocol = results.protocol
    limit = f", {protocol.limit} test rows at most" if protocol.limit else ""
    console.print(f"{score_name(results)}; {counted(protocol.draws, 'draw')}{limit}", style="dim")
    for name in view.learners:
        for note in overlap_notes(results.learners[name]):
            console.print(plain(note), style="yellow")


def print_comparison(results: Results) -> None:
    """Print, for each number of shots, the learners by average rank, and what the evidence tells of the best."""
    console, view = _console(), best_first(results)
    for shots in view.shots:
        _print_table(console, ranks_table(view, shots))
    console.print("mean over tasks and 95 % interval over tasks", style="dim")
    for sentence in headline(view):
        console.print(plain(sentence))


def _print_table(console: Console, shown: reported.Table) -> None:
    """Print a table of a report."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for place, name in enumerate(shown.head):
        table.add_column(plain(name), justify="right" if place else "left")
    for line in shown.lines:
        table.add_row(*(f"[bold]{plain(cell.text)}[/bold]" if cell.best else plain(cell.text) for cell in line))
    console.print(plain(shown.caption), style="italic")
    console.print(table)


def print_explanation(explanation: "Explanation") -> None:
    """Print what an outer step was estimated to take, beside what it took."""
    plan, n = explanation.plan, explanation.episodes
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("an outer step", "estimated", "measured"):
        table.add_column(column, justify="left" if column == "an outer step" else "right")
    least = None if plan.operations is None else n * plan.operations / explanation.rate
    gigabytes = None if plan.traffic is None else n * plan.traffic / 1e9
    table.add_row("operations, GFLOP", _whole(plan.operations, n / 1e9), _whole(explanation.operations, 1e-9))
    table.add_row("seconds", seconds(least), seconds(explanation.seconds))
    table.add_row("memory, MiB", _whole(plan.memory_mib), _whole(explanation.memory_mib))
    table.add_row("weights and activations moved, GB", _whole(gigabytes), "")
    console = _console()
    console.print(f"[bold]{plan.way}[/bold]: {plan.why}")
    precision = "bf16" if explanation.precision == "bf16" else "single precision"
    console.print(
        f"{n} episodes, {explanation.at_once} at once; {precision} on {explanation.device}, "
        f"{_whole(explanation.free_mib)} MiB free"
    )
    console.print(table)
    console.print(
        f"memory is what the training takes beside the {_whole(explanation.held_mib)} MiB that are held before it",
        style="dim",
    )
    if explanation.language:
        console.print(_language_table(explanation.language, explanation.rate))
    for line in _rates(explanation):
        console.print(line, style="dim")


def _language_table(language: "LanguageCost", rate: float) -> Table:
    """Return what a step of masked-language modelling was estimated to take, beside what it took."""
    table, estimate = Table(box=None, header_style="bold", pad_edge=False), language.plan
    table.add_column(f"a step of masked-language modelling, {language.passages} passages")
    for column in ("estimated", "measured"):
        table.add_column(column, justify="right")
    table.add_row("operations, GFLOP", _whole(estimate.operations, 1e-9), _whole(language.operations, 1e-9))
    table.add_row("seconds", seconds(estimate.operations / rate), seconds(language.seconds))
    table.add_row("memory, MiB", _whole(estimate.memory_mib), _whole(language.memory_mib))
    return table


def _rates(explanation: "Explanation") -> list[str]:
    """Say how well an outer step uses the device, and how long the whole training takes."""
    plan, took = explanation.plan, explanation.seconds
    padding = 1 - plan.tokens / plan.computed
    data_fraction = explanation.data_seconds / (explanation.data_seconds + took)
    used, steps = explanation.operations / took / explanation.rate, explanation.outer_steps
    language = explanation.language
    kinds = f", {language.share:.0%} of them masked-language modelling," if language else ""
    return [
        f"{_whole(plan.tokens, explanation.episodes)} tokens and {padding:.1%} padding; matrix products reach "
        f"{explanation.rate / 1e9:,.0f} GFLOP/s here, and this step uses {used:.0%} of that",
        f"sampling and tokenising take {data_fraction:.1%}, while the step before is computed; "
        f"{steps} outer steps{kinds} take about {explanation.training_seconds / 60:,.0f} min without validation",
    ]


def _whole(value: float | None, times: float = 1.0) -> str:
    return count(None if value is None else value * times)


def _examples(task: Task, count: int) -> list[dict[str, Any]]:
    split = next(iter(task.splits.values()))
    if task.kind == "regression":
        rows = list(range(min(count, len(split))))
    else:
        name = next(iter(task.splits))
        rows = [int(r) for label in range(len(task.label_names)) for r in task.rows_of(name, label)[:count]]
    return [readable(split[row], task.label_names) for row in rows]
