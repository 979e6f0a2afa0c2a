"""Masked-language modelling beside episodes, and encoders from scratch: exact, resumable, and standard files."""

import json
import math
import shutil
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from transformers import AutoModel, AutoTokenizer

import quickstudy
from conftest import KilledError, tiny_encoder
from quickstudy.build import build, encoder_source
from quickstudy.cli.progress import TrainingProgress
from quickstudy.cli.tables import print_explanation
from quickstudy.config import check_recipe, dump_recipe, load_recipe
from quickstudy.data.reference import load_corpus, load_tasks
from quickstudy.data.text.passages import Passages
from quickstudy.errors import QuickstudyError
from quickstudy.models.encoder import Encoder
from quickstudy.models.scratch import train_tokenizer
from quickstudy.runs import Run, hide_text_places
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.training.explain import explain
from quickstudy.training.language import LanguageModel, LanguageSettings
from quickstudy.training.record import StepRecord, read_log
from text_files import write_corpus

SIZE = {"vocabulary": 300, "layers": 2, "hidden_size": 32, "heads": 2}

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("language") / "notes.txt", 150)


@pytest.fixture(autouse=True)
def _shared_cache(corpus_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(corpus_file.parent / "cache"))


def recipe_of(corpus_file: Path, **outer: Any) -> dict[str, Any]:
    """Return the settings of a short training from scratch in which masked-language steps and episodes take turns."""
    steps = {"outer_steps": 8, "validate_every": 4, "meta_batch_size": 2, "outer_lr": 1e-3, "max_length": 32}
    return {
        "encoder": {"max_length": 64, "from_scratch": {"text": str(corpus_file), **SIZE}},
        "method": {"name": "protonet"},
        "tasks": {"train": [f"text:{corpus_file}?tasks=smlmt,cloze"]},
        "episodes": {"n_way": [2, 3], "k_shot": [1, 2], "n_query": 2},
        "language": {"share": 0.5, "batch_size": 8},
        "outer": {**steps, "trains": "all", "keep": "last", **outer},
    }


class Passing:
    """Texts that are all the same."""

    def draw(self, random: np.random.Generator, characters: int) -> str:
        return "the good film was late and the bank was not early"


def language_model(share: float = 0.5, size: int = 4) -> LanguageModel:
    settings = LanguageSettings(share, batch_size=size, max_length=16, held_out=4)
    return LanguageModel(tiny_encoder(dtype=torch.float64), Passing(), Passing(), settings, seed=1)


@pytest.mark.parametrize(
    ("share", "due"), [(0.5, "01010101"), (0.75, "01110111"), (1.0, "11111111"), (0.25, "00010001")]
)
def test_steps_take_turns_by_the_share(share: float, due: str) -> None:
    assert "".join(str(int(language_model(share).is_due(step))) for step in range(len(due))) == due


def test_the_loss_and_its_gradient_are_those_of_the_equation() -> None:
    language = language_model()
    totals = torch.zeros(3, dtype=torch.float64)
    language.add(totals, 3, Accelerator(cpu=True), scale=1.0)
    got = {name: p.grad.clone() for name, p in language.encoder.model.named_parameters() if p.grad is not None}
    rows = language._batch(language.texts, 4, "passages", 3)
    model, head = language.encoder.model, language.head
    losses = []
    for row in rows:
        states = model(**{name: value[None] for name, value in row.items() if name != "labels"}).last_hidden_state[0]
        for state, label in zip(states, row["labels"].tolist(), strict=True):
            if label >= 0:
                hidden = head.norm(torch.nn.functional.gelu(head.dense.weight @ state + head.dense.bias))
                logits = model.get_input_embeddings().weight @ hidden + head.bias
                losses.append(-logits.log_softmax(-1)[label])
    wanted = torch.stack(losses).mean()
    assert float(totals[0]) == pytest.approx(wanted.item(), rel=1e-6)
    assert totals[2] == len(losses)
    used = {name: p for name, p in model.named_parameters() if name in got}
    gradients = torch.autograd.grad(wanted, list(used.values()))
    for (name, mine), theirs in zip(got.items(), gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9, msg=name)


def test_the_masks_of_a_step_are_the_same_in_a_process_of_multiprocessing(monkeypatch: pytest.MonkeyPatch) -> None:
    here = language_model()._batch(Passing(), 2, "passages", 3)
    monkeypatch.setattr(current_process(), "name", "Process-1")
    for row, other in zip(here, language_model()._batch(Passing(), 2, "passages", 3), strict=True):
        assert all(torch.equal(row[name], other[name]) for name in row)


