"""Compare: an interrupted comparison ends in the same bytes, and no finished cell is computed again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from simulations import recommended
from worlds import World

import quickstudy
from conftest import score_task, word_task, write_task
from quickstudy.comparison import job
from quickstudy.comparison.compare import compare
from quickstudy.comparison.learner import named_learner
from quickstudy.errors import DataError, QuickstudyError
from quickstudy.evaluation.pairs import compare_all
from quickstudy.evaluation.protocol import Protocol
from quickstudy.evaluation.record import Costs, Draw, LearnerMean, ShotsTable
from quickstudy.evaluation.results import Learner, Measured, Results, UsedProtocol, Versions
from quickstudy.evaluation.results_file import figure_rows, read_results
from quickstudy.evaluation.rows import unpack
from quickstudy.evaluation.statistics import over_tasks
from quickstudy.report.comparison.recommend import Limits, recommend
from quickstudy.report.comparison.recommendation import Worse
from quickstudy.report.comparison.verdict import Verdict
from quickstudy.report.comparison.words import _decided
from quickstudy.runs import Run

SHOTS = (1, 2)


@pytest.fixture
def made(tiny_folder: Path, tmp_path: Path) -> Path:
    """A run, a collection of three tasks with test splits, and a tiny encoder, in one folder."""
    for number, name in enumerate(("tone", "colour", "count")):
        write_task(word_task(name, rows=24, n_way=2 + number % 2, seed=number), tmp_path / "held" / name)
    write_task(word_task("seen", rows=24, seed=9), tmp_path / "seen")
    recipe = {
        "encoder": {"name": str(tiny_folder)},
        "method": {"name": "protonet"},
        "tasks": {"train": [str(tmp_path / "seen")]},
        "outer": {"outer_steps": 1, "meta_batch_size": 1},
    }
    quickstudy.pretrain(recipe, tmp_path / "run")
    return tmp_path


def _compare(made: Path, out: str, learners: list[str] | None = None, **options: Any) -> Results:
    learners = learners or [str(made / "run"), "linear-probe", "finetune"]
    options = {"protocol": Protocol(shots=SHOTS, draws=2), "encoder": str(made / "tiny"), "texts": True} | options
    return compare(learners, [str(made / "held")], made / out, **options)


def _figures(made: Path, out: str) -> bytes:
    return (made / out / "results.parquet").read_bytes()


def test_an_interrupted_comparison_ends_in_the_same_bytes_and_computes_no_cell_twice(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _compare(made, "whole")
    computed: list[Path] = []
    write = job.write_draws

    def stopping(file: Path, draws: list[Draw]) -> None:
        if len(computed) in (1, 7):  # in the middle of a task's cells, and later
            computed.append(Path())
            raise KeyboardInterrupt
        computed.append(file)
        write(file, draws)

    monkeypatch.setattr(job, "write_draws", stopping)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            _compare(made, "stopped")
        assert not (made / "stopped" / "results.json").exists()
    resumed = _compare(made, "stopped")
    assert _figures(made, "stopped") == _figures(made, "whole")
    cells = [file for file in computed if file.name]
    assert len(cells) == len(set(cells)) == 3 * 3 * 2
    for before, after in zip(whole.tables, resumed.tables, strict=True):
        assert (before.pairs, before.ranks) == (after.pairs, after.ranks)


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
    draws = quickstudy.evaluate(made / "run", made / "held", shots=SHOTS, draws=2).draws
    wanted = {(each.task, each.shots, each.draw): each for each in draws if each.learner == "meta-trained"}
    assert len(table) == len(wanted) == 12
    for row in table:
        other = wanted[row["task"], row["shots"], row["draw"]]
        assert [row[name] for name in ("accuracy", "f1", "mcc")] == [
            other.scores[name] for name in ("accuracy", "f1", "mcc")
        ]
        assert other.calibration is not None
        assert row["log_loss"] == pytest.approx(other.calibration.log_loss, abs=1e-5)


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


def _results(scores: dict[str, dict[str, list[float]]], seconds: dict[str, float] | None = None) -> Results:
    """Results at 4 shots of learner → task → score of each draw; the second learner needs more memory."""
    means = []
    for place, (name, by_task) in enumerate(scores.items()):
        mean, time = over_tasks(by_task), (seconds or {}).get(name, 1.0)
        costs = Costs(seconds_adapt=time, adapt_peak_mib=500.0 * (place + 1), predict_peak_mib=600.0)
        means.append(LearnerMean(name, mean.mean, mean.low, mean.high, mean.n, costs))
    learners = {
        name: Learner(name, {}, "e", False, "0", measured=Measured("cuda" if name == "slow" else "cpu"))
        for name in scores
    }
    table = ShotsTable(4, tuple(means), tuple(compare_all(dict(scores))), dict.fromkeys(scores, 1.0), None)
    protocol = UsedProtocol("few-shot", 1, (4,), 10, 0, None, None, None)
    return Results(Versions(*"123456"), protocol, learners, {}, (table,), ())


def _noisy(means: dict[str, float], noise: float, tasks: int = 4) -> dict[str, dict[str, list[float]]]:
    """Scores of some tasks and ten draws: a mean per learner, what is particular to a task, and noise."""
    random = np.random.default_rng(0)
    levels = random.standard_normal(tasks)
    return {
        name: {str(i): list(0.5 + mean + 0.1 * levels[i] + noise * random.standard_normal(10)) for i in range(tasks)}
        for name, mean in means.items()
    }


def _mean(results: Results, learner: str) -> LearnerMean:
    return next(mean for mean in results.tables[-1].learners if mean.learner == learner)


def _world(**changes: Any) -> Results:
    return World(**{"tasks": 6, "learners": 2, "rows": (200,), "by_draw": 0.01} | changes).results(
        np.random.default_rng(0)
    )


def test_the_better_one_is_recommended_with_its_figures() -> None:
    results = _world(learners=3, lead=0.15)
    choice, mean = recommend(results), _mean(results, "learner 0")
    assert (choice.learner, choice.equals) == ("learner 0", ())
    assert (choice.mean, choice.low, choice.high) == (mean.mean, mean.low, mean.high)
    assert choice.seconds_adapt == mean.costs.seconds_adapt
    assert {worse.learner for worse in choice.worse} == {"learner 1", "learner 2"}
    assert "is ahead of learner 1, learner 2" in choice.why or "is ahead of learner 2, learner 1" in choice.why


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({"tasks": 8, "lead": 0.1}, "decided for tasks like these", "Decided for tasks like these: learner 0"),
        ({"tasks": 4, "lead": 0.1}, "decided for these tasks", "which is not to say for others like them: learner 0"),
        ({"tasks": 1, "lead": 0.2}, "decided for this task", "which is not to say for others like it: learner 0"),
        ({"tasks": 8}, "not decided", "Not decided: the evidence does not tell learner"),
        ({"tasks": 1}, "not decided", "Not decided: the evidence does not tell learner"),
    ],
)
def test_three_things_are_said_of_what_is_decided(changes: dict[str, Any], verdict: str, words: str) -> None:
    choice = recommend(_world(**changes))
    assert choice.verdict == verdict
    assert words in choice.why
    assert [worse.verdict for worse in choice.worse] == ([] if verdict == "not decided" else [verdict])


@pytest.mark.parametrize(("tasks", "learners"), [(1, 2), (1, 6), (1, 10), (6, 2), (6, 6), (12, 2)])
def test_equal_learners_are_called_equal_although_test_rows_are_few(tasks: int, learners: int) -> None:
    """What is called worse here is so by chance; by draws alone some learner would be in half of the cases."""
    choices = recommended(World(tasks, learners, rows=(100, 150), by_draw=0.0), 300)
    assert np.mean([bool(choice.worse) for choice in choices]) <= 0.06 + 0.02  # 300 simulations are ± 2.7 points


def test_without_holm_equal_learners_would_not_be() -> None:
    """The negative control of the correction for many pairs."""
    results = [World(1, 10, by_draw=0.0).results(np.random.default_rng(seed)) for seed in range(60)]
    smallest = [min(pair.these_tasks.p for pair in each.tables[0].pairs) for each in results]
    assert np.mean(np.array(smallest) <= 0.05) > 0.3
    assert np.mean([bool(recommend(each).worse) for each in results]) <= 0.06


def test_each_number_of_shots_is_one_more_look() -> None:
    results = _world(tasks=1, lead=0.1)
    table = results.tables[0]
    several = replace(results, tables=(replace(table, shots=1), replace(table, shots=2), table))
    pair = table.pairs[0]
    for each, looks in ((results, 1), (several, 3)):
        p = looks * pair.these_tasks.p
        assert 0 < p < 1
        assert (recommend(each).verdict == "decided for this task") == (p <= 0.05)
    assert "3 numbers of shots" in recommend(several).why


def test_the_mean_of_the_best_of_equals_is_corrected_for_having_been_picked() -> None:
    choices = recommended(World(1, 6, by_draw=0.0), 100)
    before = np.mean([choice.mean for choice in choices]) - 0.75
    after = np.mean([choice.corrected for choice in choices]) - 0.75
    assert before > 0.02
    assert abs(after) < 0.4 * before
    assert "corrected for having been picked" in choices[0].why


def test_where_test_rows_are_not_known_nothing_is_decided_for_these_tasks() -> None:
    """Results of the version before: they have scores of draws alone."""
    choice = recommend(_results(_noisy({"a": 0.0, "b": 0.1, "c": 0.01}, 0.03)))
    assert (choice.learner, choice.verdict, choice.worse, choice.corrected) == ("b", "not decided", (), None)
    assert "The noise of the test rows is not known" in choice.why
    many = recommend(_results(_noisy({"a": 0.0, "b": 0.3}, 0.03, tasks=8)))
    assert many.verdict == "decided for tasks like these"  # the tasks' spread holds that of their rows


def test_of_equals_the_fastest_is_recommended() -> None:
    choice = recommend(_results(_noisy({"a": 0.0, "b": 0.2, "c": 0.2}, 0.03, tasks=8), {"b": 9.0, "c": 0.1}))
    assert (choice.learner, choice.equals, choice.verdict) == ("c", ("b",), "not decided")
    assert [worse.learner for worse in choice.worse] == ["a"]


def test_a_recommendation_names_the_learners_that_it_means() -> None:
    """The name of a learner is often the beginning of another's: that of the same run without label names."""
    scores = _noisy({"first": 0.002, "first, no names": 0.001, "protonet": 0.0}, 0.03)
    choice = recommend(_results(scores, {"first": 9.0, "first, no names": 8.0, "protonet": 0.1}))
    assert (choice.learner, set(choice.equals)) == ("protonet", {"first", "first, no names"})
    best = max(scores, key=lambda name: _mean(_results(scores), name).mean)
    others = " and ".join(name for name in scores if name != best)
    assert f"Not decided: {best} has the best mean" in choice.why
    assert f"the evidence does not tell it from {others.replace(' and ', ', ')}. protonet" in choice.why


