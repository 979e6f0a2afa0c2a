"""The whole path, from files to a report, through the command line and through the Python API."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

import quickstudy
from conftest import score_task, tiny_encoder, word_task
from quickstudy.cli.main import main
from quickstudy.errors import NothingLearnedWarning, RecipeError, RunError
from quickstudy.evaluation.results_file import read_results
from quickstudy.full_settings import FullSettings
from quickstudy.methods.catalog import METHODS
from quickstudy.methods.setting import read_settings
from quickstudy.models.encoder import Encoder
from quickstudy.report.table import means_table, tasks_table
from quickstudy.report.view import in_order
from quickstudy.runs import Run
from quickstudy.storage.reading import unseal
from quickstudy.tasks.split import Split

STEPS = 4

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@dataclass
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process, as its entry point does."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr("sys.argv", ["quickstudy", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return Done(int(stop.value.code or 0), out, err)

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny encoder, task files, a recipe and a finished run of it; not to be changed."""
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "tiny").mkdir()
    tiny_encoder(normalize=True, pair="separate").save(folder / "tiny")
    _write_tasks(folder)
    (folder / "recipe.toml").write_text(_recipe(folder), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUICKSTUDY_CACHE", str(folder / "cache"))
        quickstudy.pretrain(folder / "recipe.toml", folder / "run")
    return folder


@pytest.fixture(scope="module")
def evaluated(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run, evaluated on the held-out tasks; not to be changed."""
    run = _copy_of(made / "run", tmp_path_factory.mktemp("evaluated"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUICKSTUDY_CACHE", str(made / "cache"))
        quickstudy.evaluate(run, made / "held", shots=(2, 4), draws=3, limit=20)
    return run


def test_pretrain_leaves_a_whole_run_folder(made: Path, tmp_path: Path, command: Command) -> None:
    assert command("pretrain", made / "recipe.toml", "--out", tmp_path / "run", "--set", "seed=3").code == 0
    run = tmp_path / "run"
    assert {p.name for p in run.iterdir()} == {
        "README.md",
        "checkpoints",
        "config.toml",
        "encoder",
        "manifest.json",
        "meta_learner.safetensors",
        "metrics.jsonl",
        "tasks.json",
        "plots",
        "report.html",
    }
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"last", "best"}
    assert {p.name for p in (run / "plots").iterdir()} == {"training.svg"}
    recipe = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    assert (recipe["seed"], recipe["outer"]["outer_steps"], recipe["outer"]["trains"]) == (3, STEPS, "all")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == list(range(STEPS + 1))  # the first is the untouched start
    assert [line["validation"] is not None for line in lines] == [True, False, True, False, True]
    assert all(line["loss"] > 0 and 0 <= line["accuracy"] <= 1 and line["grad_norm"] > 0 for line in lines[1:])
    assert set(load_file(run / "meta_learner.safetensors")) == {"rule.log_scale"}
    Tags(run / "report.html").assert_whole()


def test_the_encoder_of_a_run_is_a_plain_hugging_face_folder(made: Path) -> None:
    learner = Run.open(made / "run").learner()
    model = AutoModel.from_pretrained(made / "run" / "encoder").eval()
    tokenizer = AutoTokenizer.from_pretrained(made / "run" / "encoder")
    with torch.no_grad():
        states = model(**tokenizer(["a good film"], return_tensors="pt")).last_hidden_state
        pooled = torch.nn.functional.normalize(states.mean(1), dim=-1)
        features = learner.encoder(learner.encoder.tokenize([quickstudy.Example("a good film")]))
    torch.testing.assert_close(pooled, features)
    untouched = tiny_encoder().model.state_dict()
    assert any(not torch.equal(value, untouched[name]) for name, value in model.state_dict().items())


def test_progress_in_a_pipe_is_plain_lines_with_the_loss_of_every_step_and_nothing_else(
    made: Path, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "quickstudy", "pretrain", made / "recipe.toml", "--out", tmp_path / "run"]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}  # tiny models: threads cost more than they give
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=alone)
    assert done.stderr == f"next: quickstudy adapt {tmp_path / 'run'} --data FILE --out model/\n"
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    start, *steps, kept, end = done.stdout.splitlines()
    assert re.fullmatch(rf"step 0/{STEPS}  validation \d+\.\d %", start)
    line = r"step {}/{}  loss (\d+\.\d{{4}})  mean \d+\.\d{{4}}  lr \S+  [\d.]+ episodes/s  left \d+ s( .*)?"
    lines = [re.fullmatch(line.format(i, STEPS), text) for i, text in enumerate(steps, 1)]
    assert len(lines) == STEPS
    losses = [json.loads(text)["loss"] for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()][1:]
    assert [match and match[1] for match in lines] == [f"{loss:.4f}" for loss in losses]
    assert re.fullmatch(rf"kept: step [1-9] of {STEPS}, meta-validation score \d+\.\d %", kept)
    assert end == f"encoder and report: {tmp_path / 'run'}"


def test_json_is_all_that_is_printed_when_asked_for(made: Path, tmp_path: Path, command: Command) -> None:
    done = command("pretrain", made / "recipe.toml", "--out", tmp_path / "run", "--json")
    told = _json(done.out)
    assert told["run"] == str(tmp_path / "run")
    assert told["steps"] == STEPS
    assert 0 <= told["best"] <= 1
    few = _write(tmp_path / "few.csv", word_task().train_split, 12)
    adapted = command("adapt", made / "run", "--data", few, "--out", tmp_path / "model", "--json")
    assert _json(adapted.out)["labels"] == ["0", "1"]


def test_adapt_and_predict_from_the_command_line(made: Path, tmp_path: Path, command: Command) -> None:
    few = _write(tmp_path / "few.csv", word_task().train_split, 16)
    done = command("adapt", made / "run", "--data", few, "--out", tmp_path / "model")
    assert done.code == 0
    first, rows, accuracy = done.out.splitlines()
    assert re.fullmatch(rf"{re.escape(str(tmp_path / 'model'))}: predicts 0, 1 \(protonet, \d+\.\d s\)", first)
    assert rows == "  16 labelled rows: 8 of 0, 8 of 1."
    assert accuracy.startswith("  Leave-one-out accuracy: ")

    texts = ["a good film", "bad bank", "fine new card [x]"]
    table = command("predict", tmp_path / "model", *texts).out.splitlines()
    rows = _json(command("predict", tmp_path / "model", *texts, "--json").out)
    model = quickstudy.load_model(tmp_path / "model")
    assert [row["text"] for row in rows] == texts
    assert [row["label"] for row in rows] == model.predict(texts)
    for row, wanted, line in zip(rows, model.predict_proba(texts).tolist(), table[1:], strict=True):
        assert list(row["probabilities"]) == ["0", "1"]
        assert list(row["probabilities"].values()) == pytest.approx(wanted, abs=1e-6)
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=2e-6)
        assert row["label"] == max(row["probabilities"], key=row["probabilities"].__getitem__)
        assert line.split()[:3] == [row["label"], f"{100 * max(wanted):.1f}", "%"]
        assert line.rstrip().endswith(row["text"])


def test_a_file_is_predicted_in_its_own_order(made: Path, tmp_path: Path, command: Command) -> None:
    model = quickstudy.adapt(made / "run", word_task())
    model.save(tmp_path / "model")
    file = _write(tmp_path / "new.csv", word_task().test_split, 40, text="body", label=None)
    done = command("predict", tmp_path / "model", "--data", file, "--text-column", "body", "--json")
    texts = [word_task().test_split[i].text for i in range(40)]
    assert len({len(text) for text in texts}) > 5  # the model sorts them by length on the way
    assert [row["text"] for row in _json(done.out)] == texts
    assert [row["label"] for row in _json(done.out)] == [model.predict([text])[0] for text in texts]


def test_pairs_go_all_the_way(made: Path, tmp_path: Path, command: Command) -> None:
    task = word_task("pairs", pair=True)
    few = _write(tmp_path / "pairs.csv", task.train_split, 16, text="first", pair="second", label="y")
    columns = ["--text-column", "first", "--pair-column", "second"]
    command("adapt", made / "run", "--data", few, "--out", tmp_path / "model", *columns, "--label-column", "y")
    model = quickstudy.load_model(tmp_path / "model")
    assert model.pair
    examples = [task.test_split[i] for i in range(3)]
    firsts, seconds = [e.text for e in examples], [str(e.text_pair) for e in examples]
    pairs = [argument for second in seconds for argument in ("--pair", second)]
    typed = _json(command("predict", tmp_path / "model", *firsts, *pairs, "--json").out)
    file = _write(tmp_path / "new.csv", task.test_split, 3, text="first", pair="second", label=None)
    read = _json(command("predict", tmp_path / "model", "--data", file, *columns, "--json").out)
    assert typed == read
    assert [row["label"] for row in read] == model.predict(list(zip(firsts, seconds, strict=True)))


def test_numbers_are_learned_and_predicted(made: Path, tmp_path: Path, command: Command) -> None:
    few = _write(tmp_path / "scores.csv", score_task().train_split, 40, label="stars")
    options = ["--label-column", "stars", "--regression"]
    done = command("adapt", made / "run", "--data", few, "--out", tmp_path / "model", *options)
    assert "predicts a number" in done.out
    texts = ["good great fine new", "bad awful poor"]
    rows = _json(command("predict", tmp_path / "model", *texts, "--json").out)
    assert [row["text"] for row in rows] == texts
    assert all(0 <= row["value"] <= 6 for row in rows)  # a weighted mean of the scores it has seen
    assert [row["value"] for row in rows] == pytest.approx(quickstudy.load_model(tmp_path / "model").predict(texts))
    assert f"{rows[0]['value']:.3f}" in command("predict", tmp_path / "model", *texts).out


@pytest.mark.parametrize("pair", [False, True])
def test_full_fine_tuning_learns_a_task(pair: bool, made: Path, tmp_path: Path, command: Command) -> None:
    task = word_task("large", rows=200, pair=pair)
    file = _write(tmp_path / "large.csv", task.train_split, 200)
    before = (made / "run" / "encoder" / "model.safetensors").read_bytes()
    settings = ["--full", "--epochs", 8, "--lr", 1e-2, "--batch-size", 20]
    done = command("adapt", made / "run", "--data", file, "--out", tmp_path / "model", *settings)
    assert done.code == 0
    assert "full fine-tuning" in done.out.splitlines()[-1]
    assert "update 1/80" in done.out
    model = quickstudy.load_model(tmp_path / "model")
    tests = [task.test_split[i] for i in range(200)]
    right = [name == str(e.label) for name, e in zip(model.predict(tests), tests, strict=True)]
    assert sum(right) / 200 > 0.9
    assert (made / "run" / "encoder" / "model.safetensors").read_bytes() == before


def test_full_fine_tuning_learns_numbers_and_is_the_same_again(made: Path) -> None:
    task = score_task(rows=100)
    models = [quickstudy.finetune(made / "run", task, epochs=6, lr=2e-2, batch_size=20, seed=s) for s in (0, 0, 1)]
    tests = [task.test_split[i] for i in range(100)]
    first, second, third = (torch.tensor(model.predict(tests)) for model in models)
    truth = torch.tensor([e.label for e in tests])
    assert torch.corrcoef(torch.stack([first, truth]))[0, 1] > 0.8
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_a_killed_run_is_resumed_from_the_command_line_bit_for_bit(
    made: Path, tmp_path: Path, command: Command
) -> None:
    def kill(record: Any) -> None:
        if record.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quickstudy.pretrain(made / "recipe.toml", tmp_path / "run", on_step=kill)
    with pytest.raises(RunError, match="not finished"):
        quickstudy.adapt(tmp_path / "run", word_task())
    with (tmp_path / "run" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 4, "lo')  # cut off in the middle of a line
    done = command("pretrain", made / "recipe.toml", "--out", tmp_path / "run", "--resume")
    assert done.code == 0
    assert [line.split("  ")[0] for line in done.out.splitlines()[:-2]] == ["step 3/4", "step 4/4"]
    for file in ("encoder/model.safetensors", "meta_learner.safetensors"):
        assert (tmp_path / "run" / file).read_bytes() == (made / "run" / file).read_bytes()
    assert _log(tmp_path / "run") == _log(made / "run")
    Tags(tmp_path / "run" / "report.html").assert_whole()


def test_a_run_is_not_resumed_with_another_recipe(made: Path, tmp_path: Path, command: Command) -> None:
    recipe, run = made / "recipe.toml", _copy_of(made / "run", tmp_path)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    overrides = ["outer.outer_steps=5", "method.name=matching", "method.scale=3.0"]
    parts = (
        f"{run / 'config.toml'}: a resumed run keeps its settings",
        "outer.outer_steps: the run has 4, asked for 5",
        'method.name: the run has "protonet", asked for "matching"',
        "method.scale: the run has 2.0, asked for 3.0",
        f"quickstudy pretrain --resume {run}",
    )
    with pytest.raises(RecipeError) as caught:
        quickstudy.pretrain(recipe, run, overrides=overrides, resume=True)
    settings = [word for override in overrides for word in ("--set", override)]
    done = command("pretrain", recipe, "--out", run, "--resume", *settings)
    assert done.code == 2
    for text in (str(caught.value), done.err):
        assert [words for words in parts if words not in text] == []
    with pytest.raises(RecipeError, match=r"seed: the run has 0, asked for 9"):
        quickstudy.pretrain(tomllib.loads(recipe.read_text(encoding="utf-8")) | {"seed": 9}, run, resume=True)
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_a_run_is_resumed_by_its_recipe_or_by_its_folder_alone(made: Path, tmp_path: Path, command: Command) -> None:
    def kill(record: Any) -> None:
        if record.step == 3:
            raise KeyboardInterrupt

    overrides = ["seed=3"]
    with pytest.raises(KeyboardInterrupt):
        quickstudy.pretrain(made / "recipe.toml", tmp_path / "cut", overrides=overrides, on_step=kill)
    ways: dict[str, Callable[[Path], object]] = {
        "Python, recipe and overrides": lambda run: quickstudy.pretrain(
            made / "recipe.toml", run, overrides=overrides, resume=True
        ),
        "Python, folder": lambda run: quickstudy.pretrain(run, resume=True),
        "command line, recipe and overrides": lambda run: command(
            "pretrain", made / "recipe.toml", "--out", run, "--resume", "--set", *overrides
        ),
        "command line, folder": lambda run: command("pretrain", run, "--resume"),
    }
    encoders = set()
    for number, (way, resume) in enumerate(ways.items()):
        run = Path(shutil.copytree(tmp_path / "cut", tmp_path / str(number)))
        resume(run)
        assert Run.open(run).finished, way
        encoders.add((run / "encoder" / "model.safetensors").read_bytes())
    assert len(encoders) == 1


def test_a_folder_that_is_no_run_cannot_be_resumed(tmp_path: Path, command: Command) -> None:
    done = command("pretrain", tmp_path, "--resume")
    assert done.code == 2
    assert done.err.startswith(f"error: {tmp_path}: this is not a run folder\n")


@pytest.mark.parametrize(("rate", "learns"), [(1e-2, True), (1e-12, False)])
def test_the_step_that_was_kept_is_said_and_the_untouched_encoder_is_warned_of(
    rate: float, learns: bool, made: Path, tmp_path: Path, command: Command
) -> None:
    run, change = tmp_path / "run", ("--set", f"outer.outer_lr={rate}")
    done = command("pretrain", made / "recipe.toml", "--out", run, *change)
    kept = Run.open(run).kept
    assert kept
    assert (kept.steps, kept.step > 0) == (STEPS, learns)
    assert kept.validation == max(line["validation"] or 0 for line in _log(run))
    assert f"kept: step {kept.step} of {STEPS}{'' if learns else ' (the untouched encoder)'}, " in done.out
    assert ("warning: meta-training did not help: none of the 4 outer steps" in done.err) == (not learns)
    card = (run / "README.md").read_text(encoding="utf-8")
    page = (run / "report.html").read_text(encoding="utf-8")
    for shown in (card, page):
        assert f"Kept: {kept.describe()}." in shown
        assert ("meta-training did not help" in shown) == (not learns)
    untouched, trained = (Encoder.load(str(folder)).model for folder in (made / "tiny", run / "encoder"))
    same = all(torch.equal(a, b) for a, b in zip(untouched.parameters(), trained.parameters(), strict=True))
    assert same == (not learns)

    shutil.rmtree(run)
    told = _json(command("pretrain", made / "recipe.toml", "--out", run, "--json", *change).out)
    assert told["kept"] == {"step": kept.step, "validation": kept.validation}
    assert (told["warning"] is None) == learns


def test_python_is_warned_if_nothing_was_learned(made: Path, tmp_path: Path) -> None:
    with pytest.warns(NothingLearnedWarning, match="did not help") as warned:
        run = quickstudy.pretrain(made / "recipe.toml", tmp_path / "run", overrides=["outer.outer_lr=1e-12"])
    assert warned[0].filename == __file__
    assert run.kept
    assert run.kept.step == 0


def test_options_that_full_fine_tuning_cannot_follow_are_refused(made: Path) -> None:
    def refused(message: str, **options: Any) -> None:
        with pytest.raises(RecipeError, match=message):
            quickstudy.finetune(made / "run", word_task(), **options)

    refused("settings are given, and epochs beside them", settings=FullSettings(), epochs=5)
    refused("no option 'epoch'\n  Did you mean 'epochs'", epoch=5)
    refused("no option 'rounds'\n  Choose one of: batch_size, epochs, lr, seed", rounds=5)
    refused("batch_size = 0 is not possible\n  Give a whole number above 0", batch_size=0)
    refused("epochs = nan is not possible", epochs=float("nan"))
    refused("lr = 'fast' is not possible", lr="fast")


def test_a_recipe_is_explained_and_nothing_is_trained(made: Path, tmp_path: Path, command: Command) -> None:
    with chdir(tmp_path):
        done = command("pretrain", made / "recipe.toml", "--explain")
        told = _json(
            command("pretrain", made / "recipe.toml", "--explain", "--json", "--set", "outer.meta_batch_size=3").out
        )
    assert (done.code, [p.name for p in tmp_path.iterdir()]) == (0, ["cache"])
    way, setting, head, *rows = done.out.splitlines()
    assert way == "features once: no encoder parameter adapts, so that one pass gives all that is needed of the encoder"
    assert setting.startswith("2 episodes, 2 at once; single precision on cpu")
    assert head.split("  ")[0] == "an outer step"
    assert [row.split(",")[0].split("  ")[0] for row in rows[:3]] == ["operations", "seconds", "memory"]
    assert (told["episodes"], told["at_once"], told["plan"]["way"]) == (3, 3, "features once")
    assert told["operations"] > 0 < told["seconds"]


def test_explaining_goes_with_no_run(made: Path, tmp_path: Path, command: Command) -> None:
    done = command("pretrain", made / "recipe.toml", "--explain", "--out", tmp_path / "run")
    assert done.code == 2
    assert (
        done.err
        == "error: --explain: --explain trains nothing\n  Leave out --out and --resume, or leave out --explain.\n"
    )


def test_an_existing_run_is_never_overwritten(made: Path, command: Command) -> None:
    before = {p: p.stat().st_mtime_ns for p in (made / "run").rglob("*")}
    done = command("pretrain", made / "recipe.toml", "--out", made / "run")
    assert done.code == 2
    assert done.err.startswith(f"error: {made / 'run'}: this folder exists already\n")
    assert {p: p.stat().st_mtime_ns for p in (made / "run").rglob("*")} == before


def test_evaluate_prints_the_table_that_it_writes(
    made: Path, evaluated: Path, tmp_path: Path, command: Command
) -> None:
    run = _copy_of(made / "run", tmp_path)
    arguments = ["--tasks", made / "held", "--shots", "2,4", "--draws", 3, "--limit", 20]
    done = command("evaluate", run, *arguments)
    assert done.code == 0
    assert "3 draws, 20 test rows at most" in done.out
    results = read_results(run / "results.json", "")
    assert set(results.tasks) == {"held/alpha", "held/beta"}
    page, card = ((run / name).read_text(encoding="utf-8") for name in ("report.html", "README.md"))
    view = in_order(results)
    for table in (means_table(view), tasks_table(view, minus=view.gain)):
        for cell in (cell for line in table.lines for cell in line):
            assert all(cell.text in text for text in (done.out, page, card))
    assert {p.name for p in (run / "plots").iterdir()} == {"training.svg", *(f"scores-{i}.svg" for i in range(3))}
    from_python = read_results(evaluated / "results.json", "")
    assert [each.scores for each in results.draws] == [each.scores for each in from_python.draws]
    assert [table.pairs for table in results.tables] == [table.pairs for table in from_python.tables]


def test_a_report_is_written_again_from_the_files(evaluated: Path, tmp_path: Path, command: Command) -> None:
    run = _copy_of(evaluated, tmp_path)
    (run / "report.html").unlink()
    assert command("report", run).out == f"{run / 'report.html'}\n"
    Tags(run / "report.html").assert_whole()


def test_one_draw_is_valid_json_though_it_has_no_interval(made: Path, tmp_path: Path, command: Command) -> None:
    run = _copy_of(made / "run", tmp_path)
    held = made / "held" / "alpha.csv"
    told = _json(command("evaluate", run, "--tasks", held, "--shots", "2", "--draws", 1, "--json").out)
    assert {pair["these_tasks"]["low"] for pair in told["tables"][0]["pairs"]} == {None}
    assert told == unseal(json.loads((run / "results.json").read_text(encoding="utf-8")))


def test_a_run_of_relative_paths_is_resumed_and_evaluated_from_another_folder(made: Path, tmp_path: Path) -> None:
    recipe = tomllib.loads(_recipe(made).replace(f"{made}/", ""))
    with chdir(made):
        quickstudy.pretrain(recipe, tmp_path / "run")
        (tmp_path / "run" / "meta_learner.safetensors").unlink()
        quickstudy.pretrain(recipe, tmp_path / "run", resume=True)
    with chdir(tmp_path):
        results = quickstudy.evaluate("run", made / "held", shots=(2,), draws=1, limit=20)
    assert results.learners["meta-trained"].overlap == ()  # the meta-train tasks were looked up
    assert str(made) not in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")


def test_tasks_met_in_meta_training_are_named(made: Path, tmp_path: Path, command: Command) -> None:
    run = _copy_of(made / "run", tmp_path)
    done = command("evaluate", run, "--tasks", made / "corpora", "--shots", "2", "--draws", 1, "--allow-overlap")
    assert "meta-trained on, not held out: corpora/colour, corpora/tone" in done.out
    assert "scored rows of corpora/tone were meta-trained on (corpora/tone)" in done.out
    assert "nan" not in done.out.lower()  # one draw has no interval


def test_readme_and_report_name_no_place_of_this_machine(made: Path, evaluated: Path) -> None:
    for name in ("README.md", "report.html"):
        text = (evaluated / name).read_text(encoding="utf-8")
        for place in (made, evaluated, Path.home(), Path.cwd()):
            assert str(place) not in text
        assert "corpora" in text


_BASELINES = ("linear-probe", "finetune", "majority", "nearest-neighbour")


@pytest.mark.filterwarnings("ignore::quickstudy.methods.convergence.PoorConvergenceWarning")  # iMAML in two steps
@pytest.mark.parametrize("method", [name for name in METHODS if name not in _BASELINES])
def test_three_lines_of_python(method: str, made: Path, tmp_path: Path) -> None:
    settings = {"inner_steps": 2} if "inner_steps" in read_settings(METHODS[method]) else {}
    recipe = tomllib.loads(_recipe(made)) | {"method": {"name": method, **settings}}
    recipe["outer"] = {"outer_steps": 2, "meta_batch_size": 1, "validation_episodes": 2}

    run = quickstudy.pretrain(recipe, out=tmp_path / "run")
    model = quickstudy.adapt(
        tmp_path / "run", texts=["good film", "great bank", "bad card", "poor loan"], labels="yynn"
    )
    assert model.predict(["good film"]) in (["y"], ["n"])

    assert isinstance(run, Run)
    assert model.method == method
    assert model.label_names == model.classes_ == ("n", "y")
    again = quickstudy.load_model(model.save(tmp_path / "model"))
    texts = ["good film", "bad bank", "the new fee"]
    torch.testing.assert_close(again.predict_proba(texts), model.predict_proba(texts))
    assert again.predict(texts) == model.predict(texts)
    results = quickstudy.evaluate(run, word_task("unseen"), shots=[2], draws=1, limit=10)
    assert len(results.draws) == 3
    assert results.learners["meta-trained"].method == method


@pytest.mark.parametrize("method", _BASELINES)
def test_a_baseline_is_not_meta_trained(method: str, made: Path, tmp_path: Path) -> None:
    recipe = tomllib.loads(_recipe(made)) | {"method": {"name": method}}
    with pytest.raises(quickstudy.QuickstudyError, match="is a baseline"):
        quickstudy.pretrain(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_adapting_changes_neither_the_run_nor_its_learner(made: Path) -> None:
    before = {p: p.read_bytes() for p in (made / "run").rglob("*") if p.is_file()}
    learner = Run.open(made / "run").learner()
    state = {name: value.clone() for name, value in learner.state_dict().items()}
    first = quickstudy.adapt(made / "run", word_task())
    second = quickstudy.adapt(Run.open(made / "run"), word_task())
    assert torch.equal(first.predict_proba(["a good film"]), second.predict_proba(["a good film"]))
    assert all(torch.equal(value, state[name]) for name, value in learner.state_dict().items())
    assert {p: p.read_bytes() for p in (made / "run").rglob("*") if p.is_file()} == before


def test_tasks_are_listed_with_examples(made: Path, command: Command) -> None:
    told = _json(command("tasks", made / "held", "--show", 1, "--json").out)
    assert [task["name"] for task in told] == ["held/alpha", "held/beta"]
    assert told[1]["labels"] == ["0", "1", "2"]
    assert told[1]["rows"] == {"train": 60}
    assert [example["label"] for example in told[1]["examples"]] == ["0", "1", "2"]
    table = command("tasks", made / "held", "--show", 1).out
    assert all(example["text"] in table for example in told[1]["examples"])


def _write_tasks(folder: Path) -> None:
    """Task files: two to meta-train on, two of validation, and two held out."""
    for place, tasks in {
        "corpora": [word_task("tone"), word_task("colour", n_way=3)],
        "checks": [word_task("check", n_way=3, seed=1), word_task("pairs", pair=True)],
        "held": [word_task("alpha", seed=2), word_task("beta", n_way=3, seed=2)],
    }.items():
        (folder / place).mkdir()
        for task in tasks:
            _write(folder / place / f"{task.name}.csv", task.train_split, 60)


def _recipe(folder: Path) -> str:
    return f"""
name = "tiny"

[encoder]
name = "{folder.as_posix()}/tiny"

[method]
name = "protonet"
scale = 2.0

[tasks]
train = ["{folder.as_posix()}/corpora"]
validation = ["{folder.as_posix()}/checks"]

[episodes]
n_way = [2, 3]
k_shot = 3
n_query = 3

[outer]
outer_steps = {STEPS}
outer_lr = 1e-2
meta_batch_size = 2
warmup_steps = 1
trains = "all"
validate_every = 2
validation_episodes = 5
"""


def _write(
    file: Path, split: Split, rows: int, *, text: str = "text", pair: str = "text_pair", label: str | None = "label"
) -> Path:
    """Write rows of a split as a CSV file; its labels are their positions."""
    examples = [split[i] for i in range(rows)]
    columns: dict[str, list[Any]] = {text: [e.text for e in examples]}
    if examples[0].text_pair is not None:
        columns[pair] = [e.text_pair for e in examples]
    if label:
        columns[label] = [e.label for e in examples]
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return file


def _copy_of(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder / "run"))


def _json(text: str) -> Any:
    """Parse strictly: NaN and Infinity are not JSON."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def _log(run: Path) -> list[dict[str, Any]]:
    """The log without what the clock and the memory say."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    clock = ("seconds", "episodes_per_second", "peak_mib", "waited", "seal")
    return [{key: value for key, value in line.items() if key not in clock} for line in lines]


class Tags(HTMLParser):
    """Whether a page's own tags are there, open and close."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        """A tag that closes itself is neither."""

    def handle_endtag(self, tag: str) -> None:
        self.closed.append(tag)

    def assert_whole(self) -> None:
        main_tags = {"html", "head", "body", "main", "h1", "h2", "figure", "svg", "pre"}
        assert main_tags <= set(self.opened)
        for tag in main_tags:
            assert self.opened.count(tag) == self.closed.count(tag)
