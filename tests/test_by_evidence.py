"""What a compact run chooses for each support set: its encoder, what label names count, and the penalty of its head."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import quickstudy
from conftest import tiny_encoder
from quickstudy.adaptation.few import adapt_task, learn_task
from quickstudy.evaluation.evaluate import evaluate_learners
from quickstudy.evaluation.plan import plan_tasks
from quickstudy.evaluation.protocol import Protocol
from quickstudy.methods.by_evidence import ByEvidence, Setting, by_evidence
from quickstudy.methods.catalog import make
from quickstudy.methods.feature import FeatureMetaLearner
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import encode_set
from quickstudy.models.encoder import Encoder
from quickstudy.models.feature_cache import FeatureCaches
from quickstudy.models.target import make_target
from quickstudy.tasks.split import Example, ListSplit
from quickstudy.tasks.task import Task

RIDGE = {"intercept": "free", "names": "gated", "calibration": "leave-one-out"}


def _learner(encoder: Encoder) -> FeatureMetaLearner:
    learner = make("r2d2", encoder, RIDGE)
    assert isinstance(learner, FeatureMetaLearner)
    return learner


def _blind(encoder: Encoder) -> Encoder:
    """Return a copy that can no longer tell texts apart."""
    blind = encoder.copy()
    with torch.no_grad():
        for name, weight in blind.model.named_parameters():
            if "word_embeddings" in name:
                weight.copy_(weight[:1].expand_as(weight))
    return blind


def _task(names: Sequence[str], rows: int = 12) -> Task:
    """Return a task whose labels are told by one word each; `names` are its labels."""
    words = ("good", "late", "book")
    examples = [Example(f"a {words[i % 3]} film {i}", label=i % 3) for i in range(3 * rows)]
    return Task("three", splits={"train": ListSplit(examples), "test": ListSplit(examples)}, label_names=tuple(names))


def _equal(a: AdaptedModel, b: AdaptedModel) -> bool:
    texts = ["a good film", "a late book", "the film"]
    return torch.equal(a.logits(texts), b.logits(texts))


@pytest.mark.parametrize("names", ["none", "gated"])
def test_with_one_example_of_each_label_all_is_as_it_was_learned(names: str) -> None:
    """An example that is left out would leave its name alone, which says little about a name beside an example."""
    encoder = tiny_encoder(normalize=True)
    trained, task = make("r2d2", _blind(encoder), RIDGE | {"names": names}), _task(("a good film", "late", "z"), rows=1)
    assert _equal(adapt_task(by_evidence(trained, encoder), task), adapt_task(trained, task))


def test_an_encoder_that_has_lost_what_a_task_needs_is_left_and_that_is_said(tmp_path: Path) -> None:
    encoder = tiny_encoder(normalize=True)
    trained, untouched = _learner(_blind(encoder)), _learner(encoder)
    learner, task = by_evidence(trained, encoder), _task(("x", "y", "z"))
    model, learned = learn_task(learner, task)
    assert learned().chosen.startswith("the encoder without its meta-training")
    assert any("the encoder without its meta-training" in line for line in learned().lines())
    assert model.partition.encoder is encoder
    assert _equal(model, adapt_task(learner, task))
    saved = quickstudy.AdaptedModel.load(model.save(tmp_path / "model"))
    rows = [task.train_split[i] for i in range(len(task.train_split))]
    texts, labels = [row.text for row in rows], [task.label_names[int(row.label or 0)] for row in rows]
    assert float((saved.logits(texts) - model.logits(texts)).abs().max()) < 1e-5
    assert saved.predict(texts) == labels == adapt_task(untouched, task).predict(texts)
    assert adapt_task(trained, task).predict(texts) != labels


@pytest.mark.parametrize("wrong", [False, True])
def test_names_that_mislead_count_less(wrong: bool) -> None:
    encoder = tiny_encoder(normalize=True)
    names = ("a late film", "a book film", "a good film") if wrong else ("a good film", "a late film", "a book film")
    trained = _learner(encoder)
    with torch.no_grad():
        assert trained.gate is not None
        trained.gate.offset.fill_(8.0)  # each name counts as 8 examples
        trained.gate.slope.fill_(0.0)
    _, learned = learn_task(by_evidence(trained, encoder), _task(names, rows=4))
    count_less = "no label names" in learned().chosen or "label names that count 0.25 times" in learned().chosen
    assert count_less == wrong


def test_the_choice_is_the_one_of_least_loss_on_rows_that_are_left_out() -> None:
    """Each setting is weighed again by making the head without each row; the cost is that of the documentation."""
    encoder = tiny_encoder(normalize=True)
    learner, task = by_evidence(_learner(encoder).double(), encoder), _task(("x", "y", "z"), rows=6)
    rows = [task.train_split[i] for i in range(18)]
    support, target = encode_set(learner.encoder, rows), make_target("classification", task.label_names)
    assert isinstance(learner, ByEvidence)
    chosen = learner.for_support(support, target, FeatureCaches())

    def total(setting: Setting) -> float:
        each = learner.with_setting(setting)
        examples, names = each.read(support, target, None)
        every = each.with_names(examples, names)
        logits = []
        for row in range(18):
            kept = [i for i in range(len(every.labels)) if i != row]
            some = type(every)(every.features[kept], every.labels[kept], every.counts[kept])
            logits.append(each.rule.head(some, target)(every.features[row]))
        factors = 2.0 ** (torch.arange(-12, 25) / 4)
        found = torch.stack(logits).detach().double()
        answers = torch.log_softmax(factors[:, None, None] * found, -1)[:, range(18), support.labels].sum(-1)
        return float((answers - (factors.log() / 0.35).square() / 2).max()) - setting.cost

    best = Setting()
    for what, values in (("names", (0.0, 0.25, 1.0, 4.0)), ("penalty", (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0))):
        best = max((replace(best, **{what: value}) for value in values), key=total)
    assert chosen.chosen == str(best) != ""


def test_a_method_that_cannot_weigh_its_choices_is_left_as_it_is() -> None:
    learner = make("protonet", tiny_encoder())
    assert by_evidence(learner, tiny_encoder()) is learner


def test_an_evaluation_chooses_as_adapting_does() -> None:
    encoder = tiny_encoder(normalize=True)
    trained = _learner(_blind(encoder))
    learner, task = by_evidence(trained, encoder), _task(("x", "y", "z"))
    planned = plan_tasks(Protocol(shots=(2, 8), draws=2, limit=30), [task])
    learners = {"chooses": learner, "trained": trained, "untouched": _learner(encoder)}
    draws = evaluate_learners(learners, planned)
    some = evaluate_learners(learners, planned, only=[("chooses", 8)])
    whole = [draw for draw in draws if (draw.learner, draw.shots) == ("chooses", 8)]
    assert [draw.scores for draw in some] == [draw.scores for draw in whole]
    assert [draw.rows for draw in some] == [draw.rows for draw in whole]
    of_eight = [draw for draw in draws if draw.shots == 8]
    by_learner = {name: [d.scores["accuracy"] for d in of_eight if d.learner == name] for name in learners}
    assert by_learner["chooses"] == by_learner["untouched"] > by_learner["trained"]