def test_the_strongest_verdict_is_said_first() -> None:
    scores = _world(tasks=8, lead=0.1, learners=3)
    verdicts: tuple[Verdict, ...] = ("decided for these tasks", "decided for tasks like these")
    worse = [Worse(f"learner {i}", 0.1, 0.01, verdict) for i, verdict in enumerate(verdicts, 1)]
    said = _decided(worse, _mean(scores, "learner 0"))
    assert [sentence[:25] for sentence in said] == ["Decided for tasks like th", "Decided for these tasks, "]


def test_noise_alone_is_called_noise() -> None:
    choice = recommend(_results(_noisy(dict.fromkeys("abcdefgh", 0.0), 0.05), {"d": 0.2}))
    assert (choice.learner, choice.verdict, choice.worse) == ("d", "not decided", ())
    assert choice.why.startswith("Not decided: ")
    assert "d (" in choice.why


@pytest.mark.parametrize("draws", [1, 10])
def test_where_no_test_can_tell_the_better_mean_stands(draws: int) -> None:
    """One draw, or learners that do not look at the support set: their difference is the same in every draw."""
    scores = {"a": {"x": [0.2] * draws, "y": [0.3] * draws}, "b": {"x": [0.9] * draws, "y": [0.5] * draws}}
    choice = recommend(_results(scores, {"a": 0.1, "b": 9.0}))
    assert (choice.learner, choice.verdict, choice.equals) == ("b", "not decided", ())
    assert "cannot be tested" in choice.why


