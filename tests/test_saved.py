"""Saved: a model or a run that is not as it was saved is refused, or predicts the same; nothing ends in a traceback."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import score_task, tiny_encoder, word_task
from quickstudy import api
from quickstudy.adaptation.few import adapt_task
from quickstudy.errors import QuickstudyError, RunError
from quickstudy.methods.catalog import make
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.encoder import Encoder
from quickstudy.models.head import LinearHead
from quickstudy.runs import Run
from quickstudy.seeding import rng

TEXTS = ["a good film", "the bad book is late", "very poor", "it was great and fine"]
QUERY = "encoder.layer.1.attention.self.query.weight"
DAMAGES = 40  # in a model, and as many in a run


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run and a model adapted from it; not to be changed."""
    folder = tmp_path_factory.mktemp("saved")
    rows = "text,label\n" + "".join(f"a {word} film,{label}\n" for word in ("good", "great", "fine") for label in "xy")
    (folder / "train.csv").write_text(rows, encoding="utf-8")
    (folder / "tiny").mkdir()
    tiny_encoder().save(folder / "tiny")
    recipe = {
        "name": "tiny",
        "encoder": {"name": str(folder / "tiny")},
        "method": {"name": "meta-sgd", "inner_steps": 1},  # it learns rates beside the encoder
        "tasks": {"train": [str(folder / "train.csv")]},
        "episodes": {"n_way": 2, "k_shot": 1, "n_query": 1},
        "outer": {"outer_steps": 1, "meta_batch_size": 1},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUICKSTUDY_CACHE", str(folder / "cache"))
        run = api.pretrain(recipe, folder / "run")
    _adapted(run).save(folder / "model")
    return folder


def _adapted(run: Run | Path) -> AdaptedModel:
    return api.adapt(run, texts=["good", "bad", "great", "awful"], labels=["x", "y", "x", "y"])


def _predictions(folder: Path) -> torch.Tensor:
    """What a model predicts, or a model that is adapted from a run."""
    model = _adapted(folder) if (folder / "config.toml").is_file() else api.load_model(folder)
    return model.predict_proba(TEXTS)


@pytest.fixture(params=["model", "run"])
def copied(request: pytest.FixtureRequest, saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved / request.param, tmp_path / request.param))


def test_a_manifest_names_every_file_that_predictions_follow_from(saved: Path) -> None:
    encoder = {f"encoder/{name}" for name in ("config.json", "model.safetensors", "quickstudy.json", "tokenizer.json")}
    for name, others in {
        "model": {"adapted.json", "head.safetensors"},
        "run": {"config.toml", "tasks.json", "meta_learner.safetensors"},
    }.items():
        hashes = json.loads((saved / name / "manifest.json").read_text(encoding="utf-8"))["sha256"]
        assert encoder | others <= set(hashes)
        assert "README.md" not in hashes
        assert all(len(value) == 64 for value in hashes.values())


@pytest.mark.parametrize("what", ["model", "run"])
def test_damaged_files_are_refused_or_change_no_prediction(what: str, saved: Path, tmp_path: Path) -> None:
    random, before = rng(0, "damage", what), _predictions(saved / what)
    files = sorted(
        file
        for file in (saved / what).rglob("*")
        if file.is_file() and not {"checkpoints", "plots"} & set(file.relative_to(saved / what).parts)
    )
    messages = {}
    for i in range(DAMAGES):
        folder = Path(shutil.copytree(saved / what, tmp_path / str(i)))
        file = folder / files[random.integers(len(files))].relative_to(saved / what)
        _damage(file, random)
        try:
            after = _predictions(folder)
        except QuickstudyError as error:
            messages[folder] = str(error)
        else:
            assert torch.equal(after, before), file
    assert all(str(folder) in message for folder, message in messages.items())
    assert len(messages) > DAMAGES / 2  # what is not read for a prediction (the card, the log) may change


def _damage(file: Path, random: np.random.Generator) -> None:
    """Flip a bit, cut the file off, or delete it."""
    content = bytearray(file.read_bytes())
    place = int(random.integers(len(content)))
    kind = random.choice(["flip", "flip", "cut", "delete"])
    if kind == "flip":
        content[place] ^= 1 << int(random.integers(8))
        file.write_bytes(content)
    elif kind == "cut":
        file.write_bytes(content[:place])
    else:
        file.unlink()


def test_a_changed_file_is_named_with_the_way_out(copied: Path) -> None:
    weights = copied / "encoder" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(RunError) as error:
        _predictions(copied)
    what, way_out = str(error.value).split("\n")
    kind = "model" if copied.name == "model" else "run"
    changed = "encoder/model.safetensors is missing or was changed after it was saved"
    assert what == f"{copied}: the {kind} folder is broken: {changed}"
    assert "Copy" in way_out
    with pytest.raises(RunError, match=r"encoder/model.safetensors is missing or was changed"):
        Encoder.load(str(copied / "encoder"))  # who takes the encoder alone is told too
    assert "delete manifest.json" in way_out
    (copied / "manifest.json").unlink()
    _predictions(copied)


def test_a_file_that_was_added_is_refused(copied: Path) -> None:
    (copied / "encoder" / "added_tokens.json").write_text('{"good": 9}', encoding="utf-8")
    with pytest.raises(RunError, match=r"encoder/added_tokens\.json was added after it was saved"):
        _predictions(copied)


