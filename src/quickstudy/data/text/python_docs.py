"""Python docs: the English in the Python installation, for machines that have no other text.

The documentation strings of the standard library and of the installed packages, and the topics of `pydoc`, are read
from the files when they are asked for; nothing is imported and nothing is copied into this package. Code, tables and
lists of parameters are left out. A module is a document. Each package gives a limited number of characters, so that
large ones do not hide the others.

A package is on one side of the split into meta-train, meta-validation and meta-test, for the self-supervised tasks and
for the labelled ones (`package_tasks`) alike.
"""

import ast
import json
import re
import sysconfig
import textwrap
import warnings
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from importlib.metadata import distributions
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from platform import python_version
from pydoc_data.topics import topics

from quickstudy.data.cache import make_once
from quickstudy.data.text.documents import Document
from quickstudy.storage.files import write_json

PYTHON_DOCS = "python-docs"
PACKAGE_SHARES = (0.7, 0.85)  # of the sides: there are few packages, and a task needs several of them

_FILE = "packages.json"  # in its folder of the cache
_MOST_CHARACTERS = 250_000  # of a package
_SKIPPED = re.compile(r"(^|[._])(tests?|testing|_vendor|vendored|idle_test|site-packages)([._]|$)")
_TITLE = re.compile(r"^[=\-~^*]{3,}$")
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_QUOTES = (b'"""', b"'''")


def version_of_python_docs() -> str:
    """Return what the texts follow from: the versions of Python and of the installed packages."""
    packages = sorted({f"{each.name} {each.version}" for each in distributions()})
    return "|".join([python_version(), str(_MOST_CHARACTERS), *packages])


def read_python_docs() -> Iterator[Document]:
    """Yield a document for each module that has documentation, and for each topic of `pydoc`; packages are groups."""
    for topic, text in sorted(topics.items()):
        yield Document(clean_docstring(text), f"pydoc topic {topic}")
    for package, texts in read_package_texts().items():
        for text in texts:
            yield Document(text, package)


@cache
def read_package_texts() -> dict[str, list[str]]:
    """Return the texts of the modules of each package; they are kept in the cache folder, because parsing takes long.

    Raises:
        DataError: The cache folder cannot be used.
    """

    def write(new: Path) -> None:
        packages = {package: [text for _, text in group] for package, group in groupby(_modules(), itemgetter(0))}
        write_json(new / _FILE, packages, indent=None)

    folder = make_once(f"python-docs-{sha256(version_of_python_docs().encode()).hexdigest()}", write)
    texts: dict[str, list[str]] = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    return texts


def clean_docstring(text: str) -> str:
    r"""Return the paragraphs of a documentation string that are prose, each on its own line.

    >>> clean_docstring("Return x.\n\n    >>> f(1)\n    2\n\nArgs:\n    x: a number\n\nUse it with\ncare.")
    'Return x.\nUse it with care.'
    """
    paragraphs = re.split(r"\n\s*\n", textwrap.dedent(text.expandtabs()))
    return "\n".join(filter(None, map(_prose, paragraphs)))


def _prose(paragraph: str) -> str | None:
    """Return a paragraph on one line if it is prose: sentences of words, not indented."""
    lines = [line.strip() for line in paragraph.strip("\n").splitlines() if not _TITLE.match(line.strip())]
    text = " ".join(lines)
    letters = sum(character.isalpha() or character == " " for character in text)
    if paragraph.startswith("    ") or text[-1:] not in {".", "!", "?", ":"} or letters < 0.85 * len(text):
        return None
    return re.sub(r":\w+:`~?([^`<]*)[^`]*`|`+([^`]*)`+", r"\1\2", text).replace("**", "")


def _modules() -> Iterator[tuple[str, str]]:
    """Yield (package, prose of a module's documentation strings) for every module that has some."""
    paths = sysconfig.get_paths()
    for root in dict.fromkeys((paths["stdlib"], paths["purelib"], paths["platlib"])):
        for package in sorted(Path(root).iterdir()):
            if not _SKIPPED.search(package.stem) and not package.stem.startswith("."):
                yield from _package(package)


def _package(package: Path) -> Iterator[tuple[str, str]]:
    files = sorted(package.rglob("*.py")) if package.is_dir() else [package] if package.suffix == ".py" else []
    size = 0
    for file in files:
        inside = file.relative_to(package.parent).with_suffix("")
        if size > _MOST_CHARACTERS:
            return
        if any(_SKIPPED.search(name) for name in inside.parts):
            continue
        text = "\n".join(filter(None, map(clean_docstring, _docstrings(file))))
        size += len(text)
        if text:
            yield package.stem, text


def _docstrings(file: Path) -> Iterator[str]:
    """Yield the documentation strings of a module; none of a file that cannot be read or parsed."""
    try:
        source = file.read_bytes()
        if not any(quotes in source for quotes in _QUOTES):
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the compiler says of other people's code
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    nodes: list[_Documented] = [tree]
    for node in nodes:
        nodes.extend(child for child in node.body if isinstance(child, _Documented))
        if text := ast.get_docstring(node):
            yield text
