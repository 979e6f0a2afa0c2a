"""Leakage: every kind of overlap is found, in full and quickly, and a clean pair gives no alarm."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import quickstudy
from conftest import word_task
from quickstudy.data.reference import load_tasks
from quickstudy.errors import DataError
from quickstudy.evaluation.draws import all_examples
from quickstudy.evaluation.leakage.find import find_overlap
from quickstudy.evaluation.leakage.refuse import refuse_overlap
from quickstudy.evaluation.trial import PlannedTask, Trial
from quickstudy.seeding import rng
from quickstudy.tasks.split import Example, ListSplit, Split
from quickstudy.tasks.task import Task

LONG = "the company said on tuesday that profit before tax had fallen by a third in the quarter after a fire"


def _task(name: str, texts: list[str | tuple[str, str]], lineage: str = "") -> Task:
    rows = [Example(t, label=i % 2) if isinstance(t, str) else Example(*t, label=i % 2) for i, t in enumerate(texts)]
    pair = not isinstance(texts[0], str)
    return Task(name, {"train": ListSplit(rows)}, ("a", "b"), pair=pair, lineage=frozenset(lineage.split()))


def _scored(name: str, texts: list[str | tuple[str, str]], lineage: str = "") -> PlannedTask:
    task = _task(name, texts, lineage=lineage)
    return _planned(task, task.train_split)


def _planned(task: Task, scored: Split) -> PlannedTask:
    return PlannedTask(task, (Trial(1, 0, task.label_names, (), all_examples(scored)),))


@pytest.mark.parametrize(
    ("trained", "scored", "kind"),
    [
        ("Late again.", "Late again.", "exact"),
        ("Late  again!", "late again", "normalised"),
        ("Caf\u00e9, open", "cafe\u0301 open", "normalised"),
        (LONG, f"reuters reported: {LONG}, and shares fell", "13-gram"),
        (("a cat", "sat down"), ("a cat", "sat down"), "exact"),
        (("a cat", "sat down"), ("A cat!", "sat down."), "normalised"),
        (("one thing", LONG), ("another", LONG[4:]), "13-gram"),
        (("a cat sat", "it was late"), "it was late", "exact"),  # half of a pair, read as a single text
        ("Late again.", "late once more", None),
        (("a cat", "sat down"), ("a cat", "stood up"), None),  # pairs may share a part
        (" ".join(LONG.split()[:12]), " ".join([*LONG.split()[:12], "or", "so"]), None),  # twelve words are no leak
    ],
)
def test_kinds_of_overlap(trained: str | tuple[str, str], scored: str | tuple[str, str], kind: str | None) -> None:
    found = find_overlap([_task("seen", [trained] * 2)], [_scored("held", [scored])])
    assert [overlap.rows for overlap in found] == ([{kind: 1}] if kind else [])
    if kind:
        assert found[0].sources == ("seen",)
        assert found[0].overlapping_fraction == 1.0
        assert found[0].examples[0] == (scored if isinstance(scored, str) else " | ".join(scored))


def test_a_planted_overlap_of_one_percent_is_found_in_full_among_100_000_texts_within_a_minute() -> None:
    random = rng(0, "planted")
    words = [f"w{i}" for i in range(5000)]
    texts = [" ".join(row) for row in random.choice(words, size=(100_000, 18))]
    fresh = [" ".join(row) for row in random.choice(words, size=(20_000, 18))]
    planted = [*texts[:80], *(f"{t.upper()}!" for t in texts[80:140]), *(f"so {t} then" for t in texts[140:200])]
    trained = _task("seen", list(texts))
    tick = time.perf_counter()
    found = find_overlap([trained], [_scored("clean", list(fresh)), _scored("held", [*fresh[200:], *planted])])
    assert time.perf_counter() - tick < 60
    assert [overlap.task for overlap in found] == ["held"]  # the clean one gives no alarm
    assert found[0].rows == {"exact": 80, "normalised": 60, "13-gram": 60}
    with pytest.raises(DataError, match=r"1\.0 % of the scored rows of task 'held'.*\n.*--allow-overlap"):
        refuse_overlap(found)


def test_a_shared_source_is_refused_though_no_text_is_shared() -> None:
    mr = _scored("mr", ["fine", "poor"], lineage="reviews")
    found = find_overlap([_task("sst2", ["good", "bad"], lineage="reviews other")], [mr])
    assert (found[0].rows, found[0].lineage, found[0].sources) == ({}, ("reviews",), ("sst2",))
    with pytest.raises(DataError, match="'mr' is made from the same source as sst2: reviews"):
        refuse_overlap(found)
    assert not find_overlap([_task("mr", ["good", "bad"], lineage="reviews")], [mr])  # itself: no news


def test_a_stray_row_is_reported_and_not_refused() -> None:
    scored = [f"text number {i}" for i in range(400)]
    found = find_overlap([_task("seen", ["text number 7", "else"])], [_scored("held", list(scored))])
    assert found[0].rows == {"exact": 1}
    refuse_overlap(found)


def test_the_bundled_meta_test_tasks_share_nothing_with_the_others() -> None:
    trained = load_tasks(["samples:meta-train", "samples:meta-validation"])
    held_out = [_planned(task, task.test_split) for task in load_tasks("samples:meta-test")]
    assert find_overlap(trained, held_out) == ()


def test_glue_declares_its_sources_and_files_can(write_csv: Callable[..., Path]) -> None:
    from quickstudy.data.glue import GLUE

    assert set(GLUE["mrpc"].lineage) & set(GLUE["stsb"].lineage)
    path = write_csv([("a", "x"), ("b", "y")])
    (task,) = load_tasks(f"{path}?lineage=imdb,rotten tomatoes")
    assert task.lineage == {"imdb", "rotten tomatoes"}


def test_evaluate_refuses_before_anything_is_written_and_says_so_when_it_is_allowed(
    tiny_folder: Path, tmp_path: Path, write_csv: Callable[..., Path]
) -> None:
    task = word_task(rows=40)
    rows = [(task.train_split[i].text, task.label_names[int(task.train_split[i].label or 0)]) for i in range(40)]
    seen = write_csv(rows, "seen.csv")
    (tmp_path / "held").mkdir()
    header = "text,label\n"
    (tmp_path / "held" / "train.csv").write_text(header + "".join(f"new {t},{y}\n" for t, y in rows[20:]))
    (tmp_path / "held" / "test.csv").write_text(header + "".join(f"{t},{y}\n" for t, y in rows[:20]))
    recipe = {
        "encoder": {"name": str(tiny_folder)},
        "method": {"name": "protonet"},
        "tasks": {"train": [str(seen)]},
        "outer": {"outer_steps": 1, "meta_batch_size": 1},
    }
    run = quickstudy.pretrain(recipe, tmp_path / "run")
    with pytest.raises(DataError, match=r"100\.0 % of the scored rows of task 'held' were meta-trained on in seen"):
        quickstudy.evaluate(run, tmp_path / "held", shots=[2], draws=1)
    assert not (run.folder / "results.json").exists()
    results = quickstudy.evaluate(run, tmp_path / "held", shots=[2], draws=1, allow_overlap=True)
    (overlap,) = results.learners["meta-trained"].overlap or ()
    assert overlap.rows == {"exact": 20}
    said = "20 of 20 scored rows of held were meta-trained on (seen)"
    assert said in (run.folder / "report.html").read_text()
    assert said in (run.folder / "README.md").read_text()
    seen.unlink()
    with pytest.raises(DataError, match=r"overlap with the meta-train tasks cannot be checked.*\n.*--allow-overlap"):
        quickstudy.evaluate(run, tmp_path / "held", shots=[2], draws=1, overwrite=True)
    unchecked = quickstudy.evaluate(run, tmp_path / "held", shots=[2], draws=1, overwrite=True, allow_overlap=True)
    assert unchecked.learners["meta-trained"].overlap is None
