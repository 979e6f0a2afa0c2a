"""What a meta-training is estimated to hold is what its tensors hold, for every method.

The bytes of all tensors that are alive are counted after every operation. That is exact and the same on every machine;
benchmarks/memory.py compares with the resident memory of a process.
"""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModel

from conftest import tiny_tokenizer, word_task
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import make
from quickstudy.models.batch import EncodedEpisode, encode_episode
from quickstudy.models.encoder import Encoder, EncoderSettings
from quickstudy.settings import OuterSettings
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.training.memory import count_numbers
from quickstudy.training.outer import make_optimizer

WITHIN = 0.2  # small networks beside the encoder are not counted; beside a real encoder they are nothing
TOP = {"adapts": "layers:-1", "inner_steps": 3}
ALL = {"adapts": "all", "inner_steps": 3}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"{method}, top": (method, TOP) for method in ("maml", "fomaml", "boil", "proto-maml", "leopard")},
    **{f"{method}, top": (method, TOP) for method in ("reptile", "meta-sgd", "maml++", "imaml")},
    **{f"{method}, all": (method, ALL) for method in ("maml", "fomaml", "proto-maml", "reptile", "meta-sgd")},
    "maml-lora": ("maml-lora", {"inner_steps": 3}),
    **{method: (method, {}) for method in ("anil", "protonet", "matching", "relation", "r2d2", "metaoptnet")},
    **{method: (method, {}) for method in ("lstm-controller", "multi-task")},
    **{method: (method, {"hidden": 4}) for method in ("in-context", "lstm-reader")},
    **{method: (method, {"hidden": 4}) for method in ("lstm-optimizer", "learned-optimizer")},
}


class Live(TorchDispatchMode):
    """Counts the bytes of the tensors that are made while it lasts, and are alive.

    Attributes:
        peak: The most of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in given:
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: Any) -> None:
        known = self._known.get(storage._cdata)
        if known is not None and known() is storage:
            return
        size = storage.nbytes()
        self._known[storage._cdata] = weakref.ref(storage, lambda _: self._free(size))
        self._now += size
        self.peak = max(self.peak, self._now)

    def _free(self, size: int) -> None:
        self._now -= size


@pytest.mark.parametrize("case", CASES)
def test_what_is_held_is_foreseen(case: str) -> None:
    learner, episodes = _make(*CASES[case])
    at_once = learner.episodes_at_once or len(episodes)
    counted = _count(learner, episodes, at_once)
    assert 4 * count_numbers(learner, episodes, at_once) == pytest.approx(counted, rel=WITHIN)


def _make(
    method: str, settings: dict[str, Any], hidden: int = 48, shots: int = 3
) -> tuple[MetaLearner, list[EncodedEpisode]]:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "bert",
        vocab_size=64,
        hidden_size=hidden,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=4 * hidden,
    )
    encoder = Encoder(AutoModel.from_config(config), tiny_tokenizer(), EncoderSettings(max_length=32))
    learner = make(method, encoder, settings)
    sampler = EpisodeSampler([word_task(n_way=3)], EpisodeSpec(3, shots, shots), seed=0)
    learner.prepare(sampler.tasks)
    return learner, [encode_episode(encoder, sampler[i]) for i in range(2)]


def _count(learner: MetaLearner, episodes: list[EncodedEpisode], at_once: int) -> int:
    """Return the most bytes that the tensors of two outer steps hold."""
    optimizer = make_optimizer(learner, OuterSettings(meta_batch_size=len(episodes)))
    with Live() as live:
        for _ in range(2):
            for start in range(0, len(episodes), at_once):
                learner.meta_loss(episodes[start : start + at_once], 0.5).loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return live.peak
