"""The mutation run: it makes the faults that it says, kills what is tested, and shows what is not."""

import ast
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "dev"))

from mutators import apply, make_mutants

DEV = Path(__file__).parent.parent / "dev"

MODULE = '''"""Sums."""

LIMIT = 5


def add(a: int, b: int = 0) -> int:
    """Add 1 and 1.

    >>> add(2)
    2
    """
    return a + b


def below(a: int) -> bool:
    return a < LIMIT


def never(a: int) -> int:
    return a * 2
'''
TESTS = """
from small.sums.plain import add, below

def test_add():
    assert add(1, 2) == 3
    assert add(1) == 1

def test_below():
    assert below(4) and not below(9)
"""


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ("x = a - b", {"x = a + b"}),
        ("x = a * b", {"x = a / b"}),
        ("x = a ** b", {"x = a * b"}),
        ("x = a <= b != c", {"x = a < b != c", "x = a <= b == c"}),
        ("x = a or b", {"x = a and b"}),
        ("x = not a", {"x = a"}),
        ("x = -a", {"x = a"}),
        ("x = [7, 0, 0.5, True]", {f"x = [{v}]" for v in ("8, 0, 0.5, True", "7, 1, 0.5, True", "7, 0, 1.0, True")}
         | {"x = [7, 0, 0.5, False]"}),
        ("x = f(a, b)", {"x = f(b, a)", "x = f(a)"}),
        ("x = f(a, k=b)", {"x = f(a)"}),
        ("x = max(a)", {"x = min(a)"}),
        ("x = max(a, b)", {"x = max(a)", "x = min(a, b)"}),
        ("x = a.sum()", {"x = a.mean()"}),
        ("x = sorted(a)", {"x = sorted(a, reverse=True)"}),
        ("x = a.detach()", {"x = a"}),
        ("x = a[:b]", {"x = a[1:b]", "x = a[:b + 1]"}),
        ("x = order == 'first'", {"x = order != 'first'", "x = order == 'second'"}),
        ("x = a if b else c", {"x = a if not b else c"}),
        ("f(a)", {"pass"}),
        ("x.y = a", {"pass"}),
        ("x = a\nx = b", {"pass\nx = b", "x = a\npass"}),
        ("def f(x):\n    return x", {"def f(x):\n    return None"}),
    ],
)  # fmt: skip
def test_the_faults_are_those_that_are_meant(source: str, faults: set[str]) -> None:
    assert {ast.unparse(apply(source, mutant)) for mutant in make_mutants(source)} == faults


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring of 1 line."""',
        "x: Literal[1] = a",
        "def f(a: Sized[2]) -> Sized[3]:\n    pass",
        "@dataclass(frozen=True)\nclass A:\n    pass",
        'raise ValueError(f"{a + 1}")',
        'raised = ValueError("a", b)',
        "assert a == 1",
        '__all__ = ["best"]',
        'print("a", 1)',
        "import a",
        "x = zip(a, strict=True)",
        "x = make(device=a)",
    ],
)
def test_what_no_test_should_depend_on_is_left_alone(source: str) -> None:
    assert make_mutants(source) == []


def test_what_changes_nothing_is_a_mutant_that_can_be_made_in_a_single_way() -> None:
    text = (DEV / "equivalent_mutants.toml").read_text(encoding="utf-8")
    for entry in tomllib.loads(text)["equivalent"]:
        source = (DEV.parent / entry["module"]).read_text(encoding="utf-8")
        statements = [line.strip() for line in source.splitlines()]
        made = [(statements[mutant.line - 1], mutant.after) for mutant in make_mutants(source)]
        assert made.count((entry["statement"], entry["after"])) == 1, entry


def test_what_is_tested_is_killed_and_what_is_not_is_shown(tmp_path: Path) -> None:
    pytest.importorskip("coverage")
    package, tests = tmp_path / "src" / "small", tmp_path / "tests"
    (package / "sums").mkdir(parents=True)
    tests.mkdir()
    for folder in (package, package / "sums"):
        (folder / "__init__.py").write_text("")
    (package / "sums" / "plain.py").write_text(MODULE)
    (tests / "test_plain.py").write_text(TESTS)
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "--doctest-modules"\n')
    printed = _mutate(tmp_path)
    results = _results(tmp_path)
    outcome = {(r["before"], r["after"]): r["outcome"] for r in results}
    assert {r["line"] for r in results} == {3, 6, 12, 16, 20}
    assert outcome["a + b", "a - b"] == outcome["0", "1"] == "killed"
    assert outcome["a < LIMIT", "a <= LIMIT"] == outcome["5", "6"] == "survived"
    assert {value for (before, _), value in outcome.items() if before in {"a * 2", "2", "return a * 2"}} == {
        "not covered"
    }
    assert "src/small/sums/plain.py:16  a < LIMIT  →  a <= LIMIT   [survived]" in printed

    # A better test is measured alone, the line that has moved keeps its tests, and what was killed is not run again.
    (tests / "test_plain.py").write_text(TESTS.replace("below(4)", "below(4) and not below(5)"))
    assert "2 mutants, 1 to run" in _mutate(tmp_path, "--only", "plain.py:16", "--resume")
    assert {r["outcome"] for r in _results(tmp_path)} == {"killed"}
    (package / "sums" / "plain.py").write_text(MODULE.replace("LIMIT = 5", "MORE = LIMIT = 5"))
    assert "map: tests" not in _mutate(tmp_path, "--only", "plain.py:16")
    assert {r["outcome"] for r in _results(tmp_path)} == {"killed"}


def _mutate(root: Path, *more: str) -> str:
    words = [sys.executable, str(DEV / "mutate.py"), "--root", str(root), "--package", "small", "--folders", "sums"]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # they take longer than these tests
    done = subprocess.run([*words, "--bare", *more], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _results(root: Path) -> list[dict[str, str]]:
    return json.loads((root / "build" / "mutants" / "results.json").read_text())["results"]
