"""Packing: sequences that share a row give the same states and meta-gradients as each alone."""

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from conftest import FAMILIES, WORDS, tiny_encoder, word_task
from quickstudy.methods.catalog import make
from quickstudy.models.batch import encode_episode
from quickstudy.models.encoder import Encoder
from quickstudy.models.packing import fill
from quickstudy.models.tokens import Batch
from quickstudy.seeding import rng
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.tasks.split import Example

PACK = {"bert", "roberta", "distilbert", "electra"}
LENGTHS = (3, 11, 1, 9, 2, 14, 9, 5, 7, 4, 12, 6)
TEXTS = [" ".join(rng(0, "texts", i).choice(WORDS, size=n)) for i, n in enumerate(LENGTHS)]


@pytest.mark.parametrize("pair", ["joint", "separate"])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_features_are_those_of_each_text_alone(family: str, pair: str) -> None:
    encoder = tiny_encoder(family, torch.float64, pair=pair)
    pairs = [Example(a, b if pair == "separate" else None) for a, b in zip(TEXTS, TEXTS[5:] + TEXTS[:5], strict=True)]
    sequences = encoder.tokenize(pairs)
    assert any(map(_is_packed, encoder.batches(sequences))) == (family in PACK)
    with torch.no_grad():
        together = encoder(sequences)
        alone = torch.cat([encoder(encoder.tokenize([example])) for example in pairs])
    atol = 1e-6 if family in {"deberta", "modernbert"} else 1e-12  # these compute their norms in float32
    torch.testing.assert_close(together, alone, rtol=0, atol=atol)


def test_hardly_any_arithmetic_is_on_padding() -> None:
    encoder = tiny_encoder()
    sequences = encoder.tokenize(map(Example, TEXTS))
    used = sum(batch.inputs["input_ids"].numel() for batch in encoder.batches(sequences))
    tokens, padded = sum(map(len, sequences.ids)), len(TEXTS) * max(map(len, sequences.ids))
    assert tokens <= used <= 1.1 * tokens < 0.7 * padded


def test_tokens_that_saw_their_neighbours_would_be_noticed() -> None:
    encoder = tiny_encoder(dtype=torch.float64)
    (batch,) = encoder.batches(encoder.tokenize(map(Example, TEXTS)))
    with torch.no_grad():
        right = batch.states(encoder.model(**batch.inputs).last_hidden_state)
        batch.inputs["attention_mask"].zero_()
        wrong = batch.states(encoder.model(**batch.inputs).last_hidden_state)
    assert (right - wrong).abs().max() > 0.1


@pytest.mark.parametrize("adapts", ["head", "layers:-1", "all"])
@pytest.mark.parametrize("family", sorted(PACK))
def test_packing_changes_no_meta_gradient(family: str, adapts: str) -> None:
    encoder = tiny_encoder(family, torch.float64)
    with_packing = _meta_gradient(encoder, adapts)
    encoder._first_position = None
    without = _meta_gradient(encoder, adapts)
    assert max(float(value.abs().max()) for value in without.values()) > 1e-2
    for name, value in with_packing.items():
        torch.testing.assert_close(value, without[name], rtol=0, atol=1e-10, msg=lambda text, n=name: f"{n}: {text}")


def test_texts_of_one_length_are_not_packed() -> None:
    encoder = tiny_encoder()
    assert not any(map(_is_packed, encoder.batches(encoder.tokenize(map(Example, ["good film", "bad book"])))))


@given(st.lists(st.integers(1, 9), max_size=30), st.integers(9, 30))
def test_rows_hold_every_sequence_once_and_no_more_than_fits(lengths: list[int], room: int) -> None:
    rows = fill(lengths, room)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in row) <= room for row in rows)
    sums = sorted(sum(lengths[i] for i in row) for row in rows)
    assert len(sums) < 2 or sums[0] + sums[1] > room  # no two rows would have fitted into one


def _is_packed(batch: Batch) -> bool:
    return batch.where is not None


def _meta_gradient(encoder: Encoder, adapts: str) -> Mapping[str, Tensor]:
    learner = make("maml", encoder, {"adapts": adapts, "inner_lr": 0.1, "head_lr": 1.0, "inner_steps": 2})
    episode = encode_episode(encoder, EpisodeSampler([word_task()], EpisodeSpec(2, 4, 4), seed=0)[0])
    assert any(map(_is_packed, encoder.batches(episode.support.sequences))) == (encoder._first_position is not None)
    named = dict(encoder.model.named_parameters())
    loss = learner.meta_loss([episode]).loss
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(named, found, strict=True))
