"""The page of a comparison: every figure is of results.json, whatever is in it, and hostile text stays text."""

import csv
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from html_page import Page, parse
from quickstudy.errors import RunError
from quickstudy.evaluation.record import (
    Calibration,
    Costs,
    Draw,
    Footprint,
    LabelFigures,
    LabelScores,
    Mistake,
    PairedTest,
    Reliability,
    Shots,
)
from quickstudy.evaluation.results import (
    Curve,
    EvaluatedTask,
    FirstDraw,
    LabelledText,
    Learner,
    Measured,
    Overlap,
    Results,
    Training,
    UsedProtocol,
    Versions,
)
from quickstudy.evaluation.results_file import plain_results, read_results, write_results
from quickstudy.evaluation.statistics import over_tasks, summarize
from quickstudy.evaluation.summary import shots_tables
from quickstudy.report.comparison.episodes import episodes
from quickstudy.report.comparison.figures import diagrams, task_labels
from quickstudy.report.comparison.files import read_comparison
from quickstudy.report.comparison.page import write_pages
from quickstudy.storage.files import write_json

HOSTILE = "</script><b>bold</b><img src=x onerror=alert(1)> & co"
LEARNERS = ("protonet", "maml, long & <i>slanted</i>", "linear-probe", "majority")
TASKS = {"tone": ("good", "bad"), "a | b <b>$x_1$</b>": ("one", HOSTILE, "three"), "likeness": ()}
SHOTS = (4, 16)
DRAWS = 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison with everything in it, and its report; not to be changed."""
    return _write(tmp_path_factory.mktemp("made"), make_results())


@pytest.fixture(scope="module")
def page(made: Path) -> Page:
    return parse(made / "report.html")


def test_the_scores_are_those_of_the_rows(made: Path, page: Page) -> None:
    lines = [tuple(line) for line in page.rows]
    results = _read(made)
    for task, k in [(task, k) for task in TASKS for k in SHOTS if (task, k) != ("likeness", 4)]:
        found = [summarize(_scores(results, name, task, k)) for name in LEARNERS]
        scores = [f"{100 * mean.mean:.1f} ± {100 * (mean.high - mean.mean):.1f}" for mean in found]
        assert (task, str(k), *scores) in lines
    assert not [line for line in lines if line[:2] == ("likeness", "4")]
    for name in LEARNERS:
        cells = []
        for k, tasks in ((4, ["tone", "a | b <b>$x_1$</b>"]), (16, list(TASKS))):
            mean = over_tasks({task: _scores(results, name, task, k) for task in tasks})
            between = f"{100 * mean.low:.1f} to {100 * mean.high:.1f}"
            cells.append(
                f"{100 * mean.mean:.1f} ({between if mean.high - mean.low < 1 else 'too few for an interval'})"
            )
        assert (name, *cells) in lines


def test_the_headline_names_the_best_and_what_tells_it_from_the_next(made: Path, page: Page) -> None:
    means = {mean.learner: mean.mean for mean in _read(made).table(16).learners}
    best, following = sorted(means, key=lambda name: -means[name])[:2]
    assert f"{best} is best at 16 shots: the mean over 3 tasks is {100 * means[best]:.1f} %" in page.text
    assert f"The next, {following}, is {100 * (means[best] - means[following]):.1f} points behind." in page.text
    assert "cannot be decided, as with 3 tasks and 6 pairs no p is below 0.05" in page.text


def test_differences_are_those_of_the_pairs_and_marked_where_told_from_chance(made: Path, page: Page) -> None:
    results = _read(made)
    for k in SHOTS:
        names = page.rows[_place(page, ["row minus column"])][1:]
        for pair in results.table(k).pairs:
            places = [_matrix(page, names, pair, start) for start in _matrices(page, k)]
            for (there, back), p in zip(places, (pair.these_tasks.p_holm, pair.other_tasks.p_holm), strict=True):
                star = "*" if p <= 0.05 else ""
                assert there == f"{100 * pair.mean:+.1f}".replace("-", "−") + star
                assert back == f"{-100 * pair.mean:+.1f}".replace("-", "−") + star
    assert page.tags["strong"] > 1


def test_costs_settings_and_provenance_are_shown(made: Path, page: Page) -> None:
    results = _read(made)
    lines = {line[0]: line for line in page.rows if len(line) == 13}
    for name, learner in results.learners.items():
        assert learner.fingerprint in page.text
        assert {"22,713,216", "1,155", "91.0", "3.1", "300", "400", "cpu"} <= set(lines[name])
    assert all(task.trials in page.text for task in results.tasks.values())
    for word in ("0.1.0", "3.11.9", "x86_64, 2 threads", "few-shot", '"inner_lr": 0.1'):
        assert word in page.text
    assert "2 of 80 scored rows of tone were meta-trained on (sst2)" in page.text
    assert "not checked: whether evaluated texts were meta-trained on" in page.text


def test_confusions_are_added_up_and_classes_averaged(made: Path, page: Page) -> None:
    results = _read(made)
    for of_task in task_labels(read_comparison(made)):
        for name, confusion in of_task.confusions.items():
            draws = _draws(results, name, of_task.task, 16)
            assert np.array_equal(confusion.counts, np.sum([each.labels.confusion for each in draws], axis=0))
            for label, line in zip(of_task.labels, confusion.counts, strict=True):
                assert [label, *map(str, line)] in page.rows
            assert (confusion.right, confusion.total) == (np.trace(confusion.counts), np.sum(confusion.counts))
            f1 = np.mean([each.labels.per_class.f1 for each in draws], axis=0)
            assert [mean.f1 for mean in of_task.scores[name]] == pytest.approx(f1.tolist())


def test_reliability_is_that_of_all_predictions_together(made: Path) -> None:
    results = _read(made)
    for diagram in diagrams(read_comparison(made)):
        bins = [
            each.calibration.reliability
            for each in results.draws
            if (each.learner, each.shots) == (diagram.learner, 16) and each.calibration
        ]
        sums = [[of_draw.count, of_draw.confidence, of_draw.right] for of_draw in bins]
        count, sure, right = np.sum(np.array(sums, dtype=float), axis=0)
        assert diagram.n == count.sum() == 2 * DRAWS * 60
        assert diagram.ece == pytest.approx(np.abs(sure - right).sum() / count.sum())
        assert f"{diagram.learner}: ECE {diagram.ece:.3f}" in parse(made / "report.html").text


def test_many_labels_are_shown_by_their_most_frequent_confusions(tmp_path: Path) -> None:
    labels = tuple(f"label {i}" for i in range(31))
    made = _write(tmp_path, make_results(LEARNERS[:1], {"intents": labels}))
    (of_task,) = task_labels(read_comparison(made))
    counts = np.array(of_task.confusions["protonet"].counts)
    np.fill_diagonal(counts, 0)
    true, predicted, times = of_task.confusions["protonet"].frequent[0]
    assert times == counts.max()
    assert [true, predicted, str(times)] in parse(made / "report.html").rows


def test_the_page_is_whole_and_loads_nothing(page: Page) -> None:
    assert (page.open, page.misplaced) == ([], [])
    assert not {"iframe", "link", "object", "embed", "base", "img", "i"} & page.tags.keys()
    loads = [v for name, v in page.attributes if name in ("src", "srcset", "href", "xlink:href", "data", "action")]
    loads += re.findall(r"url\(\s*['\"]?([^)'\"]*)", page.source) + re.findall(r"@import\s+(\S+)", page.source)
    assert [load for load in loads if not load.startswith("#")] == []
    assert {v for _, v in page.attributes if v.startswith("http")} <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    ids = Counter(value for name, value in page.attributes if name == "id")
    assert [name for name, count in ids.items() if count > 1] == []
    assert {load[1:] for load in loads} <= ids.keys()


def test_it_can_be_read_and_used_without_eyes_or_mouse(page: Page) -> None:
    assert page.tags["table"] == page.tags["caption"]
    assert all(("scope", "col") in at or ("scope", "row") in at for tag, at in page.elements if tag == "th")
    boxes = [at for tag, at in page.elements if ("class", "scroll") in at]
    assert all(("tabindex", "0") in at and dict(at)["aria-label"] for at in boxes)
    drawings = [dict(at) for tag, at in page.elements if tag == "svg"]
    assert all(at.get("aria-label") or at.get("aria-hidden") == "true" for at in drawings)


def test_text_of_the_data_is_never_markup(made: Path, page: Page) -> None:
    assert page.tags["b"] == len(LEARNERS)  # the cards' own, one each
    assert page.tags["script"] == 2
    assert "a | b <b>$x_1$</b>" in page.text
    data = json.loads(page.scripts[0])
    assert data == json.loads(json.dumps(asdict(episodes(read_comparison(made)))))
    assert any(HOSTILE in text for text, _ in data["texts"])
    assert "<b>" not in (made / "report.md").read_text(encoding="utf-8")


def test_episodes_hold_the_texts_of_draw_0(made: Path, page: Page) -> None:
    results, data = _read(made), json.loads(page.scripts[0])
    assert (data["tasks"], data["shots"], data["unkept"]) == (list(TASKS), [4, 16], [])
    for t, task in enumerate(TASKS):
        firsts = {first.shots: first for first in results.tasks[task].first_draws}
        for s, k in enumerate(SHOTS):
            found = data["support"][t][s]
            wanted = [[text.text, text.label] for text in firsts[k].support] if k in firsts else None
            assert wanted == (found and [[data["texts"][i][0], label] for i, label in found])
            for n, name in enumerate(data["learners"]):
                mistakes = [m for each in _draws(results, name, task, k) for m in each.mistakes or ()]
                shown = [[data["texts"][i][0], *rest] for i, *rest in data["wrong"][t][s][n] or []]
                texts = [firsts[k].scored[mistake.row] for mistake in mistakes]
                assert shown == [
                    [text.text, text.label, m.predicted, m.probability] for text, m in zip(texts, mistakes, strict=True)
                ]


def test_long_texts_are_cut_and_said_to_be(tmp_path: Path) -> None:
    results = make_results(LEARNERS[:1], {"tone": TASKS["tone"]}, (4,), 1, write=lambda _: "long " * 1000)
    made = _write(tmp_path, results)
    data = episodes(read_comparison(made))
    assert data is not None
    assert {len(text) for text, _ in data.texts} == {602}
    assert "Long texts are cut" in parse(made / "report.html").text


@pytest.mark.parametrize(
    ("changed", "shown", "missing"),
    [
        ({"texts": False, "shots": (4,)}, "Texts were left out", "The first draw."),
        ({"tasks": {"tone": TASKS["tone"]}}, "the score on one task is", "Mean over tasks: score"),
        ({"learners": LEARNERS[:1]}, "protonet is the only learner at 16 shots", "Paired differences"),
        ({"shots": ("all",), "draws": 1}, "is best at full training data", "±"),
        ({"tasks": {"likeness": ()}, "missing": ()}, "the score on one task is", "Confusion matrices"),
    ],
)
def test_less_than_everything_is_shown_as_well(
    changed: dict[str, Any], shown: str, missing: str, tmp_path: Path
) -> None:
    page = parse(_write(tmp_path, make_results(**{"draws": 2, "learners": LEARNERS[:2]} | changed)) / "report.html")
    assert (page.open, page.misplaced) == ([], [])
    assert shown in page.text
    assert missing not in page.text.replace("mean over draws ± half", "")


def test_the_csv_has_a_line_per_task_shots_and_learner(made: Path) -> None:
    results = _read(made)
    with (made / "report.csv").open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == 5 * len(LEARNERS)
    for line in lines:
        scores = _scores(results, line["learner"], line["task"], int(line["shots"]))
        wanted = summarize(scores)
        assert [float(line[key]) for key in ("mean", "low", "high")] == pytest.approx(
            [wanted.mean, wanted.low, wanted.high]
        )
        assert line["draws"] == str(DRAWS)
        assert line["metric"] == ("pearson_spearman" if line["task"] == "likeness" else "accuracy")
        assert (line["accuracy"] == line["ece"] == "") == (line["task"] == "likeness")


def test_the_markdown_has_the_tables_of_the_page(made: Path, page: Page) -> None:
    lines = (made / "report.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if line.startswith("|")]
    assert len(rows) > 30
    plain = [
        [re.sub(r"\\(.)", r"\1", c.strip("*")).replace("&lt;", "<").replace("&amp;", "&") for c in r] for r in rows
    ]
    assert [row for row in plain if row not in page.rows and set(row) != {"---"}] == []


def test_the_report_names_no_place_of_the_machine(made: Path) -> None:
    for name in ("report.html", "report.md", "report.csv"):
        text = (made / name).read_text(encoding="utf-8")
        assert "/home/ann" not in text
        assert name == "report.csv" or "few.csv" in text


def test_it_can_be_written_again_and_leaves_nothing_else(tmp_path: Path) -> None:
    made = _write(tmp_path, make_results(LEARNERS[:1], {"tone": TASKS["tone"]}, (4,), 2))
    before = {name: (made / name).read_bytes() for name in ("results.json", "report.md", "report.csv")}
    assert write_pages(made) == made / "report.html"
    assert {name: (made / name).read_bytes() for name in before} == before
    assert {file.name for file in made.iterdir()} == {*before, "report.html", "plots"}


def test_writing_it_loads_no_torch() -> None:
    code = (
        "import sys; import quickstudy.report.comparison.page; import quickstudy.report.comparison.recommend; "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda values: values.pop("tables"), r"tables is missing"),
        (lambda values: values.update(learners={"a": "maml"}), r"learners\.a is"),
        (lambda values: values.update(draws={}), r"draws is \{\}"),
        (lambda values: values["draws"].append(3), r"draws\.16 is 3"),
        (lambda values: values["draws"][3].pop("learner"), r"draws\.3\.learner is missing"),
        (lambda values: values["draws"][3].pop("accuracy"), r"draws\.3: the score 'accuracy'"),
        (lambda values: values["draws"][3].update(accuracy="x"), r"draws\.3\.accuracy is"),
        (lambda values: values["draws"][3].update(ece="x"), r"draws\.3\.ece is"),
        (lambda values: values["draws"][3].pop("threads"), r"draws\.3\.threads is missing"),
        (lambda values: values["draws"][3].update(learner="x"), r"draws\.3 names 'x', learners does not"),
        (lambda values: values["draws"][3].update(task="x"), r"draws\.3 names 'x', tasks does not"),
        (lambda values: values["tables"][0]["learners"][0].update(learner="x"), r"table of 4 shots names 'x'"),
        (lambda values: values["tables"][0]["learners"][0].update(mean=None), r"learners\.0\.mean is null"),
        (lambda values: values["draws"][3]["confusion"].pop(), r"draws\.3\.confusion has not 2 lines and columns"),
        (lambda values: values["draws"][3]["per_class"]["f1"].pop(), r"draws\.3\.per_class has not 2 labels"),
        (
            lambda values: values["draws"][3]["reliability"]["right"].pop(),
            r"draws\.3\.reliability: its lists are of uneq",
        ),
        (lambda values: values["learners"]["protonet"]["training"]["curve"]["loss"].pop(), r"curve: it has steps"),
        (lambda values: values.update(tables=[]), r"the comparison holds no figures"),
        (lambda values: values.pop("format"), r"these results have format 1, and this quickstudy reads format 2"),
        (lambda values: values.update(format=9), r"these results have format 9"),
    ],
)
def test_damage_is_named_by_its_place(damage: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    values = json.loads(json.dumps(plain_results(make_results(LEARNERS[:2], {"tone": TASKS["tone"]}, draws=4))))
    damage(values)
    write_json(tmp_path / "results.json", values)
    with pytest.raises(RunError, match=message) as caught:
        write_pages(tmp_path)
    assert (caught.value.where, bool(caught.value.fix)) == (str(tmp_path / "results.json"), True)
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_results_come_back_from_their_file_as_they_were(made: Path) -> None:
    assert _read(made) == make_results()


@pytest.mark.parametrize("text", ['{"rows": [', "[]", "\udcff", ""])
def test_what_is_no_json_of_a_comparison_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RunError, match="the file is damaged"):
        write_pages(tmp_path)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no comparison\n.*quickstudy compare"):
        write_pages(tmp_path)
    assert list(tmp_path.iterdir()) == []


def _write(folder: Path, results: Results) -> Path:
    write_results(folder / "results.json", results)
    write_pages(folder)
    return folder


def _read(folder: Path) -> Results:
    return read_results(folder / "results.json", "")


def _draws(results: Results, learner: str, task: str, shots: Shots) -> list[Draw]:
    key = learner, task, shots
    return [each for each in results.draws if (each.learner, each.task, each.shots) == key]


def _scores(results: Results, learner: str, task: str, shots: Shots) -> list[float]:
    return [each.score for each in _draws(results, learner, task, shots)]


def _place(page: Page, start: list[str]) -> int:
    return next(index for index, row in enumerate(page.rows) if row[: len(start)] == start)


def _matrices(page: Page, shots: int) -> list[int]:
    """Where the two matrices of a number of shots begin; the largest number is shown first."""
    heads = [index for index, row in enumerate(page.rows) if row[0] == "row minus column"]
    first = 2 * sorted(SHOTS, reverse=True).index(shots)
    return heads[first : first + 2]


def _matrix(page: Page, names: Sequence[str], pair: PairedTest, start: int) -> tuple[str, str]:
    """What a matrix says of a pair, and of the pair the other way round."""
    a, b = names.index(pair.a) + 1, names.index(pair.b) + 1
    return page.rows[start + a][b], page.rows[start + b][a]


def make_results(
    learners: Sequence[str] = LEARNERS,
    tasks: dict[str, tuple[str, ...]] = TASKS,
    shots: Sequence[Shots] = SHOTS,
    draws: int = DRAWS,
    *,
    texts: bool = True,
    write: Callable[[np.random.Generator], str] = lambda random: f"text {random.integers(999)} {HOSTILE}",
    missing: Sequence[tuple[str, Shots]] = (("likeness", 4),),
) -> Results:
    """Results as `quickstudy compare` makes them; `missing` are the (task, shots) that have no draws."""
    random = np.random.default_rng(0)
    made = tuple(
        _draw(random, learners, learner, task, labels, k, draw)
        for learner in learners
        for task, labels in tasks.items()
        for k in shots
        if (task, k) not in missing
        for draw in range(draws)
    )
    return Results(
        versions=Versions("0.1.0", "2.8", "5.0", "3.11.9", "x86_64, 2 threads", "2001-01-01"),
        protocol=UsedProtocol("few-shot", 1, tuple(shots), draws, 0, 300, None, None),
        learners={name: _learner(name, index, tasks) for index, name in enumerate(learners)},
        tasks={
            name: EvaluatedTask(
                domain="finance",
                kind="classification" if labels else "regression",
                label_names=labels,
                metric="accuracy" if labels else "pearson_spearman",
                n_test=60,
                trials=f"{index:064x}",
                first_draws=tuple(
                    FirstDraw(k, _support(random, labels, k, write), _wrong_texts(random, made, name, k, labels, write))
                    for k in shots
                    if texts and (name, k) not in missing
                ),
            )
            for index, (name, labels) in enumerate(tasks.items())
        },
        tables=shots_tables(made, shots),
        draws=made,
    )


def _draw(
    random: np.random.Generator,
    learners: Sequence[str],
    learner: str,
    task: str,
    labels: tuple[str, ...],
    k: Shots,
    draw: int,
) -> Draw:
    place = learners.index(learner)
    level = float(np.clip(0.85 - 0.04 * place + 0.01 * (k if isinstance(k, int) else 16) ** 0.5, 0, 0.95))
    calibration, figures, mistakes = None, None, None
    if labels:
        scores, calibration, figures, mistakes = _classified(random, labels, level)
    else:
        value = float(np.clip(level - 0.2 + 0.03 * random.standard_normal(), -1, 1))
        scores = {"pearson": value, "spearman": value, "mse": 1.5, "metric": value}
    return Draw(
        task=task,
        domain="finance",
        kind="classification" if labels else "regression",
        learner=learner,
        shots=k,
        draw=draw,
        n_test=60,
        main="accuracy" if labels else "metric",
        scores=scores,
        calibration=calibration,
        labels=figures,
        mistakes=mistakes if draw == 0 else None,
        footprint=Footprint("cpu", 1, 22713216, 1155, 91000000),
        costs=Costs(seconds_adapt=0.1 * 2**place, seconds_predict=1.0),
    )


def _classified(
    random: np.random.Generator, labels: tuple[str, ...], level: float
) -> tuple[dict[str, float], Calibration, LabelFigures, tuple[Mistake, ...]]:
    """What is measured of 60 random predictions, and those of them that are wrong."""
    n = len(labels)
    true = random.integers(n, size=60)
    predicted = np.where(random.random(60) < level + 0.03 * random.standard_normal(), true, random.integers(n, size=60))
    confusion = np.zeros((n, n), dtype=int)
    np.add.at(confusion, (true, predicted), 1)
    sure = random.uniform(1 / n, 1, size=60)
    bins = np.minimum((sure * 15).astype(int), 14)
    right = true == predicted
    recall, precision = (confusion.diagonal() / np.maximum(1, confusion.sum(axis)) for axis in (1, 0))
    f1 = 2 * precision * recall / np.maximum(1e-9, precision + recall)
    accuracy = float(right.mean())
    scores = {"accuracy": accuracy, "metric": accuracy, "mcc": 0.5}
    scores |= {"precision": float(precision.mean()), "recall": float(recall.mean()), "f1": float(f1.mean())}
    sums = (np.bincount(bins, weights, 15) for weights in (None, sure, right))
    count, confidence, hits = (tuple(values.tolist()) for values in sums)
    calibration = Calibration(0.7, 0.1, Reliability(count, confidence, tuple(map(int, hits))))
    per_class = LabelScores(*(tuple(values.tolist()) for values in (precision, recall, f1)))
    wrong = np.flatnonzero(~right)[:20]
    mistakes = tuple(Mistake(int(row), labels[predicted[row]], float(sure[row])) for row in wrong)
    return scores, calibration, LabelFigures(per_class, tuple(map(tuple, confusion.tolist()))), mistakes


def _learner(name: str, index: int, tasks: dict[str, tuple[str, ...]]) -> Learner:
    trained = index < 2
    steps = tuple(range(1, 201))
    loss = tuple(1 / step**0.3 if step % 7 else None for step in steps)
    curve = Curve(steps, loss, ((0, 0.4), (100, 0.6), (200, None)))
    overlap = Overlap(next(iter(tasks)), {"exact": 2}, 80, ("sst2",), (), ("x",))
    costs = Costs(0.013 * 3**index, 0.1, 3.1, 300.0, 400.0)
    return Learner(
        method=name.split(",")[0],
        settings={"inner_lr": 0.1, "data": "/home/ann/few.csv"},
        encoder="/home/ann/models/tiny",
        trained=trained,
        fingerprint=f"{index + 100:064x}",
        training=Training(200, 812.0, None, curve) if trained else None,
        overlap=(overlap,) if index == 0 else None,
        measured=Measured("cpu", 22713216.0, 1155.0, 91000000.0, costs),
    )


def _support(
    random: np.random.Generator, labels: tuple[str, ...], k: Shots, write: Callable[[np.random.Generator], str]
) -> tuple[LabelledText, ...]:
    each = k if isinstance(k, int) else 20
    return tuple(LabelledText(write(random), None, label) for label in labels or (1.5, 4.0) for _ in range(each))


def _wrong_texts(
    random: np.random.Generator,
    draws: Sequence[Draw],
    task: str,
    k: Shots,
    labels: tuple[str, ...],
    write: Callable[[np.random.Generator], str],
) -> dict[int, LabelledText]:
    shown = [each for each in draws if (each.task, each.shots) == (task, k)]
    rows = sorted({mistake.row for each in shown for mistake in each.mistakes or ()})
    return {row: LabelledText(write(random), write(random), labels[0]) for row in rows}
