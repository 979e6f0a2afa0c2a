"""Mutate: makes small faults in the code, one at a time, and shows which of them no test notices.

    python dev/mutate.py --sample 200 --seed 0          # a reproducible sample; `--all` takes every mutant
    python dev/mutate.py --only training/kept.py:74     # one module, or one line of it
    python dev/mutate.py --sample 400 --resume          # keeps the results of the run before

Every mutant runs in a forked process, in which the source of one module is replaced while it is imported. Only the
tests that run the changed line are run, the fastest first, up to the first failure. Which tests those are is in
`build/mutants/map.json`, which is made the first time (as long as the test suite takes) and brought up to date after
that. A mutant that no test runs counts as a survivor. `dev/equivalent_mutants.toml` lists mutants that change nothing,
with reasons. The survivors are printed and written to `build/mutants/results.json`.

    score = killed / (killed + survived + not covered)
"""

import argparse
import ast
import json
import os
import random
import re
import shutil
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch are imported: a process with threads must not be forked

import pytest
from coverage_map import Test, TestMap, hash_text, lines_of_import, measure, preload, words_of
from mutant_run import Job, Result, fork_all, run_tests
from mutators import Mutant, make_mutants

FOLDERS = ("methods", "inner", "evaluation", "training")
# Tests of lines that no test runs in its own process: of signatures that are read, and of several processes.
ALSO = {
    "src/quickstudy/methods/catalog/": "tests/test_docs.py::test_the_settings_page_is_what_the_catalog_says",
    "src/quickstudy/methods/inner_loop.py": "tests/test_docs.py::test_the_settings_page_is_what_the_catalog_says",
    "src/quickstudy/training/reduction.py": "tests/test_processes.py::test_",
    "src/quickstudy/training/outer.py": "tests/test_processes.py::test_when",
}
MAP, KNOWN, RESULTS = (f"build/mutants/{name}.json" for name in ("map", "known", "results"))
SLOW = 10.0  # seconds; a slower test is run only if no faster one runs the line
MOST_SECONDS = 60.0  # of the tests of a mutant, in the time that they took for the map
MOST_ALIKE = 8  # tests of a file that run the same lines of the module
FEW = 20  # tests that mention a word, for it to tell which tests are about a line
MOST_OF_IMPORT = 15.0  # the same for a line that runs at import, which all tests of the module run
KILLED, SURVIVED, NOT_COVERED, EQUIVALENT, TIMEOUT = "killed", "survived", "not covered", "equivalent", "timeout"


def main() -> int:
    """Run the mutants that the command line asks for."""
    options = _options()
    root = options.root.resolve()
    os.chdir(root)
    sys.dont_write_bytecode = False  # each process would have to prepare the tests again
    sys.path[:0] = [str(root / "src"), str(root / "tests")]
    package = root / "src" / options.package
    folders = [(package / folder).relative_to(root).as_posix() for folder in options.folders.split(",")]
    modules = [
        path.relative_to(root).as_posix() for folder in folders for path in sorted((root / folder).rglob("*.py"))
    ]
    if not options.bare:
        preload()
    test_map = TestMap(root, modules, root / MAP)
    _update(test_map, folders, options.jobs)
    if options.map:
        return 0
    jobs = _choose(test_map, modules, options)
    control(test_map, jobs, options)
    results = run(test_map, jobs, options)
    _write_json(root / RESULTS, _summary(results, options))
    _show(results, folders)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sample", type=int, default=200, help="how many mutants to try")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--all", action="store_true", help="try every mutant")
    parser.add_argument("--only", default="", help="part of a path, and a line after `:`; several after commas")
    parser.add_argument("--resume", action="store_true", help="keep the results of the run before that still hold")
    parser.add_argument("--map", action="store_true", help="bring the map of the tests up to date, and stop")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--root", type=Path, default=Path(__file__).parent.parent, help="has `src` and `tests`")
    parser.add_argument("--package", default="quickstudy", help="below `src`")
    parser.add_argument("--folders", default=",".join(FOLDERS), help="of the package")
    parser.add_argument("--bare", action="store_true", help="import no library beforehand")
    return parser.parse_args()


def _update(test_map: TestMap, folders: list[str], jobs: int) -> None:
    """Measure the files of tests that have changed, each in its own process."""
    names = test_map.stale()
    answers = Path(tempfile.mkdtemp())

    def task(name: str) -> Callable[[], int]:
        def write() -> int:
            entry = measure(test_map.root, name, test_map.modules, folders)
            (answers / hash_text(name)).write_text(json.dumps(asdict(entry)), encoding="utf-8")
            return 0

        return write

    def done(name: str, _code: int | None, seconds: float) -> None:
        answer = answers / hash_text(name)
        if not answer.is_file():
            print(f"map: {name} could not be run", flush=True)
            return
        values = json.loads(answer.read_text(encoding="utf-8"))
        test_map.add(name, values)
        broken = f", NOT PASSED: {', '.join(values['broken'])}" if values["broken"] else ""
        print(f"map: {name} ({len(values['tests'])} tests, {seconds:.0f} s){broken}", flush=True)

    fork_all([(name, task(name), 3600.0) for name in names], jobs, done)
    shutil.rmtree(answers)


