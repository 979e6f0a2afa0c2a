"""Memory does not grow: 200 outer steps of every method, resident memory flat after step 20."""

import ctypes
import gc
import platform
from pathlib import Path

import pytest
import torch

from conftest import tiny_encoder, word_task
from quickstudy.methods.catalog import METHODS, make
from quickstudy.models.batch import encode_episode
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from test_every_method import SETTINGS

_STATM = Path("/proc/self/statm")
_MEASURED = _STATM.exists() and platform.libc_ver()[0] == "glibc"
_PAGE = 4096
_STEPS, _WARM = 200, 20
_MAY_GROW = 4.0  # MiB: the allocator's own noise; a step that kept its graph would keep hundreds


@pytest.mark.skipif(not _MEASURED, reason="resident memory is read from /proc, and glibc gives freed memory back")
@pytest.mark.parametrize("method", METHODS)
def test_memory_is_flat(method: str) -> None:
    learner = make(method, tiny_encoder(), SETTINGS.get(method, {}))
    if not learner.meta_trains:
        pytest.skip("a baseline: nothing is meta-trained")
    assert _growth(learner, keep=False) < _MAY_GROW


@pytest.mark.skipif(not _MEASURED, reason="resident memory is read from /proc, and glibc gives freed memory back")
def test_a_kept_graph_would_be_seen() -> None:
    assert _growth(make("maml", tiny_encoder(), SETTINGS["maml"]), keep=True) > 4 * _MAY_GROW


def _growth(learner: torch.nn.Module, *, keep: bool) -> float:
    """Return how many MiB the process grows from step 20 to step 200."""
    sampler = EpisodeSampler([word_task(n_way=3)], EpisodeSpec((2, 3), (1, 3), 2), seed=0)
    learner.prepare(sampler.tasks)  # type: ignore[operator]
    optimizer = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], 1e-4)
    kept, start = [], 0.0
    for step in range(_STEPS):
        episode = encode_episode(learner.encoder, sampler[step])  # type: ignore[arg-type]
        loss = learner.meta_loss([episode], step / _STEPS).loss  # type: ignore[operator]
        optimizer.zero_grad()
        torch.autograd.backward(loss, retain_graph=keep)
        optimizer.step()
        if keep:
            kept.append(loss)
        if step + 1 == _WARM:
            start = _resident()
    return _resident() - start


def _resident() -> float:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # memory that tests before have freed would hide a growth
    return int(_STATM.read_text().split()[1]) * _PAGE / 2**20
