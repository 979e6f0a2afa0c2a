"""Facts: what the page and the card of a run show, read from the files of its folder."""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from quickstudy.errors import RunError
from quickstudy.evaluation.json_file import as_record
from quickstudy.evaluation.results import Curve, Results
from quickstudy.evaluation.results_file import read_results
from quickstudy.report.curve import curve_of
from quickstudy.storage.layout import RunFiles
from quickstudy.storage.manifest import check_files
from quickstudy.storage.reading import UnreadableError, parse_toml, read_text
from quickstudy.storage.trust import check_folder
from quickstudy.training.kept import KeptStep, find_kept
from quickstudy.training.record import read_log


@dataclass(frozen=True, slots=True)
class _Named:
    name: str


@dataclass(frozen=True, slots=True)
class _Encoder:
    name: str
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class _Tasks:
    train: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Outer:
    meta_batch_size: int
    keep: str


@dataclass(frozen=True, slots=True)
class RecipeFacts:
    """What a page says of a recipe."""

    method: _Named
    encoder: _Encoder
    tasks: _Tasks
    outer: _Outer


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run folder holds.

    Attributes:
        name: Name of the folder.
        recipe: What is said of its recipe.
        recipe_text: The whole recipe.
        curve: The meta-training; None before the first outer step.
        kept: The outer step whose meta-parameters the run ends with; None before the first one.
        results: Of the evaluation; None before it.
        perplexity: Of masked tokens of held-out text, at the last step that it was measured after; None if it was not.
    """

    name: str
    recipe: RecipeFacts
    recipe_text: str
    curve: Curve | None
    kept: KeptStep | None
    results: Results | None
    perplexity: float | None = None


def read_run(folder: Path) -> RunFacts:
    """Read a run folder.

    Raises:
        RunError: Not a run folder, or a damaged one.
    """
    files = RunFiles(folder)
    files.check_exist()
    check_folder(folder, "run folder")
    check_files(
        folder, [file.name for file in (files.config, files.tasks, files.metrics)], "run folder", "Copy the run again."
    )
    try:
        text = read_text(files.config)
        recipe = parse_toml(text)
    except UnreadableError as error:
        raise RunError(
            f"the recipe is damaged ({error})", where=str(files.config), fix="Copy the run again."
        ) from error
    records = read_log(files.metrics)
    renew = f"Evaluate again: quickstudy evaluate {quote(str(folder))} --tasks ... --overwrite"
    return RunFacts(
        name=folder.resolve().name,
        recipe=as_record(RecipeFacts, recipe, files.config, "Copy the run again."),
        recipe_text=text,
        curve=curve_of(records) if records else None,
        kept=find_kept(records, str(recipe.get("outer", {}).get("keep", "best"))),
        results=read_results(files.results, renew) if files.results.is_file() else None,
        perplexity=next((record.perplexity for record in reversed(records) if record.perplexity is not None), None),
    )
