"""A full disk: every command that writes ends with one message, leaves nothing half-written, and can be repeated."""

import csv
import errno
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import quickstudy
from conftest import tiny_encoder, word_task
from quickstudy.cli.main import main
from quickstudy.errors import RunError
from quickstudy.runs import Run
from quickstudy.storage.files import append_line, new_folder, replaced_folder, save_tensors, write_text

KIB = 1024
PAGE = 4 * KIB  # a file takes whole pages
Leave = Callable[[int], AbstractContextManager[None]]

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@dataclass(frozen=True)
class Disk:
    """A place where a test can let the space run out.

    Attributes:
        folder: Where to write.
        leave: Leaves room for so many KiB while a block runs.
    """

    folder: Path
    leave: Leave


@contextmanager
def _mounted(folder: Path) -> Iterator[Leave]:
    """A file system of 8 MiB; a file fills it up to what is left."""
    words = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no small disk can be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")

    @contextmanager
    def leave(size: int) -> Iterator[None]:
        filler = folder / "filler"
        filler.write_bytes(bytes(max(0, shutil.disk_usage(folder).free - size * KIB) // PAGE * PAGE))
        try:
            yield
        finally:
            filler.unlink()

    try:
        yield leave
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # files that were read may still be mapped


@contextmanager
def _limited(_: Path) -> Iterator[Leave]:
    """The operating system's limit of the size of a file, which fails in the same way and needs no rights."""

    @contextmanager
    def leave(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size * KIB, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    yield leave


def _disk(folder: Path, kind: Callable[[Path], AbstractContextManager[Leave]]) -> Iterator[Disk]:
    folder.mkdir()
    with kind(folder) as leave:
        yield Disk(folder, leave)


@pytest.fixture(params=[_mounted, _limited], ids=["small disk", "limit"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    """A disk, and what stands for one where none can be mounted."""
    yield from _disk(tmp_path / "disk", request.param)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    """A real disk."""
    yield from _disk(tmp_path / "disk", _mounted)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny encoder, task files, a recipe, a run and a model; not to be changed."""
    folder = tmp_path_factory.mktemp("full")
    (folder / "tiny").mkdir()
    tiny_encoder(normalize=True).save(folder / "tiny")
    for name in ("alpha", "beta", "gamma"):
        split = word_task(name).train_split
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *((split[i].text, split[i].label) for i in range(40))])
    recipe = f"""
        encoder = {{ name = "{folder}/tiny", normalize = true }}
        method = {{ name = "protonet" }}
        tasks = {{ train = ["{folder}/alpha.csv"], validation = ["{folder}/beta.csv"] }}
        episodes = {{ n_way = 2, k_shot = 2, n_query = 2 }}
        outer = {{ outer_steps = 2, outer_lr = 1e-2, meta_batch_size = 1, validate_every = 1, validation_episodes = 4 }}
    """
    (folder / "recipe.toml").write_text(recipe, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUICKSTUDY_CACHE", str(folder / "cache"))
        quickstudy.pretrain(folder / "recipe.toml", folder / "run")
        quickstudy.adapt(folder / "run", folder / "gamma.csv").save(folder / "model")
    return folder


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str | None]:
    """Run the command line; return None, or the message of an error."""

    def run(*words: object) -> str | None:
        monkeypatch.setattr("sys.argv", ["quickstudy", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        code, text = stop.value.code or 0, capsys.readouterr().err
        assert "Traceback" not in text
        assert (code, text.count("error: ")) in ((0, 0), (2, 1)), text
        return text[text.index("error: ") :] if code else None  # before it there may be bars of other libraries

    return run


Command = Callable[..., str | None]


@pytest.mark.parametrize("size", [0, 40, 140, 200])
def test_a_run_whose_disk_is_full_can_be_resumed(size: int, small_disk: Disk, made: Path, command: Command) -> None:
    run = small_disk.folder / "run"
    with small_disk.leave(size):
        _assert_said(command("pretrain", made / "recipe.toml", "--out", run), run)
    _assert_nothing_unfinished(small_disk.folder)
    assert command("pretrain", made / "recipe.toml", "--out", run, *(["--resume"] if run.exists() else [])) is None
    for file in ("encoder/model.safetensors", "meta_learner.safetensors"):
        assert (run / file).read_bytes() == (made / "run" / file).read_bytes()
    assert [record.step for record in Run.open(run).metrics()] == [0, 1, 2]


def test_a_run_with_a_limit_of_file_size_ends_with_one_message(tmp_path: Path, made: Path, command: Command) -> None:
    run = tmp_path / "run"
    with _limited(tmp_path) as leave, leave(16):
        message = command("pretrain", made / "recipe.toml", "--out", run)
    assert message
    assert message.startswith(
        f"error: {run / 'checkpoints' / 'best' / 'meta_parameters.safetensors'}: there is no space"
    )
    assert "; it needs " in message
    _assert_nothing_unfinished(run)


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (("adapt", "run", "--data", "gamma.csv"), 8),
        (("adapt", "run", "--data", "gamma.csv"), 36),
        (("adapt", "run", "--data", "gamma.csv", "--full", "--epochs", "0.1"), 8),
        (("export", "model", "--int8"), 40),
    ],
    ids=["encoder", "tokenizer", "full fine-tuning", "export"],
)
def test_a_model_is_written_whole_or_not_at_all(
    words: tuple[str, ...], size: int, small_disk: Disk, made: Path, command: Command
) -> None:
    if words[0] == "export":
        pytest.importorskip("onnx")
    out = small_disk.folder / "model"
    given = [made / word if (made / word).exists() else word for word in words]
    with small_disk.leave(size):
        _assert_said(command(*given, "--out", out), out)
    assert list(small_disk.folder.iterdir()) == []
    if words[0] == "adapt":
        assert command(*given, "--out", out) is None


@pytest.mark.parametrize("size", [0, 40])
def test_a_comparison_whose_disk_is_full_goes_on(size: int, small_disk: Disk, made: Path, command: Command) -> None:
    out = small_disk.folder / "out"
    words = ["compare", made / "run", "linear-probe", "--tasks", made / "gamma.csv", "--shots", "2", "--draws", "3"]
    words += ["--encoder", made / "tiny", "--out", out]
    with small_disk.leave(size):
        _assert_said(command(*words), out)
    _assert_nothing_unfinished(small_disk.folder)
    assert command(*words) is None


def test_a_table_of_figures_that_finds_no_space_leaves_nothing(
    made: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(_table: Any, file: Path) -> None:
        Path(file).write_bytes(b"PAR1")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "out"
    words = ["compare", "majority", "--tasks", made / "gamma.csv", "--shots", "2", "--draws", "1"]
    words += ["--encoder", made / "tiny", "--out", out]
    with monkeypatch.context() as patched:
        patched.setattr("pyarrow.parquet.write_table", no_space)
        _assert_said(command(*words), out)
    _assert_nothing_unfinished(out)
    assert command(*words) is None


def test_an_evaluation_on_a_full_disk_leaves_the_run_as_it_was(small_disk: Disk, made: Path, command: Command) -> None:
    run = Path(shutil.copytree(made / "run", small_disk.folder / "run"))
    words = ("evaluate", run, "--tasks", made / "gamma.csv", "--shots", "2", "--draws", "3")
    with small_disk.leave(8):
        _assert_said(command(*words), run)
    _assert_nothing_unfinished(run)
    assert command(*words, "--overwrite") is None


def test_what_cannot_be_written_is_said_and_what_was_there_stays(disk: Disk) -> None:
    file, folder = disk.folder / "a.txt", disk.folder / "folder"
    write_text(file, "before")
    with replaced_folder(folder) as new:
        write_text(new / "a.txt", "before")
    large = {"weight": torch.zeros(64 * KIB)}

    def replace() -> None:
        with replaced_folder(folder) as new:
            save_tensors(large, new / "large.safetensors")

    def make() -> None:
        with new_folder(disk.folder / "other", size=256 * KIB) as new:
            (new / "large").write_bytes(bytes(256 * KIB))

    writes: dict[Path, Callable[[], None]] = {
        file: lambda: write_text(file, "x" * 256 * KIB),
        disk.folder / "large.safetensors": lambda: save_tensors(large, disk.folder / "large.safetensors"),
        folder / "large.safetensors": replace,
        disk.folder / "other": make,
    }
    for place, write in writes.items():
        with (
            disk.leave(16),
            pytest.raises(RunError, match=r"no space .* it needs 256\.0 KiB, and .* is free") as caught,
        ):
            write()
        assert str(caught.value).startswith(f"{place}: ")
        assert caught.value.fix
    with disk.leave(16), pytest.raises(RunError, match="no space"):
        append_line(file, "y" * 256 * KIB)
    assert sorted(path.name for path in disk.folder.rglob("*")) == ["a.txt", "a.txt", "folder"]
    assert file.read_text() == (folder / "a.txt").read_text() == "before"


@pytest.mark.skipif(os.name != "posix", reason="Windows opens no folders")
@pytest.mark.parametrize("make", [new_folder, replaced_folder])
def test_the_disk_has_the_files_of_a_folder_before_it_takes_its_place(
    make: Callable[[Path], AbstractContextManager[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[int] = set()
    at_renames: list[set[int]] = []  # of a folder
    fsync, replace = os.fsync, Path.replace

    def ask(handle: int) -> None:
        asked.add(os.fstat(handle).st_ino)
        fsync(handle)

    def rename(path: Path, target: Path) -> Path:
        if path.is_dir():
            at_renames.append(set(asked))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", ask)
    monkeypatch.setattr(Path, "replace", rename)
    folder = tmp_path / "folder"
    with make(folder) as new:
        write_text(new / "a.txt", "a")
        (new / "inner").mkdir()
        (new / "inner" / "b.txt").write_text("b")
    assert {path.stat().st_ino for path in (folder, *folder.rglob("*"))} <= at_renames[0]


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cc"), reason="needs Linux and a C compiler")
def test_every_write_of_a_save_may_fail() -> None:
    script = Path(__file__).parent.parent / "dev" / "write_faults.py"
    words = [sys.executable, str(script), "checkpoint", "JSON", "tensors", "log"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\n\d\d+ faults, 0 wrong\n$", done.stdout)


def _assert_said(message: str | None, place: Path) -> None:
    """The message says what is missing and what was to be written."""
    assert message
    assert message.startswith(f"error: {place}"), message
    assert "there is no space to write this" in message


def _assert_nothing_unfinished(folder: Path) -> None:
    names = [path.name for path in folder.rglob("*")]
    assert [name for name in names if name.startswith(".") or name.endswith((".part", ".new", ".old"))] == []
