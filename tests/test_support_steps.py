"""Gradient steps on the support set before the head is made."""

import numpy as np
import pytest
import torch

import quickstudy
from quickstudy.comparison.learner import load_learners, named_learner
from quickstudy.errors import RecipeError
from quickstudy.methods.catalog import make
from quickstudy.methods.support_steps import SupportSteps, after_steps
from quickstudy.models.batch import encode_set
from quickstudy.models.target import make_target
from quickstudy.tasks.split import Example
from quickstudy.testing import tiny_encoder

TEXTS = ["a great film", "a fine film", "truly great", "a joy", "an awful film", "a bad film", "truly awful", "a bore"]
LABELS = [0, 0, 0, 0, 1, 1, 1, 1]
METHODS = [("protonet", {}), ("protonet", {"names": "gated"}), ("r2d2", {"intercept": "free", "names": "gated"})]


def support_of(learner, rows=range(8)):
    return encode_set(learner.encoder, [Example(TEXTS[i], label=LABELS[i]) for i in rows])


TARGET = make_target("classification", ("good", "bad"))


@pytest.mark.parametrize(("method", "settings"), METHODS)
def test_the_steps_lower_the_loss_on_the_support_set(method, settings):
    learner = make(method, tiny_encoder(normalize=True), settings)
    support = support_of(learner)
    before, after = learner.adapt(support, TARGET), SupportSteps(learner, 20, lr=1e-3).adapt(support, TARGET)

    def loss(model):
        return float(TARGET.loss(torch.as_tensor(model.logits(TEXTS)), torch.tensor(LABELS)))

    assert loss(after) < loss(before) - 0.01


def test_one_step_is_adams_first_step_on_the_mean_loss_of_four_halves():
    """The first step of Adam moves each entry by lr · sign(g), which an independent gradient must give."""
    learner = make("protonet", tiny_encoder(normalize=True))
    support, lr = support_of(learner), 1e-3
    after = SupportSteps(learner, 1, lr=lr).adapt(support, TARGET)
    random = np.random.default_rng(quickstudy.seeding.derive_seed(0, "support steps"))
    features = learner.encoder(support.sequences)
    losses = []
    for _ in range(4):
        first = np.concatenate([random.permutation(np.arange(4) + 4 * n)[:2] for n in (0, 1)])
        second = np.setdiff1d(np.arange(8), first)
        means = torch.stack([features[[i for i in first if LABELS[i] == n]].mean(0) for n in (0, 1)])
        logits = -learner.rule.log_scale.exp() * torch.cdist(features[second], means).square()
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS)[second]))
    weights = {name: p for name, p in learner.encoder.model.named_parameters() if name in after.params}
    gradients = torch.autograd.grad(torch.stack(losses).mean(), list(weights.values()))
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        sure = gradient.abs() > 1e-5  # Adam's epsilon is not small beside smaller entries
        expected = weight - lr * gradient.sign()
        torch.testing.assert_close(after.params[name][sure], expected[sure], rtol=0, atol=1e-2 * lr)


def test_the_learner_is_not_changed_and_the_same_rows_give_the_same_model():
    learner = make("r2d2", tiny_encoder(normalize=True))
    before = {name: p.clone() for name, p in learner.state_dict().items()}
    models = [SupportSteps(learner, 3, lr=1e-3).adapt(support_of(learner), TARGET) for _ in range(2)]
    assert all(torch.equal(p, before[name]) for name, p in learner.state_dict().items())
    assert torch.equal(models[0].logits(TEXTS), models[1].logits(TEXTS))


def test_with_one_example_of_each_class_there_is_nothing_to_score_and_no_step_is_taken():
    learner = make("protonet", tiny_encoder(normalize=True))
    support = support_of(learner, [0, 4])
    plain, stepped = learner.adapt(support, TARGET), SupportSteps(learner, 5, lr=1e-2).adapt(support, TARGET)
    torch.testing.assert_close(stepped.logits(TEXTS), plain.logits(TEXTS))


def test_a_row_of_weight_two_is_not_a_row_of_weight_one():
    learner = make("protonet", tiny_encoder(normalize=True))
    rows = [Example(text, label=label) for text, label in zip(TEXTS, LABELS, strict=True)]
    weighted = encode_set(learner.encoder, rows, [5.0, *[1.0] * 7])
    stepped = SupportSteps(learner, 2, lr=1e-3)
    assert not torch.equal(
        stepped.adapt(weighted, TARGET).logits(TEXTS), stepped.adapt(support_of(learner), TARGET).logits(TEXTS)
    )


def test_scores_are_learned_too():
    learner = make("r2d2", tiny_encoder(normalize=True))
    target = make_target("regression", ())
    support = encode_set(learner.encoder, [Example(t, label=float(i)) for i, t in enumerate(TEXTS)])
    plain, stepped = learner.adapt(support, target), SupportSteps(learner, 20, lr=1e-3).adapt(support, target)

    def error(model):
        return float((torch.as_tensor(model.logits(TEXTS)).flatten() - torch.arange(8.0)).square().mean())

    assert error(stepped) < error(plain)


def test_steps_that_are_not_possible_are_refused():
    learner = make("anil", tiny_encoder(normalize=True))
    with pytest.raises(RecipeError, match="anil takes no gradient steps"):
        after_steps(learner, 3)
    for steps in (-1, 1.5, True):
        with pytest.raises(RecipeError, match="whole number"):
            after_steps(learner, steps)
    assert after_steps(learner, 0) is learner


def test_a_comparison_names_a_learner_with_its_steps():
    plain, stepped = named_learner("protonet", "minilm"), named_learner("protonet:30-steps", "minilm")
    assert stepped.name == "protonet, 30 steps"
    assert stepped.fingerprint() != plain.fingerprint()
    assert named_learner("protonet:20-steps", "minilm").fingerprint() != stepped.fingerprint()
    assert stepped.describe().settings != plain.describe().settings
    learner = load_learners([stepped])["protonet, 30 steps"]
    assert isinstance(learner, SupportSteps)
    assert learner.steps == 30


def test_the_classifier_takes_steps_and_says_so(tmp_path):
    clf = quickstudy.FewShotClassifier(steps=2).fit(TEXTS, LABELS)
    assert "2 steps" in clf.model_.method
    clf.save(tmp_path / "model")
    loaded = quickstudy.FewShotClassifier.load(tmp_path / "model")
    assert loaded.steps == 2
    np.testing.assert_allclose(loaded.predict_proba(TEXTS), clf.predict_proba(TEXTS), atol=1e-6)
    assert not np.allclose(
        clf.predict_proba(TEXTS), quickstudy.FewShotClassifier().fit(TEXTS, LABELS).predict_proba(TEXTS), atol=1e-6
    )


def test_a_class_without_examples_is_raised_after_steps_too(monkeypatch):
    learner = make("protonet", tiny_encoder(normalize=True), {"names": "gated"})
    target = make_target("classification", ("good", "bad", "dull"), ("good", "bad", "dull"))
    raised = SupportSteps(learner, 2, lr=1e-3).adapt(support_of(learner), target)
    monkeypatch.setattr("quickstudy.methods.feature.raise_described", lambda head, *_: head)
    plain = SupportSteps(learner, 2, lr=1e-3).adapt(support_of(learner), target)
    difference = raised.head.bias - plain.head.bias
    assert difference[2] > 0
    assert difference[:2].tolist() == [0, 0]
