"""Test map: which lines of the code each test runs, and how long the test takes; made with coverage, file by file.

    one process for each file of tests   →   { test: seconds, starts a process, { module: lines } }

The map is kept in a file. A file of tests is measured again only when its text has changed. When a module has changed
since, its lines are carried over: a line that stayed keeps its tests, and a new line has the tests of the lines
around it. Lines that run while a fixture of a whole module is made count for every test that uses the fixture.
"""

import ast
import difflib
import gc
import hashlib
import json
import multiprocessing.process
import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# With its own asserts pytest would load a module that has doctests itself, and so without the fault of a mutant.
ARGUMENTS = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--assert=plain")

Lines = dict[str, list[int]]  # module (path below the root) → lines


@dataclass
class Test:
    """A test: its length, whether it starts a process, and the lines that it runs."""

    seconds: float
    starts_process: bool
    lines: Lines


@dataclass
class TestFile:
    """The tests of a file, with the hash of its text and the texts (by hash) of the modules that they ran."""

    hash: str
    modules: dict[str, str]
    tests: dict[str, Test]
    broken: list[str] = field(default_factory=list)


def hash_text(text: str) -> str:
    """Return a short hash of a text.

    >>> len(hash_text("a"))
    16
    """
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class TestMap:
    """The map of a code base.

    Args:
        root: The folder that holds `src` and `tests`.
        modules: The modules to measure, as paths below the root.
        file: Where the map is kept.
    """

    __test__ = False

    def __init__(self, root: Path, modules: Iterable[str], file: Path) -> None:
        self.root, self.modules, self.file = root, sorted(modules), file
        self.files: dict[str, TestFile] = {}
        self.texts: dict[str, str] = {}
        self._carried: dict[tuple[str, str], dict[int, int]] = {}
        self._words: dict[str, dict[str, frozenset[str]]] = {}
        if file.is_file():
            values = json.loads(file.read_text(encoding="utf-8"))
            self.texts = values["texts"]
            self.files = {name: _read(entry) for name, entry in values["files"].items()}

    def words(self, test: str) -> frozenset[str]:
        """Return the words of a test's function, or those of the module that has it as an example."""
        file, name = test.split("::")[0], test.split("::")[-1].partition("[")[0]
        if file not in self._words:
            text = (self.root / file).read_text("utf-8")
            self._words[file] = {
                node.name: words_of("\n".join(text.splitlines()[node.lineno - 1 : node.end_lineno]))
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.FunctionDef)
            } | {"": words_of(text)}
        words = self._words[file]
        return words[name] if name in words else words[""]

    def stale(self) -> list[str]:
        """Return the files of tests, and the modules with examples, whose text is not that of the map."""
        paths = [path for path in self.root.glob("tests/test_*.py") if path.name != "test_mutate.py"]
        paths += [self.root / module for module in self.modules if ">>>" in (self.root / module).read_text("utf-8")]
        names = {path.relative_to(self.root).as_posix(): hash_text(path.read_text("utf-8")) for path in paths}
        self.files = {name: entry for name, entry in self.files.items() if name in names}
        return [name for name, value in names.items() if name not in self.files or self.files[name].hash != value]

    def add(self, name: str, values: dict[str, Any]) -> None:
        """Add what was measured of a file of tests, a `TestFile` as JSON, and write the map."""
        entry = self.files[name] = _read(values)
        for module, value in entry.modules.items():
            self.texts[value] = (self.root / module).read_text("utf-8")
        used = {value for each in self.files.values() for value in each.modules.values()}
        self.texts = {value: text for value, text in self.texts.items() if value in used}
        values = {
            "texts": self.texts,
            "files": {
                key: {**vars(each), "tests": {test: vars(figures) for test, figures in each.tests.items()}}
                for key, each in self.files.items()
            },
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(values), encoding="utf-8")
        new.replace(self.file)

    def tests(self, module: str, lines: Iterable[int]) -> dict[str, Test]:
        """Return the tests that run one of the lines of a module, as the module is now."""
        wanted = set(lines)
        tests: dict[str, Test] = {}
        for entry in self.files.values():
            if module in entry.modules:
                old = self._carry(module, entry.modules[module], wanted)
                tests |= {name: test for name, test in entry.tests.items() if old & set(test.lines.get(module, ()))}
        return tests

    def starters(self) -> dict[str, Test]:
        """Return the tests that start processes, whose lines are not known."""
        entries = [entry.tests.items() for entry in self.files.values()]
        return {name: test for tests in entries for name, test in tests if test.starts_process}

    def _carry(self, module: str, old_hash: str, wanted: set[int]) -> set[int]:
        """Return the lines that lines of the present text had in the text that was measured."""
        text = (self.root / module).read_text("utf-8")
        if hash_text(text) == old_hash:
            return wanted
        key = module, old_hash
        if key not in self._carried:
            self._carried[key] = dict(_matching(self.texts[old_hash], text))
        places = self._carried[key]
        carried = {places[line] for line in wanted if line in places}
        if not carried and places:  # new lines have the tests of the nearest lines that stayed
            for line in wanted:
                near = sorted(places, key=lambda other: abs(other - line))[:6]
                carried |= {places[other] for other in near}
        return carried


def _read(values: dict[str, Any]) -> TestFile:
    tests = {name: Test(**figures) for name, figures in values["tests"].items()}
    return TestFile(values["hash"], values["modules"], tests, values["broken"])