def test_limits_are_kept_or_refused() -> None:
    results = _results(_noisy({"slow": 0.3, "fast": 0.0}, 0.03), {"slow": 5.0, "fast": 0.1})
    assert recommend(results).learner == "slow"
    for limits in (Limits(seconds=1.0), Limits(no_gpu=True)):
        assert recommend(results, limits).learner == "fast"
    assert recommend(results, Limits(mib=700)).learner == "slow"  # the first has 600, the second 1,000 MiB
    answer = recommend(results, Limits(shots=9))
    assert answer.shots == 4
    assert answer.why.startswith("The comparison has no figures of 9 shots: this answer is from 4 shots.")
    with pytest.raises(DataError, match=r"no learner is within the limits\n  There are: slow \(5 s, 600 MiB\), fast"):
        recommend(results, Limits(seconds=0.01))
    with pytest.raises(DataError, match=r"no figures of 3 shots or fewer\n  It has 4"):
        recommend(results, Limits(shots=3))


def test_of_equals_that_are_as_fast_the_best_mean_is_recommended() -> None:
    results = _results(_noisy({"a": 0.0, "b": 0.2, "c": 0.201}, 0.03), {"b": 1.0, "c": 1.05})
    assert max(results.tables[-1].learners, key=lambda mean: mean.mean).learner == recommend(results).learner


