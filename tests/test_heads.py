"""Heads and adapted models: closed forms, what adapting must never touch, and folders that open again."""

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from conftest import score_task, tiny_encoder, word_task
from plain import randomise
from quickstudy.errors import RunError
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import METHODS, make
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedSet, encode_set
from quickstudy.models.encoder import Encoder
from quickstudy.models.head import KernelHead, LinearHead, head_tensors, squared_distances
from quickstudy.models.target import Classes, Scores, Target, make_target
from quickstudy.seeding import rng
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Task

_INNER = {"adapts": "layers:-1", "inner_lr": 0.1, "inner_steps": 2}
SETTINGS = {
    "reptile": _INNER | {"head_lr": 1.0},
    "anil": {"head_lr": 1.0},
    "boil": _INNER,
    "meta-sgd": _INNER | {"head_lr": 1.0},
    "maml++": _INNER | {"head_lr": 1.0},
    "imaml": _INNER | {"head_lr": 1.0},
    "proto-maml": _INNER | {"head_lr": 0.1},
    "leopard": _INNER | {"head_lr": 0.1, "hidden": 8},
    "maml": {"adapts": "layers:-1", "inner_lr": 0.1, "head_lr": 1.0, "inner_steps": 3},
    "fomaml": {"adapts": "bias", "inner_lr": 0.1, "head_lr": 1.0, "inner_steps": 3},
    "protonet": {"scale": 0.7},
    "matching": {},
    "r2d2": {"penalty": 0.5},
    "metaoptnet": {"c": 0.5},
    "lstm-optimizer": _INNER | {"head_lr": 1.0, "hidden": 4},
    "learned-optimizer": _INNER | {"head_lr": 1.0, "hidden": 4},
    "lstm-controller": {"hidden": 8},
    "relation": {"hidden": 8},
    "in-context": {"hidden": 8},
    "lstm-reader": {"hidden": 8},
    "majority": {},
    "nearest-neighbour": {},
    "linear-probe": {},
    "multi-task": {},
    "maml-lora": _INNER | {"adapts": "lora:2", "head_lr": 1.0},
    "finetune": {"adapts": "all", "lr": 1e-3, "steps": 4},
}
# What these learn for each label position renames with the labels too; tests/test_faithful_gradient.py shows it.
BY_POSITION = ("maml", "fomaml", "reptile", "anil", "meta-sgd", "maml++", "imaml", "maml-lora")
SAME_FOR_ALL_LABELS = {key: {"start": "zero"} for key in BY_POSITION} | {"boil": {"start": "prototypes"}}
READ_IN_TURN = ("lstm-reader", "lstm-controller")  # in four orders, of which the mean is taken; there are more
NAMES = ("tone", "colour", "number")


def test_squared_distances_are_those_between_all_rows() -> None:
    a, b = _randn(5, 3), _randn(4, 3, seed=1)
    torch.testing.assert_close(squared_distances(a, b), torch.cdist(a, b) ** 2, rtol=0, atol=1e-12)


