"""Damage: what a disk or a hand changed in a file is told in one message, and changes no figure without a word."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState

import quickstudy
from conftest import KilledError, word_task, write_task
from quickstudy.cli.main import main
from quickstudy.comparison.compare import compare
from quickstudy.data.cache import find_cache_folder
from quickstudy.errors import RunError
from quickstudy.evaluation.protocol import Protocol
from quickstudy.report.run.facts import read_run
from quickstudy.runs import Run
from quickstudy.storage.manifest import check_manifest
from quickstudy.storage.reading import UnreadableError, parse_json, parse_toml, read_text, seal, unseal
from quickstudy.storage.trust import check_folder

DAMAGE_TRIAL = Path(__file__).parent.parent / "dev" / "damage_trial.py"
DEEP = "[" * 5000 + "]" * 5000

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, one that was killed in its fourth step, and what they are made of; not to be changed."""
    from quickstudy.testing import tiny_encoder

    folder = tmp_path_factory.mktemp("damage")
    (folder / "tiny").mkdir()
    tiny_encoder().save(folder / "tiny")
    write_task(word_task("tone"), folder / "tone")
    recipe = {
        "encoder": {"name": str(folder / "tiny")},
        "tasks": {"train": [str(folder / "tone")]},
        "episodes": {"n_way": 2, "k_shot": 2, "n_query": 2},
        "outer": {"outer_steps": 4, "meta_batch_size": 1, "validate_every": 2},
    }

    def kill(record: Any) -> None:
        if record.step == 4:
            raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUICKSTUDY_CACHE", str(folder / "cache"))
        AcceleratorState._reset_state(reset_partial_state=True)
        quickstudy.pretrain(recipe, folder / "run")
        AcceleratorState._reset_state(reset_partial_state=True)
        with pytest.raises(KilledError):
            quickstudy.pretrain(recipe, folder / "training", on_step=kill)
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(made / name, tmp_path / name))


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command line, which must leave with one message, and return the message."""

    def run(*words: object) -> str:
        monkeypatch.setattr("sys.argv", ["quickstudy", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        text = capsys.readouterr().err
        assert (stop.value.code, "Traceback" in text) == (2, False), text
        return text[text.index("error: ") :]

    return run


def test_random_damage_is_told_or_changes_no_figure() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(DAMAGE_TRIAL), "--damages", "15"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("15 damages, 0 wrong\n")


def test_folders_of_strangers_reach_nothing_outside_and_run_no_code() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(DAMAGE_TRIAL.with_name("traversal_trial.py")), "--folders", "9"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("9 folders, 0 wrong\n")


def test_links_within_a_folder_and_in_a_snapshot_of_the_hub_are_followed(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "1f").write_text("{}")
    (snapshot / "a.json").symlink_to("../../blobs/1f")
    (snapshot / "b.json").symlink_to("a.json")
    check_folder(snapshot, "model folder")
    (snapshot / "c.json").symlink_to("../../other")
    with pytest.raises(RunError, match=r"c\.json: this link leads outside of the model folder"):
        check_folder(snapshot, "model folder")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../secret", "C:\\secret", "a\\..\\..\\secret"])
def test_a_manifest_that_names_a_file_outside_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"sha256": {name: "0" * 64}}))
    with pytest.raises(RunError, match=r"manifest\.json cannot be read"):
        check_manifest(tmp_path, "model folder", "Copy it again.")


@pytest.mark.parametrize("content", [DEEP, '{"step": 1e999}', "\xff", '{"step": 1, "loss": NaN}', "null"])
@pytest.mark.parametrize("verb", ["report", "pretrain"])
def test_a_damaged_log_is_named_with_its_line(
    verb: str, content: str, copied: Callable[[str], Path], refusal: Callable[..., str]
) -> None:
    run = copied("training")
    with (run / "metrics.jsonl").open("ab") as log:
        log.write(content.encode("latin-1") + b"\n")
    message = refusal(verb, run, *(["--resume"] if verb == "pretrain" else []))
    assert message.startswith(f"error: {run / 'metrics.jsonl'}:5: ")


@pytest.mark.parametrize("name", ["config.toml", "tasks.json"])
@pytest.mark.parametrize("content", [b"\xff", b"", DEEP.encode(), b"[x]\ny = 1\n"])
@pytest.mark.parametrize("checked", [True, False])
def test_what_a_resumed_run_follows_from_is_checked(
    name: str, content: bytes, checked: bool, copied: Callable[[str], Path], refusal: Callable[..., str]
) -> None:
    run = copied("training")
    (run / name).write_bytes(content)
    if not checked:
        if name == "tasks.json":
            return  # nobody reads it to go on
        (run / "manifest.json").unlink()
    assert str(run) in refusal("pretrain", run, "--resume")


def test_a_changed_figure_of_a_log_or_a_state_is_told(copied: Callable[[str], Path]) -> None:
    run = copied("training")
    log = run / "metrics.jsonl"
    lines = log.read_text().splitlines()
    first = json.loads(lines[0])
    log.write_text("\n".join([json.dumps(first | {"loss": first["loss"] + 1}), *lines[1:]]) + "\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl:1: .* changed after it was written"):
        read_run(run)
    log.write_text("\n".join(lines[1:]) + "\n")
    with pytest.raises(RunError, match="no record of step 1, and the checkpoint is of step 2"):
        quickstudy.pretrain(run, resume=True)
    state = run / "checkpoints" / "last" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"step": 1}))
    log.write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError, match="this checkpoint is damaged"):
        quickstudy.pretrain(run, resume=True)


def test_a_training_of_the_version_before_goes_on_to_the_same_weights(
    made: Path, copied: Callable[[str], Path]
) -> None:
    """It has no seals, no manifest before it is finished, and no count of episodes that were left out."""
    run = copied("training")
    (run / "manifest.json").unlink()
    state, log = run / "checkpoints" / "last" / "state.json", run / "metrics.jsonl"
    plain = unseal(json.loads(state.read_text()))
    del plain["left_out"]
    state.write_text(json.dumps(plain))
    log.write_text("".join(f"{json.dumps(unseal(json.loads(line)))}\n" for line in log.read_text().splitlines()))
    quickstudy.pretrain(run, resume=True)
    for file in ("encoder/model.safetensors", "meta_learner.safetensors"):
        assert (run / file).read_bytes() == (made / "run" / file).read_bytes()


def test_a_log_that_lost_its_end_is_told_and_one_that_was_removed_is_not_needed(copied: Callable[[str], Path]) -> None:
    run = copied("run")
    log = run / "metrics.jsonl"
    log.write_text("".join(f"{line}\n" for line in log.read_text().splitlines()[:-1]))
    with pytest.raises(RunError, match=r"metrics\.jsonl is missing or was changed"):
        read_run(run)
    Run.open(run).learner()
    log.unlink()
    assert read_run(run).curve is None


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_damaged_cache_is_made_again(damage: str, made: Path) -> None:
    def rows() -> list[Any]:
        (task,) = quickstudy.load_tasks(str(made / "tone" / "train.jsonl"))
        return [task.train_split[i] for i in range(len(task.train_split))]

    before = rows()
    (file,) = find_cache_folder().iterdir()
    content = file.read_bytes()
    assert content.count(b"good") > 0
    file.write_bytes(content[:-100] if damage == "cut" else content.replace(b"good", b"dood", 1))
    assert rows() == before
    (again,) = find_cache_folder().iterdir()
    assert (again.name, again.read_bytes()) == (file.name, content)


@pytest.mark.parametrize("damage", ["cut", "figure"])
def test_a_damaged_cell_is_computed_again_and_said(
    damage: str, made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"

    def figures() -> str:
        protocol, encoder = Protocol(shots=(2,), draws=2), str(made / "tiny")
        compare(["majority", "linear-probe"], str(made / "tone"), out, protocol=protocol, encoder=encoder)
        return (out / "results.jsonl").read_text()

    before = figures()
    cell = min((out / "cells").iterdir())
    text = cell.read_text()
    cell.write_text(text[:-40] if damage == "cut" else text.replace('"n_test": 6', '"n_test": 7', 1))
    assert cell.read_text() != text
    assert figures() == before
    assert f"{cell.name}: the file is damaged" in caplog.text
    assert "it is computed again" in caplog.text


def test_what_cannot_be_read_is_one_kind_of_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"0" * 100)
    for name, why in {
        "nothing": "no such",
        "pipe": "no ordinary file",
        "large": "100 bytes",
        "\0": "no such",
    }.items():
        with pytest.raises(UnreadableError, match=why):
            read_text(tmp_path / name, most=99)
    for parse, text in (
        (parse_json, DEEP),
        (parse_json, "[1e400]"),
        (parse_json, "[NaN]"),
        (parse_toml, f"a={DEEP}"),
    ):
        with pytest.raises(UnreadableError):
            parse(text)


def test_a_seal_holds_whatever_the_keys_and_numbers_are() -> None:
    values = {"rows": {10: "a", 2: "b"}, "x": 0.1 + 0.2, "tuple": (1, None), "é": "\u2028"}
    text = json.dumps(seal(values))
    assert unseal(json.loads(text)) == json.loads(json.dumps(values))
    with pytest.raises(UnreadableError, match="changed"):
        unseal(json.loads(text.replace("0.3", "0.4")))
    assert unseal({"step": 3}) == {"step": 3}
