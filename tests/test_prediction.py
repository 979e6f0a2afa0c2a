"""Prediction at full speed: the same answers as the plain way, in less time."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, current_thread
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from typer.testing import CliRunner

from quickstudy.adaptation.few import adapt_task
from quickstudy.cli.main import app
from quickstudy.errors import RecipeError, RunError
from quickstudy.methods.catalog import make
from quickstudy.models import adapted, inference, tokens
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.encoder import Encoder
from quickstudy.models.head import Head
from quickstudy.models.inference import fast_inference, side_by_side
from quickstudy.models.partition import Partition
from quickstudy.tasks.split import Example
from quickstudy.testing.tiny import FAMILIES, WORDS, tiny_encoder, word_task
from test_memory import measured, mib_in_use

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
def test_fast_inference_gives_the_same_features(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_LEAST_WEIGHT", 1)
    monkeypatch.setattr(tokens, "_THREAD_TOKENS", 64)  # batches of equally long texts, too, with no mask
    encoder = tiny_encoder(family)
    sequences = encoder.tokenize(map(Example, TEXTS))
    with torch.no_grad():
        wanted = encoder(sequences)
    with fast_inference():
        found = encoder(sequences)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_weights_are_laid_out_and_forgotten() -> None:
    layer = torch.nn.Linear(64, 64)
    x = torch.randn(5, 64)
    with torch.profiler.profile() as profile, fast_inference():
        layer(x)
    ran = {event.key for event in profile.key_averages()}
    assert any("mkldnn::_linear_pointwise" in name for name in ran) == inference._packs()
    with torch.no_grad():
        layer.weight.mul_(2)
    with fast_inference():
        torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
    assert layer(x).requires_grad  # outside all is as before


@measured
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_memory_does_not_grow_with_the_sizes_of_batches(precision: torch.dtype) -> None:
    layer = torch.nn.Linear(64, 64, dtype=precision)
    with fast_inference():
        for rows in (8, 32, 64):
            layer(torch.ones(rows, 64, dtype=precision))
        before = mib_in_use()
        for rows in range(65, 193):
            layer(torch.ones(rows, 64, dtype=precision))
        grown = mib_in_use() - before
    assert grown < 128 * 0.05  # MiB; without whole blocks 0.5 MiB for each of the 128 sizes


def test_float64_is_left_alone_by_fast_inference() -> None:
    layer = torch.nn.Linear(64, 64, dtype=torch.float64)
    x = torch.randn(5, 64, dtype=torch.float64)
    heads = x.reshape(1, 5, 4, 16).transpose(1, 2).repeat(1, 1, 2, 1)  # 10 keys
    with fast_inference():
        assert torch.equal(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
        found = scaled_dot_product_attention(heads, heads, heads)
    assert torch.equal(found, scaled_dot_product_attention(heads, heads, heads))


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_attention_to_filled_up_keys_is_attention(precision: torch.dtype, tolerance: float) -> None:
    for keys in range(1, 41):
        query, key, value = torch.randn(3, 2, 4, keys, 16).to(precision)
        wanted = scaled_dot_product_attention(query.double(), key.double(), value.double(), scale=0.3)
        with torch.profiler.profile() as profile, fast_inference():
            found = scaled_dot_product_attention(query, key, value, scale=0.3)
        assert found.dtype == precision
        torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=tolerance)
        filled = any(event.key == "aten::constant_pad_nd" for event in profile.key_averages())
        assert filled == (9 <= keys <= 15 or 25 <= keys <= 31)


def test_masked_and_causal_attention_is_left_alone() -> None:
    query, key, value = torch.randn(3, 2, 4, 12, 16)
    mask = torch.zeros(12, 12).masked_fill(torch.rand(12, 12) < 0.3, -1e4)
    for given in ({"attn_mask": mask}, {"is_causal": True}):
        with fast_inference():
            found = scaled_dot_product_attention(query, key, value, **given)
        assert torch.equal(found, scaled_dot_product_attention(query, key, value, **given))


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_items_run_side_by_side_and_come_back_in_order() -> None:
    both = Barrier(2, timeout=20)  # passed only if two are there at once

    def items() -> Iterator[int]:
        for item in range(20):
            time.sleep(0.001)  # a second thread in here meanwhile would be an error
            yield item

    def work(item: int) -> tuple[int, int, bool]:
        both.wait()
        return item, torch.get_num_threads(), torch.is_grad_enabled()

    with fast_inference():
        assert side_by_side(work, items()) == [(item, 1, False) for item in range(20)]
    assert torch.get_num_threads() == 2
    assert side_by_side(lambda item: (item, current_thread()), range(3)) == [(i, current_thread()) for i in range(3)]


@pytest.mark.usefixtures("two_threads")
def test_of_two_calls_at_once_one_runs() -> None:
    both, running, most = Barrier(2, timeout=20), [], []

    def work(item: int) -> int:
        running.append(item)
        most.append(len(running))
        time.sleep(0.01)
        running.remove(item)
        return torch.get_num_threads()

    def call(first: int) -> tuple[list[int], int]:
        before = torch.get_num_threads()  # the thread has used PyTorch before
        both.wait()
        with fast_inference():
            found = side_by_side(work, range(first, first + 8))
        assert torch.get_num_threads() == before
        return found, before

    with ThreadPoolExecutor(2) as callers:
        assert list(callers.map(call, (0, 100))) == [([1] * 8, 2)] * 2
    assert max(most) == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("broken", ["function", "items"])
def test_an_error_side_by_side_is_raised_and_ends_the_others(broken: str) -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            if broken == "items" and item == 5:
                raise ValueError("number 5")
            yield item

    def work(item: int) -> None:
        time.sleep(0.01)
        if broken == "function" and item == 5:
            raise ValueError("number 5")

    with fast_inference(), pytest.raises(ValueError, match="number 5"):
        side_by_side(work, items())
    assert len(taken) < 20
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("adapts", ["head", "layers:-1"])
def test_predictions_of_many_batches_are_made_side_by_side(adapts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapted, "_FAST_CHARACTERS", 1)
    monkeypatch.setattr(tokens, "_THREAD_TOKENS", 64)
    model, ran = _model(tiny_encoder(), method="maml", adapts=adapts, adapt_steps=2), set()
    wanted = _wanted(model, TEXTS)

    attention = inference._attention

    def note(*given: Tensor, **kwargs: Any) -> Tensor:
        ran.add(current_thread())
        time.sleep(0.01)
        return attention(*given, **kwargs)

    monkeypatch.setattr(inference, "_attention", note)
    torch.testing.assert_close(model.predict_proba(TEXTS), wanted, rtol=0, atol=1e-5)
    assert len(ran) == 2
    assert current_thread() not in ran


def test_what_the_user_casts_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(tiny_encoder())
    with torch.autocast("cpu", torch.bfloat16):
        wanted = model.predict_proba(TEXTS)
        monkeypatch.setattr(adapted, "_FAST_CHARACTERS", 1)
        monkeypatch.setattr(inference, "_LEAST_WEIGHT", 1)
        assert torch.equal(model.predict_proba(TEXTS), wanted)


@pytest.mark.parametrize("adapts", ["head", "layers:-1", "all"])
@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("fast", [False, True])
def test_many_texts_with_duplicates_are_predicted_as_one_at_a_time(
    adapts: str, pair: bool, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"_CHUNK": 7, "_PREFIX_CHUNK": 5, "_FAST_CHARACTERS": 1 if fast else 10**6}.items():
        monkeypatch.setattr(adapted, name, value)
    monkeypatch.setattr(inference, "_LEAST_WEIGHT", 1)
    model = _model(tiny_encoder(pair="separate"), pair=pair, method="maml", adapts=adapts, adapt_steps=2)
    texts: list[str | tuple[str, str]] = [*TEXTS, *TEXTS[::-2]]
    if pair:
        texts = [(text, TEXTS[i % 4]) for i, text in enumerate(TEXTS)] * 2
    torch.testing.assert_close(model.predict_proba(texts), _wanted(model, texts), rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["matching", "nearest-neighbour", "relation", "in-context", "lstm-reader"])
def test_a_head_that_compares_with_the_support_set_sees_few_texts_at_once(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of 16,384 texts against 600 examples of 77 labels would take 3 GB for the head alone."""
    model, seen = _model(tiny_encoder(normalize=True), method=method), list[int]()
    wanted = model.logits(TEXTS[:10])
    head = type(model.head).__call__

    def counted(self: Head, features: Tensor) -> Tensor:
        seen.append(len(features))
        return head(self, features)

    monkeypatch.setattr(type(model.head), "__call__", counted)
    monkeypatch.setattr(adapted, "_HEAD_ROWS", 4)
    torch.testing.assert_close(model.logits(TEXTS[:10]), wanted, rtol=0, atol=1e-5)
    assert seen == [4, 4, 2]


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
