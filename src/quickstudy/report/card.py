"""Model card: the README of a run folder; what it is, how to use it, what was measured.

It names tasks and figures, never paths of the machine it was made on.
"""

from pathlib import Path

from quickstudy.layout import RunFiles
from quickstudy.report.page import read_run
from quickstudy.report.table import overlap_lines, percent, result_table, score_name
from quickstudy.storage import write_text
from quickstudy.training.kept import find_kept
from quickstudy.training.record import read_log


def write_card(folder: Path) -> Path:
    """Write `README.md` from the files of a run folder, and return its path."""
    run = read_run(folder)
    recipe, results = run["recipe"], run["results"]
    method, encoder = recipe["method"]["name"], Path(recipe["encoder"]["name"]).name
    tasks = ", ".join(_public(task) for task in recipe["tasks"]["train"])
    lines = [
        "---",
        "library_name: quickstudy",
        "pipeline_tag: text-classification",
        "tags: [meta-learning, few-shot]",
        "---",
        f"# {run['name']}",
        "",
        f"A language encoder meta-pretrained with quickstudy: `{method}` on `{encoder}`, on the tasks {tasks}.",
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
        *_kept_lines(folder, recipe["outer"]["keep"]),
    ]
    if results:
        table = result_table(results)
        lines += [
            f"{score_name(results).capitalize()}, with 95 % intervals over {results['draws']} draws of the support set.",
            "",
            f"| task | shots | {' | '.join(table['learners'])} |",
            f"|---|---|{'---|' * len(table['learners'])}",
        ]
        for line in table["lines"]:
            cells = " | ".join(percent(line["cells"][learner]) for learner in table["learners"])
            lines.append(f"| {_public(line['task'])} | {line['shots']} | {cells} |")
        if results["seen_in_meta_training"]:
            seen = ", ".join(map(_public, results["seen_in_meta_training"]))
            lines += ["", f"Meta-trained on, so not held out: {seen}."]
        lines += [part for line in overlap_lines(results) for part in ("", f"{line[0].upper()}{line[1:]}.")]
    else:
        lines.append("Not evaluated yet: `quickstudy evaluate THIS_FOLDER --tasks ...`")
    lines += [
        "",
        "## Limits",
        "",
        "Few-shot accuracy varies with the examples given; measure it on your own task before you rely on it. The encoder",
        "carries whatever its pre-training and meta-training texts carried.",
        "",
    ]
    write_text(RunFiles(folder).card, "\n".join(lines))
    return RunFiles(folder).card


def _kept_lines(folder: Path, keep: str) -> list[str]:
    """Say which outer step the encoder is of, and warn if meta-training changed nothing."""
    kept = find_kept(read_log(RunFiles(folder).metrics), keep)
    if kept is None:
        return []
    warning = ["", f"**Warning:** {kept.warning}"] if kept.warning else []
    return [f"Kept: {kept.describe()}.", *warning, ""]


def _public(reference: str) -> str:
    """A task reference without the local part: no option, no folder."""
    target = reference.partition("?")[0]
    return target if ":" in target.split("/")[0] else target.rstrip("/").rsplit("/", 1)[-1]
