"""Label names: their texts, what episodes do to them, and the gate that says how many examples a name is worth."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call

import quickstudy
from conftest import score_task, tiny_encoder, word_task, write_task
from quickstudy.adaptation.few import adapt_task
from quickstudy.build import build
from quickstudy.cli.descriptions import read_descriptions
from quickstudy.cli.main import main
from quickstudy.comparison.compare import compare
from quickstudy.comparison.learner import named_learner
from quickstudy.config import load_recipe
from quickstudy.data.reference import load_tasks
from quickstudy.errors import DataError, QuickstudyError, RecipeError
from quickstudy.evaluation.draws import draw_trials
from quickstudy.evaluation.protocol import Protocol
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import make
from quickstudy.methods.catalog.baseline_family import label_names
from quickstudy.methods.closed_form import Ridge, SupportVectors
from quickstudy.methods.described import raise_described
from quickstudy.methods.feature import HeadRule
from quickstudy.methods.gradient import GradientMetaLearner
from quickstudy.methods.name_gate import NameGate
from quickstudy.methods.protonet import Prototypes
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import encode_episode, encode_set
from quickstudy.models.head import Head, LinearHead
from quickstudy.models.support_rows import SupportRows, class_means
from quickstudy.models.target import Classes
from quickstudy.report.view import in_order
from quickstudy.runs import Run
from quickstudy.seeding import rng
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.label_text import draw_codes, name_in_words, read_texts
from quickstudy.tasks.name_mix import NameMix, shuffle_texts
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.tasks.split import Example, ListSplit
from quickstudy.testing import check_meta_learner
from quickstudy.training.plan import plan
from quickstudy.training.record import StepRecord

_STEPS = {"adapts": "layers:-1", "inner_lr": 0.1, "head_lr": 0.1, "inner_steps": 2, "scale": 1.0}
GATED: dict[str, dict[str, Any]] = {
    "protonet": {"scale": 1.0},
    "r2d2": {},
    "metaoptnet": {},
    "relation": {"hidden": 8, "prior": 1.0},
    "proto-maml": _STEPS,
    "leopard": _STEPS | {"hidden": 8},
}
SPEC = EpisodeSpec((2, 3), (1, 3), 2)
TASK = word_task(n_way=3)


# Texts


def test_a_name_becomes_words() -> None:
    names = ("card_arrival", "sci-fi", "foodOrDrink", "  HTML page ", "_", "3")
    assert [name_in_words(n) for n in names] == ["card arrival", "sci fi", "food Or Drink", "HTML page", "_", "3"]


def test_a_task_reads_a_description_in_place_of_a_name() -> None:
    task = replace(TASK, label_descriptions={"class1": "what is not good"})
    assert task.label_texts == ("class0", "what is not good", "class2")
    assert score_task().label_texts == ()


@pytest.mark.parametrize(
    ("descriptions", "message"),
    [
        ({"clas1": "a text"}, "task 'tone' has no label 'clas1' to describe\n  Did you mean 'class1'?"),
        ({"class1": "  "}, "the description of the label 'class1' is '  '\n  Write a text, or leave it out."),
    ],
)
def test_a_description_that_cannot_be_used_is_refused(descriptions: dict[str, str], message: str) -> None:
    with pytest.raises(DataError) as caught:
        replace(TASK, label_descriptions=descriptions)
    assert str(caught.value) == message
    with pytest.raises(DataError, match="has no label 'low' to describe\n  Scores have no labels"):
        replace(score_task(), label_descriptions={"low": "a text"})


def test_codes_differ_and_stand_everywhere() -> None:
    drawn = [draw_codes(3, rng(0, "codes", i)) for i in range(400)]
    assert all(len(set(codes)) == 3 for codes in drawn)
    for code in ("A", "7", "label 3"):
        assert {codes.index(code) for codes in drawn if code in codes} == {0, 1, 2}
    assert len(set(draw_codes(1000, rng(0, "many")))) == 1000


def test_opaque_texts_are_codes_that_follow_from_the_texts_and_the_draw() -> None:
    texts = ("good", "bad")
    assert read_texts(texts, "opaque") == read_texts(texts, "opaque")
    assert len({read_texts(texts, "opaque", draw) for draw in range(20)}) > 10
    with pytest.raises(RecipeError, match=r"label names cannot be read as 'opaqe'\n  Did you mean 'opaque'"):
        read_texts(texts, "opaqe")  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_no_shuffled_text_is_at_its_place(count: int) -> None:
    texts = tuple("abcdefg"[:count])
    orders = {shuffle_texts(texts, rng(0, "shuffle", i)) for i in range(200)}
    assert all(sorted(order) == sorted(texts) for order in orders)
    assert not any(a == b for order in orders for a, b in zip(order, texts, strict=True))
    assert len(orders) == {2: 1, 3: 2}.get(count, len(orders))


# Episodes


def test_a_mix_of_names_changes_nothing_else_of_an_episode() -> None:
    plain = EpisodeSampler([TASK, score_task()], SPEC, seed=3)
    mixed = EpisodeSampler([TASK, score_task()], SPEC, seed=3, names=NameMix(0.2, 0.3, 0.4))
    for i in range(60):
        assert replace(mixed[i], label_texts=plain[i].label_texts) == plain[i]
        assert mixed[i] == mixed[i]


def test_the_shares_of_a_mix_are_the_shares_of_the_episodes() -> None:
    shares = {"dropped": 0.1, "shuffled": 0.2, "coded": 0.3}
    plain, mixed = (EpisodeSampler([TASK], SPEC, seed=1, names=mix) for mix in (NameMix(), NameMix(**shares)))
    counts = Counter(_what_happened(plain[i].label_texts, mixed[i].label_texts) for i in range(600))
    for what, share in (shares | {"true": 0.4}).items():
        assert abs(counts[what] / 600 - share) < 0.06, counts


def _what_happened(before: tuple[str, ...], after: tuple[str, ...]) -> str:
    if before == after:
        return "true"
    if not after:
        return "dropped"
    return "shuffled" if sorted(before) == sorted(after) else "coded"


def test_the_texts_of_an_episode_are_in_the_order_of_its_labels() -> None:
    texts = dict(zip(TASK.label_names, TASK.label_texts, strict=True))
    sampler = EpisodeSampler([TASK], SPEC, seed=0)
    for i in range(20):
        assert sampler[i].label_texts == tuple(texts[name] for name in sampler[i].label_names)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("dropped = 0.5\nshuffled = 0.4\ncoded = 0.2", ":6: dropped, shuffled and coded are 1.1 together"),
        ("dropped = 2", ":7: episodes.names.dropped = 2: input should be less than or equal to 1"),
        ("drop = 0.5", ":7: unknown setting 'episodes.names.drop'\n  Did you mean 'dropped'?"),
    ],
)
def test_an_impossible_mix_is_refused_with_its_line(lines: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(f'[tasks]\ntrain = ["samples:meta-train"]\n[episodes]\nn_way = 2\n\n[episodes.names]\n{lines}\n')
    with pytest.raises(QuickstudyError) as caught:
        build(load_recipe(file))
    assert message in str(caught.value)


# The gate


def test_the_gate_is_its_equation() -> None:
    rows, names = SupportRows(_randn(5, 4), torch.tensor([0, 1, 2, 0, 1])), _randn(3, 4, seed=1)
    gate = NameGate(slope=0.7, offset=-0.3, scale=0.5).double()
    f, e, y = rows.features.numpy(), names.numpy(), rows.labels.numpy()
    logits = -0.5 * ((f[:, None] - e[None]) ** 2).sum(-1)
    answers = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    explained = answers[np.arange(5), y].mean() + np.log(3)
    kappa = np.log1p(np.exp(0.7 * explained - 0.3))
    assert gate.weigh(rows, names).item() == pytest.approx(kappa, abs=1e-7)
    wanted = [((y == n) @ f + kappa * e[n]) / ((y == n).sum() + kappa) for n in range(3)]
    torch.testing.assert_close(class_means(gate(rows, names), 3), torch.tensor(np.array(wanted)), rtol=0, atol=1e-6)


def test_names_that_explain_the_examples_count_more_and_less_with_every_shot() -> None:
    names, gate = 2 * torch.eye(3).double(), NameGate().double()
    good = SupportRows(names.repeat(2, 1), torch.arange(3).repeat(2))
    bad, alike = replace(good, labels=(good.labels + 1) % 3), torch.ones(3, 3).double()
    worth = [gate.weigh(good, names), gate.weigh(good, alike), gate.weigh(bad, names)]
    assert worth[0] > worth[1] > worth[2]
    assert worth[1].item() == pytest.approx(np.log(2))  # softplus(0): names that say nothing
    for shots in (1, 4, 16):
        rows = SupportRows(torch.zeros(3 * shots, 3).double(), torch.arange(3).repeat(shots))
        share = class_means(gate(rows, names), 3)[0, 0] / 2
        assert share.item() == pytest.approx(float(np.log(2) / (shots + np.log(2))))


def test_a_weight_of_two_counts_twice_in_the_gate() -> None:
    x, labels, names = _randn(4, 3), torch.tensor([0, 1, 0, 1]), _randn(2, 3, seed=1)
    weighted = SupportRows(x, labels, torch.tensor([2.0, 1.0, 1.0, 3.0]).double())
    repeated = torch.tensor([0, 0, 1, 2, 3, 3, 3])
    twice, gate = SupportRows(x[repeated], labels[repeated]), NameGate().double()
    torch.testing.assert_close(gate.weigh(weighted, names), gate.weigh(twice, names), rtol=0, atol=1e-12)
    torch.testing.assert_close(class_means(gate(weighted, names), 2), class_means(gate(twice, names), 2))


@pytest.mark.parametrize("offset", [0.0, -1e6])
def test_a_class_that_has_a_name_and_no_example_is_its_name(offset: float) -> None:
    names, gate = torch.randn(3, 4), NameGate(offset=offset)
    rows = SupportRows(torch.randn(2, 4), torch.tensor([0, 2]))
    torch.testing.assert_close(class_means(gate(rows, names), 3)[1], names[1])
    nothing = SupportRows(torch.empty(0, 4), torch.empty(0, dtype=torch.long))
    torch.testing.assert_close(class_means(gate(nothing, names), 3), names)


def test_the_name_of_a_class_without_examples_counts_as_much_as_the_examples_of_another() -> None:
    gate, names = NameGate(), torch.randn(3, 4)
    rows = SupportRows(torch.randn(4, 4), torch.tensor([0, 2, 2, 2]), torch.tensor([2.0, 1.0, 0.5, 1.5]))
    kappa = gate.weigh(rows, names).item()
    assert gate(rows, names).counts[4:].tolist() == pytest.approx([kappa, kappa + 2.5, kappa])


@pytest.mark.parametrize("make_rule", [lambda: Prototypes(0.5), Ridge, lambda: SupportVectors(c=0.4)])
def test_the_gradient_through_the_gate_is_exact(make_rule: Callable[[], HeadRule]) -> None:
    rule, gate, labels = make_rule().double(), NameGate(scale=0.5).double(), torch.tensor([0, 1, 2, 0, 1])
    query = _randn(4, 6, seed=2)
    learned = {name: p.detach().clone().requires_grad_() for name, p in gate.named_parameters()}

    def scores(x: Tensor, names: Tensor, *values: Tensor) -> Tensor:
        rows = functional_call(gate, dict(zip(learned, values, strict=True)), (SupportRows(x, labels), names))
        return rule.head(rows, Classes(("a", "b", "c")))(query)

    leaves = _randn(5, 6).requires_grad_(), _randn(3, 6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(scores, (*leaves, *learned.values()), atol=1e-5)


# Methods


@pytest.mark.parametrize("method", GATED)
def test_a_method_with_gated_names_keeps_the_contract(method: str) -> None:
    check_meta_learner(lambda encoder: _gated(method, encoder))


@pytest.mark.parametrize("pair", ["joint", "separate"])
@pytest.mark.parametrize("method", GATED)
def test_without_texts_a_gated_method_is_the_method_without_names(method: str, pair: str) -> None:
    encoder = tiny_encoder(normalize=True, pair=pair)
    gated, plain = _gated(method, encoder), make(method, encoder, GATED[method])
    for task in (TASK, word_task("pairs", pair=True), score_task()):
        episode = encode_episode(encoder, EpisodeSampler([task], SPEC, seed=0, names=NameMix(dropped=1.0))[0])
        torch.testing.assert_close(gated.meta_loss([episode]).loss, plain.meta_loss([episode]).loss, rtol=0, atol=0)
        models = [adapt_task(gated, _few(task), "none"), adapt_task(plain, _few(task))]
        answers = [model.logits([task.test_split[i] for i in range(8)]) for model in models]
        torch.testing.assert_close(*answers, rtol=0, atol=0)


@pytest.mark.parametrize("pair", ["joint", "separate"])
@pytest.mark.parametrize("method", GATED)
def test_a_gated_method_reads_what_the_texts_say(method: str, pair: str) -> None:
    encoder = tiny_encoder(normalize=True, pair=pair)
    learner = _gated(method, encoder)
    for task in (TASK, word_task("pairs", pair=True)):
        tests, few = [task.test_split[i] for i in range(8)], _few(task)
        true, opaque, none = (adapt_task(learner, few, names).logits(tests) for names in ("true", "opaque", "none"))
        for other in (opaque, none):
            assert (true - other).abs().max() > 1e-4
    scores = _few(score_task())
    tests = [score_task().test_split[i] for i in range(8)]
    true, none = (adapt_task(learner, scores, names).logits(tests) for names in ("true", "none"))
    torch.testing.assert_close(true, none, rtol=0, atol=0)


@pytest.mark.parametrize("method", GATED)
def test_a_gated_method_answers_for_a_class_without_examples(method: str) -> None:
    learner = _gated(method, tiny_encoder(normalize=True))
    rows = [Example("the good film", label=0), Example("a bad book", label=1)]
    target = Classes(("x", "y", "z"), ("good film", "bad book", "late fee"))
    model = learner.adapt(encode_set(learner.encoder, rows), target)
    assert model.logits(["late fee", "good film"]).isfinite().all()
    if method in ("protonet", "relation", "metaoptnet"):  # the others also fit what the examples do not show
        assert model.predict(["late fee", "good film"]) == ["z", "x"]


def test_a_class_without_examples_gets_half_of_what_the_other_classes_would_lack_without_theirs() -> None:
    rule, gate, names = Prototypes(3.0).double(), NameGate().double(), _randn(4, 5, seed=1)
    rows = SupportRows(_randn(5, 5), torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1.0, 2.0, 1.0, 1.0, 1.0]).double())

    def make(some: SupportRows) -> Head:
        return rule.head(gate(some, names), Classes(tuple("abcd")))

    gaps = []
    for label in range(3):
        kept = [i for i in range(5) if rows.labels[i] != label]
        head = make(SupportRows(rows.features[kept], rows.labels[kept], rows.counts[kept]))
        logits = head(rows.features[rows.labels == label]).detach().numpy()
        others = [n for n in range(3) if n != label]
        lack = sorted(row[others].max() - row[label] for row in logits)
        gaps.append(max(lack[(len(lack) - 1) // 2], 0))
    head = make(rows)
    raised = raise_described(head, make, rows, 4)
    assert isinstance(head, LinearHead)
    assert isinstance(raised, LinearHead)
    torch.testing.assert_close(raised.weight, head.weight, rtol=0, atol=0)
    assert sum(gaps) > 0
    wanted = torch.tensor([0.0, 0.0, 0.0, np.mean(gaps) / 2]).double()
    torch.testing.assert_close(raised.bias - head.bias, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 0, 0]])
def test_nothing_is_raised_where_all_classes_have_examples_or_only_one_has(labels: list[int]) -> None:
    head = LinearHead(_randn(3, 2), _randn(3))
    rows = SupportRows(_randn(3, 2), torch.tensor(labels))
    assert raise_described(head, lambda _: head, rows, 3) is head


@pytest.mark.parametrize("adapts", ["head", "layers:-1", "all"])
def test_names_are_read_with_the_encoder_as_it_is_before_the_first_step(adapts: str) -> None:
    encoder = tiny_encoder(dtype=torch.float64, normalize=True)
    learner = make("proto-maml", encoder, {"adapts": adapts, "names": "gated"}).double()
    assert isinstance(learner, GradientMetaLearner)
    learner.inner_steps = 0
    simple = make("protonet", encoder, {"names": "gated"}).double()
    episode = encode_episode(encoder, EpisodeSampler([TASK], SPEC, seed=0)[0])
    gradients = []
    for each in (learner, simple):
        loss = each.meta_loss([episode]).loss
        learned = {name.replace("start.", "rule."): p for name, p in each.named_parameters() if "pooler" not in name}
        values = torch.autograd.grad(loss, list(learned.values()))
        gradients.append({"loss": loss.detach()} | dict(zip(learned, values, strict=True)))
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)


def test_episodes_of_a_meta_batch_with_and_without_names_have_the_losses_that_they_have_alone() -> None:
    encoder = tiny_encoder(dtype=torch.float64, normalize=True)
    learner = _gated("protonet", encoder).double()
    sampler = EpisodeSampler(
        [TASK, word_task("pairs", pair=True), score_task()], SPEC, seed=0, names=NameMix(0.3, 0.3, 0.3)
    )
    episodes = [encode_episode(encoder, sampler[i]) for i in range(12)]
    assert {len(e.names) > 0 for e in episodes if e.target.label_names} == {True, False}
    together = [each.loss for each in learner.episode_losses(episodes, 1.0)]
    alone = [learner.meta_loss([episode]).loss for episode in episodes]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", ["protonet", "proto-maml"])
def test_the_estimate_of_an_episode_counts_the_names_that_are_read(method: str) -> None:
    encoder = tiny_encoder()
    episode = encode_episode(encoder, EpisodeSampler([TASK], SPEC, seed=0)[0])
    gated, plain = (plan(each, [episode]) for each in (_gated(method, encoder), make(method, encoder, GATED[method])))
    assert gated.tokens - plain.tokens == sum(map(len, episode.names.ids)) > 0
    assert (gated.operations or 0) > (plain.operations or 0)


def _gated(method: str, encoder: Any) -> MetaLearner:
    return make(method, encoder, GATED[method] | {"names": "gated"})


def _few(task: Any) -> Any:
    rows = [task.train_split[i] for i in range(6)]
    return replace(task, splits={"train": ListSplit(rows)})


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_reference_of_label_names_knows_nothing_without_them() -> None:
    learner = label_names(tiny_encoder())
    for task in (TASK, word_task("pairs", pair=True)):
        answers = adapt_task(learner, _few(task), "none").predict_proba([task.test_split[i] for i in range(4)])
        torch.testing.assert_close(answers, torch.full_like(answers, 1 / len(task.label_names)))


# Runs


@pytest.fixture
def made(tiny_folder: Path, tmp_path: Path) -> Path:
    """A folder with a gated run, its recipe, and a task whose labels say nothing without their descriptions."""
    seen = word_task("seen", rows=24, seed=9)
    write_task(replace(seen, label_names=seen.label_texts, label_descriptions={}), tmp_path / "seen")
    write_task(word_task("held", rows=24, seed=1), tmp_path / "held")
    (tmp_path / "recipe.toml").write_text(
        f'[encoder]\nname = "{tiny_folder}"\nnormalize = true\n[method]\nname = "protonet"\nnames = "gated"\n'
        f'[tasks]\ntrain = ["{tmp_path / "seen"}"]\n[episodes]\nn_query = 2\n[episodes.names]\ndropped = 0.25\n'
        "coded = 0.25\n[outer]\nouter_steps = 4\nmeta_batch_size = 2\nvalidate_every = 2\n",
        encoding="utf-8",
    )
    quickstudy.pretrain(tmp_path / "recipe.toml", tmp_path / "run")
    return tmp_path


FEW = {"texts": ["a good film", "the late fee", "a bad book"], "labels": ["class0", "class1", "class1"]}
SAY = {"class0": "a good film", "class1": "late fee"}


def test_a_gated_run_keeps_what_its_gate_learned_and_reads_descriptions(made: Path) -> None:
    run = Run.open(made / "run")
    gate = run.learner().get_submodule("gate")
    assert isinstance(gate, NameGate)
    assert all(float(p.detach()) != start for p, start in zip(gate.parameters(), (1.0, 0.0, np.log(10)), strict=True))
    assert run.recipe.episodes.names.dropped == 0.25
    assert "[episodes.names]\ndropped = 0.25\nshuffled = 0.0\ncoded = 0.25\n" in run.files.config.read_text()

    tests = ["late film", "the good fee"]
    described = quickstudy.adapt(run, **FEW, label_descriptions=SAY)
    answers = [described.predict_proba(tests)]
    answers += [quickstudy.adapt(run, **FEW, names=names).predict_proba(tests) for names in ("true", "none", "opaque")]
    assert all((a - b).abs().max() > 1e-6 for i, a in enumerate(answers[:3]) for b in answers[:i])
    assert (answers[0] - answers[3]).abs().max() > 1e-6  # to this tokenizer, "class0" and a code are both unknown words
    saved = AdaptedModel.load(described.save(made / "model"))
    torch.testing.assert_close(saved.predict_proba(tests), answers[0], rtol=0, atol=1e-5)


def test_a_gated_run_that_is_resumed_ends_like_one_that_was_not_stopped(made: Path) -> None:
    class Stopped(Exception):  # noqa: N818
        pass

    def stop(record: StepRecord) -> None:
        if record.step == 3:
            raise Stopped

    with pytest.raises(Stopped):
        quickstudy.pretrain(made / "recipe.toml", made / "again", on_step=stop)
    resumed = quickstudy.pretrain(made / "recipe.toml", made / "again", resume=True)
    whole, again = (dict(run.learner().named_parameters()) for run in (Run.open(made / "run"), resumed))
    torch.testing.assert_close(again, whole, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_descriptions": {"clas0": "a"}}, "has no label 'clas0' to describe\n  Did you mean"),
        ({"label_descriptions": ["a"]}, "label_descriptions is no mapping"),
        ({"names": "opaqe"}, "label names cannot be read as 'opaqe'"),
    ],
)
def test_what_cannot_be_read_of_labels_is_refused(made: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(QuickstudyError, match=message):
        quickstudy.adapt(made / "run", **FEW, **options)


def test_descriptions_for_a_run_that_reads_no_names_are_refused(made: Path) -> None:
    plain = quickstudy.pretrain(made / "recipe.toml", made / "plain", overrides=["method.names=none"])
    with pytest.raises(DataError, match="reads no label names, so that descriptions change nothing"):
        quickstudy.adapt(plain, **FEW, label_descriptions=SAY)
    with pytest.raises(RecipeError, match="'plain' reads no label names, so that no-names changes nothing"):
        named_learner(f"{made / 'plain'}:no-names", "minilm")


def test_the_command_line_reads_descriptions_from_toml_and_json(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (made / "say.toml").write_text('class0 = "a good film"\nclass1 = "late fee"\n', encoding="utf-8")
    (made / "say.json").write_text(json.dumps(SAY), encoding="utf-8")
    words = ("adapt", made / "run", "--data", made / "held" / "train.jsonl")
    ways = {
        "toml": ("--label-descriptions", made / "say.toml"),
        "json": ("--label-descriptions", made / "say.json"),
        "plain": (),
        "none": ("--names", "none"),
    }
    answers = {}
    for way, options in ways.items():
        monkeypatch.setattr("sys.argv", ["quickstudy", *map(str, (*words, *options, "--out", made / way))])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code
        answers[way] = AdaptedModel.load(made / way).predict_proba(["good film", "late fee"])
    assert torch.equal(answers["toml"], answers["json"])
    for a, b in (("toml", "plain"), ("toml", "none"), ("plain", "none")):
        assert not torch.equal(answers[a], answers[b])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("say.toml", 'a = "b"\nc = \n', "say.toml:2: this is not TOML"),
        ("say.json", '{"a": "b",\n "c" 1}', "say.json:2: this is not JSON"),
        ("say.json", '["a"]', "say.json: descriptions are not given by label name"),
        ("say.toml", "a = 3\n", "say.toml: the description of 'a' is no text"),
        ("none.toml", None, "none.toml: the descriptions cannot be read"),
    ],
)
def test_a_file_of_descriptions_that_cannot_be_used_is_refused(
    name: str, text: str | None, message: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_descriptions(tmp_path / name)
    assert message in str(caught.value)


def test_a_comparison_shows_a_run_without_names_and_with_opaque_names(made: Path) -> None:
    learners = [
        str(made / "run"),
        f"{made / 'run'}:no-names",
        f"{made / 'run'}:opaque-names",
        "label-names:opaque-names",
    ]
    options: dict[str, Any] = {"protocol": Protocol(shots=(1, 2), draws=2), "encoder": str(made / "run" / "encoder")}
    task = replace(load_tasks(str(made / "held"))[0], label_descriptions=SAY)
    results = compare(learners, task, made / "out", **options)
    assert list(results.learners) == ["run", "run, no names", "run, opaque names", "label-names, opaque names"]
    assert len({learner.fingerprint for learner in results.learners.values()}) == 4

    learner, tests = Run.open(made / "run").learner(), None
    for trial in draw_trials(options["protocol"], task):
        tests = trial.tests
        drawn = replace(task, splits={"train": ListSplit(trial.support)})
        for name, reading in (("run", "true"), ("run, no names", "none")):
            answers = adapt_task(learner, drawn, reading).predict(tests)  # type: ignore[arg-type]
            right = np.mean([task.label_names[int(e.label or 0)] == a for e, a in zip(tests, answers, strict=True)])
            (draw,) = (d for d in results.draws if (d.learner, d.shots, d.draw) == (name, trial.shots, trial.draw))
            assert draw.scores["accuracy"] == pytest.approx(right)

    counted: list[int] = []
    compare(learners, task, made / "out", **options, on_cell=lambda *cell: counted.append(cell[0]))
    assert not counted
    changed = replace(task, label_descriptions=SAY | {"class0": "loan"})
    compare(learners[:1], changed, made / "out", **options, on_cell=lambda *cell: counted.append(cell[0]))
    assert counted == [2]


def test_a_path_that_ends_like_a_reading_is_a_path(made: Path) -> None:
    (made / "run").rename(made / "odd:no-names")
    spec = named_learner(str(made / "odd:no-names"), "minilm")
    assert (spec.name, spec.names) == ("odd:no-names", "true")
    assert named_learner(f"{made / 'odd:no-names'}:no-names", "minilm").names == "none"


def test_an_evaluation_of_a_gated_run_has_its_controls(made: Path) -> None:
    results = quickstudy.evaluate(made / "run", str(made / "held"), shots=(1,), draws=2)
    assert list(results.learners) == [
        "meta-trained",
        "untouched",
        "linear probe",
        "meta-trained, no names",
        "meta-trained, opaque names",
    ]
    assert in_order(results).gain == ("meta-trained", "untouched")
    assert "meta-trained, no names" in (made / "run" / "report.html").read_text(encoding="utf-8")
