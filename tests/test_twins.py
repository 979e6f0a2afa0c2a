"""The one-file twins give the library's meta-loss and meta-gradient."""

import ast
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from conftest import word_task
from quickstudy.methods.catalog import make
from quickstudy.models.batch import encode_episode
from quickstudy.models.encoder import Encoder
from quickstudy.tasks.episode import Episode, EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler

RECIPES = Path(__file__).parents[1] / "recipes"
TWINS = sorted(RECIPES.glob("twin_*.py"))


def test_the_maml_twin(tiny_folder: Path) -> None:
    episode, encoder = _episode(), Encoder.load(str(tiny_folder))
    settings = {"adapts": "all", "inner_lr": 0.1, "head_lr": 1.0, "inner_steps": 3}
    learner = make("maml", encoder, settings)
    mine = learner.meta_loss([encode_episode(encoder, episode)]).loss
    model, tokenizer = AutoModel.from_pretrained(tiny_folder).eval(), AutoTokenizer.from_pretrained(tiny_folder)
    options = {key: value for key, value in settings.items() if key != "adapts"}
    twin = _load("twin_maml")
    head = twin.new_head(model)
    table = dict(learner.named_parameters())["start.tables.16"]
    assert head.shape == table.shape
    head.data.copy_(table)
    theirs = twin.meta_loss(model, tokenizer, head, *_sets(episode), 3, **options)
    assert mine.item() == pytest.approx(theirs.item(), abs=1e-6)
    _same_gradient(mine, encoder.model, theirs, model)


def test_the_lstm_reader_twin(tiny_folder: Path) -> None:
    episode, encoder = _episode(), Encoder.load(str(tiny_folder))
    learner = make("lstm-reader", encoder, {"hidden": 8, "prior": 0.5})
    net: Any = learner.rule.net  # type: ignore[union-attr]
    torch.nn.init.normal_(net.answer.weight, generator=torch.Generator().manual_seed(0))
    mine = learner.meta_loss([encode_episode(encoder, episode)]).loss
    model, tokenizer = AutoModel.from_pretrained(tiny_folder).eval(), AutoTokenizer.from_pretrained(tiny_folder)
    twin = _load("twin_lstm_reader")
    reader = twin.Reader(16, 8, 0.5)
    pairs = ((reader.project, net.project["16"]), (reader.gates, net.cell.gates), (reader.answer, net.answer))
    for own, library in pairs:
        own.load_state_dict(library.state_dict())
    theirs = twin.meta_loss(model, tokenizer, reader, *_sets(episode), 3)
    assert mine.item() == pytest.approx(theirs.item(), abs=1e-6)
    _same_gradient(mine, encoder.model, theirs, model)


@pytest.mark.parametrize("file", TWINS, ids=lambda file: file.stem)
def test_a_twin_is_short_and_imports_torch_and_transformers_alone(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
    }
    assert imported <= {"torch", "transformers", "csv", "pathlib", "random", "sys"}


def test_the_maml_twin_trains_from_the_command_line(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{word} film {i},{label}" for label, word in (("x", "good"), ("y", "bad")) for i in range(8)]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    _load("twin_maml").main(str(tiny_folder), str(tmp_path / "a.csv"), outer_steps=2, meta_batch_size=1)
    assert capsys.readouterr().out.count("meta-loss") == 2
    assert (tmp_path / "twin" / "model.safetensors").is_file()


def _same_gradient(mine: torch.Tensor, own: torch.nn.Module, theirs: torch.Tensor, other: torch.nn.Module) -> None:
    named = dict(own.named_parameters())
    found = torch.autograd.grad(mine, list(named.values()), materialize_grads=True)
    wanted = torch.autograd.grad(theirs, list(other.parameters()), materialize_grads=True)
    assert max(float(g.abs().max()) for g in found) > 1e-3
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def _episode() -> Episode:
    return EpisodeSampler([word_task(n_way=3)], EpisodeSpec(3, 2, 2), seed=0)[0]


def _sets(episode: Episode) -> list[tuple[list[str], list[Any]]]:
    return [([e.text for e in part], [e.label for e in part]) for part in (episode.support, episode.query)]


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