def test_shares_of_the_processes_add_up_to_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def gradient(index: int, processes: int) -> tuple[torch.Tensor, torch.Tensor]:
        language = language_model(size=5)
        accelerator = Accelerator(cpu=True)
        monkeypatch.setattr(type(accelerator), "process_index", index)
        monkeypatch.setattr(type(accelerator), "num_processes", processes)
        totals = torch.zeros(3, dtype=torch.float64)
        language.add(totals, 0, accelerator, scale=2.0)
        return totals, language.encoder.model.get_input_embeddings().weight.grad.clone()

    whole, first, second = gradient(0, 1), gradient(0, 2), gradient(1, 2)
    torch.testing.assert_close(whole[0], first[0] + second[0])
    torch.testing.assert_close(whole[1], first[1] + second[1])


def test_masks_follow_from_seed_and_step_and_hide_about_the_share_that_is_asked_for() -> None:
    language = language_model(size=60)
    once, again, other = (language._batch(language.texts, 60, "passages", step) for step in (5, 5, 6))
    assert all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(once, again, strict=True))
    assert any(not torch.equal(a["labels"], b["labels"]) for a, b in zip(once, other, strict=True))
    labels = torch.cat([row["labels"] for row in once])
    assert 0.08 < float((labels >= 0).double().mean()) < 0.22
    special = language.encoder.tokenizer.all_special_ids
    assert not set(labels[labels >= 0].tolist()) & set(special)


def test_the_perplexity_of_a_head_that_knows_nothing_is_about_the_vocabulary() -> None:
    language = language_model()
    with torch.no_grad():
        language.head.norm.weight.zero_()
    assert language.perplexity(Accelerator(cpu=True)) == pytest.approx(64, rel=1e-3)  # 64 tokens, all as likely


def test_passages_are_of_their_side_and_as_long_as_asked_for(corpus_file: Path) -> None:
    store = load_corpus(str(corpus_file))
    held_out, trained = Passages(store, "meta-validation"), Passages(store, "meta-train")
    sides = []
    for passages in (held_out, trained):
        random = np.random.default_rng(0)
        texts = [passages.draw(random, 300) for _ in range(50)]
        assert all(len(text) > 0 for text in texts)
        assert np.median([len(text) for text in texts]) > 300
        sides.append({word.partition("x")[0] for text in texts for word in text.split() if "x" in word[:-1]})
    numbers = [{name for name in side if name.isdigit()} for side in sides]
    assert numbers[0]
    assert not numbers[0] & numbers[1]


def test_a_tokenizer_is_the_same_every_time(corpus_file: Path) -> None:
    texts = Passages(load_corpus(str(corpus_file)), "meta-train").sample(500)
    assert list(texts) == list(texts) != []
    assert train_tokenizer(texts, 300).get_vocab() == train_tokenizer(texts, 300).get_vocab()


def test_an_encoder_from_scratch_is_made_once_and_follows_from_the_seed(corpus_file: Path) -> None:
    recipe = check_recipe(recipe_of(corpus_file))
    folder = encoder_source(recipe)
    assert encoder_source(recipe) == folder
    assert encoder_source(check_recipe({**recipe_of(corpus_file), "seed": 1})) != folder
    encoder = Encoder.load(folder)
    assert encoder.settings.normalize
    assert encoder.settings.max_length == 64
    assert encoder.tokenizer.mask_token_id == 4


def test_a_run_from_scratch_learns_and_leaves_standard_files(corpus_file: Path, tmp_path: Path) -> None:
    settings = recipe_of(corpus_file, outer_steps=60, validate_every=30, outer_lr=5e-3)
    run = quickstudy.pretrain(settings, tmp_path / "run")
    log = [record for record in read_log(run.files.metrics) if record.step]
    masked, episodes = log[1::2], log[::2]
    assert all(record.mlm_loss is not None and math.isnan(record.loss) for record in masked)
    assert all(record.mlm_loss is None and math.isfinite(record.loss) for record in episodes)
    assert masked[-1].mlm_loss < masked[0].mlm_loss - 0.5
    perplexities = [record.perplexity for record in log if record.perplexity is not None]
    assert len(perplexities) == 2
    assert perplexities[1] < perplexities[0] < 300
    model, tokenizer = AutoModel.from_pretrained(run.files.encoder), AutoTokenizer.from_pretrained(run.files.encoder)
    assert model.config.model_type == "bert"
    assert tokenizer("The bank [MASK]")["input_ids"][-2] == tokenizer.mask_token_id
    reopened = Run.open(run.folder)
    assert dump_recipe(reopened.recipe) == dump_recipe(load_recipe(run.folder))
    classifier = quickstudy.adapt(run.folder, texts=["a good film", "a late bank"], labels=["film", "bank"])
    assert classifier.predict(["a good film", "a late bank"]) == ["film", "bank"]


