"""Revisions: what is downloaded from the Hub is pinned to a commit, and a run loads that commit again.

The Hub's cache is laid out in a folder as the Hub's libraries lay it out, and nothing is downloaded.
"""

import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from huggingface_hub import constants

import quickstudy
from conftest import tiny_encoder
from quickstudy.build import build_encoder
from quickstudy.comparison.learner import LearnerSpec
from quickstudy.config import check_recipe, load_recipe
from quickstudy.data.reference import load_tasks, with_commit, without_revision
from quickstudy.errors import DataError, RecipeError, RunError
from quickstudy.models import bundled
from quickstudy.models.encoder import Encoder
from quickstudy.pretraining import resume_run
from quickstudy.runs import Run
from quickstudy.storage.revision import find_commit
from test_publishing import served

OLD, NEW, UNKNOWN = "a" * 40, "b" * 40, "c" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache: an encoder and a data set with an old and a new commit; `main` is the new one."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    for commit, shift in ((OLD, 0.0), (NEW, 1.0)):
        encoder = tiny_encoder()
        with torch.no_grad():
            next(iter(encoder.model.parameters())).add_(shift)
        encoder.save(tmp_path / "hub" / "models--org--tiny" / "snapshots" / commit)
        _cache_rows(tmp_path, commit)
    for kind in ("models--org--tiny", "datasets--org--tone"):
        refs = tmp_path / "hub" / kind / "refs"
        refs.mkdir(parents=True)
        (refs / "main").write_text(NEW)
        (refs / "v1").write_text(OLD)
    return tmp_path


def _cache_rows(place: Path, commit: str) -> None:
    """Put a commit of the data set `org/tone` into the cache of `datasets`; its texts say which commit they are of."""
    rows = [
        {"text": f"{word} {thing} of {commit[:4]}", "label": word}
        for word in ("good", "bad")
        for thing in ("film", "book", "song", "meal")
    ]
    source = place / f"{commit}.jsonl"
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    loaded = datasets.load_dataset("json", data_files={"train": str(source)}, cache_dir=str(place / "made"))
    made = Path(loaded["train"].cache_files[0]["filename"])
    folder = place / "datasets" / "org___tone" / "default" / "0.0.0" / commit
    folder.mkdir(parents=True)
    shutil.copy(made, folder / "tone-train.arrow")
    info = json.loads((made.parent / "dataset_info.json").read_text())
    info |= {"config_name": "default", "dataset_name": "tone"}
    info["splits"]["train"]["dataset_name"] = "tone"
    (folder / "dataset_info.json").write_text(json.dumps(info))


def _first_weight(encoder: Encoder) -> float:
    return float(next(iter(encoder.model.parameters())).detach().mean())


def _words(reference: str) -> set[str]:
    """The commits that the texts of a data set say they are of."""
    [task] = load_tasks(reference)
    return {task.train_split[i].text.split()[-1] for i in range(len(task.train_split))}


def test_an_encoder_is_that_of_its_revision(cache: Path) -> None:
    newest = _first_weight(Encoder.load("org/tiny"))
    for revision, less in ((NEW, 0.0), ("main", 0.0), (OLD, 1.0), ("v1", 1.0)):
        assert newest - _first_weight(Encoder.load("org/tiny", revision=revision)) == pytest.approx(less, abs=1e-5)
    for revision in (UNKNOWN, "v2", "../../v2"):
        with pytest.raises(RunError, match="the encoder 'org/tiny' could not be loaded"):
            Encoder.load("org/tiny", revision=revision)


def test_a_data_set_is_that_of_its_revision_whatever_was_downloaded_last(cache: Path) -> None:
    for latest in (OLD, NEW):
        (cache / "datasets" / "org___tone" / "default" / "0.0.0" / latest).touch()
        for revision, commit in ((OLD, OLD), (NEW, NEW), ("v1", OLD), ("main", NEW)):
            assert _words(f"hub:org/tone?revision={revision}") == {commit[:4]}
    for revision in (UNKNOWN, "v2"):
        with pytest.raises(
            DataError, match=f"the revision '{revision}' of the data set 'org/tone' is not on this mach"
        ):
            load_tasks(f"hub:org/tone?revision={revision}")


