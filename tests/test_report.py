"""The page of a run: everything in one file, well formed, and with the figures of results.json."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from html_page import parse
from quickstudy.config import check_recipe, dump_recipe
from quickstudy.errors import RunError
from quickstudy.evaluation.record import Costs, Draw, Footprint
from quickstudy.evaluation.results import Curve, EvaluatedTask, Learner, Results, UsedProtocol, Versions
from quickstudy.evaluation.results_file import read_results, write_results
from quickstudy.evaluation.statistics import summarize
from quickstudy.evaluation.summary import shots_tables
from quickstudy.report.number import interval, plus_minus
from quickstudy.report.plots import plot_scores, plot_training, style, symbol
from quickstudy.report.run.card import write_card
from quickstudy.report.run.page import write_report
from quickstudy.report.view import Score

LEARNERS = ("meta-trained", "untouched", "linear probe")
TASKS = ("tone", "<b>bold</b> & co")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything in it, and its page; not to be changed."""
    run = _run(tmp_path_factory.mktemp("whole"))
    write_report(run)
    return run


def test_the_page_shows_the_figures_of_the_results(whole: Path) -> None:
    _check_figures(whole, draws=5)


def test_figures_of_one_draw_have_no_interval(tmp_path: Path) -> None:
    run = _run(tmp_path, draws=1, metrics=False)
    write_report(run)
    _check_figures(run, draws=1)


@pytest.mark.parametrize("results", [True, False])
@pytest.mark.parametrize("metrics", [True, False])
def test_the_page_is_whole_and_loads_nothing(tmp_path: Path, results: bool, metrics: bool) -> None:
    run = _run(tmp_path, results=results, metrics=metrics)
    page = parse(write_report(run))
    assert page.open == []
    assert page.misplaced == []
    assert {"html", "head", "title", "body", "main", "h1"} <= page.tags.keys()
    assert page.tags["svg"] == 6 * results + metrics  # the mean and two tasks, three symbols of a legend
    assert not {"script", "iframe", "link", "object", "embed", "base"} & page.tags.keys()
    loads = [v for name, v in page.attributes if name in ("src", "srcset", "href", "xlink:href", "data", "action")]
    loads += re.findall(r"url\(\s*['\"]?([^)'\"]*)", page.source) + re.findall(r"@import\s+(\S+)", page.source)
    assert [load for load in loads if not load.startswith("#")] == []
    assert len(page.source) < 500_000
    assert (run / "plots" / "training.svg").is_file() == metrics
    assert (run / "plots" / "scores-0.svg").is_file() == results


def test_ids_are_unique_and_every_reference_meets_one(whole: Path) -> None:
    page = parse(whole / "report.html")
    ids = Counter(value for name, value in page.attributes if name == "id")
    assert [name for name, count in ids.items() if count > 1] == []
    values = [value for name, value in page.attributes if name != "id"]
    wanted = {m for value in values for m in re.findall(r"url\(#([^)]+)\)", value)}
    wanted |= {value[1:] for name, value in page.attributes if name in ("href", "xlink:href")}
    assert len(wanted) > 10
    assert wanted <= ids.keys()


def test_names_are_text_and_never_markup(whole: Path) -> None:
    page = parse(whole / "report.html")
    assert page.tags["b"] == len(LEARNERS)  # one in each card
    assert page.tags["script"] == 0
    assert "<b>bold</b> & co" in page.text
    assert 'train = ["<script>alert(1)</script>"]' in page.text


def test_the_card_shows_the_figures_of_the_results(tmp_path: Path) -> None:
    run = _run(tmp_path)
    text = write_card(run).read_text(encoding="utf-8")
    results = read_results(run / "results.json", "")
    for task in TASKS:
        for k in (4, 8):
            for name in LEARNERS:
                assert plus_minus(summarize(_scores(results, task, k, name))) in text
    for table in results.tables:
        assert all(interval(mean) in text for mean in table.learners)
    assert text.startswith("---\nlibrary_name: quickstudy\n")
    assert "Not evaluated yet" not in text
    assert "Not evaluated yet" in write_card(_run(tmp_path, "bare", results=False)).read_text(encoding="utf-8")