def test_an_interrupted_run_goes_on_with_the_very_next_episode(corpus_file: Path, tmp_path: Path) -> None:
    settings = recipe_of(corpus_file)
    whole = quickstudy.pretrain(settings, tmp_path / "whole")

    def kill(record: Any) -> None:
        if record.step == 6:
            raise KilledError

    with pytest.raises(KilledError):
        quickstudy.pretrain(settings, tmp_path / "killed", on_step=kill)
    shutil.rmtree(corpus_file.parent / "cache")  # the index is made again, and gives the same episodes
    resumed = quickstudy.pretrain(settings, tmp_path / "killed", resume=True)
    for name in ("model.safetensors",):
        assert (whole.files.encoder / name).read_bytes() == (resumed.files.encoder / name).read_bytes()
    assert whole.files.learned.read_bytes() == resumed.files.learned.read_bytes()
    timeless = [
        [(r.step, r.loss, r.mlm_loss, r.grad_norm, r.perplexity) for r in read_log(run.files.metrics)]
        for run in (whole, resumed)
    ]
    assert repr(timeless[0]) == repr(timeless[1])


def test_the_next_episode_of_a_stream_is_the_same_in_a_new_process(corpus_file: Path) -> None:
    once, again = (
        EpisodeSampler(load_tasks(f"text:{corpus_file}"), EpisodeSpec((2, 3), 2, 2), seed=5) for _ in range(2)
    )
    assert [once[i] for i in range(1000, 1010)] == [again[i] for i in range(1000, 1010)]