def test_references_name_their_commit(cache: Path) -> None:
    assert with_commit("hub:org/tone?label=label") == f"hub:org/tone?label=label&revision={NEW}"
    assert with_commit("hub:org/tone?revision=v1") == f"hub:org/tone?revision={OLD}"
    for reference in ("samples:spam", "few.csv?text=a", "glue:rte?path=data/glue", f"hub:{cache}", "hub:org/none"):
        assert with_commit(reference) == reference
        assert without_revision(reference) == reference
    assert without_revision(f"glue:rte?revision={OLD}") == "glue:rte"
    (cache / "hub" / "datasets--org--tone" / "refs" / "main").unlink()  # of a library that noted no branch
    newest = cache / "datasets" / "org___tone" / "default" / "0.0.0" / OLD
    newest.touch()
    assert with_commit("hub:org/tone") == f"hub:org/tone?revision={OLD}"


def test_a_run_keeps_the_commits_that_it_loaded(cache: Path, tmp_path: Path) -> None:
    recipe = _recipe()
    run = quickstudy.pretrain(recipe, tmp_path / "run")
    kept = load_recipe(tmp_path / "run")
    assert (kept.encoder.revision, kept.tasks.train) == (NEW, [f"hub:org/tone?revision={NEW}"])
    assert f"commit `{NEW}`" in run.files.card.read_text()
    untouched = _first_weight(build_encoder(kept))
    for kind in ("models--org--tiny", "datasets--org--tone"):  # the branch goes on
        (cache / "hub" / kind / "refs" / "main").write_text(OLD)
    assert _first_weight(build_encoder(Run.open(run.folder).recipe)) == untouched
    assert _words(kept.tasks.train[0]) == {NEW[:4]}
    for asked in (recipe, _recipe(revision="main"), _recipe(revision=NEW)):
        resume_run(Run.open(run.folder), check_recipe(asked), lambda _: None)
    for asked in (_recipe(revision=OLD), _recipe(data=f"hub:org/tone?revision={OLD}")):
        with pytest.raises(RecipeError, match=f"a resumed run keeps its settings.*{OLD}"):
            resume_run(Run.open(run.folder), check_recipe(asked), lambda _: None)


def test_a_revision_of_what_is_not_on_the_hub_is_refused(cache: Path, tmp_path: Path) -> None:
    tiny_encoder().save(tmp_path / "folder")
    for name in ("minilm", str(tmp_path / "folder")):
        with pytest.raises(RecipeError, match="has no revision 'main'"):
            Encoder.load(name, revision="main")
    with pytest.raises(DataError, match="is a folder, and has no revision"):
        load_tasks(f"hub:{tmp_path}?revision=main")
    with pytest.raises(DataError, match="has both a path and a revision"):
        load_tasks("glue:rte?path=here&revision=main")


def test_minilm_from_the_hub_must_be_the_expected_weights(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "find_spec", lambda _: None)  # the package is not installed
    shutil.copytree(
        cache / "hub" / "models--org--tiny", cache / "hub" / "models--sentence-transformers--all-MiniLM-L6-v2"
    )
    with pytest.raises(RunError, match="these are not the expected MiniLM weights"):
        Encoder.load("minilm")


def test_cells_of_another_commit_are_not_taken_for_the_same(tmp_path: Path) -> None:
    prints = []
    for number, revision in enumerate((None, OLD, NEW, OLD)):
        file = tmp_path / f"{number}.toml"
        named = f'revision = "{revision}"\n' if revision else ""
        file.write_text(f'[encoder]\nname = "org/tiny"\n{named}[tasks]\ntrain = ["samples"]\n')
        prints.append(LearnerSpec("a", recipe=file).fingerprint())
    assert prints[1] == prints[3]
    assert len(set(prints)) == 3


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server that plays the Hub, and knows what `v1` is; the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            known = "/v1" in self.path
            answer = json.dumps({"id": "org/tiny", "sha": OLD} if known else {"error": "not there"}).encode()
            self.send_response(200 if known else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with served(Handler, monkeypatch):
        yield asked


def test_the_hub_is_asked_for_the_commit_and_a_commit_is_not_asked_for(server: list[str], tmp_path: Path) -> None:
    assert find_commit("org/tiny", UNKNOWN, "model") == UNKNOWN
    assert server == []
    assert find_commit("org/tiny", "v1", "model") == find_commit("org/tiny", "v1", "dataset") == OLD
    assert [path.partition("?")[0] for path in server] == [
        "/api/models/org/tiny/revision/v1",
        "/api/datasets/org/tiny/revision/v1",
    ]
    assert find_commit("org/nothing", "v2", "model") is None


def _recipe(*, revision: str | None = None, data: str = "hub:org/tone") -> dict[str, Any]:
    return {
        "encoder": {"name": "org/tiny"} | ({"revision": revision} if revision else {}),
        "tasks": {"train": [data]},
        "episodes": {"n_way": 2, "k_shot": 2, "n_query": 2},
        "outer": {"outer_steps": 1, "meta_batch_size": 1},
    }