def test_a_learner_that_was_not_timed_is_not_called_fast() -> None:
    results = _results(_noisy({"a": 0.2, "b": 0.2}, 0.03), {"a": 1.0, "b": 1.0})
    table = results.tables[0]
    untimed = replace(table, learners=(replace(table.learners[0], costs=Costs()), table.learners[1]))
    assert recommend(replace(results, tables=(untimed,))).learner == "b"


def test_own_tasks_are_compared_with_baselines_before_a_recommendation(made: Path) -> None:
    """More shots are asked for than the tasks have examples: the most there can be are measured."""
    words = ["--tasks", str(made / "held"), "--learner", str(made / "run"), "--encoder", str(made / "tiny")]
    found = json.loads(_cli("recommend", made / "mine", *words, "--shots", "30", "--json"))
    results = read_results(made / "mine" / "results.json", "")
    assert found["shots"] == 8
    assert set(results.learners) == {
        "run",
        "majority",
        "label-names",
        "nearest-neighbour",
        "linear-probe",
        "protonet",
    }
    mean = _mean(results, found["learner"])
    assert [found[key] for key in ("mean", "low", "high")] == [mean.mean, mean.low, mean.high]
    assert found["seconds_adapt"] == mean.costs.seconds_adapt
    assert found["why"].startswith("The comparison has no figures of 30 shots: this answer is from 8 shots.")
    again = json.loads(_cli("recommend", made / "mine", "--json", "--shots", "8"))
    assert again | {"why": ""} == found | {"why": ""}
    assert again["why"] == found["why"].partition("from 8 shots. ")[2]


def test_draws_bear_the_name_that_the_learner_has_now(made: Path) -> None:
    before = _compare(made, "out")
    (made / "run").rename(made / "renamed")
    seen: list[Any] = []
    after = _compare(
        made, "out", [str(made / "renamed"), "linear-probe", "finetune"], on_cell=lambda *cell: seen.append(cell)
    )
    assert not seen  # nothing is computed again
    assert [each.learner for each in after.draws] == [
        "renamed" if each.learner == "run" else each.learner for each in before.draws
    ]
    assert set(after.learners) == {"renamed", "linear-probe", "finetune"}


