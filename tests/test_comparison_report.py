"""The page of a comparison: every figure is of results.json, whatever is in it, and hostile text stays text."""

import csv
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from html_page import Page, parse
from quickstudy.errors import RunError
from quickstudy.evaluation.statistics import average_ranks, compare_all, over_tasks, summarize
from quickstudy.report.comparison import write_comparison
from quickstudy.report.comparison_figures import confusions, diagrams, episodes
from quickstudy.report.comparison_file import read_comparison
from quickstudy.storage import write_json

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
        scores = [f"{100 * one['mean']:.1f} ± {100 * (one['high'] - one['mean']):.1f}" for one in found]
        assert (task, str(k), *scores) in lines
    assert not [line for line in lines if line[:2] == ("likeness", "4")]
    for name in LEARNERS:
        cells = []
        for k, tasks in ((4, ["tone", "a | b <b>$x_1$</b>"]), (16, list(TASKS))):
            one = over_tasks({task: _scores(results, name, task, k) for task in tasks})
            cells.append(" to ".join(f"{100 * one[key]:.1f}" for key in ("low", "high")))
            cells[-1] = f"{100 * one['mean']:.1f} ({cells[-1]})"
        assert (name, *cells) in lines


def test_the_headline_names_the_best_and_what_tells_it_from_the_next(made: Path, page: Page) -> None:
    means = {row["learner"]: row["mean"] for row in _read(made)["by_shots"]["16"]["learners"]}
    best, following = sorted(means, key=lambda name: -means[name])[:2]
    assert f"{best} is best at 16 shots: the mean over 3 tasks is {100 * means[best]:.1f} %" in page.text
    assert f"The next, {following}, is {100 * (means[best] - means[following]):.1f} points behind." in page.text
    assert "cannot be decided, as with 3 tasks and 6 pairs no p is below 0.05" in page.text


def test_differences_are_those_of_the_pairs_and_marked_where_told_from_chance(made: Path, page: Page) -> None:
    results = _read(made)
    for k in SHOTS:
        names = page.rows[_place(page, ["row minus column"])][1:]
        for pair in results["by_shots"][str(k)]["pairs"]:
            places = [_matrix(page, names, pair, start) for start in _matrices(page, k)]
            for (there, back), p in zip(places, (pair["here"]["p_holm"], pair["p_holm"]), strict=True):
                star = "*" if p <= 0.05 else ""
                assert there == f"{100 * pair['mean']:+.1f}".replace("-", "−") + star
                assert back == f"{-100 * pair['mean']:+.1f}".replace("-", "−") + star
    assert page.tags["strong"] > 1


def test_costs_settings_and_provenance_are_shown(made: Path, page: Page) -> None:
    results = _read(made)
    lines = {line[0]: line for line in page.rows if len(line) == 13}
    for name, about in results["learners"].items():
        assert about["weights"] in page.text
        assert {"22,713,216", "1,155", "91.0", "3.1", "300", "400", "cpu"} <= set(lines[name])
    assert all(task["data"] in page.text for task in results["tasks"].values())
    for word in ("0.1.0", "3.11.9", "x86_64, 2 threads", "few-shot", '"inner_lr": 0.1'):
        assert word in page.text
    assert "2 of 80 scored rows of tone were meta-trained on (sst2)" in page.text
    assert "not checked: whether scored texts were meta-trained on" in page.text


def test_confusions_are_added_up_and_classes_averaged(made: Path, page: Page) -> None:
    results = _read(made)
    for of in confusions(read_comparison(made)):
        for name, found in of["learners"].items():
            rows = [r for r in results["rows"] if (r["learner"], r["task"], r["shots"]) == (name, of["task"], 16)]
            assert found["counts"] == np.sum([row["confusion"] for row in rows], axis=0).tolist()
            for label, line in zip(of["labels"], found["counts"], strict=True):
                assert [label, *map(str, line)] in page.rows
            assert (found["right"], found["total"]) == (np.trace(found["counts"]), np.sum(found["counts"]))
            f1 = np.mean([row["per_class"]["f1"] for row in rows], axis=0)
            assert [one["f1"] for one in of["classes"][name]] == pytest.approx(f1.tolist())


