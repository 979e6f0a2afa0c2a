"""Learned: what a model was adapted from is counted rightly, measured without a second pass, and kept in its folder."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import quickstudy
from conftest import score_task, tiny_encoder, word_task, write_task
from quickstudy import api
from quickstudy.adaptation.few import adapt_task, learn_task
from quickstudy.cli.main import app
from quickstudy.errors import DataError, RunError
from quickstudy.methods.catalog import make
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.encoder import Encoder
from quickstudy.models.learned import Learned, LeaveOneOut
from quickstudy.tasks.split import Example, ListSplit
from quickstudy.tasks.task import Task
from quickstudy.testing.tiny import WORDS

HEADS = ["protonet", "matching", "r2d2", "metaoptnet", "linear-probe", "relation", "anil", "multi-task"]


def _learn(method: str, task: Task, **settings: object) -> Learned:
    return learn_task(make(method, tiny_encoder(normalize=True), settings), task, prior="first")[1]()


def _task(rows: list[tuple[str, str]]) -> Task:
    names = tuple(dict.fromkeys(label for _, label in rows))
    return Task("t", {"train": ListSplit(Example(text, label=names.index(label)) for text, label in rows)}, names)


@pytest.mark.parametrize("method", HEADS)
def test_leave_one_out_is_adapting_without_each_row(method: str) -> None:
    task = word_task(rows=14, n_way=2, seed=3)
    rows = [task.train_split[i] for i in range(14)]
    learner = make(method, tiny_encoder(normalize=True))
    right = 0
    for i, row in enumerate(rows):
        rest = replace(task, splits={"train": ListSplit(rows[:i] + rows[i + 1 :])})
        right += adapt_task(learner, rest).predict([row]) == [task.label_names[int(row.label or 0)]]
    measured = learn_task(learner, task)[1]().leave_one_out
    assert measured is not None
    assert (measured.right, measured.rows) == (right, 14)
    assert 0 <= measured.low <= measured.accuracy <= measured.high <= 1


def test_no_text_passes_the_encoder_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    runs, original = [], Encoder._run
    monkeypatch.setattr(
        Encoder, "_run", lambda self, sequences: runs.append(len(sequences)) or original(self, sequences)
    )
    assert _learn("protonet", word_task(rows=20)).leave_one_out is not None
    assert runs == [20]


def test_rows_are_counted() -> None:
    long = " ".join(["good"] * 40)
    rows = [("good", "a"), ("bad", "b"), ("good", "b"), ("fine", "a"), ("bad", "b"), (long, "a"), ("red", "c")]
    learned = _learn("protonet", _task(rows))
    assert learned.rows_per_class == {"a": 3, "b": 3, "c": 1}
    assert (learned.rows, learned.conflicts, learned.cut, learned.max_length) == (7, 1, 1, 32)
    assert (learned.single, learned.described, learned.imbalance) == (("c",), (), 3.0)
    assert (learned.method, learned.prior) == ("protonet", "first")
    assert learned.leave_one_out is not None
    assert learned.leave_one_out.rows == 6  # a single example cannot be left out


@pytest.mark.parametrize("pair", ["joint", "separate"])
def test_pairs_that_are_cut_are_counted_as_they_are_read(pair: str) -> None:
    encoder = tiny_encoder(pair=pair, max_length=10)
    lengths = [(8, 8), (3, 4), (9, 1), (1, 9), (3, 5)]  # and [CLS] and [SEP], or [CLS], [SEP] and [SEP]
    examples = [Example(" ".join(["good"] * a), " ".join(["bad"] * b)) for a, b in lengths]
    by_hand = {"joint": [a + b + 3 > 10 for a, b in lengths], "separate": [max(a, b) + 2 > 10 for a, b in lengths]}
    assert encoder.count_cut(examples) == sum(by_hand[pair])
    assert encoder.count_cut([]) == 0


@pytest.mark.parametrize(
    ("method", "task", "why"),
    [
        ("protonet", score_task(rows=8), "the labels are numbers"),
        ("maml", word_task(rows=8), "maml adapts the encoder, which would have to be adapted once for each row"),
        ("protonet", word_task(rows=302), "more than 300 rows"),
        ("protonet", _task([("good", "a"), ("bad", "b")]), "each class has a single example"),
    ],
)
def test_what_is_not_measured_is_said(method: str, task: Task, why: str) -> None:
    learned = _learn(method, task)
    assert learned.leave_one_out is None
    assert learned.why_not.startswith(why)
    assert learned.lines()[-1].startswith(f"No leave-one-out accuracy: {why}")


def test_a_slow_method_stops_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quickstudy.adaptation.summary._MOST_SECONDS", -1.0)
    assert "for each row takes more than" in _learn("protonet", word_task(rows=8)).why_not


def test_labels_that_are_perhaps_typed_in_two_ways_are_named() -> None:
    learned = _learn("protonet", _task([("good", "Cards"), ("bad", "cards"), ("fine", "Loans"), ("poor", "on line")]))
    assert learned.alike == [("Cards", "cards")]
    assert "Labels that look alike, and count as different: 'Cards', 'cards'." in learned.lines()
    names = ("café", "cafe\u0301", "good", "good\u200b", "m2", "m²")
    learned = replace(learned, rows_per_class=dict.fromkeys(names, 1))
    assert learned.alike == [("café", "cafe\u0301"), ("good", "good\u200b")]
    assert r"Labels that look alike, and count as different: 'café', 'cafe\u0301'." in learned.lines()


def test_many_classes_are_not_named_one_by_one() -> None:
    many = {f"class {i}": 1 + i % 2 for i in range(40)}
    lines = Learned("m", "p", 60, many, 2, 0, 128, LeaveOneOut(10, 20, 0.2, 0.8)).lines()
    assert lines[0] == "60 labelled rows in 40 classes, 1 to 2 in a class."
    assert lines[1].endswith("class 22 and 8 more.")
    assert lines[2] == "2 texts stand under more than one label."


def test_a_saved_model_says_what_it_learned_from(tmp_path: Path) -> None:
    learner = make("protonet", tiny_encoder(normalize=True))
    model, learned = learn_task(learner, word_task(rows=8), prior="first")
    folder = replace(model, learned=learned()).save(tmp_path / "model")
    assert AdaptedModel.load(folder).learned == learned()
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert (
        "- Method: protonet on first.\n- 8 labelled rows: 4 of class0, 4 of class1.\n- Leave-one-out accuracy: " in card
    )
    (folder / "learned.json").write_text('{"method": 3}', encoding="utf-8")
    with pytest.raises(RunError, match=r"learned.json is missing or was changed"):
        AdaptedModel.load(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(RunError, match="the model folder is broken"):
        AdaptedModel.load(folder)


@pytest.fixture
def run(tiny_folder: Path, tmp_path: Path) -> Path:
    (tmp_path / "few.csv").write_text(
        "text,label\na good film,x\na great book,x\na bad film,y\nan awful book,y\na bad film,x\n", encoding="utf-8"
    )
    recipe = {
        "encoder": {"name": str(tiny_folder)},
        "tasks": {"train": [str(tmp_path / "few.csv")]},
        "episodes": {"n_way": 2, "k_shot": 1, "n_query": 1},
        "outer": {"outer_steps": 1, "meta_batch_size": 1},
    }
    return api.pretrain(recipe, tmp_path / "run").folder


def test_adapt_says_what_was_learned(run: Path, tmp_path: Path) -> None:
    arguments = ["adapt", str(run), "--data", str(tmp_path / "few.csv"), "--out"]
    shown = CliRunner().invoke(app, [*arguments, str(tmp_path / "a")])
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert lines[0].endswith(" s)")
    assert lines[1:3] == ["  5 labelled rows: 3 of x, 2 of y.", "  1 text stands under more than one label."]
    assert lines[3].startswith("  Leave-one-out accuracy: ")
    told = json.loads(CliRunner().invoke(app, [*arguments, str(tmp_path / "b"), "--json"]).stdout)
    assert told["learned"]["rows_per_class"] == {"x": 3, "y": 2}
    assert told["learned"]["prior"] == "run"


def test_weights_reach_the_method_from_python(run: Path) -> None:
    texts, labels = ["a good film", "the red card", "an awful fee"], ["x", "x", "y"]
    weighted = api.adapt(run, texts=texts, labels=labels, weights=[2, 1, 1])
    twice = api.adapt(run, texts=[texts[0], *texts], labels=["x", *labels])
    plain = api.adapt(run, texts=texts, labels=labels)
    answers = [model.predict_proba(["good card", "red"]) for model in (weighted, twice, plain)]
    assert (answers[0] - answers[1]).abs().max() < 1e-6
    assert (answers[0] - answers[2]).abs().max() > 1e-3


def test_classes_count_alike_unless_each_row_is_to_count(
    tiny_folder: Path, tmp_path: Path, write_csv: Callable[..., Path]
) -> None:
    write_task(word_task("seen", rows=24), tmp_path / "seen")
    recipe = {
        "encoder": {"name": str(tiny_folder)},
        "method": {"name": "r2d2", "intercept": "free"},
        "tasks": {"train": [str(tmp_path / "seen")]},
        "outer": {"outer_steps": 1},
    }
    run = quickstudy.pretrain(recipe, out=tmp_path / "run")
    file = write_csv([("good film", "rare"), *((f"bad book {word}", "usual") for word in WORDS[:20])])
    found = {}
    for choice in ("balanced", "none", None):
        out = tmp_path / f"model-{choice}"
        option = ["--class-weight", choice] if choice else []
        done = CliRunner().invoke(app, ["adapt", str(run.folder), "--data", str(file), "--out", str(out), *option])
        assert done.exit_code == 0, done.output
        found[choice] = quickstudy.load_model(out).predict_proba(["good film"])[0, 0]
    assert found[None] == found["balanced"] > found["none"] + 0.1
    words = ["adapt", str(run.folder), "--data", str(file), "--out", str(tmp_path / "full"), "--full"]
    refused = CliRunner().invoke(app, [*words, "--class-weight", "none"]).exception
    assert isinstance(refused, DataError)
    assert not (tmp_path / "full").exists()
