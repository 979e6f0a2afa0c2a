"""Memory does not grow: after 20 outer steps of every mechanism 20 more leave as many bytes in use as there were.

The tests count the bytes that the C library has given out, to a few thousand. Resident memory would move by megabytes,
because freed memory leaves gaps. oneDNN is switched off, because it remembers what it made for each shape (some MiB,
then no more).
"""

import ctypes
import gc
import sys

import pytest
import torch

from conftest import tiny_encoder, word_task
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import make
from quickstudy.models.batch import encode_episode
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from test_every_method import SETTINGS

_WARM, _STEPS = 20, 20
_MAY_GROW = 0.1  # MiB
_PROGRESS = 0.4  # of the meta-training: where MAML++ is second order, with a loss after every step

# What a step keeps until it has its gradient, and a method that does so; the other methods are made of these.
MECHANISMS = {
    "second order": "maml",
    "steps that run again": "maml",
    "first order": "fomaml",
    "surrogate loss": "reptile",
    "a loss after every step, learned rates": "maml++",
    "conjugate gradients": "imaml",
    "low-rank corrections": "maml-lora",
    "generated head": "leopard",
    "learned rule with a state": "lstm-optimizer",
    "features of all episodes at once": "protonet",
    "solver": "metaoptnet",
    "net that reads the support set": "in-context",
    "controller": "lstm-controller",
    "heads of its own": "multi-task",
}


class _MallInfo(ctypes.Structure):
    """What mallinfo2(3) gives."""

    _fields_ = [  # in this order; blocks are in use in the heaps (uordblks) or mapped on their own (hblkhd)
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")),
    ]


_MALLINFO = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform == "linux" else None


@pytest.fixture(autouse=True)
def _no_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)


measured = pytest.mark.skipif(_MALLINFO is None, reason="glibc 2.33 or newer counts the bytes in use")


@measured
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_memory_is_flat(mechanism: str) -> None:
    method = MECHANISMS[mechanism]
    learner = make(method, tiny_encoder(), SETTINGS.get(method, {}))
    if mechanism == "steps that run again":
        assert learner.use_less_memory()
        while learner.use_less_memory():  # until no step keeps its graph
            pass
    assert _growth(learner, keep=False) < _MAY_GROW


@measured
def test_a_kept_graph_would_be_seen() -> None:
    assert _growth(make("maml", tiny_encoder(), SETTINGS["maml"]), keep=True) > 100 * _MAY_GROW


def _growth(learner: MetaLearner, *, keep: bool) -> float:
    """Return how many MiB more are in use after 20 steps than before them."""
    sampler = EpisodeSampler([word_task(n_way=3)], EpisodeSpec((2, 3), (1, 3), 2), seed=0)
    learner.prepare(sampler.tasks)
    optimizer = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], 1e-4)
    kept, before = [], 0.0
    for step in range(_WARM + _STEPS):
        if step == _WARM:
            before = mib_in_use()
        episode = encode_episode(learner.encoder, sampler[step])
        loss = learner.meta_loss([episode], _PROGRESS).loss
        optimizer.zero_grad()
        torch.autograd.backward(loss, retain_graph=keep)
        optimizer.step()
        if keep:
            kept.append(loss)
    return mib_in_use() - before


def mib_in_use() -> float:
    """Return the MiB that the C library has given out and not got back."""
    gc.collect()
    assert _MALLINFO
    _MALLINFO.restype = _MallInfo
    info = _MALLINFO()
    small = 64 * sys.getallocatedblocks()  # Python's small objects, which it allocates itself
    return (info.uordblks + info.hblkhd + small) / 2**20
