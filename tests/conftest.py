"""Shared fixtures: tiny random encoders with a real tokenizer, and tasks that can be learned from their words."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any Hugging Face import: no test may reach for the network
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from collections import defaultdict
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch

from quickstudy.models.encoder import Encoder
from quickstudy.testing.tiny import FAMILIES, WORDS, score_task, tiny_encoder, tiny_tokenizer, word_task

__all__ = ["FAMILIES", "WORDS", "score_task", "tiny_encoder", "tiny_tokenizer", "word_task"]

torch.set_num_threads(1)  # tiny models: threads that wait for each other cost more than they give


class Proofs:
    """What the tests marked `proves(column, *methods)` found, as a table method × column.

    Without names a test proves something of the method that is its parameter `method`.
    """

    columns = ("identity", "gradcheck", "contract", "real text", "control")

    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str], list[str]] = defaultdict(list)

    @staticmethod
    def of(item: pytest.Item) -> set[tuple[str, str]]:
        found = set()
        for marker in item.iter_markers("proves"):
            column, *methods = marker.args
            found |= {(method, column) for method in methods or [item.callspec.params["method"]]}  # type: ignore[attr-defined]
        return found

    def table(self) -> list[str]:
        methods = list(dict.fromkeys(method for method, _ in self.outcomes))
        lines = [f"{'method':18}" + "".join(f"{column:>12}" for column in self.columns)]
        for method in methods:
            cells = []
            for column in self.columns:
                found = self.outcomes.get((method, column), [])
                wrong = [outcome for outcome in found if outcome != "passed"]
                cells.append(wrong[0] if wrong else f"{len(found)} ok" if found else "-")
            lines.append(f"{method:18}" + "".join(f"{cell:>12}" for cell in cells))
        return lines


PROOFS = Proofs()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "proves(column, *methods): a line of the table that `make proofs` prints")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" or report.outcome != "passed":
        for proof in PROOFS.of(item):
            PROOFS.outcomes[proof].append(report.outcome)
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if PROOFS.outcomes:
        terminalreporter.section("proofs: tests that hold, by method")
        for line in PROOFS.table():
            terminalreporter.write_line(line)


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
