"""Shared fixtures: tiny random encoders with a real tokenizer, and tasks that can be learned from their words."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any Hugging Face import: no test may reach for the network
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from quickstudy.models.encoder import Encoder
from quickstudy.testing.tiny import FAMILIES, WORDS, score_task, tiny_encoder, tiny_tokenizer, word_task

__all__ = ["FAMILIES", "WORDS", "score_task", "tiny_encoder", "tiny_tokenizer", "word_task"]

torch.set_num_threads(1)  # tiny models: threads that wait for each other cost more than they give


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def encoder() -> Encoder:
    return tiny_encoder()


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Path:
    """A tiny encoder saved as a Hugging Face folder, for recipes and the command line."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    tiny_encoder().save(folder)
    return folder


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    """Write a CSV file of (text, label) rows."""

    def write(rows: list[tuple[str, str]], name: str = "few.csv", header: str = "text,label") -> Path:
        path = tmp_path / name
        path.write_text("\n".join([header, *(f"{text},{label}" for text, label in rows)]) + "\n", encoding="utf-8")
        return path

    return write
