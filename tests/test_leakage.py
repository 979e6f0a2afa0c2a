"""Leakage: every kind of overlap is found, in full and quickly, and a clean pair gives no alarm."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

import quickstudy
from conftest import word_task
from quickstudy.comparison.compare import compare
from quickstudy.data.reference import load_tasks
from quickstudy.errors import DataError
from quickstudy.evaluation.draws import all_examples
from quickstudy.evaluation.json_file import as_record
from quickstudy.evaluation.leakage.edits import within_edits
from quickstudy.evaluation.leakage.find import find_overlap
from quickstudy.evaluation.leakage.grams import FlatTexts, GramTable, all_grams
from quickstudy.evaluation.leakage.refuse import refuse_overlap
from quickstudy.evaluation.leakage.units import split_units
from quickstudy.evaluation.protocol import Protocol
from quickstudy.evaluation.results import Learner, Overlap
from quickstudy.evaluation.results_file import read_results
from quickstudy.evaluation.trial import PlannedTask, Trial
from quickstudy.report.overlap import overlap_notes
from quickstudy.runs import Run
from quickstudy.seeding import rng
from quickstudy.tasks.split import Example, ListSplit, Split
from quickstudy.tasks.task import Task

Text = str | tuple[str, str]

LONG = "the company said on tuesday that profit before tax had fallen by a third in the quarter after a fire"
REPEATED = "we had to wait for a very very very long time before the door was opened"
CLAIM = "two boys kick a ball across the yard"
OTHER = "a woman in a red coat waits for the tram"
ZH = "这家公司星期二表示由于工厂发生火灾本季度税前利润下降了三分之一股价也随之大幅下跌"
TH = "บริษัทกล่าวเมื่อวันอังคารว่ากำไรก่อนหักภาษีลดลงหนึ่งในสามในไตรมาสนี้หลังจากเกิดเพลิงไหม้"


def _task(name: str, texts: Sequence[Text], lineage: str = "") -> Task:
    rows = [Example(t, label=i % 2) if isinstance(t, str) else Example(*t, label=i % 2) for i, t in enumerate(texts)]
    pair = not isinstance(texts[0], str)
    return Task(name, {"train": ListSplit(rows)}, ("a", "b"), pair=pair, lineage=frozenset(lineage.split()))


def _scored(name: str, texts: Sequence[Text], lineage: str = "") -> PlannedTask:
    task = _task(name, texts, lineage=lineage)
    return _planned(task, task.train_split)


def _planned(task: Task, scored: Split) -> PlannedTask:
    return PlannedTask(task, (Trial(1, 0, task.label_names, (), all_examples(scored)),))


def _changed(text: str, *places: int) -> str:
    words = text.split()
    return " ".join("different" if place in places else word for place, word in enumerate(words))


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
        (("a cat sat", "it was late again"), "it was late again", "exact"),  # half of a pair, read as a single text
        (("shares of the bank fell", "the bank"), "the bank", None),  # two words are a text of many pairs by chance
        ("Late again.", "late once more", None),
        (("a cat", "sat down"), ("a cat", "stood up"), None),  # a shared text of two words says nothing
        (" ".join(LONG.split()[:13]), " ".join(["or", *LONG.split()[:13], "so", "it", "seems"]), "13-gram"),
        (" ".join(LONG.split()[:12]), " ".join(["or", *LONG.split()[:12], "so", "it", "seems"]), None),  # twelve words
        (REPEATED, f"he wrote {REPEATED} in his letter", "13-gram"),
        (f"{'@user ' * 20} so true", f"{'@user ' * 30} not at all", None),  # a word that is said again counts once
        (":)", ":(", None),  # no words in common, since there are none
        ("!!!", "!!!", "exact"),
    ],
)
def test_kinds_of_overlap(trained: Text, scored: Text, kind: str | None) -> None:
    found = find_overlap([_task("seen", [trained] * 2)], [_scored("held", [scored])])
    assert [overlap.rows for overlap in found] == ([{kind: 1}] if kind else [])
    if kind:
        assert found[0].sources == ("seen",)
        assert found[0].overlapping_fraction == 1.0
        assert found[0].examples[0] == (scored if isinstance(scored, str) else " | ".join(scored))


@pytest.mark.parametrize(
    ("trained", "scored", "kind"),
    [
        ([(CLAIM, OTHER)], (OTHER.upper(), CLAIM), "swapped"),
        ([(CLAIM, "it is late"), ("no man is here", OTHER)], (CLAIM, OTHER), "recombined"),
        ([(CLAIM, "it is late"), ("no man is here", OTHER)], (OTHER, CLAIM), "recombined"),
        ([CLAIM, OTHER], (CLAIM, OTHER), "recombined"),  # both were trained, neither in a pair
        ([(CLAIM, OTHER)], (_changed(CLAIM, 3), OTHER), "near"),  # one word of one text
        ([(CLAIM, OTHER)], (OTHER, _changed(CLAIM, 3)), "swapped"),
        ([CLAIM], (CLAIM, "they are on a ship"), "one side"),
        ([CLAIM], ("they are on a ship", _changed(CLAIM, 3)), "one side"),
        ([(CLAIM, OTHER)], (CLAIM, "they are on a ship"), "one side"),
        ([LONG], (LONG, "they are on a ship"), "13-gram"),  # so long a text has one source
        ([("thank you", "not at all")], ("not at all", "why not"), None),
    ],
)
def test_pairs_that_were_put_together_in_another_way(trained: list[Text], scored: tuple[str, str], kind: str) -> None:
    fresh = [(f"row {i} is new", f"and so is {i}") for i in range(99)]
    found = find_overlap([_task("seen", [*trained, *trained])], [_scored("held", [*fresh, scored])])
    assert [overlap.rows for overlap in found] == ([{kind: 1}] if kind else [])
    if not kind:
        return
    if kind == "one side":  # it is said, and no reason to refuse
        assert found[0].overlapping_rows == 0
        refuse_overlap(found)
    else:
        with pytest.raises(DataError, match=r"1\.0 % of the scored rows of task 'held' were meta-trained on in seen"):
            refuse_overlap(found)


@pytest.mark.parametrize("places", [(0,), (12,), (23,), (5, 17), (5, 11, 17)])
def test_a_word_or_three_of_24_changed_is_a_near_copy(places: tuple[int, ...]) -> None:
    text = "no one told us that the last bus would leave at nine so we walked home in the rain with all our bags"
    assert len(text.split()) == 23
    text = f"well {text}"
    found = find_overlap([_task("seen", [text, "else"])], [_scored("held", [_changed(text, *places)])])
    assert found[0].rows in ({"near": 1}, {"13-gram": 1})  # a change at an end leaves thirteen words in a row
    assert found[0].rows == {"near": 1} or {0, 23} & set(places)


@pytest.mark.parametrize(
    ("text", "changed", "near"),
    [
        ("my card was not accepted in the shop", "my card was not accepted in the cafe", True),  # one of eight
        ("my card was not accepted in the other shop", "my card was not accepted in the shop", True),  # one left out
        ("my card was not accepted in the shop", "so my card was not accepted in the shop", True),  # one put in
        ("my card was not accepted in the shop", "my card was refused in the cafe", False),  # three
        ("what is the weather like in oslo", "what is the weather like in rome", False),  # another question
    ],
)
def test_short_texts_that_differ_in_a_word(text: str, changed: str, near: bool) -> None:
    found = find_overlap([_task("seen", [text, "else"])], [_scored("held", [changed])])
    assert [overlap.rows for overlap in found] == ([{"near": 1}] if near else [])


@pytest.mark.parametrize(
    ("trained", "scored", "kind"),
    [
        (ZH, f"据报道{ZH[:30]}", "13-gram"),
        (ZH, f"据报道{ZH[:20]}", None),  # twenty characters are about ten words
        (TH, f"มีรายงานว่า{TH}", "13-gram"),
        (ZH[:24], f"{ZH[:11]}不{ZH[12:24]}", "near"),
        (ZH[:10], f"{ZH[:9]}不", None),
        ("東京は今日も雨。", "東京は 今日も雨", "normalised"),
    ],
)
def test_scripts_without_spaces(trained: str, scored: str, kind: str | None) -> None:
    found = find_overlap([_task("seen", [trained, "else"])], [_scored("held", [scored])])
    assert [overlap.rows for overlap in found] == ([{kind: 1}] if kind else [])


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("it's LATE, don\u2019t", ["it", "s", "late", "don", "t"]),
        ("iPhone\u3092\u8cb7\u3063\u305f", ["iphone", "\u3092", "\u8cb7", "\u3063", "\u305f"]),
        ("\u0e14\u0e35\u0e04\u0e23\u0e31\u0e1a", ["\u0e14\u0e35", "\u0e04", "\u0e23\u0e31", "\u0e1a"]),  # Thai
        ("\u0ea5\u0eb2\u0ea7", ["\u0ea5", "\u0eb2", "\u0ea7"]),  # Lao
        ("\u1019\u103c\u1014\u103a", ["\u1019\u103c", "\u1014\u103a"]),  # Burmese
        ("\u1781\u17d2\u1798\u17c2\u179a", ["\u1781\u17d2", "\u1798\u17c2", "\u179a"]),  # Khmer
        ("\u0939\u093f\u0928\u094d\u0926\u0940 \u0939\u0948", ["\u0939\u093f\u0928\u094d\u0926\u0940", "\u0939\u0948"]),
        ("\uc548\ub155 \uc138\uacc4", ["\uc548\ub155", "\uc138\uacc4"]),  # Hindi above and Korean write spaces
    ],
)
def test_units_are_words_or_characters_with_their_marks(text: str, units: list[str]) -> None:
    assert list(split_units(text)) == units


def test_equal_grams_are_those_that_a_slow_search_finds() -> None:
    random = rng(0, "grams")
    texts = [[str(unit) for unit in random.integers(3, size=size)] for size in (0, 2, 5, 9, 30, 4)]
    flat = FlatTexts(texts)
    grams = all_grams(flat, 4, np.ones(len(texts), dtype=bool))
    pairs = {
        tuple(map(int, each))
        for asked, known in GramTable(grams).equal(grams)
        for each in zip(asked.texts, asked.positions, known.texts, known.positions, strict=True)
    }
    places = [(text, start) for text in range(len(texts)) for start in range(len(texts[text]) - 3)]
    assert pairs == {(a, i, b, j) for a, i in places for b, j in places if texts[a][i : i + 4] == texts[b][j : j + 4]}


def test_edits_are_counted_as_by_the_full_table() -> None:
    random = rng(0, "edits")
    for _ in range(300):
        a, b = (
            random.integers(3, size=random.integers(9)).tolist(),
            random.integers(3, size=random.integers(9)).tolist(),
        )
        table = np.add.outer(np.arange(len(a) + 1), np.arange(len(b) + 1))
        for i, j in np.ndindex(len(a), len(b)):
            steps = table[i, j] + (a[i] != b[j]), table[i, j + 1] + 1, table[i + 1, j] + 1
            table[i + 1, j + 1] = min(steps)
        assert [within_edits(a, b, most) for most in range(5)] == [table[-1, -1] <= most for most in range(5)]


def test_a_planted_overlap_of_one_percent_is_found_in_full_among_100_000_texts_within_a_minute() -> None:
    random = rng(0, "planted")
    words = [f"w{i}" for i in range(5000)]
    texts = [" ".join(row) for row in random.choice(words, size=(100_000, 18))]
    fresh = [" ".join(row) for row in random.choice(words, size=(20_000, 18))]
    near = [_changed(text, 4, 11) for text in texts[200:240]]
    planted = [*texts[:70], *(f"{t.upper()}!" for t in texts[70:120]), *(f"so {t} then" for t in texts[120:160]), *near]
    trained = _task("seen", texts)
    tick = time.perf_counter()
    found = find_overlap([trained], [_scored("clean", fresh), _scored("held", [*fresh[200:], *planted])])
    assert time.perf_counter() - tick < 60
    assert [overlap.task for overlap in found] == ["held"]  # the clean one gives no alarm
    assert found[0].rows == {"exact": 70, "normalised": 50, "13-gram": 40, "near": 40}
    with pytest.raises(DataError, match=r"1\.0 % of the scored rows of task 'held'.*\n.*--allow-overlap"):
        refuse_overlap(found)


def test_texts_of_one_template_take_no_longer() -> None:
    # All of them share their beginning and their end, and 20 million pairs of them differ in few words.
    scored = [f"please tell me now whether {i} apples are too many for a cake of this size" for i in range(2000)]
    trained = [f"please tell me now whether {i} pears are too many for a cake of this size" for i in range(10_000)]
    tick = time.perf_counter()
    found = find_overlap([_task("seen", trained)], [_scored("held", scored)])
    assert time.perf_counter() - tick < 30
    assert found[0].rows == {"near": 2000}


def test_support_rows_that_were_meta_trained_on_are_counted_apart() -> None:
    task = _task("held", [CLAIM, OTHER, "all new", "new too"])
    rows = all_examples(task.train_split)
    fresh = (Example("scored and new", label=0),)
    planned = PlannedTask(
        task, tuple(Trial(1, draw, task.label_names, rows[draw : draw + 2], fresh) for draw in (0, 2))
    )
    found = find_overlap([_task("seen", [CLAIM, _changed(OTHER, 4)])], [planned])
    assert (found[0].rows, found[0].support, found[0].support_total) == ({}, {"exact": 1, "near": 1}, 4)
    assert found[0].sources == ("seen",)
    refuse_overlap(found)  # what is scored is new
    assert overlap_notes(Learner("maml", {}, "tiny", True, "0", overlap=found)) == [
        "2 of 4 support rows of held were meta-trained on (seen): 1 the same text, 1 a few words changed"
    ]


def test_a_shared_source_is_refused_though_no_text_is_shared() -> None:
    mr = _scored("mr", ["fine", "poor"], lineage="reviews")
    found = find_overlap([_task("sst2", ["good", "bad"], lineage="reviews other")], [mr])
    assert (found[0].rows, found[0].lineage, found[0].sources) == ({}, ("reviews",), ("sst2",))
    with pytest.raises(DataError, match="'mr' is made from the same source as sst2: reviews"):
        refuse_overlap(found)
    assert not find_overlap([_task("mr", ["good", "bad"], lineage="reviews")], [mr])  # itself: no news


@pytest.mark.parametrize(("length", "shown"), [(60, "x" * 60), (61, "x" * 59 + "…")])
def test_a_long_example_is_cut_to_60_characters(length: int, shown: str) -> None:
    (overlap,) = find_overlap([_task("sst2", ["x" * length])], [_scored("mr", ["x" * length])])
    with pytest.raises(DataError, match=rf"for example '{shown}'\)"):
        refuse_overlap([overlap])


def test_trained_rows_are_read_to_the_end_and_each_names_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quickstudy.evaluation.leakage.search._CHUNK", 50)  # characters
    pairs = [(f"the first of {i} texts", f"the second of {i} texts") for i in range(9)]
    for row in pairs:
        found = find_overlap([_task("other", [("a", "b")] * 2), _task("seen", pairs)], [_scored("held", [row])])
        assert (found[0].rows, found[0].sources) == ({"exact": 1}, ("seen",))
        found = find_overlap([_task("other", ["a", "b"]), _task("seen", list(row))], [_scored("held", [row[0]])])
        assert (found[0].rows, found[0].sources) == ({"exact": 1}, ("seen",))


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
    said = "20 of 20 scored rows of held were meta-trained on (seen): 20 the same text"
    assert said in (run.folder / "report.html").read_text()
    assert said in (run.folder / "README.md").read_text()
    seen.unlink()
    with pytest.raises(
        DataError, match=r"overlap with the tasks of the meta-training cannot be checked.*\n.*--allow-overlap"
    ):
        quickstudy.evaluate(run, tmp_path / "held", shots=[2], draws=1, overwrite=True)
    unchecked = quickstudy.evaluate(run, tmp_path / "held", shots=[2], draws=1, overwrite=True, allow_overlap=True)
    assert unchecked.learners["meta-trained"].overlap is None


@pytest.fixture
def validated(tiny_folder: Path, tmp_path: Path) -> Run:
    """A run with a meta-train task `trained` and a meta-validation task `chosen`, each with a test split of its own."""
    for seed, name in enumerate(("trained", "chosen", "fresh")):
        (tmp_path / name).mkdir()
        for part in ("train", "test"):
            lines = [f"{name} {part} {w} of the {seed} kind\t{'yes' if i % 2 else 'no'}" for i, w in enumerate(_WORDS)]
            rows = [dict(zip(("text", "label"), line.split("\t"), strict=True)) for line in lines]
            (tmp_path / name / f"{part}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = {
        "encoder": {"name": str(tiny_folder)},
        "method": {"name": "protonet"},
        "tasks": {"train": [str(tmp_path / "trained")], "validation": [str(tmp_path / "chosen")]},
        "outer": {"outer_steps": 1, "meta_batch_size": 1, "validation_episodes": 1},
    }
    return quickstudy.pretrain(recipe, tmp_path / "run")


_WORDS = ("apple", "pear", "plum", "fig", "grape", "melon", "lemon", "lime", "peach", "date", "kiwi", "quince")


def test_tasks_on_which_the_checkpoint_was_chosen_are_seen(validated: Run, tmp_path: Path) -> None:
    results = quickstudy.evaluate(validated, [tmp_path / "trained", tmp_path / "chosen"], shots=[2], draws=1)
    learner = results.learners["meta-trained"]
    assert (learner.seen, learner.validated) == (("trained",), ("chosen",))
    assert Run.open(validated.folder).meta_validation_tasks() == {"chosen"}  # though the data may be gone
    said = [
        "meta-trained on, not held out: trained",
        "meta-validated on, not held out: chosen",
        "4 of 4 support rows of trained were meta-trained on (trained): 4 the same text",
        "4 of 4 support rows of chosen were seen in meta-validation (chosen): 4 the same text",
    ]
    assert overlap_notes(learner) == said
    page = (validated.folder / "report.html").read_text()
    assert all(sentence in page for sentence in said)
    assert overlap_notes(results.learners["linear probe"]) == []


@pytest.mark.parametrize("recorded", [True, False])
def test_texts_on_which_the_checkpoint_was_chosen_are_refused(recorded: bool, validated: Run, tmp_path: Path) -> None:
    if not recorded:  # a run of an earlier version names its meta-train tasks only
        validated.files.tasks.write_text('{"meta_train": ["trained"]}')
        validated.files.folder.joinpath("manifest.json").unlink(missing_ok=True)
    (tmp_path / "fresh" / "test.jsonl").write_bytes((tmp_path / "chosen" / "train.jsonl").read_bytes())
    tasks, protocol = [tmp_path / "fresh", tmp_path / "chosen"], Protocol(shots=(1,), draws=1)
    with pytest.raises(DataError, match="scored rows of task 'fresh' were seen in meta-validation in chosen"):
        compare(str(validated.folder), tasks, tmp_path / "out", protocol=protocol)
    results = compare(str(validated.folder), tasks, tmp_path / "out", protocol=protocol, allow_overlap=True)
    assert results.learners["run"].validated == ("chosen",)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "meta-validated on, not held out: chosen" in page
    assert "12 of 12 scored rows of fresh were seen in meta-validation (chosen): 12 the same text" in page
    assert read_results(tmp_path / "out" / "results.json", "") == results


def test_results_of_an_earlier_version_know_no_chosen_tasks() -> None:
    written = {"task": "mr", "rows": {"exact": 2}, "total": 80, "sources": ["sst2"], "lineage": [], "examples": ["x"]}
    overlap = as_record(Overlap, written, Path("results.json"), "")
    assert (overlap.how, overlap.overlapping_rows, overlap.support) == ("meta-trained on", 2, {})
