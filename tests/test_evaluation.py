"""Evaluation: metrics, intervals and draws against scikit-learn, scipy and closed forms."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression, Ridge

import quickstudy
from conftest import score_task, tiny_encoder, word_task
from quickstudy.data.glue import GLUE
from quickstudy.errors import DataError
from quickstudy.evaluation import draws as draw
from quickstudy.evaluation import evaluate as evaluation
from quickstudy.evaluation.evaluate import evaluate_learners
from quickstudy.evaluation.metrics import calibration, label_figures, main_metric, score
from quickstudy.evaluation.plan import plan_tasks
from quickstudy.evaluation.protocol import Protocol
from quickstudy.evaluation.record import Costs, Draw
from quickstudy.evaluation.results_file import read_results
from quickstudy.evaluation.statistics import summarize
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import make
from quickstudy.methods.closed_form import SupportVectors
from quickstudy.methods.feature import FeatureMetaLearner, HeadRule
from quickstudy.methods.label_names import LabelNames
from quickstudy.methods.linear_probe import LinearProbe
from quickstudy.methods.matching import Matching
from quickstudy.methods.protonet import Prototypes
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedSet, encode_set
from quickstudy.models.encoder import Encoder
from quickstudy.models.support_rows import SupportRows
from quickstudy.models.target import Classes, Scores, Target
from quickstudy.runs import Run
from quickstudy.tasks.split import Example, ListSplit
from quickstudy.tasks.task import Task

EXACT = {"rel": 1e-12, "abs": 1e-12}


@pytest.mark.parametrize("n_way", [2, 3, 6])
@pytest.mark.parametrize("seed", range(4))
def test_classification_metrics_are_those_of_scikit_learn(n_way: int, seed: int) -> None:
    y, p = np.random.default_rng(seed).integers(n_way, size=(2, 40))
    found = score(_task(n_way), y, p)
    macro: dict[str, Any] = {"average": "macro", "labels": range(n_way), "zero_division": 0.0}
    assert found == pytest.approx(
        {
            "accuracy": sk.accuracy_score(y, p),
            "precision": sk.precision_score(y, p, **macro),
            "recall": sk.recall_score(y, p, **macro),
            "f1": sk.f1_score(y, p, **macro),
            "mcc": sk.matthews_corrcoef(y, p),
            "metric": sk.accuracy_score(y, p),
        },
        **EXACT,
    )


@pytest.mark.parametrize("n_way", [2, 3, 6])
def test_scores_and_confusions_of_each_class_are_those_of_scikit_learn(n_way: int) -> None:
    y, p = np.random.default_rng(n_way).integers(n_way - 1, size=(2, 40))  # the last label never comes
    found = label_figures(y, p, n_way, range(n_way))
    each: dict[str, Any] = {"average": None, "labels": range(n_way), "zero_division": 0.0}
    for name, of in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
        assert getattr(found.per_class, name) == pytest.approx(of(y, p, **each).tolist(), **EXACT)
    assert np.array_equal(found.confusion, sk.confusion_matrix(y, p, labels=range(n_way)))


@pytest.mark.parametrize("seed", range(4))
def test_regression_metrics_are_those_of_scipy(seed: int) -> None:
    y, noise = np.random.default_rng(seed).normal(size=(2, 30))
    y, p = y.round(1), y + noise  # rounding makes ties
    found = score(_task(0, kind="regression", metric="pearson_spearman"), y, p)
    pearson, spearman = stats.pearsonr(y, p).statistic, stats.spearmanr(y, p).statistic
    assert found == pytest.approx(
        {
            "pearson": pearson,
            "spearman": spearman,
            "mse": sk.mean_squared_error(y, p),
            "metric": (pearson + spearman) / 2,
        },
        **EXACT,
    )


@pytest.mark.parametrize("n_way", [2, 3, 20])
def test_calibration_is_scikit_learn_s_log_loss_and_the_definition_of_guo_et_al(n_way: int) -> None:
    random = np.random.default_rng(n_way)
    y, p = random.integers(n_way, size=400), random.dirichlet(np.full(n_way, 0.3), size=400)
    found = calibration(y, p)
    assert found.log_loss == pytest.approx(sk.log_loss(y, p, labels=range(n_way)), **EXACT)
    confidence, right, wanted = p.max(1), p.argmax(1) == y, 0.0
    for low in np.arange(15) / 15:
        inside = (confidence >= low) & (confidence < low + 1 / 15 + (low > 0.9) * 1e-9)
        if inside.any():
            wanted += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert found.ece == pytest.approx(wanted, abs=1e-12)
    sure = calibration(y, np.eye(n_way)[y])
    assert (sure.log_loss, sure.ece) == pytest.approx((0.0, 0.0), abs=1e-12)


@pytest.mark.parametrize("name", sorted(GLUE))
def test_a_glue_task_is_scored_by_its_own_metric(name: str) -> None:
    y, p = np.random.default_rng(5).integers(2, size=(2, 50))
    real = np.random.default_rng(6).normal(size=(2, 50))
    wanted = {
        "cola": sk.matthews_corrcoef(y, p),
        "mrpc": (sk.accuracy_score(y, p) + sk.f1_score(y, p)) / 2,
        "qqp": (sk.accuracy_score(y, p) + sk.f1_score(y, p)) / 2,
        "stsb": (stats.pearsonr(*real).statistic + stats.spearmanr(*real).statistic) / 2,
    }
    kind = "regression" if name == "stsb" else "classification"
    task = _task(0 if name == "stsb" else 2, kind=kind, metric=GLUE[name].metric)
    found = score(task, *(real if name == "stsb" else (y, p)))
    assert found["metric"] == pytest.approx(wanted.get(name, sk.accuracy_score(y, p)), **EXACT)
    assert main_metric(task) == ("metric" if name == "stsb" else "accuracy")


@pytest.mark.parametrize("metric", ["accuracy", "mcc", "accuracy_f1"])
@pytest.mark.parametrize(("true", "predicted"), [([0, 1, 0, 1], [0] * 4), ([0] * 4, [0] * 4), ([1] * 4, [0] * 4)])
def test_constant_predictions_are_scored_without_a_warning(true: list[int], predicted: list[int], metric: str) -> None:
    found = score(_task(2, metric=metric), true, predicted)
    right = float(np.mean(np.array(true) == predicted))
    assert found["accuracy"] == right
    assert found["mcc"] == 0.0
    assert found["metric"] == {"accuracy": right, "mcc": 0.0, "accuracy_f1": right / 2}[metric]


@pytest.mark.parametrize(
    ("true", "predicted"), [([1.0, 2.0, 3.0], [2.0] * 3), ([2.0] * 3, [1.0, 2.0, 3.0]), ([1.0], [3.0])]
)
def test_a_constant_has_no_correlation(true: list[float], predicted: list[float]) -> None:
    found = score(_task(0, kind="regression", metric="pearson_spearman"), true, predicted)
    assert (found["pearson"], found["spearman"], found["metric"]) == (0.0, 0.0, 0.0)
    assert found["mse"] == pytest.approx(np.mean((np.array(true) - predicted) ** 2))


@pytest.mark.parametrize("rule", [Prototypes(), Matching(), SupportVectors()])
def test_numbers_that_differ_by_rounding_alone_have_no_correlation(rule: HeadRule) -> None:
    """If all scores of a support set are equal, so are all predictions, up to the last digits of single precision."""
    random = torch.Generator().manual_seed(0)
    support, query = (torch.randn(n, 16, generator=random) / 4 for n in (32, 50))
    labels, target = torch.full((32,), 3.7), Scores()
    scale = target.scale(labels)
    head = scale.rescale(rule.head(SupportRows(support, scale.standardise(labels)), target))
    predicted = head(query).detach().numpy()[:, 0]
    assert 0 < np.ptp(predicted) < 1e-5
    task = _task(0, kind="regression", metric="pearson_spearman")
    found = score(task, np.arange(50.0), predicted)
    assert (found["pearson"], found["spearman"], found["metric"]) == (0.0, 0.0, 0.0)
    varied = 3.7 + np.arange(50, dtype=np.float32) / 10_000
    assert score(task, np.arange(50.0), varied)["metric"] == pytest.approx(1.0, abs=1e-3)


def test_an_affine_prediction_correlates_fully() -> None:
    y = np.arange(10.0)
    found = score(_task(0, kind="regression", metric="pearson_spearman"), y, 3 * y - 2)
    assert found["metric"] == pytest.approx(1.0, **EXACT)


@pytest.mark.parametrize("n", [2, 3, 10, 30])
def test_the_interval_is_student_s(n: int) -> None:
    values = np.random.default_rng(n).normal(0.7, 0.1, size=n)
    found = summarize(list(values))
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    wanted = values.mean(), values.std(ddof=1), low, high, n
    assert (found.mean, found.sd, found.low, found.high, found.n) == pytest.approx(wanted, **EXACT)


def test_the_interval_covers_the_mean_in_95_of_100_evaluations() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.05, size=(2000, 10))
    found = [summarize(list(row)) for row in values]
    assert 0.93 <= np.mean([mean.low <= 0.6 <= mean.high for mean in found]) <= 0.97


def test_one_draw_has_a_mean_and_no_interval() -> None:
    found = summarize([0.4])
    assert (found.mean, found.n, found.sd, found.low, found.high) == (0.4, 1, None, None, None)


def test_draws_are_a_function_of_seed_task_shots_and_number() -> None:
    task = word_task(n_way=3)
    few, many = draw.support_sets(task, 4, 2, seed=1), draw.support_sets(task, 4, 6, seed=1)
    assert list(many) == list(range(6))
    assert few == {d: many[d] for d in range(2)}  # asking for more changes none of the first
    assert len({frozenset(support) for support in many.values()}) == 6
    assert many != draw.support_sets(task, 4, 6, seed=2)
    assert many != draw.support_sets(word_task("other", n_way=3), 4, 6, seed=1)
    train = [task.train_split[i] for i in range(len(task.train_split))]
    for support in many.values():
        assert [e.label for e in support] == [0] * 4 + [1] * 4 + [2] * 4
        assert len(set(support)) == 12
        assert set(support) <= set(train)


def test_a_regression_draw_is_twice_k_rows() -> None:
    task = score_task()
    found = draw.support_sets(task, 5, 3, seed=0)
    assert {len(support) for support in found.values()} == {10}
    with pytest.raises(DataError, match="fewer than 2 x 31"):
        draw.support_sets(task, 31, 3, seed=0)


def test_too_few_examples_of_a_class_are_refused_with_the_number_that_works() -> None:
    with pytest.raises(DataError, match="Use --shots 6 or fewer"):
        draw.support_sets(word_task(rows=12), 7, 1, seed=0)


def test_published_draws_are_used_where_there_are_any() -> None:
    task = word_task()
    own = {(4, d): ListSplit([Example(f"draw {d}", label=i) for i in (0, 1) * 4]) for d in (1, 2, 7)}
    fixed = Task(
        task.name, task.splits, task.label_names, fixed_draws=own | {(8, 0): ListSplit([Example("x", label=0)])}
    )
    found = draw.support_sets(fixed, 4, 5, seed=0)
    assert {d: [e.text for e in support] for d, support in found.items()} == {1: ["draw 1"] * 8, 2: ["draw 2"] * 8}
    assert draw.support_sets(fixed, 4, 5, seed=3) == found
    assert draw.support_sets(fixed, 16, 5, seed=0) == {}
    draws = _evaluate({"probe": LinearProbe(tiny_encoder())}, [fixed], Protocol(shots=(4, 16), draws=5))
    assert [(each.shots, each.draw) for each in draws] == [(4, 1), (4, 2)]
    with pytest.raises(DataError, match="no task has draws of 16 shots"):
        plan_tasks(Protocol(shots=(16,)), [fixed])


@pytest.mark.parametrize("labels", [[0] * 4, [0] * 4 + [1] * 3, [0] * 4 + [1] * 5])
def test_a_published_draw_that_is_not_k_of_each_class_is_refused(labels: list[int]) -> None:
    good, odd = (ListSplit([Example("x", label=i) for i in found]) for found in ([0, 1] * 4, labels))
    task = replace(word_task(), fixed_draws={(4, 0): good, (4, 1): odd, (8, 0): odd})
    assert len(draw.support_sets(task, 4, 1, seed=0)) == 1  # the odd one is not used
    message = rf"draw 1 of 4 shots of task 'tone' has {labels.count(1)} rows of the label 'class1', not 4\n.*train_1_4"
    with pytest.raises(DataError, match=message):
        draw.support_sets(task, 4, 2, seed=0)


def test_a_limit_scores_a_fixed_sample_in_the_order_of_the_file() -> None:
    task = word_task()
    whole = [task.test_split[i] for i in range(60)]
    sample = draw.scored_examples(task, 20, seed=0)
    assert sample == draw.scored_examples(task, 20, seed=0) != draw.scored_examples(task, 20, seed=1)
    places = [whole.index(example) for example in sample]
    assert len(sample) == 20
    assert places == sorted(places)
    assert places != list(range(20))
    for limit in (None, 60, 61):
        assert draw.scored_examples(task, limit, seed=0) == tuple(whole)


def test_a_task_without_a_test_split_holds_half_of_its_rows_out() -> None:
    alone = Task("alone", {"train": word_task(n_way=3).train_split}, ("a", "b", "c"))
    cut = draw.with_test_split(alone, seed=0)
    train, test = ({split[i] for i in range(len(split))} for split in (cut.splits["train"], cut.splits["test"]))
    assert (len(train), len(test)) == (30, 30)
    assert not train & test
    assert np.bincount(cut.splits["test"].labels).tolist() == [10, 10, 10]
    kept = word_task()
    assert draw.with_test_split(kept, seed=0) is kept
    drawn = replace(alone, metric="mcc", fixed_draws={(4, 0): alone.train_split})
    cut = draw.with_test_split(drawn, seed=0)
    assert cut == replace(drawn, splits=cut.splits)


def test_every_learner_adapts_to_the_same_examples() -> None:
    class Witness(FeatureMetaLearner):
        seen: list[Any]

        def adapt(self, support: EncodedSet, target: Target, **options: Any) -> AdaptedModel:
            self.seen.append((support.sequences.ids, support.labels.tolist()))
            return super().adapt(support, target, **options)

    learners = {name: Witness(tiny_encoder(), Prototypes(), name="protonet") for name in ("a", "b")}
    for learner in learners.values():
        learner.seen = []
    task = word_task()
    told: list[Any] = []
    planned = plan_tasks(Protocol(shots=(2, 4), draws=3, seed=5), [task])
    draws = evaluate_learners(learners, planned, on_draw=told.append)
    assert told == draws
    assert learners["a"].seen == learners["b"].seen
    encoder = tiny_encoder()
    drawn = [list(draw.support_sets(task, k, 3, seed=5).values()) for k in (2, 4)]
    wanted = [support for of_k in drawn for support in of_k]
    assert [ids for ids, _ in learners["a"].seen] == [encoder.tokenize(support).ids for support in wanted]
    figures = [replace(_figures(each), learner="") for each in draws]
    assert figures[:6] == figures[6:]  # two learners that are alike get the same figures


@pytest.mark.parametrize("method", ["protonet", "linear-probe", "fomaml", "maml", "finetune"])
def test_a_separable_task_is_solved_fully(method: str) -> None:
    words = {"a": "good good", "b": "bad", "c": "red blue green"}
    splits = {
        name: ListSplit(Example(text, label=i) for i, text in enumerate(words.values()) for _ in range(count))
        for name, count in (("train", 4), ("test", 7))
    }
    task = Task("separable", splits, tuple(words), domain="tests")
    settings = {} if method in ("protonet", "linear-probe") else {"adapts": "head"}
    learners = {"x": make(method, tiny_encoder(normalize=True), settings)}
    (only,) = _evaluate(learners, [task], Protocol(shots=(2,), draws=1))
    names = ("accuracy", "precision", "recall", "f1", "mcc", "metric")
    assert [only.scores[name] for name in names] == pytest.approx([1.0] * 6)
    assert (only.task, only.domain, only.learner, only.n_test) == ("separable", "tests", "x", 21)
    assert min(only.costs.seconds_adapt or 0, only.costs.seconds_predict or 0) > 0


def test_scores_are_of_what_the_adapted_model_predicts() -> None:
    task, learner = word_task(n_way=3), make("fomaml", tiny_encoder(normalize=True), {"inner_steps": 2})
    draws = _evaluate({"x": learner}, [task], Protocol(shots=(3,), draws=2, limit=25))
    tests = draw.scored_examples(task, 25, seed=0)
    for each, support in zip(draws, draw.support_sets(task, 3, 2, seed=0).values(), strict=True):
        model = learner.adapt(encode_set(learner.encoder, support), Classes(task.label_names))
        predicted = [task.label_names.index(str(name)) for name in model.predict(tests)]
        wanted = score(task, [e.label for e in tests], predicted)
        assert each.scores == wanted
        assert each.n_test == 25


@pytest.mark.parametrize("adapts", ["head", "layers:-1", "all"])
@pytest.mark.parametrize("pair", [False, True])
def test_kept_and_recomputed_prefixes_give_the_same_figures(
    adapts: str, pair: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = tiny_encoder(normalize=True, pair="separate")
    learner = make("fomaml", encoder, {"adapts": adapts, "inner_steps": 1})
    monkeypatch.setattr(evaluation, "_CHUNK", 16)

    def figures() -> list[Draw]:
        draws = _evaluate({"x": learner}, [word_task(pair=pair)], Protocol(shots=(2,), draws=2))
        return [_figures(each) for each in draws]

    kept = figures()
    monkeypatch.setattr(evaluation, "_KEEP_TOKENS", 0)
    assert figures() == kept
    assert len(kept) == 2


@pytest.mark.proves("identity", "linear-probe")
@pytest.mark.parametrize("n_way", [2, 3])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("c", [10.0, 0.5])
def test_the_linear_probe_is_scikit_learn_s_logistic_regression(n_way: int, normalize: bool, c: float) -> None:
    task = word_task(n_way=n_way)
    train, test = ([split[i] for i in range(30)] for split in (task.train_split, task.test_split))
    encoder = tiny_encoder(dtype=torch.float64, normalize=normalize)
    x, new = (_features(encoder, examples) for examples in (train, test))
    length = 1.0 if normalize else np.linalg.norm(x, axis=1).mean()
    reference = LogisticRegression(C=c, max_iter=2000).fit(x / length, [e.label for e in train])
    model = LinearProbe(encoder, c=c).adapt(encode_set(encoder, train), Classes(task.label_names))
    np.testing.assert_allclose(model.predict_proba(test).numpy(), reference.predict_proba(new / length), atol=1e-9)
    assert model.predict(test) == [task.label_names[i] for i in reference.predict(new / length)]


@pytest.mark.parametrize("normalize", [True, False])
def test_the_linear_probe_of_scores_is_scikit_learn_s_ridge(normalize: bool) -> None:
    task = score_task()
    train, test = ([split[i] for i in range(30)] for split in (task.train_split, task.test_split))
    encoder = tiny_encoder(dtype=torch.float64, normalize=normalize)
    x, new = (_features(encoder, examples) for examples in (train, test))
    length = 1.0 if normalize else np.linalg.norm(x, axis=1).mean()
    reference = Ridge(alpha=0.1).fit(x / length, [e.label for e in train])
    model = LinearProbe(encoder, c=10.0).adapt(encode_set(encoder, train), Scores())
    np.testing.assert_allclose(model.predict(test), reference.predict(new / length), atol=1e-9)


@pytest.mark.parametrize("method", ["linear-probe", "protonet", "fomaml"])
def test_a_regression_task_is_scored_by_its_correlations(method: str) -> None:
    task, learner = score_task(), make(method, tiny_encoder(normalize=True))
    (only,) = _evaluate({"x": learner}, [task], Protocol(shots=(8,), draws=1))
    support = draw.support_sets(task, 8, 1, seed=0)[0]
    tests = draw.scored_examples(task, None, seed=0)
    predicted = learner.adapt(encode_set(learner.encoder, support), Scores()).predict(tests)
    truth = [e.label for e in tests]
    assert (only.kind, only.main, "accuracy" in only.scores) == ("regression", "metric", False)
    wanted = stats.pearsonr(truth, predicted).statistic, stats.spearmanr(truth, predicted).statistic
    assert (only.scores["pearson"], only.scores["spearman"]) == pytest.approx(wanted, abs=1e-6)
    assert only.score == only.scores["metric"] == pytest.approx(sum(wanted) / 2, abs=1e-6)
    if method == "linear-probe":  # the others were never trained
        assert only.score > 0.2


def test_costs_of_every_draw_are_those_of_a_user_who_has_nothing_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder takes 20 ms a pass. Adapting and predicting cost a pass each, whatever earlier draws encoded."""
    run = Encoder._run

    def slow(encoder: Encoder, sequences: Any) -> Any:
        time.sleep(0.02)
        return run(encoder, sequences)

    monkeypatch.setattr(Encoder, "_run", slow)
    encoder = tiny_encoder(normalize=True)
    learners = {"names": LabelNames(encoder), "probe": LinearProbe(encoder), "prototypes": make("protonet", encoder)}
    draws = _evaluate(learners, [word_task()], Protocol(shots=(2,), draws=3, limit=64))
    assert len(draws) == 9
    for each in draws:
        # Two label names are a pass. Four support texts cost 4 of the 64 texts of the pass that is timed.
        least = 0.02 if each.learner == "names" else 0.02 * 4 / 64 / 4
        assert each.costs.seconds_adapt >= least, each.learner
        assert each.costs.seconds_predict >= 0.02
        assert each.costs.seconds_predict_1000 == pytest.approx(1000 * each.costs.seconds_predict / each.n_test)


