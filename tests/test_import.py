"""Import: quickstudy opens fast, without torch, and its layers import only downwards."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import quickstudy

ROOT = Path(__file__).parents[1]
NO_TORCH = "import sys; assert 'torch' not in sys.modules and 'transformers' not in sys.modules, sorted(sys.modules)"


@pytest.mark.parametrize(
    ("code", "seconds"),
    [
        (f"import quickstudy; {NO_TORCH}", 0.5),
        (f"from quickstudy import Task, Episode, EpisodeSpec, Example, QuickstudyError; {NO_TORCH}", None),
        (f"import quickstudy.config; {NO_TORCH}", None),
        (f"import quickstudy.report.page, quickstudy.report.card; {NO_TORCH}", None),
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


def test_the_installed_command_and_the_module_say_the_version() -> None:
    wanted = f"quickstudy {quickstudy.__version__}\n"
    assert _timed("-m", "quickstudy", "--version")[1].stdout == wanted
    command = Path(sys.executable).with_name("quickstudy")
    if not command.exists():
        pytest.skip("the quickstudy command is not beside this Python: the package is not installed here")
    assert subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout == wanted


@pytest.mark.parametrize("name", quickstudy.__all__)
def test_every_public_name_resolves(name: str) -> None:
    found = getattr(quickstudy, name)
    assert found.__name__ == name
    assert found.__doc__
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
