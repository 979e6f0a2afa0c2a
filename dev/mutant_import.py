"""Mutant import: replaces a module by a mutant of it while it is imported, here and in the processes started from here.

Processes that a test starts find `QUICKSTUDY_MUTANT` in their environment, and `dev/site/sitecustomize.py`, which
Python runs before anything else, calls `install_from_environment`.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path

from mutators import Mutant, apply, make_mutants

VARIABLE = "QUICKSTUDY_MUTANT"
SITE = Path(__file__).parent / "site"


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a module with a fault."""

    mutant: Mutant

    def get_code(self, fullname: str) -> types.CodeType:
        """Return the code of the mutant."""
        source = Path(self.path).read_text(encoding="utf-8")
        return compile(apply(source, self.mutant), self.path, "exec", dont_inherit=True)


class Finder(importlib.abc.MetaPathFinder):
    """Finds the module that a mutant is made in."""

    def __init__(self, name: str, file: Path, mutant: Mutant) -> None:
        self.name, self.file, self.mutant = name, file, mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of the mutant; None for every other module."""
        if fullname != self.name:
            return None
        loader = Loader(fullname, str(self.file))
        loader.mutant = self.mutant
        return importlib.util.spec_from_file_location(fullname, self.file, loader=loader)


def install(name: str, file: Path, mutant: Mutant) -> None:
    """Replace the module of that name by a mutant of its file."""
    place = make_mutants(file.read_text(encoding="utf-8")).index(mutant)
    os.environ[VARIABLE] = json.dumps([name, str(file), place])
    paths = [str(SITE), str(file.parents[len(name.split(".")) - 1]), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    sys.path.insert(0, str(SITE))
    sys.meta_path.insert(0, Finder(name, file, mutant))


def install_from_environment() -> None:
    """Replace the module that the environment names, if it names one."""
    if VARIABLE in os.environ:
        name, path, place = json.loads(os.environ[VARIABLE])
        mutant = make_mutants(Path(path).read_text(encoding="utf-8"))[place]
        sys.meta_path.insert(0, Finder(name, Path(path), mutant))
