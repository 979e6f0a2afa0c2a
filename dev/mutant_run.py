"""Mutant run: the tests of a mutant in a forked process, several processes at once, each with a limit of time."""

import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
from coverage_map import ARGUMENTS, Test, TestMap, hash_text
from mutant_import import install
from mutators import Mutant, apply


@dataclass(frozen=True)
class Result:
    """What became of a mutant.

    Attributes:
        module: Path of the module below the root.
        line: Its line.
        before: The changed node as text.
        after: What took its place.
        statement: The source line.
        outcome: Killed or not; see `mutate`.
        seconds: What its tests took.
        number: How many tests it could meet.
        left_out: How many more were too slow.
        source: Hash of the module.
        tests: Hash of the names of the tests and of their files.
        place: The path of the node.
    """

    module: str
    line: int
    before: str
    after: str
    statement: str
    outcome: str
    seconds: float
    number: int
    left_out: int
    source: str
    tests: str
    place: str

    @property
    def key(self) -> tuple[str, ...]:
        """What tells the mutant from all others, while the module stays as it is."""
        return self.module, self.source, self.place, self.before, self.after


@dataclass(frozen=True)
class Job:
    """A mutant with the module that it is made in and the tests that it has to pass to survive, fastest first."""

    module: str
    source: str
    mutant: Mutant | None
    tests: dict[str, Test]
    left_out: int = 0

    @property
    def limit(self) -> float:
        """The seconds after which the mutant counts as killed."""
        return 30 + 4 * sum(test.seconds for test in self.tests.values())

    def result(self, outcome: str, seconds: float, test_map: TestMap) -> Result:
        """Return the result of this job."""
        mutant = self.mutant
        assert mutant
        statement = self.source.splitlines()[mutant.line - 1].strip()
        hashes = {name: test_map.files[name.split("::")[0]].hash for name in self.tests}
        return Result(
            self.module,
            mutant.line,
            mutant.before,
            mutant.after,
            statement,
            outcome,
            round(seconds, 1),
            len(self.tests),
            self.left_out,
            hash_text(self.source),
            hash_text(json.dumps(sorted(hashes.items()))),
            "/".join(f"{field}.{index}" for field, index in mutant.path),
        )


class Selection:
    """A plugin of pytest that runs some tests in a given order."""

    def __init__(self, tests: Iterable[str]) -> None:
        self.places = {name: place for place, name in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the tests that are selected."""
        items[:] = sorted(
            (item for item in items if item.nodeid in self.places), key=lambda item: self.places[item.nodeid]
        )


def run_tests(root: Path, job: Job) -> int:
    """Run the tests of a job in this process, with its fault if it has one; 0 if all pass."""
    if job.mutant:
        path = root / job.module
        name = ".".join(Path(job.module).with_suffix("").parts[1:]).removesuffix(".__init__")
        try:
            compile(apply(job.source, job.mutant), job.module, "exec")
        except SyntaxError:
            return 1
        install(name, path, job.mutant)
    files = list(dict.fromkeys(name.split("::")[0] for name in job.tests))
    return int(pytest.main([*ARGUMENTS, "-x", "--tb=short", *files], plugins=[Selection(job.tests)]))


def fork_all(
    tasks: Sequence[tuple[str, Callable[[], int], float]],
    jobs: int,
    done: Callable[[str, int | None, float], None],
) -> None:
    """Run tasks in forked processes, `jobs` at once, each with a limit of seconds.

    Args:
        tasks: The name of a task, what it does, and its limit.
        jobs: How many at once.
        done: Gets the name, the exit status (None after the limit) and the seconds.
    """
    waiting = list(reversed(tasks))
    running: dict[int, tuple[str, float, float]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            name, task, limit = waiting.pop()
            sys.stdout.flush()
            process = os.fork()
            if not process:
                _child(task)
            running[process] = name, time.monotonic(), limit
        time.sleep(0.02)
        for process, (name, began, limit) in list(running.items()):
            seconds = time.monotonic() - began
            ended, status = os.waitpid(process, os.WNOHANG)
            if not ended and seconds > limit:
                _kill(process)
                os.waitpid(process, 0)
            if ended or seconds > limit:
                del running[process]
                _kill(process)  # what the process has started and left
                done(name, os.waitstatus_to_exitcode(status) if ended else None, seconds)


def _child(task: Callable[[], int]) -> NoReturn:
    """Do a task in a process group of its own, with a folder for temporary files that is removed, and exit."""
    os.setsid()
    code = 3
    folder = tempfile.mkdtemp()
    os.environ |= {"PYTEST_DEBUG_TEMPROOT": folder, "TMPDIR": folder}
    tempfile.tempdir = folder
    nothing = os.open(os.environ.get("MUTANT_OUTPUT", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    try:
        code = task()
    except BaseException:
        traceback.print_exc()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(code)


def _kill(process: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)
