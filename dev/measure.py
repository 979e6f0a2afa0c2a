"""Measure: the length of functions and modules, and what the style of the code counts, file by file.

    python dev/measure.py [PATH ...]

Prints a table with a line for each file that has something to show, then the median and the longest function. The
length of a function includes its docstring, the length of its code does not. Exits with 1 if a file is above a limit.
"""

import ast
import io
import statistics
import sys
import tokenize
from pathlib import Path

DEFAULT_PATHS = ("src", "benchmarks", "dev", "tests/conftest.py", "tests/html_page.py", "tests/ranks.py")
BANNED_NAMES = {"found", "own", "part", "one", "of", "it", "thing"}
LAST_COLUMN = 120
COLUMNS = ("module", "function", "code", "dict[str, Any]", "long prose", "banned names")
COUNTED = COLUMNS[3:]  # a file is shown if one of these is not 0
LIMITS = {  # the most that a file may have: one line for each column that must hold
    "module": 400,
    "function": 60,
}
Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | Function


def main() -> int:
    """Measure the files under the paths of the command line."""
    paths = [Path(path) for path in sys.argv[1:] or DEFAULT_PATHS]
    files = sorted(file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path]))
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
    rows = {file: measure(file.read_text(encoding="utf-8"), tree) for file, tree in trees.items()}
    lengths = [_length(function) for tree in trees.values() for function in _functions(tree)]
    print_table(rows)
    middle, longest = statistics.median(lengths), max(lengths)
    print(f"{len(files)} files, {len(lengths)} functions: median {middle:g}, most {longest} lines")
    broken = [
        f"{file}: {column} {row[column]}, the limit is {limit}"
        for file, row in rows.items()
        for column, limit in LIMITS.items()
        if row[column] > limit
    ]
    print(*broken, sep="\n", end="\n" if broken else "")
    return 1 if broken else 0


def measure(source: str, tree: ast.Module) -> dict[str, int]:
    """Return the figures of one file, one for each column of the table."""
    lines = source.splitlines()
    figures = (
        len(lines),
        max((_length(function) for function in _functions(tree)), default=0),
        max((_length(function) - len(_docstring(function)) for function in _functions(tree)), default=0),
        sum(ast.unparse(node) == "dict[str, Any]" for node in ast.walk(tree) if isinstance(node, ast.Subscript)),
        sum(len(lines[number - 1]) > LAST_COLUMN for number in _prose(source, tree)),
        sum(name in BANNED_NAMES for name in _names(tree)),
    )
    return dict(zip(COLUMNS, figures, strict=True))


def print_table(rows: dict[Path, dict[str, int]]) -> None:
    """Print a line for each file in which something is counted, and the sums over all files."""
    width = max(len(str(file)) for file in rows)
    sums = {column: sum(row[column] for row in rows.values()) for column in COUNTED}
    print("  ".join([f"{'file':{width}}", *COLUMNS]))
    for name, row in [*rows.items(), ("all", sums)]:
        if any(row[column] for column in COUNTED):
            print("  ".join([f"{name!s:{width}}", *(f"{row.get(column, ''):>{len(column)}}" for column in COLUMNS)]))


def _functions(tree: ast.Module) -> list[Function]:
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def _length(function: Function) -> int:
    return (function.end_lineno or 0) - function.lineno + 1


def _docstring(node: Documented) -> range:
    return range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1) if ast.get_docstring(node) else range(0)


def _prose(source: str, tree: ast.Module) -> set[int]:
    """Return the numbers of the lines that hold a comment or are in a docstring."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    return comments.union(*(_docstring(node) for node in ast.walk(tree) if isinstance(node, Documented)))


def _names(tree: ast.Module) -> list[str]:
    """Return the name of every variable and argument, once for each use."""
    nodes = list(ast.walk(tree))
    return [node.id for node in nodes if isinstance(node, ast.Name)] + [n.arg for n in nodes if isinstance(n, ast.arg)]


if __name__ == "__main__":
    sys.exit(main())
