"""The feature cache: each text runs once, and predictions in many threads are those of one thread."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, product

import pytest
import torch

from conftest import WORDS, tiny_encoder, word_task
from quickstudy.adaptation.few import adapt_task
from quickstudy.methods.catalog import make
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import encode_set
from quickstudy.models.encoder import Encoder
from quickstudy.models.feature_cache import FeatureCache
from quickstudy.models.target import Classes
from quickstudy.tasks.split import Example

ROWS = [Example("good film", "bad film"), Example("bad film", "good film"), Example("the book", "good film")]
TEXTS = [" ".join(islice(WORDS, start, start + count)) for start, count in product(range(0, 24, 4), (1, 3, 9))]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sequences each run of an encoder took."""
    counts: list[int] = []
    run = Encoder._run
    monkeypatch.setattr(Encoder, "_run", lambda self, s: (counts.append(len(s.ids)), run(self, s))[1])
    return counts


@pytest.mark.parametrize("pair", ["joint", "separate"])
def test_with_a_cache_each_sequence_runs_once_and_gives_the_same_features(pair: str, runs: list[int]) -> None:
    encoder = tiny_encoder(dtype=torch.float64, pair=pair)
    wanted = encoder(encoder.tokenize(ROWS)).detach()
    runs.clear()
    cache = FeatureCache(encoder)
    with torch.no_grad():
        for rows in (ROWS[:2], ROWS, ROWS[::-1]):
            features = encoder(encoder.tokenize(rows), cache=cache)
            order = [ROWS.index(row) for row in rows]
            torch.testing.assert_close(features, wanted[order], rtol=0, atol=1e-12)
    assert runs == [2, 1]  # two pairs, or the two texts of which both are made; then the third pair, or "the book"


def test_gradients_and_calls_without_the_cache_run_the_encoder(runs: list[int]) -> None:
    encoder = tiny_encoder()
    cache, sequences = FeatureCache(encoder), encoder.tokenize(ROWS)
    with torch.no_grad():
        encoder(sequences, cache=cache)
        encoder(sequences)
    assert encoder(sequences, cache=cache).requires_grad
    assert len(runs) == 3


def test_a_cache_serves_one_encoder() -> None:
    encoder, other = tiny_encoder(), tiny_encoder()
    with torch.no_grad(), pytest.raises(ValueError, match="belongs to another encoder"):
        other(other.tokenize(ROWS), cache=FeatureCache(encoder))


@pytest.mark.parametrize("method", ["anil", "protonet", "linear-probe", "multi-task", "nearest-neighbour"])
def test_adapting_runs_no_text_that_the_cache_knows(method: str, runs: list[int]) -> None:
    task = word_task(rows=8)
    learner = make(method, tiny_encoder())
    support = encode_set(learner.encoder, [task.train_split[i] for i in range(8)])
    cache = FeatureCache(learner.encoder)
    wanted = learner.adapt(support, Classes(task.label_names), cache=cache).predict_proba(TEXTS)
    runs.clear()
    again = learner.adapt(support, Classes(task.label_names), cache=cache)
    assert runs == []
    assert torch.equal(again.predict_proba(TEXTS), wanted)


@pytest.fixture
def threads_that_switch_often() -> Iterator[ThreadPoolExecutor]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    with ThreadPoolExecutor(6) as pool:
        yield pool
    sys.setswitchinterval(before)


CASES = {
    "features once": [("protonet", {})],
    "prefix once": [("maml", {"adapts": "layers:-1"})],
    "rows in use": [("maml", {"adapts": "all"})],
    "whole encoder": [("maml", {"adapts": "bias"})],
}
CASES["all on one encoder"] = [case for cases in CASES.values() for case in cases]


@pytest.mark.parametrize("case", CASES)
def test_predictions_in_six_threads_are_those_of_one(case: str, threads_that_switch_often: ThreadPoolExecutor) -> None:
    encoder = tiny_encoder()
    models = [adapt_task(make(name, encoder, settings), word_task(rows=12)) for name, settings in CASES[case]]
    wanted = [model.predict_proba(TEXTS) for model in models]
    before = {name: value.clone() for name, value in encoder.state_dict().items()}

    def predict(number: int) -> bool:
        model: AdaptedModel = models[number % len(models)]
        return torch.allclose(model.predict_proba(TEXTS), wanted[number % len(models)], atol=1e-5)

    assert all(threads_that_switch_often.map(predict, range(240)))
    after = encoder.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
