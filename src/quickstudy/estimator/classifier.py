"""FewShotClassifier: a text classifier from a handful of labels, with the conventions of scikit-learn.

    clf = quickstudy.FewShotClassifier()
    clf.fit(texts, labels)
    clf.predict(texts)

There is nothing to tune and no run folder to know: it adapts the prior that ships with the package. It works in
`Pipeline`, `cross_val_score` and `GridSearchCV`. The encoder is loaded once per process, and shared.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from quickstudy.adaptation.few import learn_task
from quickstudy.adaptation.weights import row_weights
from quickstudy.errors import DataError, RunError
from quickstudy.estimator.inputs import parse_inputs
from quickstudy.estimator.labels import Classes, parse_labels
from quickstudy.estimator.learners import open_learner
from quickstudy.estimator.packed import pack_model, unpack_model
from quickstudy.estimator.saved import FILE, read_settings, to_settings
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.learned import Learned
from quickstudy.runs import Run
from quickstudy.tasks.split import ListSplit
from quickstudy.tasks.task import Task


class FewShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Learns classes of texts from a few examples of each.

    X may be a list of texts, or of (text, second text) tuples; a Series; a DataFrame or an array with one column for
    texts or two for pairs; or a column of a Hugging Face data set.

    Args:
        run: The run to adapt, or its folder. None stands for the prior that ships with the package.
        label_descriptions: What labels mean, for a learner that reads label names, as the prior does. A label that has
            a description needs no example.
        class_weight: How often the rows of each class count: `balanced` (the rows of each class together count as those
            of any other, if the method can weigh rows), or weights by label, or None.
        steps: Gradient steps on the labelled texts before the head is made. They cost much more time than all the
            rest. They help on some tasks and harm on others, so measure them on texts that were held out.

    Attributes:
        classes_: (N,) the labels, as they were given.
        n_features_in_: 1 for texts, 2 for pairs.
        model_: The adapted model.
        summary_: What was learned: rows per class, texts that were cut, a leave-one-out accuracy, and more.

    >>> clf = FewShotClassifier()
    >>> texts = ["late fee again", "they charged me a fee", "my card was stolen", "somebody took my card"]
    >>> clf.fit(texts, [1, 1, 0, 0])
    FewShotClassifier()
    >>> clf.predict(["another fee", "a stolen card"])
    array([1, 0])
    """

    _learned: Callable[[], Learned] | None  # what finds out `summary_`, as long as nobody has asked

    def __init__(
        self,
        run: str | Path | Run | None = None,
        *,
        label_descriptions: Mapping[Any, str] | None = None,
        class_weight: Literal["balanced"] | Mapping[Any, float] | None = "balanced",
        steps: int = 0,
    ) -> None:
        self.run = run
        self.label_descriptions = label_descriptions
        self.class_weight = class_weight
        self.steps = steps

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Self:
        """Adapt to labelled texts.

        Args:
            X: Texts or pairs.
            y: Their labels, of any hashable kind.
            sample_weight: How often each row counts, 0 or more.

        Raises:
            QuickstudyError: Texts, labels or weights that cannot be used, with the place and the way out.

        Warns:
            NoExampleWarning: A label has a description and no example.
        """
        examples, labels = parse_inputs(X), parse_labels(y)
        if len(examples) != len(labels):
            raise DataError(f"{len(examples)} texts but {len(labels)} labels", fix="Give one label per text.")
        described = self.label_descriptions or {}
        if not isinstance(described, Mapping):
            raise DataError("label_descriptions is no mapping", fix='Give {"a label": "what it means"}.')
        classes = Classes.of(labels, described)
        if len(classes.values) < 2:
            fix = "A classifier needs two classes: add examples of another one, or describe it: label_descriptions."
            raise DataError(f"y has 1 class: {classes.values[0]!r}", fix=fix)
        learner, prior = open_learner(self.run, self.steps)
        positions, by_class = classes.positions(labels), self.class_weight
        if isinstance(by_class, Mapping):
            by_class = classes.weights_by_name(by_class)
        elif by_class == "balanced" and not learner.weighs:
            by_class = None
        weights = row_weights(positions, classes.names, by_class, sample_weight)
        if described and not learner.reads_names:
            fix = 'Leave them out, or meta-train a run with method.names = "gated".'
            raise DataError(f"{learner.name} reads no label names, so that descriptions change nothing", fix=fix)
        rows = [replace(e, label=int(position)) for e, position in zip(examples, positions, strict=True)]
        pair = rows[0].text_pair is not None
        texts = classes.by_name(described)
        task = Task("texts", {"train": ListSplit(rows)}, classes.names, pair=pair, label_descriptions=texts)
        names: Literal["true", "none"] = "true" if texts or classes.say_something else "none"  # "0" and "1" say nothing
        self.model_, self._learned = learn_task(learner, task, names, weights=weights, prior=prior)
        self.classes_ = classes.values
        self.n_features_in_ = 2 if pair else 1
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable label of each text, (B,)."""
        logits = self._logits(X)
        predicted: NDArray[Any] = self.classes_[logits.argmax(-1)]
        return predicted

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability of each label, (B, N), in the order of `classes_`."""
        probabilities: NDArray[np.float64] = softmax(self._logits(X), axis=-1)
        return probabilities

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return the logits, (B, N); for two labels the logit of the second minus that of the first, (B,)."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[-1] == 2 else logits

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """Return the accuracy on labelled texts."""
        predicted, labels = self.predict(X), parse_labels(y)
        if len(predicted) != len(labels):
            raise DataError(f"{len(predicted)} texts but {len(labels)} labels", fix="Give one label per text.")
        right = [bool(a == b) for a, b in zip(predicted, labels, strict=True)]
        return float(np.average(right, weights=None if sample_weight is None else np.asarray(sample_weight)))

    @property
    def summary_(self) -> Learned | None:
        """What was learned; None for a model that was saved without it. It is found out when it is first asked for."""
        check_is_fitted(self, "model_")
        if self._learned:
            self.model_, self._learned = replace(self.model_, learned=self._learned()), None
        return self.model_.learned

    def save(self, folder: str | Path) -> Path:
        """Write the classifier to a new folder, without pickle, and return its path.

        The folder is a model folder: `quickstudy predict` and `quickstudy export` take it too. `run` is not written.

        Raises:
            RunError: The folder exists, or a label is of a type that JSON does not have.
        """
        check_is_fitted(self, "model_")
        settings = to_settings(Classes(self.classes_), self.label_descriptions, self.class_weight, self.steps)
        return replace(self.model_, learned=self.summary_).save(folder, beside={FILE: settings})

    @classmethod
    def load(cls, folder: str | Path, *, run: str | Path | Run | None = None) -> Self:
        """Read a classifier that `save` wrote, or a model that `quickstudy adapt` wrote.

        Args:
            folder: Where it was written.
            run: What to start from if it is fitted again; a folder does not say.

        Raises:
            RunError: There is no such folder, it is damaged, or its model predicts numbers.
        """
        model = AdaptedModel.load(folder)
        if model.kind != "classification":
            raise RunError("this model predicts numbers", where=str(folder), fix="Use quickstudy.load_model.")
        classes, settings = read_settings(Path(folder), model)
        loaded = cls(run, **settings)
        loaded.model_, loaded._learned = model, None
        loaded.classes_, loaded.n_features_in_ = classes.values, 2 if model.pair else 1
        return loaded

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        if "model_" not in state:
            return state
        return state | {"model_": pack_model(replace(self.model_, learned=self.summary_)), "_learned": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state | {"model_": unpack_model(state["model_"])} if "model_" in state else state)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True  # a list of texts
        tags.input_tags.two_d_array = True  # one column of texts, or two of pairs
        return tags

    def _logits(self, X: Any) -> NDArray[np.float64]:
        """Return the logits, (B, N), in double precision, so that probabilities add up to 1."""
        check_is_fitted(self, "model_")
        logits: NDArray[np.float64] = self.model_.logits(parse_inputs(X)).double().numpy()
        return logits
