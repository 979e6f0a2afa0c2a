"""Practice: the script for a file of one's own, and the pages of finance and medicine, whose tables it made."""

import json
import math
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import practice
import practice_tables
import pytest
from practice_tables import Practice, page_tables, read_practice, sets_tables
from sklearn.feature_extraction.text import TfidfVectorizer

import quickstudy
from conftest import score_task, word_task
from quickstudy.errors import DataError
from quickstudy.evaluation.draws import draw_trials, with_test_split
from quickstudy.evaluation.protocol import Protocol
from quickstudy.evaluation.rows import right_rows
from quickstudy.tasks.split import Example, ListSplit

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "benchmarks" / "practice"
PAGES = [("finance.md", "finance.json"), ("medicine.md", "medicine.json")]


@pytest.mark.parametrize(("page", "figures"), PAGES)
def test_the_tables_of_a_page_are_those_of_its_figures(page: str, figures: str) -> None:
    text, kept = (ROOT / "docs" / page).read_text(encoding="utf-8"), read_practice(FIGURES / figures)
    for task in kept.labels:
        for table in page_tables(kept, task).split("\n\n"):
            assert table in text, f"{task}: paste the tables of practice.py --tables {figures} into {page}"
    assert not kept.rare
    split = json.loads((ROOT / "benchmarks" / "split.json").read_text(encoding="utf-8"))
    sides = {Path(name).name: member["side"] for name, member in split.items()}
    assert not [task for task in kept.labels if sides[task] == "train"], "the prior was trained on it"
    for task in [task for task in kept.labels if sides[task] != "test"]:
        assert re.search(rf"{task}.*settings", text), f"{page} does not say that settings were chosen on {task}"


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["practice.py", *map(str, words)])
    try:
        practice.main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    return (code, *capsys.readouterr())


def test_a_file_of_ones_own_gives_figures_and_a_classifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = {"money": ("fee", "refund", "interest rate"), "health": ("fever", "cough", "headache")}
    rows = [(f"a {word} on day {day}", label) for day in range(4) for label, words in topics.items() for word in words]
    file, out, model = tmp_path / "mine.csv", tmp_path / "mine.json", tmp_path / "model"
    file.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding="utf-8")
    code, printed, error = run(
        monkeypatch, capsys, file, "--shots", "2,50", "--draws", 3, "--out", out, "--save", model
    )
    assert code == 0, error
    kept = read_practice(out)
    assert printed.startswith(f"mine: 3 draws\n{page_tables(kept, 'mine')}\n")
    assert kept.learners == ["quickstudy", "linear probe", "TF-IDF"]
    ours = [draw for draw in kept.draws if draw.learner == "quickstudy"]
    assert [(draw.shots, draw.draw, draw.n_test) for draw in ours] == [(2, number, 12) for number in range(3)]
    assert min(draw.accuracy for draw in ours) >= 0.75
    assert all(math.isclose(np.mean(draw.recall), draw.accuracy, abs_tol=1e-3) for draw in ours)  # classes are equal
    assert quickstudy.load_model(model).predict(["a late fee", "a bad cough"]) == ["money", "health"]
    code, printed, error = run(monkeypatch, capsys, file, "--save", model)
    assert (code, printed) == (2, "")
    assert "this exists already" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("samples:fin_company_tone", "samples:fin_claim_support", "--save", "model"), "--save is for one file"),
        (("nowhere.csv",), "nowhere.csv"),
        (("samples:emotion", "--shots", "99"), "no label has enough examples"),
        ((), "give a file of labelled texts"),
    ],
)
def test_what_it_cannot_do_is_refused(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = run(monkeypatch, capsys, *words)
    assert code == 2
    assert message in error
    assert not (tmp_path / "model").exists()


def test_numbers_for_labels_are_refused() -> None:
    with pytest.raises(DataError, match="numbers for labels"):
        practice.refuse([score_task()], None)


def test_of_an_uneven_draw_one_label_has_ten_times_as_many_examples() -> None:
    task = word_task(rows=120, n_way=3)
    rows = [task.train_split[i] for i in range(len(task.train_split))]
    kept = [row for i, row in enumerate(rows) if row.label == 1 or i % 2]  # label 1 has most rows
    unique = [Example(f"{row.text} {i}", label=row.label) for i, row in enumerate(kept)]
    task = with_test_split(replace(task, splits={"train": ListSplit(unique), "test": task.split("test")}), 0)
    (trial,) = draw_trials(Protocol(name="few-shot", shots=(3,), draws=1), task)
    uneven = practice.unbalance(task, trial)
    assert uneven is not None
    assert Counter(example.label for example in uneven.support) == {0: 3, 1: 30, 2: 3}
    assert len({example.text for example in uneven.support}) == 36
    assert uneven == practice.unbalance(task, trial)
    assert practice.unbalance(task, replace(trial, shots=9)) is None


def test_words_of_pairs_are_compared() -> None:
    words = TfidfVectorizer().fit(["late fee", "card"])
    same, other = (practice.bags(words, [Example("late fee", second)]).toarray()[0] for second in ("late fee", "card"))
    assert len(same) == 4 * 3
    assert not same[6:9].any()  # |a - b|
    assert same[9:].sum() == pytest.approx(1)  # a · b, of unit length
    assert not other[9:].any()


def figures(learner: str, gain: float, shots: int = 4) -> list[practice_tables.PracticeDraw]:
    """Return draws of ten sets on which a learner gets a share of the rows right."""
    tests = [Example(str(i)) for i in range(20)]
    return [
        practice_tables.PracticeDraw(
            task=f"set{number}",
            learner=learner,
            shots=shots,
            draw=draw,
            n_test=20,
            accuracy=right / 20,
            f1=right / 20,
            ece=0.1,
            recall=(right / 20, 0.5),
            seconds_fit=0.5,
            seconds_predict_1000=2.0,
            rows=right_rows(tests, np.arange(20) < right),
        )
        for number in range(10)
        for draw in range(2)
        for right in (10 + number % 3 + draw + round(20 * gain),)
    ]


def test_tables_over_sets_give_paired_differences(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(practice_tables, "SETFIT", tmp_path / "none.jsonl")
    draws = (*figures("quickstudy", 0.2), *figures("linear probe", 0.1), *figures("TF-IDF", 0.0))
    labels = {f"set{number}": ("yes", "no") for number in range(10)}
    heading, means, gains = sets_tables(Practice({}, 1, 20, False, labels, draws))
    assert heading.startswith("4 examples per label, 10 sets: set0, set1")
    assert "| linear probe | +10.0 [+10.0, +10.0] | 0.004 |" in gains
    assert "| TF-IDF | +20.0 [+20.0, +20.0] | " in gains
    assert re.search(r"\| quickstudy \| 77\.0 \| 77\.0 \| 50\.0 \| 10\.0 \| 0\.5 \| 2 \|", means)