def test_kernel_head_goes_from_the_mean_label_to_the_nearest_one_as_the_scale_grows() -> None:
    points, values = _randn(4, 3), torch.tensor([1.0, 2.0, 4.0, 9.0]).double()
    flat, sharp = (KernelHead(points, values, torch.tensor(scale).double())(points)[:, 0] for scale in (0.0, 1e4))
    torch.testing.assert_close(flat, torch.full((4,), 4.0).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(sharp, values, rtol=0, atol=1e-9)


def test_linear_head_is_affine() -> None:
    head = LinearHead(torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([0.5, 1.0]))
    assert head(torch.tensor([[3.0, 4.0]])).tolist() == [[11.5, -3.0]]
    assert {name: tuple(t.shape) for name, t in head_tensors(head).items()} == {"weight": (2, 2), "bias": (2,)}


def test_protonet_regression_predicts_by_the_labels_of_near_examples() -> None:
    encoder = tiny_encoder(dtype=torch.float64)
    support = _support_of(encoder, score_task(), 6)
    model = make("protonet", encoder, {"scale": 0.7}).double().adapt(support, Scores())
    weights = torch.softmax(
        -0.7 * torch.cdist(_features(encoder, _texts()), encoder(support.sequences).detach()) ** 2, 1
    )
    assert model.predict(_texts()) == pytest.approx((weights @ support.labels).tolist(), abs=1e-6)


def test_every_method_of_the_catalog_is_tested_here() -> None:
    assert set(SETTINGS) == set(METHODS)


@pytest.mark.parametrize("task", ["single", "joint pairs", "separate pairs", "regression"])
@pytest.mark.parametrize("method", METHODS)
def test_a_saved_model_predicts_as_before(method: str, task: str, tmp_path: Path) -> None:
    encoder = tiny_encoder(pair="separate" if task.startswith("separate") else "joint")
    model = _adapted(method, encoder, task)
    texts = _rows(_task(task), "test")[:12]
    assert model.save(tmp_path / "model") == tmp_path / "model"
    loaded = AdaptedModel.load(tmp_path / "model")
    for name in ("label_names", "classes_", "kind", "pair", "method"):
        assert getattr(loaded, name) == getattr(model, name)
    assert loaded.method == method
    if task == "regression":
        assert loaded.predict(texts) == pytest.approx(model.predict(texts), abs=1e-5)
    else:
        assert loaded.predict(texts) == model.predict(texts)
        torch.testing.assert_close(loaded.predict_proba(texts), model.predict_proba(texts), rtol=0, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]  # no scratch folder is left


@pytest.mark.parametrize("method", ["maml", "fomaml", "finetune"])
def test_what_is_saved_is_the_adapted_encoder_not_the_one_it_came_from(method: str, tmp_path: Path) -> None:
    encoder = tiny_encoder()
    model = _adapted(method, encoder, "single")
    model.save(tmp_path / "model")
    saved = dict(Encoder.load(str(tmp_path / "model" / "encoder")).model.named_parameters())
    for name, start in encoder.model.named_parameters():
        wanted = model.params.get(name, start.detach())
        torch.testing.assert_close(saved[name].detach(), wanted, rtol=0, atol=0)
    assert any(not torch.equal(saved[name], start) for name, start in encoder.model.named_parameters())


def test_saving_into_a_folder_that_exists_is_refused_and_leaves_it_alone(tmp_path: Path) -> None:
    model = _adapted("protonet", tiny_encoder(), "single")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(RunError, match="exists already\n  Choose another name"):
        model.save(tmp_path / "mine")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "notes.txt"]


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_a_folder_that_is_no_model_is_refused_with_the_way_out(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError) as error:
        AdaptedModel.load(tmp_path / folder)
    assert str(error.value) == f"{tmp_path / folder}: this is not a model folder\n  Make one with: quickstudy adapt"


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "head.safetensors").unlink(),
        lambda folder: (folder / "head.safetensors").write_bytes(b"half"),
        lambda folder: (folder / "adapted.json").write_text('{"head": "lin', encoding="utf-8"),
        lambda folder: (folder / "adapted.json").write_text('["head"]', encoding="utf-8"),
        lambda folder: _rewrite(folder / "adapted.json", head="tree"),
        lambda folder: _rewrite(folder / "adapted.json", head="kernel"),
        lambda folder: _rewrite(folder / "adapted.json", label_names=None),
        lambda folder: _rewrite(folder / "adapted.json", kind=None),
        lambda folder: (folder / "encoder" / "model.safetensors").unlink(),
        lambda folder: (folder / "encoder" / "model.safetensors").write_bytes(b"half"),
        lambda folder: (folder / "encoder" / "config.json").write_text("{", encoding="utf-8"),
        lambda folder: (folder / "encoder" / "quickstudy.json").write_text("{", encoding="utf-8"),
        lambda folder: _rewrite(folder / "encoder" / "quickstudy.json", pooling=None, pool="mean"),
    ],
    ids=[
        "no head",
        "half a head",
        "half the settings",
        "other settings",
        "unknown head",
        "wrong head",
        "no labels",
        "no kind",
        "no encoder weights",
        "half the encoder weights",
        "half the config",
        "half the encoder settings",
        "unknown encoder setting",
    ],
)
def test_a_broken_folder_is_refused_with_the_way_out(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    folder = _adapted("protonet", tiny_encoder(), "single").save(tmp_path / "model")
    AdaptedModel.load(folder)
    damage(folder)
    with pytest.raises(RunError, match=r"broken|could not be loaded") as error:
        AdaptedModel.load(folder)
    assert str(folder) in str(error.value)
    assert "\n  " in str(error.value)


@pytest.mark.parametrize("task", ["single", "regression"])
@pytest.mark.parametrize("method", METHODS)
def test_adapting_and_predicting_never_change_the_meta_parameters(method: str, task: str) -> None:
    learner = make(method, tiny_encoder(), SETTINGS[method])
    before = copy.deepcopy(learner.state_dict())
    support = _support_of(learner.encoder, _task(task), 6)
    model = learner.adapt(support, _target(task))
    model.predict(_texts())
    assert learner.state_dict().keys() == before.keys()
    for name, value in learner.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None and p.requires_grad for p in learner.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_query_texts_never_change_what_is_adapted(method: str) -> None:
    learner = make(method, tiny_encoder(), SETTINGS[method])
    support = _support(learner.encoder, counts=(2, 3, 2))
    model = learner.adapt(support, Classes(NAMES))
    tensors = [*head_tensors(model.head).values(), *model.params.values()]
    before = copy.deepcopy(tensors)
    texts = _texts()
    together = model.predict_proba(texts)
    alone = torch.cat([model.predict_proba([text]) for text in texts])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(tensors, before, rtol=0, atol=0)
    again = learner.adapt(support, Classes(NAMES))
    torch.testing.assert_close([*head_tensors(again.head).values(), *again.params.values()], before, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_permuting_the_labels_permutes_the_predictions(method: str) -> None:
    learner = make(method, tiny_encoder(), SETTINGS[method] | SAME_FOR_ALL_LABELS.get(method, {})).double()
    randomise(learner)
    support = _support(learner.encoder, counts=(2, 3, 2))
    order = torch.tensor([2, 0, 1])  # the label at position n goes to position order[n]
    renamed = tuple(NAMES[i] for i in order.argsort().tolist())
    moved = EncodedSet(support.sequences, order[support.labels], support.pair)
    model, other = (learner.adapt(s, Classes(names)) for s, names in ((support, NAMES), (moved, renamed)))
    texts = _texts()
    wanted, found = model.predict_proba(texts), other.predict_proba(texts)
    assert (wanted - 1 / 3).abs().max() > 1e-3
    tolerance = 1e-3 if method == "linear-probe" else 1e-8  # L-BFGS stops at a tolerance of its own
    torch.testing.assert_close(found[:, order], wanted, rtol=0, atol=tolerance)
    sure = (wanted.topk(2).values.diff().abs() > 1e-2).squeeze(1).tolist()
    names = zip(model.predict(texts), other.predict(texts), sure, strict=True)
    assert all(a == b for a, b, clear in names if clear)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_support_set_matters_only_to_methods_that_read_it_in_turn(method: str) -> None:
    learner = make(method, tiny_encoder(), SETTINGS[method]).double()
    randomise(learner)
    examples = _examples(counts=(2, 3, 2))
    one, other = (
        learner.adapt(encode_set(learner.encoder, rows), Classes(NAMES)).predict_proba(_texts())
        for rows in (examples, examples[::-1])
    )
    if method in READ_IN_TURN:
        assert (one - other).abs().max() > 1e-3
    else:
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3 if method == "linear-probe" else 1e-8)


@pytest.mark.parametrize("task", ["single", "joint pairs"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("method", ["maml", "protonet"])
def test_with_the_pooler_the_saved_encoder_is_a_standard_sequence_classifier(
    method: str, family: str, task: str, tmp_path: Path
) -> None:
    model = _adapted(method, tiny_encoder(family, pooling="pooler", pair="joint"), task)
    folder = model.save(tmp_path / "model")
    assert json.loads((folder / "adapted.json").read_text(encoding="utf-8"))["sequence_classifier"] is True
    standard = AutoModelForSequenceClassification.from_pretrained(folder / "encoder").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "encoder")
    examples = _rows(_task(task), "test")[:10]
    with torch.no_grad():
        found = torch.cat([standard(**tokenizer(e.text, e.text_pair, return_tensors="pt")).logits for e in examples])
        wanted = model.scores(model.partition.prefix(model.partition.encoder.tokenize(examples)))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert tuple(standard.config.id2label.values()) == model.label_names
    assert [standard.config.id2label[i] for i in found.argmax(1).tolist()] == model.predict(examples)
    loaded = AdaptedModel.load(folder)
    torch.testing.assert_close(loaded.predict_proba(examples), model.predict_proba(examples), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "method", "task", "settings"),
    [
        ("bert", "protonet", "single", {"pooling": "mean"}),
        ("bert", "protonet", "single", {"pooling": "cls"}),
        ("bert", "protonet", "single", {"pooling": "pooler", "normalize": True}),
        ("bert", "maml", "separate pairs", {"pooling": "pooler", "pair": "separate"}),
        ("bert", "maml", "regression", {"pooling": "pooler"}),
        ("mpnet", "protonet", "single", {"pooling": "mean"}),
    ],
)
def test_where_the_features_are_others_it_is_not_called_a_sequence_classifier(
    family: str, method: str, task: str, settings: dict[str, object], tmp_path: Path
) -> None:
    folder = _adapted(method, tiny_encoder(family, **settings), task).save(tmp_path / "model")
    assert json.loads((folder / "adapted.json").read_text(encoding="utf-8"))["sequence_classifier"] is False
    assert not any("Classification" in name for name in AutoConfig.from_pretrained(folder / "encoder").architectures)


def _task(kind: str) -> Task:
    return score_task() if kind == "regression" else word_task(n_way=3, pair="pairs" in kind)


def _target(kind: str) -> Target:
    return make_target(_task(kind).kind, _task(kind).label_names)


def _rows(task: Task, split: str) -> list[Example]:
    rows = task.split(split)
    return [rows[i] for i in range(len(rows))]


def _support_of(encoder: Encoder, task: Task, count: int) -> EncodedSet:
    return encode_set(encoder, _rows(task, "train")[:count])


def _adapted(method: str, encoder: Encoder, task: str) -> AdaptedModel:
    learner: MetaLearner = make(method, encoder, SETTINGS[method])
    return learner.adapt(_support_of(encoder, _task(task), 9), _target(task))


def _examples(counts: Sequence[int]) -> list[Example]:
    """So many examples of each of three labels, mixed."""
    rows = _rows(word_task(n_way=3), "train")
    chosen = [row for label, count in enumerate(counts) for row in [r for r in rows if r.label == label][:count]]
    return [chosen[i] for i in rng(0, "mixed").permutation(len(chosen))]


def _support(encoder: Encoder, *, counts: Sequence[int]) -> EncodedSet:
    return encode_set(encoder, _examples(counts))


def _texts() -> list[str]:
    return [row.text for row in _rows(word_task(n_way=3), "test")[:12]]


def _features(encoder: Encoder, texts: Sequence[str]) -> Tensor:
    with torch.no_grad():
        return encoder(encoder.tokenize(map(Example, texts)))


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _rewrite(file: Path, **changes: object) -> None:
    """Change fields of a JSON file; None removes a field."""
    fields = json.loads(file.read_text(encoding="utf-8")) | changes
    file.write_text(json.dumps({key: value for key, value in fields.items() if value is not None}), encoding="utf-8")
