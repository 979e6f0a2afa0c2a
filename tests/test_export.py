"""Export: an ONNX file gives what the model gives, whatever the texts, and is whole or not there."""

import importlib.util
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from quickstudy.adaptation.few import adapt_task
from quickstudy.cli.main import app
from quickstudy.errors import DataError, RecipeError, RunError
from quickstudy.export import onnx_file, onnx_model
from quickstudy.export.onnx_file import export_onnx
from quickstudy.export.onnx_model import OnnxModel
from quickstudy.methods.catalog import make
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.head import LinearHead
from quickstudy.testing.tiny import WORDS, score_task, tiny_encoder, word_task

_MISSING = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
with_onnx = pytest.mark.skipif(bool(_MISSING), reason=f"the extra onnx is not installed: {', '.join(_MISSING)}")

LENGTHS = (1, 2, 5, 9, 17, 30, 50)  # 50 words are more tokens than the encoder takes
TEXTS = [" ".join(WORDS[(i + 3 * j) % len(WORDS)] for j in range(n)) for i in range(9) for n in LENGTHS]
PAIRS = list(zip(TEXTS, TEXTS[4:] + TEXTS[:4], strict=True))


def _model(method: str = "protonet", task: str = "single", **settings: Any) -> AdaptedModel:
    pair = "separate" if task == "separate pairs" else "joint"
    encoder = tiny_encoder(pair=pair, normalize=True, **settings)
    chosen = score_task(rows=12) if task == "regression" else word_task(rows=12, n_way=3, pair="pair" in task)
    return adapt_task(make(method, encoder, {}), chosen)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, and what was exported of it: model/, fp32/, int8/."""
    folder = tmp_path_factory.mktemp("exported")
    adapted = _model()
    adapted.save(folder / "model")
    export_onnx(adapted, folder / "fp32")
    export_onnx(adapted, folder / "int8", int8=True)
    return folder


@with_onnx
def test_the_graph_gives_the_same_probabilities_for_texts_of_every_length(model: Path) -> None:
    adapted, exported = AdaptedModel.load(model / "model"), OnnxModel.load(model / "fp32", threads=1)
    wanted = adapted.predict_proba(TEXTS)
    assert wanted.std(0).min() > 1e-2  # the texts can be told apart
    torch.testing.assert_close(exported.predict_proba(TEXTS), wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(exported.predict_proba(TEXTS[::-1] + TEXTS[:3])[:-3], wanted.flip(0), rtol=0, atol=1e-5)
    for text, row in zip(TEXTS[: len(LENGTHS)], wanted, strict=False):
        torch.testing.assert_close(exported.predict_proba(text)[0], row, rtol=0, atol=1e-5)
    torch.testing.assert_close(exported.logits(TEXTS), adapted.logits(TEXTS), rtol=0, atol=1e-4)
    assert exported.predict(TEXTS) == adapted.predict(TEXTS)
    assert exported.classes_ == adapted.classes_


@with_onnx
def test_int8_is_smaller_and_close(model: Path) -> None:
    adapted, exported = AdaptedModel.load(model / "model"), OnnxModel.load(model / "int8", threads=1)
    wanted, found = adapted.predict_proba(TEXTS), exported.predict_proba(TEXTS)
    assert 1e-6 < (found - wanted).abs().max() < 0.1  # it is another model, and not far away
    assert (found.argmax(1) == wanted.argmax(1)).float().mean() > 0.9
    size = {name: (model / name / "model.onnx").stat().st_size for name in ("fp32", "int8")}
    assert size["int8"] < size["fp32"]
    assert sorted(path.name for path in (model / "int8").iterdir()) == [
        "README.md",
        "manifest.json",
        "model.onnx",
        "onnx.json",
        "tokenizer",
    ]


@with_onnx
@pytest.mark.parametrize(
    ("method", "task"),
    [
        ("protonet", "joint pairs"),
        ("linear-probe", "separate pairs"),
        ("protonet", "regression"),
        ("relation", "single"),
    ],
)
def test_pairs_numbers_and_other_heads_are_exported_too(method: str, task: str, tmp_path: Path) -> None:
    adapted = _model(method, task)
    assert export_onnx(adapted, tmp_path / "out").holds
    exported = OnnxModel.load(tmp_path / "out", threads=1)
    texts: Any = PAIRS if "pair" in task else TEXTS
    if task == "regression":
        assert exported.predict(texts) == pytest.approx(adapted.predict(texts), abs=1e-5)
        with pytest.raises(DataError, match="regression"):
            exported.predict_proba(texts)
    else:
        torch.testing.assert_close(exported.predict_proba(texts), adapted.predict_proba(texts), rtol=0, atol=1e-5)


@with_onnx
def test_a_head_that_cannot_be_traced_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match="bert with a NetHead cannot be exported"
    ):  # its reader's orders fix the batch size
        export_onnx(_model("lstm-reader"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@with_onnx
def test_the_command_line_exports_and_predicts(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["export", str(model / "model"), "--out", str(out), "--int8", "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["largest_difference"] > 1e-6
    assert said | {"largest_difference": None} == {
        "model": str(out),
        "int8": True,
        "bytes": (out / "model.onnx").stat().st_size,
        "largest_difference": None,
    }
    done = CliRunner().invoke(app, ["export", str(model / "model"), "--out", str(tmp_path / "exact")])
    told = re.search(r"its logits differ by (\S+) at most from", done.stdout)
    assert told
    assert float(told[1]) <= 1e-4
    done = CliRunner().invoke(app, ["predict", str(model / "fp32"), TEXTS[3], "--json"])
    (row,) = json.loads(done.stdout)
    assert row["label"] == AdaptedModel.load(model / "model").predict([TEXTS[3]])[0]
    assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    done = CliRunner().invoke(app, ["predict", str(model / "fp32"), "a film", "--precision", "bf16"])
    assert isinstance(done.exception, RecipeError)


@with_onnx
def test_what_is_not_a_text_of_the_model_is_refused(model: Path) -> None:
    exported = OnnxModel.load(model / "fp32")
    with pytest.raises(DataError, match="single texts"):
        exported.predict([("a film", "a book")])
    with pytest.raises(DataError, match="empty"):
        exported.predict([" "])


@with_onnx
def test_an_existing_folder_is_refused_and_stays_as_it_was(model: Path) -> None:
    before = (model / "fp32" / "model.onnx").stat()
    with pytest.raises(RunError, match="exists"):
        export_onnx(AdaptedModel.load(model / "model"), model / "fp32")
    assert (model / "fp32" / "model.onnx").stat() == before


@with_onnx
def test_a_graph_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = onnx_file._run
    monkeypatch.setattr(onnx_file, "_run", lambda graph, example: right(graph, example) + 0.01)
    with pytest.raises(RunError, match="logits of the exported graph differ by 1"):
        export_onnx(_model(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []  # neither the folder nor a part of it


@with_onnx
@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("broken", ["model.onnx", "onnx.json", "tokenizer/tokenizer.json"])
def test_a_broken_folder_is_named(broken: str, checked: bool, model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model / "fp32", tmp_path / "copy"))
    if not checked:
        (folder / "manifest.json").unlink()
    OnnxModel.load(folder)
    (folder / broken).write_bytes(b"{")
    with pytest.raises(RunError, match="broken") as caught:
        OnnxModel.load(folder)
    assert str(folder) in str(caught.value)


@with_onnx
@pytest.mark.parametrize("changed", ["model.onnx", "onnx.json", "tokenizer/tokenizer.json"])
def test_a_single_bit_is_noticed_and_the_card_may_be_edited(changed: str, model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model / "fp32", tmp_path / "copy"))
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "`model.onnx` is the whole model, from token ids to probabilities." in card
    assert 'OnnxModel.load("THIS_FOLDER").predict(["a new text"])' in card
    (folder / "README.md").write_text("mine", encoding="utf-8")
    OnnxModel.load(folder)
    content = bytearray((folder / changed).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / changed).write_bytes(content)
    with pytest.raises(RunError, match=f"the exported model is broken: {changed} is missing or was changed"):
        OnnxModel.load(folder)


@with_onnx
def test_a_model_that_gives_nan_is_not_exported(tmp_path: Path) -> None:
    model = _model("linear-probe")
    assert isinstance(model.head, LinearHead)
    with pytest.raises(RunError, match=r"texts\[0\]: the model gives NaN or infinity"):
        export_onnx(
            replace(model, head=LinearHead(model.head.weight * float("nan"), model.head.bias)), tmp_path / "out"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="quickstudy export"):
        OnnxModel.load(tmp_path)


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_extra_is_one_message_with_the_way_out(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_model, "find_spec", lambda name: None if name == missing else True)
    with pytest.raises(RunError, match=rf"{missing} is not installed\n  pip install 'quickstudy\[onnx\]'"):
        export_onnx(_model(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_half_precision_is_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "need", lambda *_: None)
    half = AdaptedModel.load(_model().save(tmp_path / "model"), precision="bf16")
    with pytest.raises(RunError, match="fp32"):
        export_onnx(half, tmp_path / "out")
    assert not (tmp_path / "out").exists()
