"""What a newcomer meets: doctor, init, the line that says what to do next, and Ctrl-C."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import WORDS, tiny_encoder, word_task, write_task
from quickstudy import prior
from quickstudy.cli import machine
from quickstudy.cli.main import main
from quickstudy.errors import RunError
from quickstudy.methods.catalog import make

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process; returns the exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["quickstudy", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    for number in range(4):
        write_task(word_task(f"task{number}", rows=24, seed=number), tmp_path / "corpora" / f"task{number}")
    return tmp_path / "corpora"


def test_doctor_measures_an_encoder_that_works(tiny_folder: Path, command: Command) -> None:
    code, out, err = command("doctor", "--encoder", tiny_folder, "--json")
    seen = json.loads(out)
    assert (code, seen["can_work"]) == (0, True)
    assert "next:" not in err
    assert seen["hub"] == "switched off by HF_HUB_OFFLINE"
    assert seen["speed"]["adapt_seconds"] > 0
    assert seen["speed"]["texts_per_second"] > 0
    code, out, err = command("doctor", "--encoder", tiny_folder)
    assert code == 0
    assert "short texts a second" in out
    assert err.splitlines()[-1] == "next: quickstudy init FILES --out recipe.toml"


def test_doctor_leaves_with_1_and_a_remedy_where_the_encoder_is_missing(tmp_path: Path, command: Command) -> None:
    code, out, err = command("doctor", "--encoder", tmp_path / "nowhere", "--json")
    problem = json.loads(out)["problems"][0]
    assert (code, err, json.loads(out)["speed"]) == (1, "", None)
    assert "nowhere" in problem["what"]
    assert problem["fix"]
    assert command("doctor", "--encoder", tmp_path / "nowhere")[2] == "next: mend the problems above\n"


def test_the_hub_is_given_up_when_it_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and never answers
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        began = time.monotonic()
        assert machine.hub_reach(0.2) == "out of reach"
        assert time.monotonic() - began < 5
        time.sleep(0.3)  # the question ends before the server does


def test_init_writes_a_recipe_that_pretrain_accepts(
    corpora: Path, tiny_folder: Path, tmp_path: Path, command: Command
) -> None:
    recipe = tmp_path / "mine.toml"
    code, out, err = command("init", corpora, "--out", recipe, "--encoder", tiny_folder)
    assert (code, err) == (0, f"next: quickstudy pretrain {recipe}\n")
    assert "task0: 24 rows of single texts, 2 labels with 12 rows each" in out
    values = tomllib.loads(recipe.read_text(encoding="utf-8"))
    assert values["tasks"] == {
        "train": [(corpora / f"task{n}").as_posix() for n in range(3)],
        "validation": [(corpora / "task3").as_posix()],
    }
    assert values["method"] == {"name": "protonet", "names": "gated"}
    assert values["episodes"] == {"n_way": 2, "k_shot": [2, 6], "n_query": 4}
    steps = ("outer.outer_steps=1", "outer.validation_episodes=2")
    words = ("pretrain", recipe, "--out", tmp_path / "run", *(w for s in steps for w in ("--set", s)))
    code, _, err = command(*words)
    assert code == 0
    assert err.endswith(f"next: quickstudy adapt {tmp_path / 'run'} --data FILE --out model/\n")
    code, out, err = command("init", corpora, "--out", recipe)
    assert code == 2
    assert str(recipe) in err


def test_init_fits_episodes_to_the_smallest_class(write_csv: Callable[..., Path], command: Command) -> None:
    file = write_csv([("good film", "yes"), ("fine film", "yes"), ("bad film", "no"), ("poor film", "no")])
    code, out, err = command("init", file, "--out", file.with_suffix(".toml"), "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["tasks"][0]["rows_per_label"] == {"no": 2, "yes": 2}
    episodes = tomllib.loads(file.with_suffix(".toml").read_text(encoding="utf-8"))["episodes"]
    assert episodes == {"n_way": 2, "k_shot": 1, "n_query": 1}


def test_init_names_the_link_and_not_the_file_that_it_leads_to(
    write_csv: Callable[..., Path], tmp_path: Path, command: Command
) -> None:
    rows = [("good film", "yes"), ("fine film", "yes"), ("bad film", "no"), ("poor film", "no")]
    link = tmp_path / "link.csv"
    link.symlink_to(write_csv(rows).rename(tmp_path / "4f5a"))  # as caches and data versioning keep files
    assert command("init", link, "--out", tmp_path / "mine.toml")[0] == 0
    recipe = tomllib.loads((tmp_path / "mine.toml").read_text(encoding="utf-8"))
    assert recipe["tasks"]["train"] == [link.as_posix()]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([("good", "yes"), ("fine", "yes")], "text,label", "every row has the label 'yes'"),
        ([("good", "yes"), ("bad", "no")], "text,label", "too few rows for an episode"),
        ([("good", "yes"), ("bad", "no")], "text,other", "label"),
    ],
)
def test_init_refuses_files_that_cannot_train(
    rows: list[tuple[str, str]], header: str, message: str, write_csv: Callable[..., Path], command: Command
) -> None:
    file = write_csv(rows, header=header)
    code, out, err = command("init", file, "--out", file.with_suffix(".toml"))
    assert (code, out) == (2, "")
    assert message in err
    assert not file.with_suffix(".toml").exists()


def test_ctrl_c_says_how_to_go_on(corpora: Path, tiny_folder: Path, tmp_path: Path, command: Command) -> None:
    recipe, run = tmp_path / "recipe.toml", tmp_path / "run"
    command("init", corpora, "--out", recipe, "--encoder", tiny_folder)
    settings = ("--set", "outer.outer_steps=100000", "--set", "outer.validate_every=5")
    words = [sys.executable, "-m", "quickstudy", "pretrain", str(recipe), "--out", str(run), *settings]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    assert process.stdout is not None
    seen = next(line for line in process.stdout if line.startswith("step 6/"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert seen
    assert process.returncode == 130
    assert err.splitlines()[-1] == f"interrupted; go on with: quickstudy pretrain {run} --resume"
    assert "Traceback" not in err


def test_doctor_measures_the_prior_unless_an_encoder_is_named(
    monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    learner = make("r2d2", tiny_encoder())
    monkeypatch.setattr(prior, "load_prior", lambda: learner)
    code, out, _ = command("doctor")
    assert code == 0
    assert re.search(r"adapting +[\d.]+ s to 4 labels with 8 short texts each, the prior\n", out)

    def broken() -> None:
        raise RunError("its weights are gone", fix="Install it again.")

    monkeypatch.setattr(prior, "load_prior", broken)
    code, out, _ = command("doctor")
    assert code == 1
    assert "the prior cannot be used: its weights are gone\n" in out


def test_labels_and_texts_cannot_steer_the_terminal_or_the_page(
    tiny_folder: Path, tmp_path: Path, command: Command
) -> None:
    steering, shown = "\x1b[2J\x9b31m\u202egood", "␛[2J�31m�good"
    rows = [{"text": f"{word} film{steering}", "label": label} for word in WORDS[:6] for label in (steering, "b")]
    data = tmp_path / "few.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    recipe = f"""
        encoder.name = "{tiny_folder}"
        tasks.train = ["{data}"]
        episodes = {{ n_way = 2, k_shot = 1, n_query = 1 }}
        outer = {{ outer_steps = 1, meta_batch_size = 1 }}
    """
    (tmp_path / "recipe.toml").write_text(recipe, encoding="utf-8")
    said = ["".join(command("pretrain", tmp_path / "recipe.toml", "--out", tmp_path / "run")[1:])]
    said += command("adapt", tmp_path / "run", "--data", data, "--out", tmp_path / "model")[1:]
    said += command("predict", tmp_path / "model", f"good{steering}")[1:]
    said += command("predict", tmp_path / "model", f"good{steering}", "--json")[1:]
    said += (
        command("tasks", data, "--show", 1)[1:]
        + command("adapt", tmp_path / "run", "--data", steering, "--out", "x")[1:]
    )
    said.append((tmp_path / "model" / "README.md").read_text(encoding="utf-8"))
    out = tmp_path / "out"
    words = ("--tasks", data, "--shots", "1", "--draws", "1", "--encoder", tiny_folder, "--out", out, "--texts")
    said += command("compare", "majority", *words)[1:]
    said += [(out / name).read_text(encoding="utf-8") for name in ("report.html", "report.md", "report.csv")]
    assert not [character for character in "\x1b\x9b\u202e" for text in said if character in text]
    assert sum(shown in text for text in said) >= 5