def test_reliability_is_that_of_all_predictions_together(made: Path) -> None:
    results = _read(made)
    for one in diagrams(read_comparison(made)):
        rows = [
            r["reliability"]
            for r in results["rows"]
            if (r["learner"], r["shots"]) == (one["learner"], 16) and r["kind"] == "classification"
        ]
        count, sure, right = (np.sum([row[key] for row in rows], axis=0) for key in ("count", "confidence", "right"))
        assert one["n"] == count.sum() == 2 * DRAWS * 60
        assert one["ece"] == pytest.approx(np.abs(sure - right).sum() / count.sum())
        assert f"{one['learner']}: ECE {one['ece']:.3f}" in parse(made / "report.html").text


def test_many_labels_are_shown_by_their_most_frequent_confusions(tmp_path: Path) -> None:
    labels = tuple(f"label {i}" for i in range(31))
    made = _write(tmp_path, make_results(LEARNERS[:1], {"intents": labels}))
    (found,) = confusions(read_comparison(made))
    counts = np.array(found["learners"]["protonet"]["counts"])
    np.fill_diagonal(counts, 0)
    first = found["learners"]["protonet"]["frequent"][0]
    assert first[2] == counts.max()
    assert [first[0], first[1], str(first[2])] in parse(made / "report.html").rows


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
    assert data == episodes(read_comparison(made))
    assert any(HOSTILE in text for text, _ in data["texts"])
    assert "<b>" not in (made / "report.md").read_text(encoding="utf-8")


def test_episodes_hold_the_texts_of_draw_0(made: Path, page: Page) -> None:
    results, data = _read(made), json.loads(page.scripts[0])
    assert (data["tasks"], data["shots"]) == (list(TASKS), ["4", "16"])
    for t, task in enumerate(TASKS):
        for s, k in enumerate(SHOTS):
            support = results["tasks"][task]["supports"].get(str(k))
            found = data["support"][t][s]
            assert (
                found is None
                if support is None
                else [[data["texts"][i][0], label] for i, label in found]
                == [[one["text"], one["label"]] for one in support]
            )
            for n, name in enumerate(data["learners"]):
                wrong = [
                    [w["label"], w["predicted"], w["probability"]]
                    for r in results["rows"]
                    if (r["task"], r["shots"], r["learner"], r["draw"]) == (task, k, name, 0)
                    for w in r["wrong"]
                ]
                assert [one[1:] for one in data["wrong"][t][s][n] or []] == wrong


def test_long_texts_are_cut_and_said_to_be(tmp_path: Path) -> None:
    results = make_results(LEARNERS[:1], {"tone": TASKS["tone"]}, (4,), 1, write=lambda _: "long " * 1000)
    made = _write(tmp_path, results)
    data = episodes(read_comparison(made))
    assert data is not None
    assert [len(text) for text, _ in data["texts"]] == [602]
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
            [wanted[key] for key in ("mean", "low", "high")]
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
    assert write_comparison(made) == made / "report.html"
    assert {name: (made / name).read_bytes() for name in before} == before
    assert {file.name for file in made.iterdir()} == {*before, "report.html", "plots"}


def test_writing_it_loads_no_torch() -> None:
    code = (
        "import sys; from pathlib import Path; import quickstudy.report.comparison; "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda results: results.pop("by_shots"), r"by_shots is missing"),
        (lambda results: results.update(learners={"a": "maml"}), r"learners\.a is no object"),
        (lambda results: results.update(rows={}), r"rows is no list"),
        (lambda results: results["rows"][3].pop("learner"), r"rows\.3\.learner is missing"),
        (lambda results: results["rows"][3].pop("accuracy"), r"rows\.3\.accuracy is missing"),
        (lambda results: results["rows"][3].update(task="x"), r"rows\.3 names 'x', tasks does not"),
        (lambda results: results["by_shots"]["4"]["learners"][0].update(learner="x"), r"by_shots\.4 names 'x'"),
        (lambda results: results["by_shots"]["4"]["learners"][0].update(mean=None), r"learners\.0\.mean is null"),
        (lambda results: results["rows"][3]["confusion"].pop(), r"rows\.3\.confusion has not 2 lines and columns"),
        (lambda results: results["rows"][3]["per_class"]["f1"].pop(), r"rows\.3\.per_class has not 2 labels"),
        (
            lambda results: results["rows"][3]["reliability"]["right"].pop(),
            r"rows\.3\.reliability has lists of unequal",
        ),
        (
            lambda results: results["learners"]["protonet"]["curve"]["loss"].pop(),
            r"learners\.protonet\.curve has steps",
        ),
        (lambda results: results.update(by_shots={}), r"the comparison holds no figures"),
    ],
)
def test_damage_is_named_by_its_place(damage: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    results = make_results(LEARNERS[:2], {"tone": TASKS["tone"]}, draws=2)
    damage(results)
    write_json(tmp_path / "results.json", results)
    with pytest.raises(RunError, match=message) as caught:
        write_comparison(tmp_path)
    assert (caught.value.where, bool(caught.value.fix)) == (str(tmp_path / "results.json"), True)
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize("text", ['{"rows": [', "[]", "\udcff", ""])
def test_what_is_no_json_of_a_comparison_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RunError, match="the file is damaged"):
        write_comparison(tmp_path)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no comparison\n.*quickstudy compare"):
        write_comparison(tmp_path)
    assert list(tmp_path.iterdir()) == []


