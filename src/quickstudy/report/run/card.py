"""Model card: the README of a run folder; what it is, how to use it, what was measured.

It names tasks and figures, never paths of the machine it was made on.
"""

from pathlib import Path

from quickstudy.report.markdown import markdown_table
from quickstudy.report.number import counted
from quickstudy.report.overlap import overlap_notes
from quickstudy.report.run.facts import RunFacts, read_run
from quickstudy.report.table import means_table, score_name, tasks_table
from quickstudy.report.view import in_order
from quickstudy.storage.files import write_text
from quickstudy.storage.layout import RunFiles
from quickstudy.training.kept import KeptStep
from quickstudy.visible import visible


def write_card(folder: Path) -> Path:
    """Write `README.md` from the files of a run folder, and return its path."""
    run = read_run(folder)
    method, encoder = run.recipe.method.name, Path(run.recipe.encoder.name).name
    commit = f" (commit `{run.recipe.encoder.revision}`)" if run.recipe.encoder.revision else ""
    tasks = ", ".join(_public(task) for task in run.recipe.tasks.train)
    lines = [
        "---",
        "library_name: quickstudy",
        "pipeline_tag: text-classification",
        "tags: [meta-learning, few-shot]",
        "---",
        f"# {run.name}",
        "",
        f"A language encoder meta-pretrained with quickstudy: `{method}` on `{encoder}`{commit}, on the tasks {tasks}.",
        "",
        "## Use",
        "",
        "```bash",
        "quickstudy adapt THIS_FOLDER --data few.csv --out model/",
        'quickstudy predict model/ "a new text"',
        "```",
        "",
        "`encoder/` is a plain Hugging Face folder: `AutoModel.from_pretrained` opens it without quickstudy.",
        "",
        "## Measured",
        "",
        *_kept_lines(run.kept),
        *_perplexity_lines(run.perplexity),
        *_measured(run),
        "",
        "## Limits",
        "",
        "Few-shot accuracy varies with the examples given; measure it on your own task before you rely on it. The",
        "encoder carries whatever its pre-training and meta-training texts carried.",
        "",
    ]
    write_text(RunFiles(folder).card, visible("\n".join(lines)))
    return RunFiles(folder).card


def _kept_lines(kept: KeptStep | None) -> list[str]:
    """Say which outer step the encoder is of, and warn if meta-training changed nothing."""
    if kept is None:
        return []
    warning = ["", f"**Warning:** {kept.warning}"] if kept.warning else []
    return [f"Kept: {kept.describe()}.", *warning, ""]


def _perplexity_lines(perplexity: float | None) -> list[str]:
    if perplexity is None:
        return []
    return [f"Perplexity of masked tokens of held-out text, after the last step: {perplexity:.1f}.", ""]


def _measured(run: RunFacts) -> list[str]:
    if run.results is None:
        return ["Not evaluated yet: `quickstudy evaluate THIS_FOLDER --tasks ...`"]
    view = in_order(run.results)
    lines = [
        f"Scores are {score_name(run.results)}, of {counted(run.results.protocol.draws, 'draw')} of the support set.",
        "",
    ]
    for table in (means_table(view), tasks_table(view, minus=view.gain)):
        lines += [f"{table.caption}:", "", markdown_table(table), ""]
    notes = [note for name in view.learners for note in overlap_notes(run.results.learners[name])]
    return [*lines[:-1], *(line for note in notes for line in ("", f"{note[0].upper()}{note[1:]}."))]


def _public(reference: str) -> str:
    """A task reference without the local part: no option, no folder."""
    target = reference.partition("?")[0]
    return target if ":" in target.split("/")[0] else target.rstrip("/").rsplit("/", 1)[-1]