def _choose(test_map: TestMap, modules: list[str], options: argparse.Namespace) -> list[Job]:
    """Return the mutants of the command line with their tests."""
    wanted = [entry.partition(":") for entry in options.only.split(",")] if options.only else [("", "", "")]
    mutants = []
    for module in modules:
        source = (test_map.root / module).read_text(encoding="utf-8")
        lines = {line for part, _, line in wanted if part in module}
        if lines:
            mutants += [(module, source, m) for m in make_mutants(source) if "" in lines or str(m.line) in lines]
    if not options.all and len(mutants) > options.sample:
        places = sorted(random.Random(options.seed).sample(range(len(mutants)), options.sample))
        mutants = [mutants[place] for place in places]
    return [_job(test_map, *mutant) for mutant in mutants]


def _job(test_map: TestMap, module: str, source: str, mutant: Mutant) -> Job:
    tests = test_map.tests(module, [mutant.line])
    first = set(tests)
    imported = lines_of_import(source)
    if mutant.line in imported:  # these lines run before the tests: all tests of the module may notice the fault
        tests = test_map.tests(module, set(range(1, len(source.splitlines()) + 1)) - imported)
        first = set(test_map.tests(module, _mentions(source, mutant) - imported))
    if not tests:
        tests = test_map.tests(module, range(mutant.lines[0], mutant.lines[1] + 1))
    if not tests:  # perhaps a process that a test starts runs it
        tests = test_map.starters()
    quick = {name: test for name, test in tests.items() if test.seconds <= SLOW and not test.starts_process}
    also = _also(test_map, module)
    quick |= also
    about = {*also} | _about(test_map, source.splitlines()[mutant.lines[0] - 1 : mutant.lines[1]], quick or tests)
    ordered = sorted(
        _ranked(module, quick or tests),
        key=lambda item: (item[0] not in about, item[0] not in first, item[1], item[2].seconds),
    )
    kept: dict[str, Test] = {}
    total, most = 0.0, MOST_OF_IMPORT if mutant.line in imported else MOST_SECONDS
    for name, rank, test in ordered:
        if not kept or (total + test.seconds <= most and (rank < MOST_ALIKE or name in about)):
            kept[name] = test
            total += test.seconds
    return Job(module, source, mutant, kept, len(tests) - len(kept))


def _also(test_map: TestMap, module: str) -> dict[str, Test]:
    """Return the tests that `ALSO` has for a module."""
    starts = tuple(start for path, start in ALSO.items() if module.startswith(path))
    tests = [item for entry in test_map.files.values() for item in entry.tests.items()]
    return {name: test for name, test in tests if starts and name.startswith(starts) and test.seconds <= SLOW}


def _about(test_map: TestMap, lines: list[str], tests: dict[str, Test]) -> set[str]:
    """Return the tests that are about some lines: they mention a word of them that few tests mention."""
    words = words_of("\n".join(lines))
    with_word: dict[str, set[str]] = {word: set() for word in words}
    for name in tests:
        for word in words & test_map.words(name):
            with_word[word].add(name)
    return {name for names in with_word.values() if len({n.partition("[")[0] for n in names}) <= FEW for name in names}


def _ranked(module: str, tests: dict[str, Test]) -> Iterator[tuple[str, int, Test]]:
    """Yield tests with their places among those of their file that run the same lines of a module, the fastest first.

    Tests that share a fixture look alike in this way: a few of them do for all.
    """
    counts: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for name, test in sorted(tests.items(), key=lambda item: item[1].seconds):
        alike = name.split("::")[0], tuple(test.lines.get(module, ()))
        yield name, counts[alike], test
        counts[alike] += 1


def _mentions(source: str, mutant: Mutant) -> set[int]:
    """Return the lines that mention a name of the mutant's statement, and the lines of the function that it opens."""
    lines = source.splitlines()
    names = set(re.findall(r"^\s*(?:async def|def|class)?\s*(\w+)", lines[mutant.lines[0] - 1]))
    pattern = re.compile(rf"\b({'|'.join(names) or 'x^'})\b")
    mentioned = {number for number, line in enumerate(lines, 1) if pattern.search(line)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.lineno <= mutant.line < node.body[0].lineno:
            mentioned |= set(range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1))
    return mentioned


