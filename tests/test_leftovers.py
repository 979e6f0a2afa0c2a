"""Leftovers: what a killed process leaves is removed by the next, and no two processes work in one folder."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import quickstudy
from conftest import KilledError, word_task, write_task
from quickstudy.comparison.compare import compare
from quickstudy.data.cache import make_once
from quickstudy.data.columns import Columns
from quickstudy.data.table import read_table
from quickstudy.errors import RunError
from quickstudy.runs import Run
from quickstudy.storage import files
from quickstudy.storage.files import new_file, new_folder, write_text
from quickstudy.storage.lock import LOCK, claim, locked
from quickstudy.training.record import StepRecord

KILL_TRIAL = Path(__file__).parent.parent / "dev" / "kill_trial.py"

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture
def recipe(tiny_folder: Path, tmp_path: Path) -> dict[str, Any]:
    write_task(word_task("tone"), tmp_path / "tone")
    return {
        "encoder": {"name": str(tiny_folder)},
        "tasks": {"train": [str(tmp_path / "tone")]},
        "episodes": {"n_way": 2, "k_shot": 2, "n_query": 2},
        "outer": {"outer_steps": 4, "meta_batch_size": 1, "validate_every": 2},
    }


def stop_in(step: int) -> Callable[[StepRecord], None]:
    def stop(record: StepRecord) -> None:
        if record.step == step:
            raise KilledError

    return stop


def unfinished(folder: Path, name: str) -> Path:
    """What a killed process leaves of a folder or a file."""
    left = folder / f".{name}.abc{files.UNFINISHED}"
    left.mkdir()
    (left / "half").write_bytes(b"half")
    return left


def test_trainings_that_are_killed_by_the_system_end_as_if_nothing_had_happened() -> None:
    words = [sys.executable, str(KILL_TRIAL), "--kills", "3", "--methods", "protonet"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("3 kills of 1 methods")
    assert done.stdout.endswith("\n0 differences\n")


def test_the_next_start_removes_what_a_killed_one_left(recipe: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(KilledError):
        quickstudy.pretrain(recipe, run, on_step=stop_in(4))
    checkpoints = run / "checkpoints"
    unfinished(checkpoints, "last"), unfinished(checkpoints, "best"), unfinished(run, "metrics.jsonl")
    (checkpoints / "last").replace(checkpoints / "last.new")  # killed between the two renames
    (checkpoints / "last.old").mkdir()
    (run / LOCK).write_text("{}")
    quickstudy.pretrain(recipe, run, resume=True)
    assert [path.name for path in checkpoints.iterdir()] == ["last"]
    assert not [path.name for path in run.iterdir() if path.name.startswith(".")]
    assert [record.step for record in Run.open(run).metrics()] == [1, 2, 3, 4]


def test_what_another_process_still_writes_is_not_removed(tmp_path: Path) -> None:
    dead, alive = unfinished(tmp_path, "a.txt"), tmp_path / f".a.txt.xyz{files.UNFINISHED}"
    alive.mkdir()
    handle = os.open(alive, os.O_RDONLY)
    try:
        assert claim(handle)
        write_text(tmp_path / "a.txt", "mine")
        assert (dead.exists(), alive.exists()) == (False, True)
    finally:
        os.close(handle)
    other = unfinished(tmp_path, "b.txt")
    write_text(tmp_path / "a.txt", "again")
    assert (alive.exists(), other.exists()) == (False, True)


def test_what_a_killed_one_left_in_the_cache_is_removed_though_another_finished_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, rows = tmp_path / "cache", tmp_path / "rows.csv"
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(cache))
    rows.write_text("text,label\na good film,1\na bad film,0\n")

    def use() -> None:
        make_once("made", lambda folder: write_text(folder / "a.txt", "whole"))
        read_table(rows, Columns(), "classification")

    use()
    names = [path.name for path in cache.iterdir()]
    for name in names:
        unfinished(cache, name.partition("-")[0])
    use()
    assert sorted(path.name for path in cache.iterdir()) == sorted(names)


def test_a_run_without_a_checkpoint_does_not_block_the_next(recipe: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(KilledError):
        quickstudy.pretrain(recipe, run, on_step=stop_in(1))
    unfinished(run, "metrics.jsonl")
    changed = recipe | {"seed": 1}
    quickstudy.pretrain(changed, run)
    assert (Run.open(run).recipe.seed, Run.open(run).finished) == (1, True)


@pytest.mark.parametrize("valuable", ["checkpoint", "file"])
def test_a_run_that_holds_something_of_worth_is_not_replaced(
    valuable: str, recipe: dict[str, Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(KilledError):
        quickstudy.pretrain(recipe, run, on_step=stop_in(3 if valuable == "checkpoint" else 1))
    if valuable == "file":
        (run / "notes.txt").write_text("mine")
    before = sorted(path.name for path in run.rglob("*"))
    with pytest.raises(RunError, match="exists already"):
        quickstudy.pretrain(recipe, run)
    assert sorted(path.name for path in run.rglob("*")) == before


@pytest.mark.parametrize("verb", ["resume", "start", "compare"])
def test_who_works_in_a_folder_is_said_to_others(verb: str, recipe: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    if verb == "compare":
        (folder / "cells").mkdir(parents=True)
    else:
        with pytest.raises(KilledError):
            quickstudy.pretrain(recipe, folder, on_step=stop_in(3 if verb == "resume" else 1))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def work() -> None:
        if verb == "compare":
            compare("majority", str(tmp_path / "tone"), folder, encoder=recipe["encoder"]["name"])
        else:
            quickstudy.pretrain(recipe, folder, resume=verb == "resume")

    with locked(folder), pytest.raises(RunError, match=f"in use by process {os.getpid()} on .*, since ") as caught:
        work()
    assert "Wait until it has ended" in str(caught.value)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_lock_ends_with_its_process_and_leaves_no_file(tmp_path: Path) -> None:
    code = "from quickstudy.storage.lock import locked\nimport os, pathlib\n" + (
        f"with locked(pathlib.Path({str(tmp_path)!r})):\n    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    left = json.loads((tmp_path / LOCK).read_text())
    assert left["process"] != os.getpid()
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_make_one_folder_the_second_says_that_it_is_there(tmp_path: Path) -> None:
    target = tmp_path / "model"

    def make_both() -> None:
        with new_folder(target) as second:
            (second / "a.txt").write_text("second")
            with new_folder(target) as first:
                (first / "a.txt").write_text("first")

    with pytest.raises(RunError, match="model: this exists already"):
        make_both()
    assert (target / "a.txt").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_two_that_write_one_file_at_once_do_not_mix(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with new_file(target) as second:
        second.write_text("second")
        with new_file(target) as first:
            first.write_text("first")
        assert target.read_text() == "first"
    assert target.read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