def _matching(old: str, new: str) -> Iterator[tuple[int, int]]:
    matcher = difflib.SequenceMatcher(a=old.splitlines(), b=new.splitlines(), autojunk=False)
    for block in matcher.get_matching_blocks():
        yield from ((block.b + place + 1, block.a + place + 1) for place in range(block.size))


def lines_of_import(text: str) -> set[int]:
    r"""Return the lines that run when a module is imported, not when one of its functions is called.

    >>> sorted(lines_of_import("a = 1\ndef f():\n    return a"))
    [1, 2]
    """
    inside: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            first = node.body[0].lineno if isinstance(node.body, list) else node.body.lineno
            if not isinstance(node, ast.Lambda):
                inside |= set(range(first, (node.end_lineno or first) + 1))
    return set(range(1, len(text.splitlines()) + 1)) - inside


def words_of(text: str) -> frozenset[str]:
    """Return the words of a text that could be names in code."""
    return frozenset(re.findall(r"[A-Za-z_]\w{2,}", text))


def _processor_time() -> float:
    """Return the processor seconds of this process and of those that it waited for: other work does not slow them."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Recorder:
    """A plugin of pytest: switches the context of coverage with every test, and notes what the tests do."""

    def __init__(self, coverage: Any) -> None:
        self.coverage = coverage
        self.current = ""
        self.seconds: dict[str, float] = {}
        self.starts_process: set[str] = set()
        self.broken: set[str] = set()
        self.uses: dict[str, set[str]] = defaultdict(set)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, None, None]:
        """Run a test in its own context."""
        self.current = item.nodeid
        self.coverage.switch_context(item.nodeid)
        self.uses[item.nodeid] = {f"fixture {name}" for name in getattr(item, "fixturenames", ())}
        began = _processor_time()
        yield
        self.seconds[item.nodeid] = _processor_time() - began
        self.coverage.switch_context("")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, None, None]:
        """Make a fixture of a whole module in a context of its own."""
        before = self.current
        if fixturedef.scope != "function":
            self.current = f"fixture {fixturedef.argname}"
            self.coverage.switch_context(self.current)
        yield
        self.current = before
        self.coverage.switch_context(before)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the tests that do not pass."""
        if report.outcome == "failed":
            self.broken.add(report.nodeid)

    def note_process(self, start: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does what `start` does, and notes that the current test started a process."""

        def started(*args: Any, **kwargs: Any) -> Any:
            self.starts_process.add(self.current)
            return start(*args, **kwargs)

        return started


def measure(root: Path, name: str, modules: list[str], folders: list[str]) -> TestFile:
    """Run a file of tests under coverage in this process, which must not have imported the code before.

    Args:
        root: The folder that holds `src` and `tests`.
        name: The file of tests below the root.
        modules: The modules whose lines are kept.
        folders: The folders that coverage watches.
    """
    from coverage import Coverage

    coverage = Coverage(data_file=None, source=[str(root / folder) for folder in folders], config_file=False)
    recorder = Recorder(coverage)
    for owner, method in ((subprocess.Popen, "__init__"), (multiprocessing.process.BaseProcess, "start")):
        setattr(owner, method, recorder.note_process(getattr(owner, method)))
    coverage.start()
    pytest.main([*ARGUMENTS, str(root / name)], plugins=[recorder])
    with suppress(Exception):
        coverage.stop()
    ran: dict[str, Lines] = defaultdict(dict)
    data = coverage.get_data()
    for module in modules:
        for line, contexts in data.contexts_by_lineno(str(root / module)).items():
            for context in contexts:
                ran[context].setdefault(module, []).append(line)
    tests = {}
    for test, seconds in recorder.seconds.items():
        lines: dict[str, set[int]] = defaultdict(set)
        for context in {test, *recorder.uses[test]}:
            for module, numbers in ran.get(context, {}).items():
                lines[module] |= set(numbers)
        starts = not recorder.starts_process.isdisjoint({test, *recorder.uses[test]})
        if (lines or starts) and test not in recorder.broken:
            figures = {module: sorted(numbers) for module, numbers in lines.items()}
            tests[test] = Test(round(seconds, 3), starts, figures)
    used = {module for test in tests.values() for module in test.lines}
    texts = {module: hash_text((root / module).read_text("utf-8")) for module in sorted(used)}
    return TestFile(hash_text((root / name).read_text("utf-8")), texts, tests, sorted(recorder.broken))


def preload() -> None:
    """Import the libraries that the code and the tests use, so that every forked process has them at once."""
    import importlib

    for name in PRELOADED:
        with suppress(ImportError):
            importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # what is here stays, so that no process has to look through it


PRELOADED = (
    "numpy",
    "scipy.stats",
    "scipy.optimize",
    "sklearn.linear_model",
    "sklearn.metrics",
    "torch",
    "torch.func",
    "torch.utils.flop_counter",
    "safetensors.torch",
    "transformers.models.bert.modeling_bert",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.auto.configuration_auto",
    "accelerate",
    "datasets",
    "pyarrow.parquet",
    "pydantic",
    "typer.testing",
    "rich.progress",
    "jinja2",
    "matplotlib.pyplot",
    "coverage",
    "hypothesis",
    "hypothesis.strategies",
    "_hypothesis_pytestplugin",
    "doctest",
    "pdb",
)
