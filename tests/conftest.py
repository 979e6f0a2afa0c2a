"""Shared fixtures: tiny random encoders with a real tokenizer, and tasks that can be learned from their words."""

import json
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any Hugging Face import: no test may reach for the network
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from quickstudy.methods.catalog import METHODS
from quickstudy.models.encoder import Encoder
from quickstudy.tasks.task import Task
from quickstudy.testing.tiny import FAMILIES, WORDS, score_task, tiny_encoder, tiny_tokenizer, word_task

__all__ = ["FAMILIES", "WORDS", "score_task", "tiny_encoder", "tiny_tokenizer", "word_task"]

torch.set_num_threads(1)  # tiny models: threads that wait for each other cost more than they give

COLUMNS = ("identity", "gradcheck", "contract", "real text", "control")
PROVES = "proves"  # the marker, and the property of a test's report that takes its proofs to the process that prints


class KilledError(Exception):
    """Stands for a kill signal: leaves the training at once."""


@pytest.fixture
def fresh_accelerator() -> Iterator[None]:
    """No device or precision that an accelerator of another test chose; its state outlives it."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True)
def _global_generator() -> None:
    """Start every test with the same global generator: networks that a test makes itself draw from it."""
    torch.manual_seed(0)


def write_task(task: Task, folder: Path) -> None:
    """Write the train and test rows of a task of classes as a folder of JSONL files."""
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        rows = [task.split(split)[i] for i in range(len(task.split(split)))]
        lines = [json.dumps({"text": e.text, "label": task.label_names[int(e.label or 0)]}) for e in rows]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


class Proofs:
    """Outcomes of the tests that are marked `proves(column, *methods)`, as a table method × column.

    Without names a test proves something of the method that is its parameter `method`.
    """

    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str], list[str]] = defaultdict(list)

    @staticmethod
    def claimed(item: pytest.Item) -> set[tuple[str, str]]:
        """Return the (method, column) pairs that a test proves something of."""
        pairs = set()
        for marker in item.iter_markers(PROVES):
            column, *methods = marker.args
            if not methods and isinstance(item, pytest.Function):
                methods = [item.callspec.params["method"]]
            pairs |= {(method, column) for method in methods}
        return pairs

    def add(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            for name, pair in report.user_properties:
                if name == PROVES and isinstance(pair, (list, tuple)):  # a list, if it comes from another process
                    method, column = pair
                    self.outcomes[method, column].append(report.outcome)

    def table(self) -> list[str]:
        lines = [f"{'method':18}" + "".join(f"{column:>12}" for column in COLUMNS)]
        for method in sorted({method for method, _ in self.outcomes}, key=list(METHODS).index):
            cells = [self._cell(self.outcomes.get((method, column), [])) for column in COLUMNS]
            lines.append(f"{method:18}" + "".join(f"{cell:>12}" for cell in cells))
        return lines

    @staticmethod
    def _cell(outcomes: list[str]) -> str:
        wrong = [outcome for outcome in outcomes if outcome != "passed"]
        return wrong[0] if wrong else f"{len(outcomes)} ok" if outcomes else "-"


PROOFS = Proofs()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "proves(column, *methods): a line of the table that `make proofs` prints")


def pytest_itemcollected(item: pytest.Item) -> None:
    item.user_properties += [(PROVES, pair) for pair in sorted(Proofs.claimed(item))]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    PROOFS.add(report)  # with several workers this is called in the process that prints, too


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if PROOFS.outcomes:
        terminalreporter.section("proofs: tests that hold, by method")
        for line in PROOFS.table():
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