def test_a_run_is_evaluated_beside_two_baselines_on_identical_draws(tiny_folder: Path, tmp_path: Path) -> None:
    recipe = {
        "encoder": {"name": str(tiny_folder), "normalize": True},
        "method": {"name": "protonet"},
        "tasks": {"train": ["samples:meta-validation"]},
        "episodes": {"n_way": 2, "k_shot": 2, "n_query": 2},
        "outer": {"outer_steps": 3, "outer_lr": 1e-2, "trains": "all", "warmup_steps": 0},
    }
    run = quickstudy.pretrain(recipe, tmp_path / "run")
    tasks = [word_task("tone"), word_task("colour", n_way=3)]
    results = quickstudy.evaluate(run, tasks, shots=(2, 4), draws=3, seed=1, limit=30)
    names = ("meta-trained", "untouched", "linear probe")
    wanted = {(t, n, k, d) for t in ("tone", "colour") for n in names for k in (2, 4) for d in range(3)}
    assert {(each.task, each.learner, each.shots, each.draw) for each in results.draws} == wanted
    assert len(results.draws) == len(wanted)
    untouched = Encoder.load(str(tiny_folder), normalize=True)
    learners: dict[str, MetaLearner] = {
        "meta-trained": Run.open(tmp_path / "run").learner(),
        "untouched": make("protonet", untouched),
        "linear probe": make("linear-probe", untouched),
    }
    protocol = Protocol(shots=(2, 4), draws=3, seed=1, limit=30)
    again = _evaluate(learners, tasks, protocol)
    assert [_figures(each) for each in again] == [_figures(each) for each in results.draws]
    by_name = {name: [_figures(each) for each in again if each.learner == name] for name in names}
    assert by_name["meta-trained"] != [replace(each, learner="meta-trained") for each in by_name["untouched"]]
    assert tuple(results.learners) == names
    assert [learner.trained for learner in results.learners.values()] == [True, False, False]
    assert [learner.method for learner in results.learners.values()] == ["protonet", "protonet", "linear-probe"]
    assert [mean.learner for table in results.tables for mean in table.learners] == [*names, *names]
    assert results.protocol == replace(protocol.used, n_way=None, n_query=None)
    assert results.learners["meta-trained"].seen == ()
    assert read_results(tmp_path / "run" / "results.json", "") == results


def _task(n_way: int, kind: Any = "classification", metric: str = "accuracy") -> Task:
    return Task("t", {}, tuple(f"class{i}" for i in range(n_way)), kind=kind, metric=metric)


def _features(encoder: Encoder, examples: Sequence[Example]) -> np.ndarray:
    with torch.no_grad():
        return encoder(encoder.tokenize(examples)).numpy()


def _evaluate(learners: Mapping[str, MetaLearner], tasks: Sequence[Task], protocol: Protocol) -> list[Draw]:
    return evaluate_learners(learners, plan_tasks(protocol, tasks))


def _figures(draw: Draw) -> Draw:
    """The draw without what differs from run to run."""
    return replace(draw, costs=Costs())