def test_another_encoder_or_another_run_of_the_same_name_is_another_learner(made: Path) -> None:
    one, other = (
        named_learner("protonet", name).fingerprint() for name in ("org/one", "org/other")
    )  # not on this machine
    assert one != other
    before = _compare(made, "out", [str(made / "run")])
    recipe = Run.open(made / "run").recipe.model_dump(exclude_none=True)
    shutil.rmtree(made / "run")
    quickstudy.pretrain(recipe | {"outer": recipe["outer"] | {"outer_steps": 2}}, made / "run")
    after = _compare(made, "out", [str(made / "run")])
    assert [each.calibration for each in before.draws] != [each.calibration for each in after.draws]
    assert before.learners["run"].fingerprint != after.learners["run"].fingerprint
    assert len(list((made / "out" / "cells").iterdir())) == 12


def test_what_an_untouched_learner_starts_with_at_random_makes_another_learner(made: Path) -> None:
    """A recipe with another seed is another start of MAML's head, so it is not the learner that has figures."""
    prints, scores = list[str](), list[Any]()
    for seed in (0, 1):
        text = f'name = "start"\nseed = {seed}\n[encoder]\nname = "{made / "tiny"}"\n'
        text += f'[method]\nname = "maml"\nadapts = "head"\ninner_steps = 1\n[tasks]\ntrain = ["{made / "seen"}"]\n'
        (made / "start.toml").write_text(text)
        prints.append(named_learner(str(made / "start.toml"), "").fingerprint())
        results = _compare(made, "out", [str(made / "start.toml")], protocol=Protocol(shots=(1,), draws=1))
        scores.append([draw.calibration for draw in results.draws])
    assert prints[0] != prints[1]
    assert scores[0] != scores[1]


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
        assert "rows" not in row
        own = "pearson" if row["kind"] == "regression" else "accuracy"
        assert row[own] is not None
    assert set(results.tasks) == {"score", "held/tone", "held/colour", "held/count"}
    for each in results.draws:
        assert each.rows is not None
        assert (each.rows.right is None) == (each.kind == "regression")


def test_a_task_that_was_meta_trained_on_is_named(made: Path) -> None:
    results = compare(
        str(made / "run"), made / "seen", made / "out", protocol=Protocol(shots=(1,), draws=2), allow_overlap=True
    )
    assert results.learners["run"].seen == ("seen",)
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
    assert read_results(made / "out" / "results.json", "") == results
    table = pq.read_table(made / "out" / "results.parquet")
    source = json.loads(table.schema.metadata[b"quickstudy"])
    assert source["protocol"] == {**asdict(results.protocol), "shots": list(SHOTS)}
    assert source["protocol"]["name"] == "standard"
    assert source["trials"] == {name: task.trials for name, task in results.tasks.items()}
    assert source["fingerprints"] == {name: learner.fingerprint for name, learner in results.learners.items()}
    assert [json.loads(line) for line in (made / "out" / "results.jsonl").read_text().splitlines()] == table.to_pylist()
    trained, untouched = results.learners["run"], results.learners["label-names"]
    assert (trained.method, trained.trained, trained.overlap) == ("protonet", True, ())
    assert trained.training is not None
    assert trained.training.curve is not None
    assert (trained.training.outer_steps, trained.training.curve.step, untouched.training) == (1, (1,), None)
    parameters = sum(p.numel() for p in Run.open(made / "run").learner().parameters())
    costs = trained.measured.costs
    assert (trained.measured.parameters, trained.measured.device) == (parameters, "cpu, 1 thread")
    assert min(trained.training.seconds or 0, costs.seconds_adapt or 0, costs.seconds_predict_1000 or 0) > 0
    if sys.platform == "linux":
        peaks = trained.training.peak_mib, costs.adapt_peak_mib, costs.predict_peak_mib
        assert min(peak or 0 for peak in peaks) > 100  # torch alone
    assert str(made) not in (made / "out" / "results.json").read_text()  # results are handed on: no local path
    for each in results.draws:
        assert each.labels is not None
        assert each.calibration is not None
        reliability = each.calibration.reliability
        assert np.sum(each.labels.confusion) == each.n_test == sum(reliability.count)
        right = np.trace(each.labels.confusion) / each.n_test
        assert right == pytest.approx(each.scores["accuracy"]) == pytest.approx(sum(reliability.right) / each.n_test)
        assert each.rows is not None
        known = unpack(each.rows, each.n_test)
        assert known.mean() == pytest.approx(each.scores["accuracy"])
        assert not any(known[mistake.row] for mistake in each.mistakes or ())
        assert (each.mistakes is not None) == (each.draw == 0)
        if each.learner == "label-names":  # it does not look at the support set
            same = [other for other in results.draws if (other.task, other.learner) == (each.task, each.learner)]
            assert {other.score for other in same} == {each.score}


