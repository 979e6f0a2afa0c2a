"""Import: quickstudy opens fast, without torch, and its layers import only downwards."""

import gc
import os
import resource
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

import quickstudy
from quickstudy.build import build_learner
from quickstudy.config import check_recipe
from quickstudy.importing import quick_imports
from quickstudy.runs import Run

ROOT = Path(__file__).parents[1]
NO_TORCH = "import sys; assert 'torch' not in sys.modules and 'transformers' not in sys.modules, sorted(sys.modules)"


@pytest.mark.parametrize(
    ("code", "seconds"),
    [
        (f"import quickstudy; {NO_TORCH}", 0.5),
        (f"from quickstudy import Task, Episode, EpisodeSpec, Example, QuickstudyError; {NO_TORCH}", None),
        (f"import quickstudy.config; {NO_TORCH}", None),
        (f"import quickstudy.report.run.page, quickstudy.report.run.card; {NO_TORCH}", None),
        (f"import quickstudy.cli.main; {NO_TORCH}", None),
        (
            "import sys; import quickstudy.cli.tables; assert not {'torch', 'matplotlib', 'jinja2'} & set(sys.modules)",
            None,
        ),
    ],
)
def test_importing_loads_no_torch_and_is_fast(code: str, seconds: float | None) -> None:
    runs = [_timed("-c", code) for _ in range(3 if seconds else 1)]
    assert all(run.returncode == 0 for _, run in runs), runs[0][1].stderr
    if seconds:
        assert min(took for took, _ in runs) < seconds


def test_help_is_fast_and_loads_no_torch() -> None:
    code = (
        "import sys\n"
        "from quickstudy.cli.main import main\n"
        "sys.argv = ['quickstudy', '--help']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"{NO_TORCH}"
    )
    runs = [_timed("-c", code) for _ in range(3)]
    assert all(run.returncode == 0 for _, run in runs), runs[0][1].stderr
    for verb in ("tasks", "pretrain", "adapt", "predict", "evaluate", "report"):
        assert verb in runs[0][1].stdout
    assert min(took for took, _ in runs) < 0.7


# What a classifier is made and used without. transformers itself imports scipy.optimize, accelerate and more.
NOT_NEEDED = {"datasets", "matplotlib", "onnxruntime", "peft", "transformers.trainer"}
SCIKIT_LEARN = {"joblib", "pandas", "scipy.stats", "sklearn"}


@pytest.fixture
def run_folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A finished run that nothing was learned in."""
    recipe = check_recipe(
        {
            "name": "untrained",
            "encoder": {"name": str(tiny_folder)},
            "method": {"name": "r2d2", "names": "gated"},
            "tasks": {"train": ["seen.csv"]},
        }
    )
    run = Run.create(tmp_path / "run", recipe, ["seen"])
    run.save(build_learner(recipe))
    return run.folder


def test_adapt_and_predict_import_only_what_they_need(run_folder: Path, tmp_path: Path) -> None:
    model, data = str(tmp_path / "model"), str(ROOT / "examples" / "complaints.csv")
    for words in (["adapt", str(run_folder), "--data", data, "--out", model], ["predict", model, "where is my card"]):
        loaded = _loaded_by("from quickstudy.cli.main import main; main()", *words)
        assert "quickstudy.models.adapted" in loaded
        assert loaded & (NOT_NEEDED | SCIKIT_LEARN) == set()


def test_the_estimator_imports_only_what_it_needs(run_folder: Path) -> None:
    code = (
        "import sys, quickstudy\n"
        "clf = quickstudy.FewShotClassifier(sys.argv[1]).fit(['late fee', 'my card'], ['fees', 'cards'])\n"
        "clf.predict(['a fee'])"
    )
    loaded = _loaded_by(code, str(run_folder))
    assert loaded > {"quickstudy.models.adapted", "sklearn"}
    assert loaded & NOT_NEEDED == set()


def test_the_list_of_verbs_needs_no_settings_library() -> None:
    loaded = _loaded_by("from quickstudy.cli.main import main; main()", "--help")
    assert "quickstudy.cli.adapt" in loaded
    assert loaded & {"numpy", "pydantic", "torch"} == set()


def test_a_command_never_searches_all_objects_for_garbage(run_folder: Path, tmp_path: Path) -> None:
    code = (
        "import atexit, gc\nfrom quickstudy.cli.main import main\n"
        "atexit.register(lambda: print(gc.get_stats()[2]['collections'], gc.isenabled(), gc.get_freeze_count()))\n"
        "main()"
    )
    data = str(ROOT / "examples" / "complaints.csv")
    _, run = _timed("-c", code, "adapt", str(run_folder), "--data", data, "--out", str(tmp_path / "model"))
    assert run.returncode == 0, run.stderr
    searches, enabled, frozen = run.stdout.splitlines()[-1].split()
    assert (searches, enabled) == ("0", "True")
    assert int(frozen) > 100_000  # the search at Python's end passes over them


def test_quick_imports_leave_the_search_for_garbage_as_it_was() -> None:
    with quick_imports():
        assert not gc.isenabled()
        with quick_imports():
            assert not gc.isenabled()
        assert not gc.isenabled()
        gone = weakref.ref(_Thing())
    assert gc.isenabled()
    assert not gc.get_freeze_count()
    gc.collect()
    assert gone() is None
    gc.disable()
    try:
        with quick_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


class _Thing:
    """An object that only a search for garbage finds."""

    def __init__(self) -> None:
        self.me = self


def _loaded_by(code: str, *words: str) -> set[str]:
    """Return the modules that are loaded when some code has run."""
    body = "\n".join(f"    {line}" for line in code.splitlines())
    _, run = _timed("-c", f"import sys\ntry:\n{body}\nfinally:\n    print('loaded', *sys.modules)", *words)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.splitlines()[-1].split()[1:])


def test_the_installed_command_and_the_module_say_the_version() -> None:
    wanted = f"quickstudy {quickstudy.__version__}\n"
    assert _timed("-m", "quickstudy", "--version")[1].stdout == wanted
    command = Path(sys.executable).with_name("quickstudy")
    if not command.exists():
        pytest.skip("the quickstudy command is not beside this Python: the package is not installed here")
    assert subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout == wanted


@pytest.mark.parametrize("name", quickstudy.__all__)
def test_every_public_name_resolves(name: str) -> None:
    value = getattr(quickstudy, name)
    assert value.__name__ == name
    assert value.__doc__
    assert name in dir(quickstudy)


def test_type_checkers_are_told_that_the_package_is_typed() -> None:
    assert Path(quickstudy.__file__).with_name("py.typed").is_file()  # PEP 561


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert list(quickstudy.__all__) == sorted(quickstudy.__all__)
    with pytest.raises(AttributeError, match="no attribute 'pretrian'"):
        _ = quickstudy.pretrian


def test_imports_only_point_down() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    if not command.exists():
        pytest.skip("import-linter is not installed: pip install 'quickstudy[dev]'")
    run = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert "0 broken" in run.stdout


def _timed(*arguments: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Run Python; return its seconds on the processor, which do not depend on what runs beside it."""
    before = _child_seconds()
    run = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "120"}
    )
    return _child_seconds() - before, run


def _child_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