def test_notes_may_be_added_and_the_card_may_be_edited(copied: Path) -> None:
    before = _predictions(copied)
    for name in ("README.md", "LICENSE", ".gitattributes", "encoder/README.md", "encoder/.DS_Store"):
        (copied / name).write_text("mine", encoding="utf-8")
    assert torch.equal(_predictions(copied), before)


def test_a_folder_of_a_version_without_manifests_still_opens(copied: Path) -> None:
    before = _predictions(copied)
    (copied / "manifest.json").unlink()
    for name in ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json"):
        (copied / "encoder" / name).unlink()
    assert torch.equal(_predictions(copied), before)


@pytest.mark.parametrize(
    ("method", "start"), [("maml", "zero"), ("meta-sgd", "zero"), ("anil", "zero"), ("boil", "prototypes")]
)
def test_a_run_from_before_the_head_s_start_was_learned_opens_with_the_start_it_had(
    method: str, start: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    recipe = {
        "name": "old",
        "encoder": {"name": str(saved / "tiny")},
        "method": {"name": method, "inner_steps": 2, "start": start},
        "tasks": {"train": [str(saved / "train.csv")]},
        "episodes": {"n_way": 2, "k_shot": 1, "n_query": 1},
        "outer": {"outer_steps": 1, "meta_batch_size": 1},
    }
    run = api.pretrain(recipe, tmp_path / "run")
    before = _predictions(run.folder)
    (run.folder / "manifest.json").unlink()
    config = run.files.config.read_text(encoding="utf-8")
    line = f'start = "{start}"\n'
    assert config.count(line) == 1
    run.files.config.write_text(config.replace(line, ""), encoding="utf-8")
    assert torch.equal(_predictions(run.folder), before)

    save_file({}, run.files.learned)
    with pytest.raises(RunError, match="cannot be read"):
        Run.open(run.folder).learner()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"sha256": 3}', '{"sha256": []}'])
def test_a_broken_manifest_is_refused(content: str, copied: Path) -> None:
    (copied / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=r"manifest\.json cannot be read"):
        _predictions(copied)


def test_a_missing_weight_is_refused_without_a_manifest_too(copied: Path) -> None:
    (copied / "manifest.json").unlink()
    tensors = load_file(copied / "encoder" / "model.safetensors")
    del tensors[QUERY]
    save_file(tensors, copied / "encoder" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunError, match=f"weights are missing, and random numbers would take their place: {QUERY}"):
        _predictions(copied)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.clear(),
        lambda tensors: tensors.update({next(iter(tensors)): torch.zeros(3)}),
        lambda tensors: next(iter(tensors.values())).fill_(float("nan")),
    ],
    ids=["missing", "another shape", "NaN"],
)
@pytest.mark.parametrize("what", ["model/head", "run/meta_learner"])
def test_other_tensors_beside_the_encoder_are_refused_without_a_manifest_too(
    what: str, change: Callable[[dict[str, torch.Tensor]], object], saved: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(saved / what.split("/")[0], tmp_path / "copy"))
    (folder / "manifest.json").unlink()
    file = folder / f"{what.split('/')[1]}.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    with pytest.raises(RunError, match=str(folder)):
        _predictions(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"label_names": ["x"]},
        {"label_names": "xy"},
        {"label_names": [1, 2]},
        {"kind": "regresion"},
        {"kind": "regression"},
        {"pair": 0},
        {"colour": "red"},
    ],
)
def test_a_description_that_does_not_fit_is_refused_without_a_manifest_too(
    change: dict[str, object], saved: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(saved / "model", tmp_path / "copy"))
    (folder / "manifest.json").unlink()
    file = folder / "adapted.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(RunError, match="the model folder is broken"):
        AdaptedModel.load(folder)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_model_that_gives_nan_does_not_predict_and_is_not_saved(kind: str, tmp_path: Path) -> None:
    task = word_task() if kind == "classification" else score_task()
    model = adapt_task(make("linear-probe", tiny_encoder(), {}), task)
    assert isinstance(model.head, LinearHead)
    broken = replace(model, head=LinearHead(model.head.weight * float("nan"), model.head.bias))
    with pytest.raises(RunError, match=r"texts\[0\]: the model gives NaN or infinity for this text"):
        broken.predict(TEXTS)
    with pytest.raises(RunError, match="its head holds NaN or infinity\n  The adaptation diverged"):
        broken.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("method", "settings", "parts"),
    [
        ("protonet", {}, ["single texts", "- `class0`", "- `class1`", "method `protonet`", "holds no"]),
        ("protonet", {"pooling": "pooler"}, ["whole model as a standard sequence classifier"]),
    ],
)
def test_a_saved_model_has_a_card_without_texts_and_paths(
    method: str, settings: dict[str, str], parts: list[str], tmp_path: Path
) -> None:
    task = word_task()
    folder = adapt_task(make(method, tiny_encoder(**settings), {}), task).save(tmp_path / "model")
    card = (folder / "README.md").read_text(encoding="utf-8")
    for part in [*parts, "quickstudy predict THIS_FOLDER", 'load_model("THIS_FOLDER")']:
        assert part in card
    assert str(tmp_path) not in card
    assert all(row.text not in card for row in (task.train_split[i] for i in range(len(task.train_split))))


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"meta_train": 3}', b"\xff"])
def test_damaged_names_of_the_meta_train_tasks_are_refused(content: bytes, saved: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(saved / "run", tmp_path / "run"))
    (run / "tasks.json").write_bytes(content)
    with pytest.raises(RunError, match=r"tasks\.json: it is damaged"):
        Run.open(run).meta_train_tasks()
