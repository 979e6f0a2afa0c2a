"""Privacy: no text of the data is where nobody asked for it, nothing is sent, and offline means no connection."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import tiny_encoder, word_task, write_task

# What users do, in a process of its own in which every connection and every look-up of a host is an error.
OFFLINE = """
import socket, sys
from pathlib import Path

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        local = event == "socket.connect" and isinstance(arguments[1], (str, bytes))  # a socket of Unix
        if not local:
            print("CONNECTS", event, arguments, flush=True)
            raise OSError("the network is cut")

sys.addaudithook(refuse)
import quickstudy
folder = Path(sys.argv[1])
recipe = {
    "encoder": {"name": str(folder / "tiny")},
    "tasks": {"train": [str(folder / "tone")]},
    "episodes": {"n_way": 2, "k_shot": 2, "n_query": 2},
    "outer": {"outer_steps": 1, "meta_batch_size": 1},
}
run = quickstudy.pretrain(recipe, folder / "run")
model = quickstudy.adapt(run, folder / "few.jsonl")
model.save(folder / "model")
assert len(quickstudy.load_model(folder / "model").predict(["a good film"])) == 1
protocol = quickstudy.Protocol(shots=(1,), draws=1)
learners = [str(folder / "run"), "majority"]
quickstudy.compare(learners, str(folder / "held"), folder / "out", protocol=protocol, encoder=str(folder / "tiny"))
for name in ("hub:org/data", "glue:rte"):
    try:
        quickstudy.load_tasks(name)
    except quickstudy.QuickstudyError as error:
        print("refused:", str(error).splitlines()[0])
try:
    quickstudy.Encoder.load("org/encoder")
except quickstudy.QuickstudyError as error:
    print("refused:", str(error).splitlines()[0])
"""


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A folder in which quickstudy was used with the network cut, and what was printed."""
    folder = tmp_path_factory.mktemp("privacy")
    (folder / "tiny").mkdir()
    tiny_encoder().save(folder / "tiny")
    write_task(word_task("tone"), folder / "tone")
    write_task(word_task("held", seed=5), folder / "held")
    rows = [{"text": f"{word} marigold {number}", "label": word} for word in ("good", "bad") for number in range(4)]
    (folder / "few.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "QUICKSTUDY_CACHE": str(folder / "cache")}
    words = [sys.executable, "-W", "ignore", "-c", OFFLINE, str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout, done.stderr


def test_offline_makes_no_connection_and_says_what_it_would_have_needed(used: tuple[Path, str, str]) -> None:
    _, said, _ = used
    assert "CONNECTS" not in said
    assert said.count("refused: ") == 3
    assert "could not be loaded" in said


def test_no_text_is_in_what_was_written_and_printed(used: tuple[Path, str, str]) -> None:
    folder, *said = used
    held = word_task("held", seed=5)
    texts = [held.split(name)[i].text for name in ("train", "test") for i in range(len(held.split(name)))]
    texts = [text for text in texts if len(text.split()) > 4] + ["marigold"]
    for name in ("run", "model", "out"):
        for file in (folder / name).rglob("*"):
            content = file.read_bytes() if file.is_file() else b""
            assert not [text for text in texts if text.encode() in content], file
    assert not [text for text in texts if any(text in each for each in said)]


def test_telemetry_of_the_libraries_is_off_unless_the_user_says_otherwise() -> None:
    code = (
        "import os, quickstudy, datasets.config, huggingface_hub.constants as hub\n"
        "print(hub.HF_HUB_DISABLE_TELEMETRY, datasets.config.HF_UPDATE_DOWNLOAD_COUNTS, "
        "os.environ['GRADIO_ANALYTICS_ENABLED'], os.environ['RAY_USAGE_STATS_ENABLED'])"
    )
    names = (
        "HF_HUB_DISABLE_TELEMETRY",
        "HF_UPDATE_DOWNLOAD_COUNTS",
        "GRADIO_ANALYTICS_ENABLED",
        "RAY_USAGE_STATS_ENABLED",
    )
    clean = {name: value for name, value in os.environ.items() if name not in names}
    for given, expected in (({}, "True False False 0"), ({"HF_HUB_DISABLE_TELEMETRY": "0"}, "False False False 0")):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean | given
        )
        assert done.stdout.strip() == expected