def test_page_and_card_name_no_place_of_the_machine(tmp_path: Path) -> None:
    tasks = ["/home/ann/notes/complaints.csv?text=body", "glue:rte?path=/home/ann/glue", "samples:meta-train"]
    run = _run(tmp_path, tasks=tasks, encoder="/home/ann/models/tiny", results=False, metrics=False)
    for text in (parse(write_report(run)).text, write_card(run).read_text(encoding="utf-8")):
        assert "ann" not in re.findall(r"\w+", text)
        assert "complaints.csv" in text
        assert "samples:meta-train" in text
        assert "tiny" in text
    assert "/home/ann/notes/complaints.csv" in (run / "config.toml").read_text()  # what a run is resumed from stays


def test_the_page_can_be_written_again(tmp_path: Path) -> None:
    run = _run(tmp_path, results=False)
    first = write_report(run).read_text(encoding="utf-8")
    assert _without_ids(write_report(run).read_text(encoding="utf-8")) == _without_ids(first)
    assert not list(run.glob(".*"))


def test_a_run_that_only_has_its_first_validation_has_a_page(tmp_path: Path) -> None:
    run = _run(tmp_path, results=False)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text(lines[0] + "\n")
    assert parse(write_report(run)).open == []


@pytest.mark.parametrize("write", [write_report, write_card])
def test_a_folder_that_is_no_run_is_refused(write: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_writing_a_page_loads_no_torch(tmp_path: Path) -> None:
    run = _run(tmp_path)
    code = (
        "import sys; from pathlib import Path; from quickstudy.report.run.page import write_report; "
        "from quickstudy.report.run.card import write_card; "
        "run = Path(sys.argv[1]); write_report(run); write_card(run); "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert (run / "report.html").is_file()
    assert (run / "README.md").is_file()


def _check_figures(run: Path, draws: int) -> None:
    page, results = parse(run / "report.html"), read_results(run / "results.json", "")
    lines = [tuple(line) for line in page.rows]
    assert ("task", "shots", *LEARNERS, "meta-trained − untouched") in lines
    for task in TASKS:
        for k in (4, 8):
            scores = [np.array(_scores(results, task, k, name)) for name in LEARNERS]
            gained = summarize(list(scores[0] - scores[1]))
            cells = [plus_minus(summarize(list(of_learner))) for of_learner in scores]
            assert (task, str(k), *cells, plus_minus(gained)) in lines
            assert max(zip(map(np.mean, scores), cells, strict=True))[1] in page.best
    for name in LEARNERS:
        means = [next(mean for mean in table.learners if mean.learner == name) for table in results.tables]
        assert (name, *map(interval, means)) in lines
    assert ("±" in page.text.split("Recipe")[0].split("over draws")[-1]) == (draws > 1)
    best = max(results.tables[-1].learners, key=lambda mean: mean.mean)
    assert f"{best.learner} is best at 8 shots: the mean over 2 tasks is {100 * best.mean:.1f} %" in page.text
    for name in ("protonet", "tiny", "test machine", "meta-trained on, not held out: tone"):
        assert name in page.text
    assert ("2 outer steps of 4 episodes" in page.text) == (run / "metrics.jsonl").exists()


def _scores(results: Results, task: str, shots: int, learner: str) -> list[float]:
    key = task, shots, learner
    return [each.score for each in results.draws if (each.task, each.shots, each.learner) == key]


def _run(
    folder: Path,
    name: str = "a run",
    *,
    draws: int = 5,
    results: bool = True,
    metrics: bool = True,
    tasks: list[str] | None = None,
    encoder: str = "tiny",
) -> Path:
    """A run folder as `quickstudy pretrain` and `evaluate` leave it, as far as the page looks at it."""
    run = folder / name
    run.mkdir()
    train = tasks or ["<script>alert(1)</script>"]
    recipe = check_recipe({"name": name, "encoder": {"name": encoder}, "tasks": {"train": train}})
    (run / "config.toml").write_text(dump_recipe(recipe), encoding="utf-8")
    if metrics:
        steps = [{"step": 0, "loss": None, "validation": 0.5}, {"step": 1, "loss": 0.9, "validation": None}]
        steps.append({"step": 2, "loss": 0.7, "validation": 0.625})
        (run / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps), encoding="utf-8")
    if results:
        write_results(run / "results.json", _results(draws))
    return run


def _results(draws: int) -> Results:
    """Results as `quickstudy evaluate` makes them."""
    random = np.random.default_rng(0)
    made = tuple(
        Draw(
            task=task,
            domain="general",
            kind="classification",
            learner=name,
            shots=k,
            draw=d,
            n_test=30,
            main="accuracy",
            scores={"accuracy": float(random.random())},
            calibration=None,
            labels=None,
            mistakes=None,
            footprint=Footprint("cpu", 1, 0, 0, 0),
            costs=Costs(),
        )
        for task in TASKS
        for name in LEARNERS
        for k in (4, 8)
        for d in range(draws)
    )
    return Results(
        versions=Versions("0", "0", "0", "3", "test machine", "2001-01-01"),
        protocol=UsedProtocol("standard", 1, (4, 8), draws, 0, 30, None, None),
        learners={
            name: Learner("protonet", {}, "tiny", trained, "0" * 64, seen=("tone",) if trained else ())
            for name, trained in zip(LEARNERS, (True, False, False), strict=True)
        },
        tasks={
            task: EvaluatedTask("general", "classification", ("a", "b"), "accuracy", 30, "0" * 64) for task in TASKS
        },
        tables=shots_tables(made, (4, 8)),
        draws=made,
    )


def _without_ids(page: str) -> str:
    """matplotlib draws new ids each time."""
    return re.sub(r"\b[mp][0-9a-f]{10}\b", "id", page)


def test_results_of_the_version_before_say_how_to_renew_them(tmp_path: Path) -> None:
    run = _run(tmp_path)
    (run / "results.json").write_text('{"quickstudy": "0.1.0", "summary": [], "rows": []}', encoding="utf-8")
    for write in (write_report, write_card):
        with pytest.raises(RunError, match=r"format 1, and this quickstudy reads format 2\n  .*evaluate .*--overwrite"):
            write(run)


def test_a_log_that_is_not_utf_8_is_damaged(tmp_path: Path) -> None:
    run = _run(tmp_path)
    (run / "metrics.jsonl").write_bytes(b'{"step": 1}\n\xff\n')
    with pytest.raises(RunError, match="the log is damaged"):
        write_report(run)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.toml", "[half", "the recipe is damaged"),
        ("config.toml", "name = 'x'", "method is missing"),
        ("metrics.jsonl", "{]\n", "this line of the log is damaged"),
        ("metrics.jsonl", '{"step": 0.5}\n', "step = 0.5 is no whole number"),
    ],
)
def test_a_damaged_run_is_named_by_file_and_key(name: str, text: str, message: str, tmp_path: Path) -> None:
    run = _run(tmp_path)
    (run / name).write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=message) as caught:
        write_report(run)
    line = ":1" if name == "metrics.jsonl" else ""
    assert (caught.value.where, bool(caught.value.fix)) == (f"{run / name}{line}", True)


