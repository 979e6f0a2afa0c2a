"""The bundled tasks are what their datasheet says: varied, balanced, disjoint, split by task."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from quickstudy.data.reference import load_tasks
from quickstudy.data.samples import META_SPLITS, SAMPLE_FOLDER, read_sample_index

NAMES = sorted(file.stem for file in SAMPLE_FOLDER.glob("*.jsonl"))
RUN = 8  # no two texts of a task share so many consecutive words


def test_the_index_and_the_files_match() -> None:
    assert sorted(read_sample_index()) == NAMES
    assert {file.suffix for file in SAMPLE_FOLDER.iterdir()} == {".jsonl", ".toml"}
    for name, entry in read_sample_index().items():
        assert entry.meta_split in META_SPLITS, name
        assert entry.domain in {"general", "finance", "medicine"}, name
        assert entry.description.strip().endswith("?"), name


def test_the_datasheet_counts_the_rows() -> None:
    count = sum(len(rows_of(name)) for name in NAMES)
    datasheet = (Path(__file__).parents[1] / "docs" / "samples.md").read_text(encoding="utf-8")
    assert f"({count:,} rows in all)" in datasheet


def test_there_are_enough_tasks_of_each_domain_and_part() -> None:
    domains = Counter(entry.domain for entry in read_sample_index().values())
    parts = Counter((entry.meta_split, entry.domain) for entry in read_sample_index().values())
    assert len(NAMES) >= 20
    assert domains["finance"] >= 5
    assert domains["medicine"] >= 5
    assert {part for part, _ in parts} == set(META_SPLITS)
    assert parts["meta-test", "finance"] >= 3
    assert parts["meta-test", "medicine"] >= 3


def test_no_task_is_in_two_parts_and_every_task_is_in_one() -> None:
    in_part = [task.name for part in META_SPLITS for task in load_tasks(f"samples:{part}")]
    assert len(in_part) == len(set(in_part))
    assert sorted(in_part) == [f"samples:{name}" for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_whole_and_labels_balanced(name: str) -> None:
    rows = rows_of(name)
    assert len(rows) >= 60
    assert len({tuple(sorted(row)) for row in rows}) == 1  # all rows have the same fields
    assert set(rows[0]) in ({"text", "label"}, {"text", "text_pair", "label"})
    assert all(isinstance(value, str) and value == value.strip() != "" for row in rows for value in row.values())
    counts = Counter(row["label"] for row in rows).values()
    assert len(counts) >= 2
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_no_two_texts_share_eight_words_in_a_row(name: str) -> None:
    first: dict[tuple[str, ...], str] = {}
    shared = []
    for text in texts_of(name):
        words = words_of(text)
        for run in {tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1)}:
            if run in first:
                shared.append(f"{' '.join(run)!r} in {first[run]!r} and {text!r}")
            first[run] = text
    assert not shared


def test_no_text_stands_twice() -> None:
    """Not in a task and not in two tasks, up to case, punctuation and spaces."""
    places: dict[str, list[str]] = {}
    for name in NAMES:
        for text in texts_of(name):
            places.setdefault(" ".join(words_of(text)), []).append(name)
    assert not {text: found for text, found in places.items() if len(found) > 1}


def test_words_are_as_varied_as_in_written_text() -> None:
    print(f"\n{'task':<24}{'part':<17}{'rows':>5}{'labels':>8}{'words/text':>12}{'type-token ratio':>18}")
    poor = {}
    for name in NAMES:
        rows, texts = rows_of(name), [words_of(text) for text in texts_of(name)]
        words = [word for text in texts for word in text]
        ratio, lengths = len(set(words)) / len(words), [len(text) for text in texts]
        labels = len({row["label"] for row in rows})
        mean = f"{len(words) / len(texts):.1f}"
        print(f"{name:<24}{read_sample_index()[name].meta_split:<17}{len(rows):>5}{labels:>8}{mean:>12}{ratio:>18.3f}")
        # Templates would give few lengths and a ratio far below these floors.
        if ratio < 0.35 or len(set(lengths)) < 8 or max(lengths) < 2 * min(lengths):
            poor[name] = (ratio, sorted(set(lengths)))
    assert not poor


@pytest.mark.parametrize("part", META_SPLITS)
def test_the_part_decides_which_splits_a_task_has(part: str) -> None:
    for task in load_tasks(f"samples:{part}"):
        name = task.name.removeprefix("samples:")
        rows, counts = rows_of(name), Counter(row["label"] for row in rows_of(name))
        entry = read_sample_index()[name]
        assert (task.domain, task.description) == (entry.domain, entry.description)
        assert task.label_names == tuple(sorted(counts))
        assert task.pair == ("text_pair" in rows[0])
        found = {
            split: [
                (e.text, e.text_pair, task.label_names[int(e.label or 0)])
                for e in map(rows.__getitem__, range(len(rows)))
            ]
            for split, rows in task.splits.items()
        }
        written = [(row["text"], row.get("text_pair"), row["label"]) for row in rows]
        if part == "meta-train":
            assert found == {"train": written}
            continue
        assert sorted(found) == ["test", "train"]
        assert Counter(found["train"] + found["test"]) == Counter(written)
        for split in found.values():
            assert Counter(label for *_, label in split) == {label: n / 2 for label, n in counts.items()}


def rows_of(name: str) -> list[dict[str, str]]:
    lines = (SAMPLE_FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def texts_of(name: str) -> Iterable[str]:
    return (row[field] for row in rows_of(name) for field in ("text", "text_pair") if field in row)


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower().replace("’", "'"))
