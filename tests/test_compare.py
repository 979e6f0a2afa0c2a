"""Compare: an interrupted comparison ends in the same bytes, no finished cell is computed again, processes change nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import quickstudy
from conftest import score_task, word_task
from quickstudy.comparison import cell as module
from quickstudy.comparison.compare import compare
from quickstudy.comparison.learner import LearnerSpec
from quickstudy.errors import DataError, QuickstudyError
from quickstudy.evaluation.protocol import Protocol
from quickstudy.evaluation.recommend import Limits, recommend
from quickstudy.evaluation.statistics import compare_all, over_tasks
from quickstudy.runs import Run
from quickstudy.storage import finite
from quickstudy.tasks.task import Task

SHOTS = (1, 2)


@pytest.fixture
def made(tiny_folder: Path, tmp_path: Path) -> Path:
    """A run, a collection of three tasks with test splits, and a tiny encoder, in one folder."""
    for number, name in enumerate(("tone", "colour", "count")):
        _write(word_task(name, rows=24, n_way=2 + number % 2, seed=number), tmp_path / "held" / name)
    _write(word_task("seen", rows=24, seed=9), tmp_path / "seen")
    recipe = {
        "encoder": {"name": str(tiny_folder)},
        "method": {"name": "protonet"},
        "tasks": {"train": [str(tmp_path / "seen")]},
        "outer": {"outer_steps": 1, "meta_batch_size": 1},
    }
    quickstudy.pretrain(recipe, tmp_path / "run")
    return tmp_path


def _write(task: Task, folder: Path) -> None:
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        rows = [task.split(split)[i] for i in range(len(task.split(split)))]
        lines = [json.dumps({"text": e.text, "label": task.label_names[int(e.label or 0)]}) for e in rows]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _compare(made: Path, out: str, learners: list[str] | None = None, **options: Any) -> dict[str, Any]:
    learners = learners or [str(made / "run"), "linear-probe", "finetune"]
    options = {"protocol": Protocol(shots=SHOTS, draws=2), "encoder": str(made / "tiny")} | options
    return compare(learners, [str(made / "held")], made / out, **options)


def _figures(made: Path, out: str) -> bytes:
    return (made / out / "results.parquet").read_bytes()


def test_an_interrupted_comparison_ends_in_the_same_bytes_and_computes_no_cell_twice(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _compare(made, "whole")
    computed: list[tuple[str, str, int]] = []
    write = module.write_json

    def stopping(target: Path, value: Any, **options: Any) -> None:
        if target.parent.name == "cells":
            if len(computed) in (1, 7):  # in the middle of a task's cells, and later
                computed.append(("", "", 0))
                raise KeyboardInterrupt
            computed.append((value[0]["learner"], value[0]["task"], value[0]["shots"]))
        write(target, value, **options)

    monkeypatch.setattr(module, "write_json", stopping)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            _compare(made, "stopped")
        assert not (made / "stopped" / "results.json").exists()
    resumed = _compare(made, "stopped")
    assert _figures(made, "stopped") == _figures(made, "whole")
    cells = [cell for cell in computed if cell[0]]
    assert len(cells) == len(set(cells)) == 3 * 3 * 2
    for shots, found in whole["by_shots"].items():
        assert found["pairs"] == resumed["by_shots"][shots]["pairs"]
        assert found["ranks"] == resumed["by_shots"][shots]["ranks"]


def test_one_more_learner_costs_its_own_cells_only(made: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    _compare(made, "out", ["linear-probe"])
    _compare(made, "out", ["linear-probe", "protonet"], on_cell=lambda *cell: seen.append(cell))
    assert [done for done, _, _ in seen] == [8, 10, 12]  # six were there
    assert all(total == 12 and what.endswith("protonet") for _, total, what in seen)
    seen.clear()
    _compare(made, "out", ["linear-probe", "protonet"], on_cell=lambda *cell: seen.append(cell))
    assert not seen


def test_the_figures_are_those_of_evaluate(made: Path) -> None:
    _compare(made, "out", [str(made / "run")])
    table = pq.read_table(made / "out" / "results.parquet").to_pylist()
    rows = quickstudy.evaluate(made / "run", made / "held", shots=SHOTS, draws=2)["rows"]
    wanted = {(r["task"], r["shots"], r["draw"]): r for r in rows if r["learner"] == "meta-trained"}
    assert len(table) == len(wanted) == 12
    for row in table:
        other = wanted[row["task"], row["shots"], row["draw"]]
        assert [row[key] for key in ("accuracy", "f1", "mcc")] == [other[key] for key in ("accuracy", "f1", "mcc")]
        assert row["log_loss"] == pytest.approx(other["log_loss"], abs=1e-5)


def test_two_processes_give_the_same_bytes(made: Path) -> None:
    _compare(made, "one")
    _compare(made, "two", workers=2)
    assert _figures(made, "one") == _figures(made, "two")


def test_killed_from_outside_twice_it_goes_on(made: Path) -> None:
    """A real kill: the command line in a process of its own, ended without warning."""
    words = [sys.executable, "-m", "quickstudy", "compare", "linear-probe", "protonet", "nearest-neighbour"]
    words += ["--tasks", str(made / "held"), "--shots", "1,2", "--draws", "2", "--encoder", str(made / "tiny")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    cells = made / "killed" / "cells"
    for wanted in (1, 5):
        process = subprocess.Popen([*words, "--out", str(made / "killed")], env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list(cells.glob("*.json"))) < wanted:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run([*words, "--out", str(made / "killed")], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "average rank" in done.stdout
    _compare(made, "whole", ["linear-probe", "protonet", "nearest-neighbour"])
    assert _figures(made, "killed") == _figures(made, "whole")


@pytest.mark.parametrize(
    ("learners", "message"),
    [
        (["linear-prob"], r"'linear-prob' is neither a run folder.*\n.*linear-probe"),
        (["protonet", "protonet"], "two learners are called .protonet."),
        ([], "there is no learner to compare"),
    ],
)
def test_learners_that_cannot_be_are_refused(learners: list[str], message: str, made: Path) -> None:
    with pytest.raises(QuickstudyError, match=message):
        compare(learners, [str(made / "held")], made / "out", encoder=str(made / "tiny"))
    assert not (made / "out").exists()


def test_a_folder_that_is_no_comparison_and_what_was_meta_trained_on_are_refused(
    made: Path, write_csv: Callable[..., Path]
) -> None:
    with pytest.raises(QuickstudyError, match="this folder is no comparison"):
        _compare(made, "run")
    (made / "leak").mkdir()
    for split, source in (("train", "train"), ("test", "train")):
        (made / "leak" / f"{split}.jsonl").write_bytes((made / "seen" / f"{source}.jsonl").read_bytes())
    with pytest.raises(DataError, match=r"100\.0 % of the scored rows of task 'leak' were meta-trained on"):
        compare([str(made / "run")], [str(made / "leak")], made / "out", protocol=Protocol(shots=(1,)))
    assert not (made / "out").exists()


def _results(means: dict[str, float], noise: float, seconds: dict[str, float] | None = None) -> dict[str, Any]:
    """Results of four tasks and ten draws: a mean per learner, what is particular to a task, and noise."""
    random = np.random.default_rng(0)
    own = random.standard_normal(4)
    scores = {
        name: {str(i): 0.5 + mean + 0.1 * own[i] + noise * random.standard_normal(10) for i in range(4)}
        for name, mean in means.items()
    }
    learners = [
        {
            "learner": name,
            **over_tasks(of),
            "seconds_adapt": (seconds or {}).get(name, 1.0),
            "adapt_peak_mib": 500.0 * (place + 1),
            "predict_peak_mib": 600.0,
        }
        for place, (name, of) in enumerate(scores.items())
    ]
    return {
        "learners": {name: {"costs": {"device": "cuda" if name == "slow" else "cpu"}} for name in scores},
        "by_shots": {"4": {"learners": learners, "pairs": compare_all(scores)}},
    }


def test_the_better_one_is_recommended_with_its_figures() -> None:
    results = _results({"a": 0.0, "b": 0.1, "c": 0.01}, 0.03)
    found = recommend(results)
    (row,) = [one for one in results["by_shots"]["4"]["learners"] if one["learner"] == "b"]
    assert (found["learner"], found["decided"], found["equals"]) == ("b", True, [])
    assert all(found[key] == row[key] for key in ("mean", "low", "high", "seconds_adapt"))
    assert {one["learner"] for one in found["worse"]} == {"a", "c"}
    assert "is ahead of a, c" in found["why"]


def test_of_equals_the_fastest_is_recommended() -> None:
    found = recommend(_results({"a": 0.0, "b": 0.2, "c": 0.2}, 0.03, {"b": 9.0, "c": 0.1}))
    assert (found["learner"], found["equals"], found["decided"]) == ("c", ["b"], True)


def test_noise_alone_is_called_noise() -> None:
    found = recommend(_results(dict.fromkeys("abcdefgh", 0.0), 0.05, {"d": 0.2}))
    assert (found["learner"], found["decided"], found["worse"]) == ("d", False, [])
    assert found["why"].startswith("Nothing is better than anything else here")


@pytest.mark.parametrize("draws", [1, 10])
def test_where_no_test_can_tell_the_better_mean_stands(draws: int) -> None:
    """One draw, or learners that do not look at the support set: their difference is the same in every draw."""
    scores = {"a": {"x": [0.2] * draws, "y": [0.3] * draws}, "b": {"x": [0.9] * draws, "y": [0.5] * draws}}
    results = _results({"a": 0.0, "b": 0.0}, 0.03, {"a": 0.1, "b": 9.0})
    for row in results["by_shots"]["4"]["learners"]:
        row |= over_tasks(scores[row["learner"]])
    results["by_shots"]["4"]["pairs"] = finite(compare_all(scores))
    found = recommend(results)
    assert (found["learner"], found["decided"], found["equals"]) == ("b", False, [])
    assert "cannot be tested" in found["why"]


def test_limits_are_kept_or_refused() -> None:
    results = _results({"slow": 0.3, "fast": 0.0}, 0.03, {"slow": 5.0, "fast": 0.1})
    assert recommend(results)["learner"] == "slow"
    for limits in (Limits(seconds=1.0), Limits(no_gpu=True)):
        assert recommend(results, limits)["learner"] == "fast"
    assert recommend(results, Limits(mib=700))["learner"] == "slow"  # the first has 600, the second 1,000 MiB
    assert recommend(results, Limits(shots=9))["shots"] == 4
    with pytest.raises(DataError, match=r"no learner is within the limits\n  There are: slow \(5 s, 600 MiB\), fast"):
        recommend(results, Limits(seconds=0.01))
    with pytest.raises(DataError, match=r"no figures of 3 shots or fewer\n  It has 4"):
        recommend(results, Limits(shots=3))


def test_of_equals_that_are_as_fast_the_best_mean_is_recommended() -> None:
    results = _results({"a": 0.0, "b": 0.2, "c": 0.201}, 0.03, {"b": 1.0, "c": 1.05})
    assert (
        max(results["by_shots"]["4"]["learners"], key=lambda row: row["mean"])["learner"]
        == recommend(results)["learner"]
    )


def test_own_tasks_are_compared_with_baselines_before_a_recommendation(made: Path) -> None:
    """More shots are asked for than the tasks have examples: the most there can be are measured."""
    words = ["--tasks", str(made / "held"), "--learner", str(made / "run"), "--encoder", str(made / "tiny")]
    found = json.loads(_cli("recommend", made / "mine", *words, "--shots", "30", "--json"))
    results = json.loads((made / "mine" / "results.json").read_text(encoding="utf-8"))
    assert found["shots"] == 8
    assert set(results["learners"]) == {
        "run",
        "majority",
        "label-names",
        "nearest-neighbour",
        "linear-probe",
        "protonet",
    }
    (row,) = [row for row in results["by_shots"]["8"]["learners"] if row["learner"] == found["learner"]]
    assert all(found[key] == row[key] for key in ("mean", "low", "high", "seconds_adapt"))
    assert json.loads(_cli("recommend", made / "mine", "--json")) == found


def test_rows_bear_the_name_that_the_learner_has_now(made: Path) -> None:
    before = _compare(made, "out")
    (made / "run").rename(made / "renamed")
    seen: list[Any] = []
    after = _compare(
        made, "out", [str(made / "renamed"), "linear-probe", "finetune"], on_cell=lambda *cell: seen.append(cell)
    )
    assert not seen  # nothing is computed again
    assert [row["learner"] for row in after["rows"]] == [
        "renamed" if row["learner"] == "run" else row["learner"] for row in before["rows"]
    ]
    assert set(after["learners"]) == {"renamed", "linear-probe", "finetune"}


def test_another_encoder_or_another_run_of_the_same_name_is_another_learner(made: Path) -> None:
    one, other = (
        LearnerSpec("protonet", name).fingerprint() for name in ("org/one", "org/other")
    )  # not on this machine
    assert one != other
    before = _compare(made, "out", [str(made / "run")])
    recipe = Run.open(made / "run").recipe.model_dump(exclude_none=True)
    shutil.rmtree(made / "run")
    quickstudy.pretrain(recipe | {"outer": recipe["outer"] | {"outer_steps": 2}}, made / "run")
    after = _compare(made, "out", [str(made / "run")])
    assert [row["log_loss"] for row in before["rows"]] != [row["log_loss"] for row in after["rows"]]
    assert before["learners"]["run"]["weights"] != after["learners"]["run"]["weights"]
    assert len(list((made / "out" / "cells").iterdir())) == 12


def test_tables_have_the_columns_of_all_kinds_of_tasks(made: Path) -> None:
    scores = score_task(rows=24)
    (made / "score").mkdir()
    for split in ("train", "test"):
        rows = [scores.split(split)[i] for i in range(len(scores.split(split)))]
        lines = [json.dumps({"text": e.text, "label": e.label}) for e in rows]
        (made / "score" / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    references = [f"{made / 'score'}?kind=regression", made / "held"]
    protocol = Protocol(shots=SHOTS, draws=2)
    results = compare("linear-probe", references, made / "out", protocol=protocol, encoder=str(made / "tiny"))
    rows = pq.read_table(made / "out" / "results.parquet").to_pylist()
    assert {row["kind"] for row in rows} == {"classification", "regression"}
    for row in rows:
        own = "pearson" if row["kind"] == "regression" else "accuracy"
        assert row[own] is not None
    assert set(results["tasks"]) == {"score", "held/tone", "held/colour", "held/count"}


def test_a_task_that_was_meta_trained_on_is_named(made: Path) -> None:
    results = compare(
        str(made / "run"), made / "seen", made / "out", protocol=Protocol(shots=(1,), draws=2), allow_overlap=True
    )
    assert results["learners"]["run"]["seen"] == ["seen"]
    assert "meta-trained on, not held out: seen" in (made / "out" / "report.html").read_text(encoding="utf-8")


def test_full_fine_tuning_takes_each_encoder_once(made: Path) -> None:
    with pytest.raises(DataError, match="'protonet' and 'majority' have the same encoder"):
        _compare(made, "out", ["protonet", "majority"], protocol=Protocol("full", draws=1))


def test_through_ray_the_figures_are_the_same(made: Path) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    _compare(made, "here")
    words = [
        str(made / "run"),
        "linear-probe",
        "finetune",
        "--tasks",
        str(made / "held"),
        "--shots",
        "1,2",
        "--draws",
        "2",
    ]
    _cli("compare", *words, "--encoder", made / "tiny", "--out", made / "there", "--ray", "local", "--workers", "2")
    assert _figures(made, "there") == _figures(made, "here")


def test_results_tell_what_figures_follow_from_and_what_they_cost(made: Path) -> None:
    results = _compare(made, "out", [str(made / "run"), "label-names"])
    table = pq.read_table(made / "out" / "results.parquet")
    source = json.loads(table.schema.metadata[b"quickstudy"])
    assert source["protocol"] == results["protocol"]
    assert source["protocol"]["name"] == "standard"
    assert source["data"] == {name: task["data"] for name, task in results["tasks"].items()}
    assert [json.loads(line) for line in (made / "out" / "results.jsonl").read_text().splitlines()] == table.to_pylist()
    trained, untouched = results["learners"]["run"], results["learners"]["label-names"]
    assert (trained["method"], trained["trained"], trained["overlap"]) == ("protonet", True, [])
    assert trained["curve"]["step"] == [1]
    assert (untouched["curve"], untouched["costs"]["train_seconds"]) == (None, None)
    parameters = sum(p.numel() for p in Run.open(made / "run").learner().parameters())
    costs = trained["costs"]
    assert (costs["parameters"], costs["outer_steps"], costs["device"]) == (parameters, 1, "cpu, 1 thread")
    assert min(costs[key] for key in ("train_seconds", "seconds_adapt", "seconds_predict_1000")) > 0
    if sys.platform == "linux":
        assert min(costs[key] for key in ("train_peak_mib", "adapt_peak_mib", "predict_peak_mib")) > 100  # torch alone
    assert str(made) not in (made / "out" / "results.json").read_text()  # results are handed on: no local path
    for row in results["rows"]:
        assert np.sum(row["confusion"]) == row["n_test"] == sum(row["reliability"]["count"])
        right = np.trace(row["confusion"]) / row["n_test"]
        assert (
            right == pytest.approx(row["accuracy"]) == pytest.approx(sum(row["reliability"]["right"]) / row["n_test"])
        )
        assert ("wrong" in row) == (row["draw"] == 0)
        if row["learner"] == "label-names":  # it does not look at the support set
            assert row["accuracy"] == next(
                r["accuracy"] for r in results["rows"] if r["task"] == row["task"] and r["learner"] == "label-names"
            )
    wrong = [one for row in results["rows"] for one in row.get("wrong", ())]
    assert all(one["label"] != one["predicted"] for one in wrong)
    quiet = _compare(made, "out", [str(made / "run"), "label-names"], texts=False)  # after a comparison with texts
    assert not any(task["supports"] for task in quiet["tasks"].values())
    assert "text" not in json.dumps(quiet["rows"])


def _cli(*words: Any) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "quickstudy", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