def _write(folder: Path, results: dict[str, Any]) -> Path:
    write_json(folder / "results.json", results)
    write_comparison(folder)
    return folder


def _read(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return results


def _scores(results: dict[str, Any], learner: str, task: str, shots: int) -> list[float]:
    return [r[r["main"]] for r in results["rows"] if (r["learner"], r["task"], r["shots"]) == (learner, task, shots)]


def _place(page: Page, start: list[str]) -> int:
    return next(index for index, row in enumerate(page.rows) if row[: len(start)] == start)


def _matrices(page: Page, shots: int) -> list[int]:
    """Where the two matrices of a number of shots begin; the largest number is shown first."""
    heads = [index for index, row in enumerate(page.rows) if row[0] == "row minus column"]
    first = 2 * sorted(SHOTS, reverse=True).index(shots)
    return heads[first : first + 2]


def _matrix(page: Page, names: Sequence[str], pair: dict[str, Any], start: int) -> tuple[str, str]:
    """What a matrix says of a pair, and of the pair the other way round."""
    a, b = names.index(pair["a"]) + 1, names.index(pair["b"]) + 1
    return page.rows[start + a][b], page.rows[start + b][a]


def make_results(
    learners: Sequence[str] = LEARNERS,
    tasks: dict[str, tuple[str, ...]] = TASKS,
    shots: Sequence[int | str] = SHOTS,
    draws: int = DRAWS,
    *,
    texts: bool = True,
    write: Callable[[np.random.Generator], str] = lambda random: f"text {random.integers(999)} {HOSTILE}",
    missing: Sequence[tuple[str, int | str]] = (("likeness", 4),),
) -> dict[str, Any]:
    """Results as `quickstudy compare` writes them; `missing` are the (task, shots) that have no draws."""
    random = np.random.default_rng(0)
    rows = [
        _row(random, learners, learner, task, labels, k, draw, write if texts else None)
        for learner in learners
        for task, labels in tasks.items()
        for k in shots
        if (task, k) not in missing
        for draw in range(draws)
    ]
    by_shots = {str(k): _by_shots([row for row in rows if row["shots"] == k]) for k in shots}
    protocol = {"name": "few-shot", "version": 1, "shots": list(shots), "draws": draws, "seed": 0, "limit": 300}
    about = {"quickstudy": "0.1.0", "torch": "2.8", "transformers": "5.0", "python": "3.11.9", "date": "2001-01-01"}
    return about | {
        "machine": "x86_64, 2 threads",
        "protocol": protocol | {"n_way": None, "n_query": None},
        "learners": {name: _learner(name, index, tasks) for index, name in enumerate(learners)},
        "tasks": {
            name: {
                "domain": "finance",
                "kind": "classification" if labels else "regression",
                "label_names": list(labels),
                "metric": "accuracy" if labels else "pearson_spearman",
                "n_test": 60,
                "data": f"{index:064x}",
                "supports": {
                    str(k): _support(random, labels, k, write) for k in shots if texts and (name, k) not in missing
                },
            }
            for index, (name, labels) in enumerate(tasks.items())
        },
        "by_shots": by_shots,
        "rows": rows,
    }


def _row(
    random: np.random.Generator,
    learners: Sequence[str],
    learner: str,
    task: str,
    labels: tuple[str, ...],
    k: int | str,
    draw: int,
    write: Callable[[np.random.Generator], str] | None,
) -> dict[str, Any]:
    place = learners.index(learner)
    about = {"learner": learner, "task": task, "domain": "finance", "shots": k, "draw": draw, "n_test": 60}
    times = {"seconds_adapt": 0.1 * 2**place, "seconds_predict": 1.0}
    level = float(np.clip(0.85 - 0.04 * place + 0.01 * (k if isinstance(k, int) else 16) ** 0.5, 0, 0.95))
    if not labels:
        value = float(np.clip(level - 0.2 + 0.03 * random.standard_normal(), -1, 1))
        scores = {"pearson": value, "spearman": value, "mse": 1.5, "metric": value}
        missed = {"label": 4.5, "predicted": 1.25, "probability": None}
        wrong = [{"text": write(random), "text_pair": write(random)} | missed] if write else []
        return about | times | {"kind": "regression", "main": "metric", "wrong": wrong} | scores
    measured, true, predicted, sure = _classified(random, len(labels), level)
    wrong = [
        {"text": write(random), "text_pair": None, "label": labels[true[i]], "predicted": labels[predicted[i]]}
        | {"probability": float(sure[i])}
        for i in np.flatnonzero(true != predicted)[: 20 if draw == 0 else 0]
        if write
    ]
    return about | times | {"kind": "classification", "main": "accuracy", "wrong": wrong} | measured


def _classified(random: np.random.Generator, n: int, level: float) -> tuple[dict[str, Any], Any, Any, Any]:
    """What is measured of 60 random predictions; the true labels, the predicted ones, and their probabilities."""
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
    measured = {"accuracy": accuracy, "metric": accuracy, "mcc": 0.5, "log_loss": 0.7, "ece": 0.1}
    measured |= {"precision": float(precision.mean()), "recall": float(recall.mean()), "f1": float(f1.mean())}
    lists = {
        "per_class": {"precision": precision.tolist(), "recall": recall.tolist(), "f1": f1.tolist()},
        "confusion": confusion.tolist(),
        "reliability": {
            "count": np.bincount(bins, minlength=15).tolist(),
            "confidence": np.bincount(bins, weights=sure, minlength=15).tolist(),
            "right": np.bincount(bins, weights=right, minlength=15).astype(int).tolist(),
        },
    }
    return measured | lists, true, predicted, sure


def _by_shots(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    scores: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        scores.setdefault(row["learner"], {}).setdefault(row["task"], []).append(row[row["main"]])
    ranks, difference = average_ranks(scores) if len(scores) > 1 else (dict.fromkeys(scores, 1.0), None)
    learners = [
        {"learner": name} | {key: value for key, value in over_tasks(of).items() if key != "above"}
        for name, of in scores.items()
    ]
    return {"learners": learners, "pairs": compare_all(scores), "ranks": ranks, "critical_difference": difference}


def _learner(name: str, index: int, tasks: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    trained = index < 2
    costs = {
        "train_seconds": 812.0 if trained else None,
        "train_peak_mib": None,
        "outer_steps": 200 if trained else None,
    }
    costs |= {"device": "cpu", "parameters": 22713216, "adapted_parameters": 1155, "bytes_saved": 91000000}
    costs |= {"seconds_adapt": 0.013 * 3**index, "adapt_peak_mib": 300.0, "seconds_predict_1000": 3.1}
    steps = list(range(1, 201))
    loss = [1 / step**0.3 if step % 7 else None for step in steps]
    curve = {"step": steps, "loss": loss, "validation": [[0, 0.4], [100, 0.6], [200, None]]}
    found = {"task": next(iter(tasks)), "rows": {"exact": 2}, "total": 80, "sources": ["sst2"], "lineage": []}
    return {
        "method": name.split(",")[0],
        "settings": {"inner_lr": 0.1, "data": "/home/ann/few.csv"},
        "encoder": "/home/ann/models/tiny",
        "trained": trained,
        "weights": f"{index + 100:064x}",
        "costs": costs | {"predict_peak_mib": 400.0},
        "curve": curve if trained else None,
        "overlap": [found | {"examples": ["x"], "share": 0.025}] if index == 0 else None,
    }


def _support(
    random: np.random.Generator, labels: tuple[str, ...], k: int | str, write: Callable[[np.random.Generator], str]
) -> list[dict[str, Any]]:
    each = k if isinstance(k, int) else 20
    return [
        {"text": write(random), "text_pair": None, "label": label}
        for label in labels or (1.5, 4.0)
        for _ in range(each)
    ]