def test_a_drawing_holds_no_control_characters(tmp_path: Path) -> None:
    names = ["late\x1b[31m fee", "nul\x00 and \x9b", "plain"]
    scores = [Score(None, 4, name, 0.5, 0.4, 0.6, 3) for name in names]
    plot_scores(scores, names, [4], tmp_path / "plot.svg")
    text = (tmp_path / "plot.svg").read_text(encoding="utf-8")
    ElementTree.fromstring(text)
    assert not [c for c in text if (c < " " and c not in "\t\n") or "\x7f" <= c < "\xa0"]
    assert "plain" in text


@pytest.mark.parametrize(("learners", "bands"), [(3, 3), (32, 0)])
def test_bands_are_drawn_where_they_can_be_told_apart(learners: int, bands: int, tmp_path: Path) -> None:
    names = [f"learner {number}" for number in range(learners)]
    scores = [Score(None, shots, name, 0.5, 0.4, 0.6, 3) for name in names for shots in (4, 8)]
    plot_scores(scores, names, [4, 8], tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text(encoding="utf-8").count("FillBetweenPolyCollection") == bands


def test_forty_learners_look_different() -> None:
    assert len({str(style(index)) for index in range(40)}) == len({symbol(index) for index in range(40)}) == 40


@pytest.mark.parametrize(("validation", "panels"), [(((1, 0.5), (2, 0.6)), 2), ((), 1)])
def test_a_training_without_validation_has_no_empty_panel(
    validation: tuple[tuple[int, float], ...], panels: int, tmp_path: Path
) -> None:
    plot_training(Curve((1, 2), (0.9, 0.7), validation), tmp_path / "plot.svg", keep="best")
    assert (tmp_path / "plot.svg").read_text(encoding="utf-8").count('id="axes_') == panels