def test_masked_language_modelling_continues_an_encoder_that_is_there(
    corpus_file: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    settings = recipe_of(corpus_file) | {"encoder": {"name": str(tiny_folder)}}
    settings["language"] = {"text": str(corpus_file), "share": 1.0, "batch_size": 4}
    run = quickstudy.pretrain(settings, tmp_path / "run")
    assert all(record.mlm_loss is not None for record in run.metrics())


def test_a_head_learns_at_its_own_rate(corpus_file: Path, tmp_path: Path) -> None:
    settings = recipe_of(corpus_file, outer_steps=20, validate_every=10, outer_lr=1e-12, warmup_steps=0)
    perplexities = {}
    for name, rate in (("like the encoder", None), ("faster", 3e-2)):
        language = {"share": 1.0, "batch_size": 8} | ({"head_lr": rate} if rate else {})
        run = quickstudy.pretrain(settings | {"language": language}, tmp_path / name)
        perplexities[name] = [record.perplexity for record in run.metrics() if record.perplexity is not None]
        untouched = Encoder.load(encoder_source(run.recipe)).model.state_dict()
        for key, weights in run.learner().encoder.model.state_dict().items():
            torch.testing.assert_close(weights, untouched[key], msg=key)
    first, last = perplexities["like the encoder"]
    assert last == pytest.approx(first, rel=1e-6)
    assert perplexities["faster"][-1] < 0.7 * last


@pytest.mark.parametrize("trains", ["all", "layers"])
def test_an_explanation_counts_steps_of_masked_language_modelling(corpus_file: Path, trains: str) -> None:
    settings = recipe_of(corpus_file, trains=trains, outer_steps=12)
    settings["language"]["share"] = 0.75
    explained = quickstudy.api.explain(settings)
    cost = explained.language
    assert cost is not None
    assert (cost.share, cost.passages) == (0.75, 8)
    assert cost.plan.tokens == 8 * 32  # passages fill the length that is asked for
    assert cost.operations == pytest.approx(cost.plan.operations, rel=0.2)  # fused attention is not counted
    assert cost.seconds > 0
    assert explained.training_seconds == pytest.approx(12 * (0.25 * explained.seconds + 0.75 * cost.seconds))
    del settings["language"]
    alone = quickstudy.api.explain(settings)
    assert alone.language is None
    assert alone.training_seconds == pytest.approx(12 * alone.seconds)


def test_an_explanation_leaves_no_gradient(corpus_file: Path) -> None:
    built = build(check_recipe(recipe_of(corpus_file)))
    assert built.language is not None
    explain(built.learner, built.sampler, built.outer, Accelerator(cpu=True), built.language)
    parameters = (*built.learner.parameters(), *built.language.head.parameters())
    assert all(parameter.grad is None for parameter in parameters)


def test_the_command_line_explains_both_kinds_of_steps(corpus_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_explanation(quickstudy.api.explain(recipe_of(corpus_file)))
    shown = " ".join(capsys.readouterr().out.split())
    assert "a step of masked-language modelling, 8 passages estimated measured operations, GFLOP" in shown
    assert "8 outer steps, 50% of them masked-language modelling, take about" in shown


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("encoder", {"name": "minilm", "from_scratch": {"text": "x"}}, "leave out name = 'minilm'"),
        ("encoder", {"from_scratch": {"text": "missing.txt"}}, "there is no such file"),
        ("encoder", {"from_scratch": {"text": "CORPUS", "hidden_size": 30, "heads": 4}}, "among 4 heads"),
        ("encoder", {"from_scratch": {"text": "CORPUS", "layer": 4}}, "unknown setting 'encoder.from_scratch"),
        ("language", {"share": 0.0}, "should be greater than 0"),
        ("language", {"head_lr": 0.0}, "should be greater than 0"),
        ("language", {"text": "CORPUS?label=x"}, "option 'label'"),
        ("tasks", {"train": ["text:CORPUS"], "weights": [1.0, 2.0]}, "2 weights for 1 references"),
        ("tasks", {"train": ["text:CORPUS"], "weights_end": [1.0]}, "no weights"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    corpus_file: Path, section: str, values: dict[str, Any], message: str
) -> None:
    settings = json.loads(json.dumps(recipe_of(corpus_file) | {section: values}).replace("CORPUS", str(corpus_file)))
    with pytest.raises(QuickstudyError, match=message):
        build(check_recipe(settings))


def test_a_language_section_needs_a_text_and_a_trained_encoder(corpus_file: Path, tiny_folder: Path) -> None:
    settings = recipe_of(corpus_file)
    with pytest.raises(QuickstudyError, match="needs a text"):
        build(check_recipe(settings | {"encoder": {"name": str(tiny_folder)}}))
    with pytest.raises(QuickstudyError, match="nothing of it is to be trained"):
        build(check_recipe(recipe_of(corpus_file, trains="none") | {"method": {"name": "r2d2"}}))


def test_progress_names_the_loss_of_each_kind_of_step(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress(4, quiet=False) as progress:
        progress.step(StepRecord(1, loss=0.5, accuracy=0.5, lr=1e-3, seconds=1.0, episodes_per_second=4.0))
        progress.step(StepRecord(2, lr=1e-3, seconds=2.0, mlm_loss=6.25, perplexity=512.0))
    shown = capsys.readouterr().out
    assert "loss 0.5000" in shown
    assert "masked-language loss 6.2500" in shown
    assert "perplexity 512.0" in shown
    assert "nan" not in shown


def test_the_card_of_a_run_names_the_perplexity(corpus_file: Path, tmp_path: Path) -> None:
    run = quickstudy.pretrain(recipe_of(corpus_file, outer_steps=2, validate_every=2), tmp_path / "run")
    perplexity = run.metrics()[-1].perplexity
    assert f"held-out text, after the last step: {perplexity:.1f}." in run.files.card.read_text(encoding="utf-8")


def test_a_recipe_to_give_away_names_no_folder_of_the_text(corpus_file: Path) -> None:
    settings = recipe_of(corpus_file)
    settings["language"]["text"] = str(corpus_file)
    settings["encoder"]["from_scratch"]["text"] = "hub:allenai/c4?config=en"
    kept = hide_text_places(check_recipe(settings)).encoder.from_scratch
    assert kept is not None
    assert kept.text == "hub:allenai/c4?config=en"  # an id is no folder
    settings["encoder"]["from_scratch"]["text"] = f"hub:{corpus_file}?part=train"
    hidden = hide_text_places(check_recipe(settings))
    assert hidden.encoder.from_scratch is not None
    assert hidden.language is not None
    assert (hidden.encoder.from_scratch.text, hidden.language.text) == ("notes.txt?part=train", "notes.txt")