def test_mistakes_are_shown_with_their_texts(made: Path) -> None:
    results = _compare(made, "out", ["label-names"])
    shown = 0
    for each in results.draws:
        first = next(first for first in results.tasks[each.task].first_draws if first.shots == each.shots)
        for mistake in each.mistakes or ():
            assert first.scored[mistake.row].label != mistake.predicted
            shown += 1
    assert shown > 10


def _shown(made: Path) -> int:
    """How many wrong predictions the page can look up."""
    page = (made / "out" / "report.html").read_text(encoding="utf-8")
    _, _, rest = page.partition('id="episode-data">')
    data = json.loads(rest.split("</script>")[0]) if rest else {"wrong": []}
    return sum(len(wrong or []) for of_task in data["wrong"] for of_shots in of_task for wrong in of_shots)


def test_texts_can_be_asked_for_later_and_left_out_again_without_computing_anything(made: Path) -> None:
    """Cells hold no texts, so they serve results with and without them. Without asking, there are none."""
    seen: list[Any] = []
    asked = Protocol(shots=SHOTS, draws=2)
    quiet = compare("linear-probe", str(made / "held"), made / "out", protocol=asked, encoder=str(made / "tiny"))
    assert not any(task.first_draws for task in quiet.tasks.values())
    assert "text" not in json.dumps([figure_rows(quiet.draws), [each.name for each in (made / "out").iterdir()]])
    assert not any('"text"' in file.read_text(encoding="utf-8") for file in (made / "out" / "cells").iterdir())
    assert _shown(made) == 0
    figures = _figures(made, "out")
    _compare(made, "out", ["linear-probe"], on_cell=lambda *cell: seen.append(cell))
    assert _shown(made) > 10
    assert not seen
    assert _figures(made, "out") == figures
    again = _compare(made, "out", ["linear-probe"], texts=False)
    assert (again.tasks, _shown(made)) == (quiet.tasks, 0)


def test_cells_of_the_version_before_are_used_with_and_without_their_texts(made: Path) -> None:
    """They hold the texts of wrong predictions, or after --no-texts none. The page says which are missing."""
    results = _compare(made, "out", ["linear-probe", "label-names"])
    texts = {(name, first.shots): first.scored for name, task in results.tasks.items() for first in task.first_draws}
    for file in (made / "out" / "cells").iterdir():
        rows = json.loads(file.read_text(encoding="utf-8"))
        for row in rows:
            assert row.pop("format") == 2
            del row["seal"]
            scored = texts[row["task"], row["shots"]]
            mistakes = row.pop("mistakes", None)
            if mistakes is not None and row["learner"] == "linear-probe":
                kept = ("predicted", "probability")
                row["wrong"] = [asdict(scored[m["row"]]) | {key: m[key] for key in kept} for m in mistakes]
        file.write_text(json.dumps(rows), encoding="utf-8")
    seen: list[Any] = []
    again = _compare(made, "out", ["linear-probe", "label-names"], on_cell=lambda *cell: seen.append(cell))
    assert not seen
    by_learner = [[each for each in of.draws if each.learner == "linear-probe"] for of in (results, again)]
    for before, after in zip(*by_learner, strict=True):
        assert before.costs.seconds_predict == pytest.approx(after.costs.seconds_predict)
        assert replace(before, costs=after.costs) == after
    assert all(each.costs.seconds_adapt is None for each in again.draws if each.learner == "label-names")
    assert all(each.mistakes is None for each in again.draws if each.learner == "label-names")
    said = "an earlier version computed them without texts"
    assert said in (made / "out" / "report.html").read_text(encoding="utf-8")