def control(test_map: TestMap, jobs: list[Job], options: argparse.Namespace) -> None:
    """Check that the tests of some mutants pass without a fault; else every mutant would seem to be killed."""
    some = random.Random(options.seed).sample(jobs, min(3, len(jobs)))
    whole = [Job(job.module, job.source, None, dict(list(job.tests.items())[:20])) for job in some if job.tests]
    tasks = [(job.module, lambda job=job: run_tests(test_map.root, job), job.limit) for job in whole]

    def done(name: str, code: int | None, _seconds: float) -> None:
        if code:
            raise SystemExit(f"the tests of {name} do not pass without a fault, so they say nothing about mutants")

    fork_all(tasks, options.jobs, done)


def run(test_map: TestMap, jobs: list[Job], options: argparse.Namespace) -> list[Result]:
    """Return what becomes of the mutants, in their order."""
    equivalent = _equivalents(test_map.root)
    known = _known(test_map.root)
    earlier = dict(known) if options.resume else {}
    results: dict[str, Result] = {}
    tasks = []
    for place, job in enumerate(jobs):
        new = job.result(NOT_COVERED, 0, test_map)
        old = earlier.get(new.key)
        if (new.module, new.statement, new.after) in equivalent:
            results[str(place)] = job.result(EQUIVALENT, 0, test_map)
        elif old and (old.outcome in {KILLED, TIMEOUT} or old.tests == new.tests):
            results[str(place)] = old
        elif not job.tests:
            results[str(place)] = new
        else:
            tasks.append((str(place), lambda job=job: run_tests(test_map.root, job), job.limit))
    print(f"{len(jobs)} mutants, {len(tasks)} to run", flush=True)

    def done(name: str, code: int | None, seconds: float) -> None:
        outcome = TIMEOUT if code is None else SURVIVED if code == 0 else KILLED
        if code == pytest.ExitCode.NO_TESTS_COLLECTED:
            outcome = NOT_COVERED
        result = results[name] = jobs[int(name)].result(outcome, seconds, test_map)
        if outcome not in {KILLED, TIMEOUT}:
            print(_line(result), flush=True)
        known[result.key] = result
        _write_json(test_map.root / KNOWN, [asdict(each) for each in known.values()])

    fork_all(tasks, options.jobs, done)
    return [results[str(place)] for place in range(len(jobs))]


def _equivalents(root: Path) -> set[tuple[str, str, str]]:
    file = root / "dev" / "equivalent_mutants.toml"
    if not file.is_file():
        return set()
    entries = tomllib.loads(file.read_text(encoding="utf-8")).get("equivalent", [])
    missing = [entry for entry in entries if not entry.get("reason")]
    if missing:
        raise SystemExit(f"{file}: an entry has no reason: {missing[0]}")
    return {(entry["module"], entry["statement"], entry["after"]) for entry in entries}


def _known(root: Path) -> dict[tuple[str, ...], Result]:
    """Return the results of all runs so far, by mutant."""
    file = root / KNOWN
    results = [Result(**value) for value in json.loads(file.read_text("utf-8"))] if file.is_file() else []
    return {result.key: result for result in results}


def _write_json(file: Path, values: object) -> None:
    new = file.with_suffix(".new")
    new.write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")
    new.replace(file)


def _summary(results: list[Result], options: argparse.Namespace) -> dict[str, object]:
    alive = [_line(result) for result in results if result.outcome in {SURVIVED, NOT_COVERED}]
    return {
        "seed": options.seed,
        "sample": None if options.all else options.sample,
        "counts": Counter(result.outcome for result in results),
        "survivors": alive,
        "results": [asdict(result) for result in results],
    }


def _line(result: Result) -> str:
    note = f" ({result.left_out} slow tests left out)" if result.left_out else ""
    return f"{result.module}:{result.line}  {result.before}  →  {result.after}   [{result.outcome}]{note}"


def _show(results: list[Result], folders: list[str]) -> None:
    """Print the survivors, and a table with a line for each folder."""
    print(*[_line(r) for r in results if r.outcome in {SURVIVED, NOT_COVERED}], sep="\n")
    columns = (KILLED, TIMEOUT, SURVIVED, NOT_COVERED, EQUIVALENT)
    print("\n" + f"{'folder':30}" + "".join(f"{column:>13}" for column in (*columns, "score")))
    for folder in [*folders, ""]:
        counts = Counter(result.outcome for result in results if result.module.startswith(folder))
        killed = counts[KILLED] + counts[TIMEOUT]
        counted = killed + counts[SURVIVED] + counts[NOT_COVERED]
        score = f"{100 * killed / counted:.1f} %" if counted else "-"
        cells = [str(counts[column]) for column in columns]
        print(f"{folder or 'all':30}" + "".join(f"{cell:>13}" for cell in (*cells, score)))


if __name__ == "__main__":
    sys.exit(main())
