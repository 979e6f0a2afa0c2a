"""GLUE: its nine tasks with their official fields, labels and metrics, from the Hub or a local folder.

A local folder has one folder per task with `train` and `validation` files (CSV, TSV, JSONL or Parquet) and the column
names of the Hub's `nyu-mll/glue`. Labels are the numbers of that data set or their names. GLUE's test labels are not
public, so the validation split is scored, as is usual. MNLI is scored on validation_matched; validation_mismatched is
one more split. Wang et al. 2019, arXiv:1804.07461.
"""

from dataclasses import dataclass
from pathlib import Path

from quickstudy.data.columns import Columns
from quickstudy.data.files import index_files, list_data_files
from quickstudy.data.hub import fetch, read_labels
from quickstudy.data.source import SUFFIXES, explain_os_errors
from quickstudy.data.table import ArrowSplit, make_split, read_table
from quickstudy.errors import DataError, did_you_mean
from quickstudy.tasks.split import Split
from quickstudy.tasks.task import Kind, Task

HUB_ID = "nyu-mll/glue"


@dataclass(frozen=True, slots=True)
class GlueTask:
    """Fields, labels, metric and text sources of one GLUE task, as published."""

    text: str
    text_pair: str | None
    labels: tuple[str, ...]
    metric: str
    description: str
    lineage: tuple[str, ...]

    @property
    def kind(self) -> Kind:
        """Regression for STS-B, which has no labels; classification for the others."""
        return "classification" if self.labels else "regression"

    @property
    def columns(self) -> Columns:
        """The official column names."""
        return Columns(self.text, self.text_pair, "label")


_NLI = ("entailment", "not_entailment")
GLUE = {
    "cola": GlueTask(
        "sentence",
        None,
        ("unacceptable", "acceptable"),
        "mcc",
        "Is the sentence grammatical?",
        ("linguistics literature",),
    ),
    "sst2": GlueTask(
        "sentence", None, ("negative", "positive"), "accuracy", "Is the film review positive?", ("rotten tomatoes",)
    ),
    "mrpc": GlueTask(
        "sentence1",
        "sentence2",
        ("not_equivalent", "equivalent"),
        "accuracy_f1",
        "Do two sentences mean the same?",
        ("msr paraphrase",),
    ),
    "stsb": GlueTask(
        "sentence1",
        "sentence2",
        (),
        "pearson_spearman",
        "How similar are two sentences, from 0 to 5?",
        ("msr paraphrase", "flickr30k captions", "msr video captions"),
    ),
    "qqp": GlueTask(
        "question1",
        "question2",
        ("not_duplicate", "duplicate"),
        "accuracy_f1",
        "Do two questions ask the same?",
        ("quora",),
    ),
    "mnli": GlueTask(
        "premise",
        "hypothesis",
        ("entailment", "neutral", "contradiction"),
        "accuracy",
        "Does the premise entail, contradict or not decide the hypothesis?",
        ("multinli",),
    ),
    "qnli": GlueTask("question", "sentence", _NLI, "accuracy", "Does the sentence answer the question?", ("squad",)),
    "rte": GlueTask(
        "sentence1", "sentence2", _NLI, "accuracy", "Does the first text entail the second?", ("rte challenges",)
    ),
    "wnli": GlueTask(
        "sentence1",
        "sentence2",
        ("not_entailment", "entailment"),
        "accuracy",
        "Is the pronoun resolved rightly?",
        ("winograd schemas",),
    ),
}


def load_glue(name: str, path: Path | None = None, revision: str | None = None) -> Task:
    """Load one GLUE task.

    Args:
        name: `cola`, `sst2`, `mrpc`, `stsb`, `qqp`, `mnli`, `qnli`, `rte` or `wnli`.
        path: Local folder that holds a folder per task; None for the Hub.
        revision: Branch, tag or commit of the data set on the Hub; None for its main branch.

    Raises:
        DataError: Unknown task, missing files, or the Hub is out of reach.
    """
    if name not in GLUE:
        raise DataError(f"GLUE has no task {name!r}", fix=did_you_mean(name, GLUE))
    glue = GLUE[name]
    splits = _local_splits(name, glue, path) if path else _hub_splits(name, glue, revision)
    if "validation_matched" in splits:
        splits["validation"] = splits.pop("validation_matched")
    return Task(
        name=f"glue:{name}",
        splits=splits,
        label_names=glue.labels,
        kind=glue.kind,
        pair=glue.text_pair is not None,
        metric=glue.metric,
        description=glue.description,
        lineage=frozenset(glue.lineage),
    )


def _local_splits(name: str, glue: GlueTask, path: Path) -> dict[str, Split]:
    folder = path / name
    with explain_os_errors(folder):
        files = list_data_files(folder) if folder.is_dir() else []
    wanted = index_files((f.stem, f) for f in files if f.stem == "train" or f.stem.startswith("validation"))
    if "train" not in wanted:
        raise DataError(
            f"there is no train file of GLUE's {name!r} here",
            where=str(folder),
            fix=f"Expected {folder}/train.jsonl (or {', '.join(SUFFIXES)}) with the columns of {HUB_ID}.",
        )
    return {split: _local_split(glue, file) for split, file in wanted.items()}


def _local_split(glue: GlueTask, file: Path) -> Split:
    table = read_table(file, glue.columns, glue.kind)
    named = not set(glue.labels).isdisjoint(table.column("label").unique().to_pylist())
    return make_split(table, glue.labels if named else [str(i) for i in range(len(glue.labels))], file)


def _hub_splits(name: str, glue: GlueTask, revision: str | None) -> dict[str, Split]:
    columns = [name for name in (glue.text, glue.text_pair, "label") if name]
    return {
        split: ArrowSplit(
            rows.select_columns(columns), glue.columns, read_labels(rows, "label", glue.labels, glue.kind)
        )
        for split, rows in fetch(HUB_ID, name, revision).items()
        if not split.startswith("test")
    }