def _without_a_draw(rows: list[dict[str, Any]]) -> Any:
    return rows[1:]


def _with_a_mistake_in_no_row(rows: list[dict[str, Any]]) -> Any:
    mistake = {"row": 10**6, "predicted": "a", "probability": 0.5}
    return [row | {"mistakes": [mistake]} for row in rows]


def _with_too_few_rows(rows: list[dict[str, Any]]) -> Any:
    return [row | {"rows": row["rows"] | {"right": ""}} for row in rows]


def _with_wrong_texts_that_are_none(rows: list[dict[str, Any]]) -> Any:
    return [{key: value for key, value in row.items() if key != "format"} | {"wrong": ["x"]} for row in rows]


@pytest.mark.parametrize(
    "damage", [_without_a_draw, _with_a_mistake_in_no_row, _with_too_few_rows, _with_wrong_texts_that_are_none]
)
def test_a_cell_that_does_not_fit_its_trials_is_computed_again(
    made: Path, damage: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    _compare(made, "out", ["linear-probe"])
    file = next((made / "out" / "cells").iterdir())
    before = json.loads(file.read_text(encoding="utf-8"))
    unsealed = [{key: value for key, value in row.items() if key != "seal"} for row in before]
    file.write_text(json.dumps(damage(unsealed)), encoding="utf-8")
    _compare(made, "out", ["linear-probe"])
    assert f"{file.name}: the file is damaged" in caplog.text
    assert [row["rows"] for row in json.loads(file.read_text(encoding="utf-8"))] == [row["rows"] for row in before]


def test_cells_and_results_without_rows_and_with_a_column_that_went_open_as_before(made: Path) -> None:
    """Files of the version before have no rows, and `above` in their pairs."""
    _compare(made, "out", ["linear-probe", "label-names"])
    for file in (made / "out" / "cells").iterdir():
        before = json.loads(file.read_text("utf-8"))
        rows = [{key: row[key] for key in row if key not in ("rows", "seal")} for row in before]
        file.write_text(json.dumps(rows), encoding="utf-8")
    seen: list[Any] = []
    results = _compare(made, "out", ["linear-probe", "label-names"], on_cell=lambda *cell: seen.append(cell))
    assert not seen
    assert all(each.rows is None for each in results.draws)
    file = made / "out" / "results.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    del values["seal"]
    for pair in (pair for table in values["tables"] for pair in table["pairs"]):
        assert not pair.pop("counts_rows")
        pair["above"] = 0.9
    file.write_text(json.dumps(values), encoding="utf-8")
    assert read_results(file, "") == results
    said = _cli("recommend", made / "out")
    assert "The noise of the test rows is not known" in said
    assert "decided for these tasks" not in said.replace("nothing is decided for these tasks alone", "")
    assert "the noise of the test rows is not counted" in _cli("report", made / "out") + (
        made / "out" / "report.html"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ['[{"task": "tone"', "{}", '[{"task": "tone"}]'])
def test_a_damaged_cell_is_named_and_computed_again(made: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    before = _compare(made, "out", ["linear-probe"])
    file = next((made / "out" / "cells").iterdir())
    file.write_text(text, encoding="utf-8")
    again = _compare(made, "out", ["linear-probe"])
    assert f"{file.name}: the file is damaged" in caplog.text
    assert [draw.scores for draw in again.draws] == [draw.scores for draw in before.draws]


def test_results_of_the_version_before_say_how_to_renew_them(made: Path) -> None:
    _compare(made, "out", ["linear-probe"])
    file = made / "out" / "results.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    values.pop("format")
    values.pop("seal")
    file.write_text(json.dumps(values), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "quickstudy", "report", str(made / "out")], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "format 1" in done.stderr
    assert "Give the same `quickstudy compare` again" in done.stderr
    assert "Traceback" not in done.stderr


def _cli(*words: Any) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "quickstudy", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
