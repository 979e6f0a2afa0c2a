"""Prediction at full speed: the same answers as the plain way, in less time."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from quickstudy.adaptation.few import adapt_task
from quickstudy.cli.main import app
from quickstudy.errors import RecipeError, RunError
from quickstudy.methods import adapted
from quickstudy.methods.adapted import AdaptedModel
from quickstudy.methods.catalog import make
from quickstudy.models import linear
from quickstudy.models.encoder import Encoder
from quickstudy.models.linear import packed_linear
from quickstudy.models.partition import Partition
from quickstudy.tasks.split import Example
from quickstudy.testing.tiny import FAMILIES, WORDS, tiny_encoder, word_task

LENGTHS = (1, 3, 9, 20, 40)
TEXTS = [" ".join(WORDS[(i + j) % len(WORDS)] for j in range(n)) for i in range(6) for n in LENGTHS]


def _model(encoder: Encoder, *, pair: bool = False, method: str = "protonet", **settings: object) -> AdaptedModel:
    return adapt_task(make(method, encoder, settings), word_task(rows=12, pair=pair))


def _wanted(model: AdaptedModel, texts: list[str | tuple[str, str]]) -> torch.Tensor:
    """Probabilities of one text at a time, the plain way."""
    examples = [Example(t) if isinstance(t, str) else Example(*t) for t in texts]
    sequences = [model.partition.encoder.tokenize([e]) for e in examples]
    return torch.cat([model.scores(model.partition.prefix(s)) for s in sequences]).softmax(-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_products_are_the_same_products(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_LEAST_WEIGHT", 1)
    encoder = tiny_encoder(family)
    sequences = encoder.tokenize(map(Example, TEXTS))
    with torch.no_grad():
        wanted = encoder(sequences)
    with packed_linear():
        found = encoder(sequences)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_packing_is_used_and_forgets_what_it_packed() -> None:
    layer = torch.nn.Linear(64, 64)
    x = torch.randn(5, 64)
    with torch.profiler.profile() as profile, packed_linear():
        layer(x)
    ran = {event.key for event in profile.key_averages()}
    assert any("mkldnn::_linear_pointwise" in name for name in ran) == linear._available()
    with torch.no_grad():
        layer.weight.mul_(2)
    with packed_linear():
        torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
    assert layer(x).requires_grad  # outside all is as before


def test_float64_is_left_alone_by_packing() -> None:
    layer = torch.nn.Linear(64, 64, dtype=torch.float64)
    x = torch.randn(5, 64, dtype=torch.float64)
    with packed_linear():
        assert torch.equal(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize("adapts", ["head", "layers:-1", "all"])
@pytest.mark.parametrize("pair", [False, True])
def test_many_texts_with_duplicates_are_predicted_as_one_at_a_time(
    adapts: str, pair: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"_CHUNK": 7, "_PREFIX_CHUNK": 5, "_PACKED_CHARACTERS": 1}.items():
        monkeypatch.setattr(adapted, name, value)
    monkeypatch.setattr(linear, "_LEAST_WEIGHT", 1)
    model = _model(tiny_encoder(pair="separate"), pair=pair, method="maml", adapts=adapts, adapt_steps=2)
    texts: list[str | tuple[str, str]] = [*TEXTS, *TEXTS[::-2]]
    if pair:
        texts = [(text, TEXTS[i % 4]) for i, text in enumerate(TEXTS)] * 2
    torch.testing.assert_close(model.predict_proba(texts), _wanted(model, texts), rtol=0, atol=1e-5)


def test_duplicates_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_encoder()
    model = _model(encoder)
    ran: list[int] = []
    start = encoder.tokenizer.cls_token_id  # of each sequence; several may share a row
    encoder.model.register_forward_pre_hook(
        lambda _m, _a, kw: ran.append(int((kw["input_ids"] == start).sum())), with_kwargs=True
    )
    labelled = [Example(text, label=i % 2) for i, text in enumerate(TEXTS * 3)]
    model.predict_proba(labelled)
    assert sum(ran) == len(set(TEXTS))


@pytest.mark.parametrize("family", ["bert", "modernbert"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_bf16_stays_close_and_is_for_prediction_alone(family: str, pooling: str, tmp_path: Path) -> None:
    model = _model(tiny_encoder(family, pooling=pooling, normalize=True), method="linear-probe")
    model.save(tmp_path / "model")
    half = AdaptedModel.load(tmp_path / "model", precision="bf16")
    assert half.partition.encoder.model.dtype == torch.bfloat16
    wanted, found = model.predict_proba(TEXTS), half.predict_proba(TEXTS)
    assert found.dtype == torch.float32
    assert 0 < (found - wanted).abs().max() < 0.05
    clear = (wanted[:, 0] - wanted[:, 1]).abs() > 0.1
    assert clear.any()
    assert torch.equal(found.argmax(1)[clear], wanted.argmax(1)[clear])
    with pytest.raises(RunError, match="bf16"):
        half.save(tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_the_pooler_of_half_precision_states_gives_float32() -> None:
    encoder = tiny_encoder(pooling="pooler")
    whole = Partition(encoder, "head")
    sequences = encoder.tokenize(map(Example, TEXTS))
    with torch.no_grad():
        wanted = whole.features({}, whole.prefix(sequences))
        half = Partition(Encoder(encoder.model.to(torch.bfloat16), encoder.tokenizer, encoder.settings), "head")
        found = half.features({}, half.prefix(sequences))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.05)


@pytest.mark.parametrize(("precision", "way"), [("bf61", "bf16"), ("int8", "quickstudy export")])
def test_an_unknown_precision_is_refused(precision: str, way: str, tmp_path: Path) -> None:
    folder = _model(tiny_encoder()).save(tmp_path / "model")
    with pytest.raises(RecipeError, match=way):
        AdaptedModel.load(folder, precision=precision)


def test_the_command_line_takes_a_precision(tmp_path: Path) -> None:
    folder = _model(tiny_encoder()).save(tmp_path / "model")
    done = CliRunner().invoke(app, ["predict", str(folder), "a good film", "--precision", "bf16", "--json"])
    assert done.exit_code == 0, done.output
    wanted = AdaptedModel.load(folder, precision="bf16").predict_proba(["a good film"])[0]
    found = list(json.loads(done.stdout)[0]["probabilities"].values())
    torch.testing.assert_close(torch.tensor(found), wanted, rtol=0, atol=1e-5)
    done = CliRunner().invoke(app, ["predict", str(folder), "a good film", "--precision", "half"])
    assert isinstance(done.exception, RecipeError)
