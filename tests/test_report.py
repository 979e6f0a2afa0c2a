"""The page of a run: everything in one file, well formed, and with the figures of results.json."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from html_page import parse
from quickstudy.config import check_recipe, dump_recipe
from quickstudy.errors import RunError
from quickstudy.evaluation.evaluate import summarize_rows
from quickstudy.report.card import write_card
from quickstudy.report.page import write_report
from quickstudy.storage import write_json

LEARNERS = ("meta-trained", "untouched", "linear probe")


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
    assert page.tags["svg"] == results + metrics
    assert not {"script", "iframe", "link", "object", "embed", "base"} & page.tags.keys()
    loads = [v for name, v in page.attributes if name in ("src", "srcset", "href", "xlink:href", "data", "action")]
    loads += re.findall(r"url\(\s*['\"]?([^)'\"]*)", page.source) + re.findall(r"@import\s+(\S+)", page.source)
    assert [load for load in loads if not load.startswith("#")] == []
    assert len(page.source) < 500_000
    assert (run / "plots" / "training.svg").is_file() == metrics
    assert (run / "plots" / "shots.svg").is_file() == results


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
    assert page.tags["b"] == len(LEARNERS)  # the cards' own, one each
    assert page.tags["script"] == 0
    assert "<b>bold</b> & co" in page.text
    assert 'train = ["<script>alert(1)</script>"]' in page.text


def test_the_card_shows_the_figures_of_the_results(tmp_path: Path) -> None:
    run = _run(tmp_path)
    text = write_card(run).read_text(encoding="utf-8")
    for row in json.loads((run / "results.json").read_text())["summary"]:
        assert _percent(row) in text
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
        "import sys; from pathlib import Path; from quickstudy.report.page import write_report; "
        "from quickstudy.report.card import write_card; run = Path(sys.argv[1]); write_report(run); write_card(run); "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert (run / "report.html").is_file()
    assert (run / "README.md").is_file()


def _check_figures(run: Path, draws: int) -> None:
    page = parse(run / "report.html")
    results = json.loads((run / "results.json").read_text())
    head, *lines = page.rows
    assert head == ["task", "shots", *LEARNERS, "difference"]
    wanted: dict[tuple[str, str], list[str]] = {}
    for row in results["summary"]:
        wanted.setdefault((row["task"], str(row["shots"])), [""] * 4)[LEARNERS.index(row["learner"])] = _percent(row)
        if row["learner"] == "untouched":
            wanted[row["task"], str(row["shots"])][3] = _percent(row["difference"])
    assert {(line[0], line[1]): line[2:] for line in lines} == wanted
    assert [line[0] for line in lines] == ["<b>bold</b> & co", "<b>bold</b> & co", "tone", "tone", "average", "average"]
    assert ("±" in lines[0][2]) == (draws > 1)
    best = max((r for r in results["summary"] if (r["task"], r["shots"]) == ("average", 8)), key=lambda r: r["mean"])
    assert _percent(best) in page.best
    for name in ("protonet", "tiny", "test machine"):
        assert name in page.text
    assert ("2 outer steps of 4 episodes" in page.text) == (run / "metrics.jsonl").exists()


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
        random = np.random.default_rng(0)
        rows = [
            {"task": task, "shots": k, "learner": x, "draw": d, "main": "accuracy", "accuracy": float(random.random())}
            for task in ("tone", "<b>bold</b> & co")
            for x in LEARNERS
            for k in (4, 8)
            for d in range(draws)
        ]
        about = {"quickstudy": "0", "torch": "0", "transformers": "0", "machine": "test machine", "date": "2001-01-01"}
        measured = {"draws": draws, "limit": 30, "seen_in_meta_training": ["tone"]}
        summary = summarize_rows(rows, reference=LEARNERS[0])
        write_json(run / "results.json", about | measured | {"summary": summary, "rows": rows})
    return run


def _percent(row: dict[str, Any]) -> str:
    if row["low"] is None:
        return f"{100 * row['mean']:.1f}"
    return f"{100 * row['mean']:.1f} ± {100 * (row['high'] - row['low']) / 2:.1f}"


def _without_ids(page: str) -> str:
    """matplotlib draws new ids each time."""
    return re.sub(r"\b[mp][0-9a-f]{10}\b", "id", page)
