"""Task: one labelled problem, with named splits of examples, its label names, and how it is scored.

A task knows nothing of files or tensors. A split is any sequence of `Example`s that also has an array of labels. So a
sampler can find the examples of a class without reading the texts, and rows stay on disk until they are drawn.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quickstudy.errors import DataError, did_you_mean
from quickstudy.tasks.label_text import label_texts
from quickstudy.tasks.split import SPLIT_NAMES, Split

Kind = Literal["classification", "regression"]

_DEFAULT_METRIC: dict[Kind, str] = {"classification": "accuracy", "regression": "pearson_spearman"}


@dataclass(frozen=True)
class Task:
    """A labelled problem.

    Attributes:
        name: Unique name, e.g. `glue:rte`.
        splits: Split by name. Support sets are drawn from `train`; `test`, or else `validation`, is scored.
        label_names: Name of each label, in label order; empty for regression.
        kind: `classification` or `regression`.
        pair: Whether examples carry two texts.
        metric: Name of the task's main metric (see `quickstudy.evaluation.metrics`). The default is `accuracy`, and
            `pearson_spearman` for regression.
        description: One sentence that says what is being decided.
        domain: Subject area, e.g. `finance`.
        fixed_draws: Ready-made support sets by (K shots, draw number), for published few-shot protocols.
        lineage: Sources that its texts come from, if other tasks come from them too; see `evaluation.leakage`.
        label_descriptions: What a label means, by its name, for methods that read label names. A label without a
            description has its name in words.

    Raises:
        DataError: There are fewer than two labels, or a description of a label that is not there or says nothing.
    """

    name: str
    splits: Mapping[str, Split]
    label_names: tuple[str, ...] = ()
    kind: Kind = "classification"
    pair: bool = False
    metric: str = ""
    description: str = ""
    domain: str = "general"
    fixed_draws: Mapping[tuple[int, int], Split] = field(default_factory=dict)
    lineage: frozenset[str] = frozenset()
    label_descriptions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.metric:
            object.__setattr__(self, "metric", _DEFAULT_METRIC[self.kind])
        if self.kind == "classification" and len(self.label_names) < 2:
            labels = f"only the label {self.label_names[0]!r}" if self.label_names else "no labels"
            raise DataError(f"task {self.name!r} has {labels}", fix="A classifier needs at least two labels.")
        self._check_descriptions()

    def _check_descriptions(self) -> None:
        for label, text in self.label_descriptions.items():
            if label not in self.label_names:
                fix = did_you_mean(str(label), self.label_names) if self.label_names else "Scores have no labels."
                raise DataError(f"task {self.name!r} has no label {label!r} to describe", fix=fix)
            if not isinstance(text, str) or not text.strip():
                what = f"the description of the label {label!r} is {text!r}"
                raise DataError(what, fix="Write a text, or leave it out.")

    @property
    def label_texts(self) -> tuple[str, ...]:
        """What a method may read of each label, in label order; empty for regression."""
        return label_texts(self.label_names, self.label_descriptions)

    def split(self, name: str) -> Split:
        """Return the split `name`, or raise `DataError` with the names that exist."""
        if name not in self.splits:
            fix = did_you_mean(name, self.splits)
            if self.fixed_draws and name == "train":
                fix = "Its published draws serve evaluation only; add a file train.jsonl or train.csv to train on it."
            elif name in SPLIT_NAMES.values():
                fix = f"Add one, e.g. as a file {name}.jsonl or {name}.csv; it has: {', '.join(self.splits) or 'none'}."
            raise DataError(f"task {self.name!r} has no split {name!r}", fix=fix)
        return self.splits[name]

    @property
    def train_split(self) -> Split:
        """What support sets are drawn from."""
        return self.split("train")

    @property
    def test_split(self) -> Split:
        """What is scored: `test` where it exists, else `validation`."""
        return self.splits["test"] if "test" in self.splits else self.split("validation")

    def rows_of(self, split: str, label: int) -> NDArray[np.int64]:
        """Return the row numbers in `split` that carry the label at position `label`."""
        return np.flatnonzero(self.split(split).labels == label)
