"""Publishing: what others need is sent, without texts and places of this machine, and what the Hub answers is told.

A server in this process plays the Hub, so the Hub's library does all that it would do.
"""

import json
import re
import shutil
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st

import quickstudy
from conftest import tiny_encoder, word_task, write_task
from quickstudy.adaptation.few import adapt_task
from quickstudy.cli.main import main
from quickstudy.errors import RunError
from quickstudy.methods.catalog import make
from quickstudy.publishing.card import public_card
from quickstudy.publishing.hub import check_repository
from quickstudy.publishing.parcel import pack
from quickstudy.runs import Run

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["quickstudy", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return (code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, full/, and a model made from it, model/."""
    place = tmp_path_factory.mktemp("published")
    (place / "tiny").mkdir()
    tiny_encoder().save(place / "tiny")
    write_task(word_task("secrets", rows=24), place / "secrets")
    recipe = {
        "encoder": {"name": str(place / "tiny")},
        "tasks": {"train": [str(place / "secrets")]},
        "episodes": {"n_way": 2, "k_shot": 1, "n_query": 1},
        "outer": {"outer_steps": 2, "meta_batch_size": 1},
    }
    run = quickstudy.pretrain(recipe, place / "full")
    model = quickstudy.adapt(run, texts=["good", "bad", "good film", "bad film"], labels=["yes", "no"] * 2)
    model.save(place / "model")
    return place


@dataclass
class Hub:
    """What a server that plays the Hub was sent.

    Attributes:
        status: What it answers to everything.
        asked: The paths of the requests.
        created: What the repository was asked to be.
        files: Content by name.
    """

    status: int = 200
    asked: list[str] = field(default_factory=list)
    created: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def answer(self, path: str, body: bytes, address: str) -> dict[str, Any]:
        self.asked.append(path)
        if path.endswith("/repos/create"):
            self.created = json.loads(body)
            return {"url": f"{address}/ann/complaints", "id": "ann/complaints"}
        if "/preupload/" in path:
            return {
                "files": [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in json.loads(body)["files"]
                ]
            }
        if "/commit/" in path:
            values = [json.loads(line)["value"] for line in body.splitlines() if line]
            self.files |= {v["path"]: b64decode(v["content"]) for v in values if "content" in v}
            return {"commitUrl": f"{address}/ann/complaints/commit/1", "commitOid": "a" * 40, "hookOutput": ""}
        return {"errors": [], "warnings": []}


def reach(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Let the Hub's library, which reads its settings when it is imported, use a server of this machine."""
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@contextmanager
def served(handler: type[BaseHTTPRequestHandler], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While this lasts, a server of this machine plays the Hub."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        reach(monkeypatch, server.server_port)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    seen = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.headers.get("transfer-encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            answer = json.dumps(seen.answer(self.path, body, f"http://127.0.0.1:{self.server.server_port}"))  # type: ignore[attr-defined]
            self.send_response(seen.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer.encode())

        do_GET = do_POST = _answer  # noqa: N815 (these names are those of http.server)

        def log_message(self, *_: object) -> None:
            pass

    with served(Handler, monkeypatch):
        yield seen


def test_a_model_arrives_as_it_is_and_opens_there(folders: Path, hub: Hub, tmp_path: Path, command: Command) -> None:
    code, printed, error = command("push", folders / "model", "--to", "ann/complaints", "--license", "mit")
    assert code == 0, error
    assert hub.created["visibility"] == "private"
    assert re.search(r"sent to http://127.0.0.1:\d+/ann/complaints\n", printed)
    for name, content in hub.files.items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(content)
    texts = ["good film", "bad book"]
    model, copy = quickstudy.load_model(folders / "model"), quickstudy.load_model(tmp_path / "copy")
    assert copy.predict_proba(texts).tolist() == model.predict_proba(texts).tolist()
    card = hub.files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: quickstudy\n")
    assert "license: mit\n---\n" in card
    assert "`hf download ann/complaints --local-dir complaints` copies the folder." in card
    assert "Leave-one-out accuracy" in card
    assert "THIS_FOLDER" not in card


@pytest.mark.parametrize(
    ("status", "message"), [(401, "the Hub does not let you write there"), (500, "the Hub refused: ")]
)
def test_what_the_hub_says_is_told_in_one_message(
    status: int, message: str, folders: Path, hub: Hub, command: Command
) -> None:
    hub.status = status
    code, _, error = command("push", folders / "model", "--to", "ann/complaints", "--license", "mit")
    assert code == 2
    assert message in error
    assert not hub.files


def test_without_a_network_nothing_is_sent_and_the_way_out_is_named(
    folders: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    reach(monkeypatch, 9)
    code, _, error = command("push", folders / "model", "--to", "ann/complaints", "--license", "mit")
    assert code == 2
    assert "error: the Hugging Face Hub is out of reach" in error
    assert "--dry-run shows what would be sent" in error


def test_a_switched_off_hub_is_named(folders: Path, command: Command) -> None:
    code, _, error = command("push", folders / "model", "--to", "ann/complaints", "--license", "mit")
    assert code == 2
    assert "switched off by HF_HUB_OFFLINE" in error


def test_a_dry_run_shows_files_and_card_and_sends_nothing(folders: Path, command: Command) -> None:
    words = ("push", folders / "full", "--to", "ann/first", "--license", "mit", "--dry-run")
    code, printed, error = command(*words)
    assert (code, error) == (0, "next: the same command without --dry-run\n")
    assert "ann/first: a run, private if it is new" in printed
    assert "encoder/model.safetensors" in printed
    assert "note: the card has no figures: quickstudy evaluate" in printed
    assert "| secrets | not known to quickstudy; who publishes has to know |" in printed
    shown = json.loads(command(*words, "--json")[1])
    assert shown["private"] is True
    assert shown["address"] is None
    assert set(shown["files"]) >= {"README.md", "config.toml", "seen.npy", "meta_learner.safetensors", "manifest.json"}


def test_of_a_run_no_text_and_no_place_is_sent_and_it_still_adapts(folders: Path, tmp_path: Path) -> None:
    out = tmp_path / "parcel"
    out.mkdir()
    parcel = pack(folders / "full", out)
    assert parcel.sources == ("secrets",)
    assert not {"metrics.jsonl", "report.html", "results.json"} & set(parcel.sizes)
    rows = [json.loads(line)["text"] for line in (folders / "secrets" / "train.jsonl").read_text().splitlines()]
    for file in out.rglob("*"):
        if file.is_file() and file.name != "tokenizer.json":
            content = file.read_bytes()
            assert str(folders).encode() not in content, file
            assert not [row for row in rows if row.encode() in content], file
    texts = ["good film", "bad book"]
    old, new = (
        quickstudy.adapt(Run.open(run), texts=["good", "bad"], labels=["y", "n"]) for run in (folders / "full", out)
    )
    assert new.predict_proba(texts).tolist() == old.predict_proba(texts).tolist()
    assert len(Run.open(out).fingerprints()) > 0


def test_a_card_with_a_place_of_this_machine_is_not_sent(folders: Path, tmp_path: Path) -> None:
    model = adapt_task(make("protonet", tiny_encoder()), word_task(rows=12)).save(tmp_path / "model")
    card = model / "README.md"
    for place in (str(tmp_path / "texts.csv"), "/home/ann/texts.csv", r"C:\\Users\\ann\\texts.csv"):
        text = card.read_text(encoding="utf-8")
        card.write_text(f"{text}\nMade from {place}\n", encoding="utf-8")
        (tmp_path / "out").mkdir()
        with pytest.raises(RunError, match=r"README\.md: it names a place of this machine"):
            pack(model, tmp_path / "out")
        shutil.rmtree(tmp_path / "out")
        card.write_text(f"{text}\nSee https://example.org/home/ann/texts.csv, and/or a/b\n", encoding="utf-8")
        (tmp_path / "out").mkdir()
        assert pack(model, tmp_path / "out").kind == "a model"
        shutil.rmtree(tmp_path / "out")


def test_files_beside_a_model_stay_here(folders: Path, tmp_path: Path) -> None:
    model = adapt_task(make("protonet", tiny_encoder()), word_task(rows=12)).save(tmp_path / "model")
    (model / "my_texts.csv").write_text("text\nprivate\n", encoding="utf-8")
    (tmp_path / "out").mkdir()
    assert "my_texts.csv" not in pack(model, tmp_path / "out").sizes


def test_files_beside_the_encoder_of_a_run_stay_here(folders: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folders / "full", tmp_path / "run")
    for name in (".env", "notes", "my.md", ".backup/private.json"):
        (run / "encoder" / name).parent.mkdir(exist_ok=True)
        (run / "encoder" / name).write_text("private", encoding="utf-8")
    (tmp_path / "out").mkdir()
    sent = pack(run, tmp_path / "out").sizes
    (tmp_path / "same").mkdir()
    assert sent.keys() == pack(folders / "full", tmp_path / "same").sizes.keys()
    assert "encoder/config.json" in sent


def test_the_prior_keeps_its_own_licence_and_table(tmp_path: Path) -> None:
    parcel = pack(Path("prior"), tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    published = public_card(card, "ann/prior", None, parcel.sources)
    assert published.count("license: apache-2.0\n") == 1
    assert published.count("| licence |") == card.count("| licence |") == 1
    assert len(parcel.sources) == 98


def test_what_cannot_be_published_is_refused(tmp_path: Path, command: Command, folders: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words, message in (
        ((tmp_path / "empty", "--to", "ann/x"), "there is nothing here that can be published"),
        ((folders / "model", "--to", "ann"), "'ann' is no id of a repository"),
        ((folders / "model", "--to", "ann/x", "--dry-run"), "the card names no licence"),
    ):
        code, printed, error = command("push", *words)
        assert (code, printed) == (2, "")
        assert message in error


@given(st.from_regex(r"[A-Za-z0-9_]{1,20}/[A-Za-z0-9_]{1,20}", fullmatch=True), st.sampled_from(["mit", "other"]))
def test_a_card_is_published_twice_in_the_same_words(repository: str, licence: str) -> None:
    check_repository(repository)
    card = "# Mine\n\n## Use\n\n`predict THIS_FOLDER`\n"
    once = public_card(card, repository, licence, ["glue:rte", "hub:ag_news", "samples:emotion", "mine"])
    assert public_card(once, repository, None, []) == once
    assert once.count("license:") == 1
    for source, told in (("glue:rte", "nyu-mll/glue"), ("hub:ag_news", "see ag_news"), ("mine", "not known")):
        assert re.search(rf"\| {source} \| .*{told}", once)
