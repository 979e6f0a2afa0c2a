"""Data files: CSV, TSV, JSON lines and Parquet become the same task, row by row, from a memory-mapped cache."""

import csv
import io
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from quickstudy.data.cache import find_cache_folder
from quickstudy.data.columns import Columns
from quickstudy.data.files import load_path
from quickstudy.data.reading import read_rows
from quickstudy.data.table import ArrowSplit, read_table
from quickstudy.data.texts import read_texts
from quickstudy.errors import DataError
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Task

Rows = Sequence[tuple[str, str]]

AWKWARD = [
    ("plain", "no"),
    ("with, comma; semicolon\tand tab", "yes"),
    ('she said "late"', "no"),
    ("two\nlines\n\nand a blank one", "yes"),
    ("carriage\r\nreturn", "no"),
    ("  spaces kept  ", "yes"),
    ("naïve – 文字 🙂", "no"),
    ("a line\u2028separator and a \x0b tab", "yes"),
    ("null", "no"),
    ("2024", "yes"),
]


@pytest.mark.parametrize("kind", ["csv", "semicolon", "bom", "crlf", "tsv", "jsonl", "jsonl-escaped", "parquet"])
def test_every_format_gives_the_same_task(kind: str, tmp_path: Path) -> None:
    task = load_one(WRITERS[kind](tmp_path, AWKWARD))
    assert contents(task) == AWKWARD
    assert task.name == "data"
    assert task.label_names == ("no", "yes")
    assert (task.kind, task.pair, task.metric) == ("classification", False, "accuracy")
    assert list(task.splits) == ["train"]


@pytest.mark.parametrize("suffix", [".CSV", ".JSONL"])
def test_suffixes_may_be_upper_case(suffix: str, tmp_path: Path) -> None:
    written = WRITERS[suffix.lower().removeprefix(".")](tmp_path, AWKWARD)
    assert contents(load_one(written.rename(tmp_path / f"data{suffix}"))) == AWKWARD


def test_a_row_is_named_by_the_line_it_starts_on(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text('text,label\n"one\ntwo",a\nthree,b\n\n"four\n\nfive",a\nsix,b\n', encoding="utf-8")
    assert [where for where, _ in read_rows(path)] == [f"{path}:{line}" for line in (2, 4, 6, 9)]


def test_blank_lines_of_jsonl_are_passed_over_but_counted(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "a", "label": 1}\n\n   \n{"text": "b", "label": 2}', encoding="utf-8")
    assert [where for where, _ in read_rows(path)] == [f"{path}:1", f"{path}:4"]


def test_named_columns_and_a_second_text_are_read(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("id,q,a,code\n1,who?,me,x\n2,when?,now,y\n", encoding="utf-8")
    task = load_path(path, Columns("q", "a", "code"))[0]
    assert task.pair
    assert list_of(task) == [Example("who?", "me", 0), Example("when?", "now", 1)]
    assert read_texts(path, "q", "a") == [Example("who?", "me"), Example("when?", "now")]
    assert read_texts(path, "q") == [Example("who?"), Example("when?")]


def test_a_column_called_text_pair_makes_a_pair_task(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    rows = [{"text": "a", "text_pair": "b", "label": "x"}, {"text": "c", "text_pair": "d", "label": "y"}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert [e.text_pair for e in list_of(load_one(path))] == ["b", "d"]
    assert [e.text_pair for e in list_of(load_path(path, Columns(text_pair=None))[0])] == [None, None]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["10", "9", "-1", "2"], ("-1", "2", "9", "10")),
        (["10", "9", "1.5", "2"], ("1.5", "10", "2", "9")),
        (["b", "10", "9", "a"], ("10", "9", "a", "b")),
        (["²", "3", "--5", "-"], ("-", "--5", "3", "²")),  # looks like numbers to str.isdigit
        (["07", "7", "8", "6"], ("6", "07", "7", "8")),  # equal numbers, different labels
    ],
)
def test_labels_are_in_numeric_order_if_whole_numbers_else_by_name(
    labels: list[str], names: tuple[str, ...], tmp_path: Path
) -> None:
    rows = [(f"text {i}", label) for i, label in enumerate(labels)]
    task = load_one(write_csv_rows(tmp_path, rows))
    assert task.label_names == names
    assert contents(task) == rows


def test_number_labels_are_the_same_classes_in_every_format(tmp_path: Path) -> None:
    texts, numbers = ["a", "b", "c"], [10, 2, 2]
    (tmp_path / "j.jsonl").write_text(
        "\n".join(json.dumps({"text": t, "label": n}) for t, n in zip(texts, numbers, strict=True)), encoding="utf-8"
    )
    pq.write_table(pa.table({"text": texts, "label": numbers}), tmp_path / "int.parquet")
    pq.write_table(pa.table({"text": texts, "label": [float(n) for n in numbers]}), tmp_path / "float.parquet")
    (tmp_path / "c.csv").write_text("text,label\na,10\nb,2\nc, 2 \n", encoding="utf-8")
    for task in load_path(tmp_path):
        assert task.label_names == ("2", "10"), task.name
        assert task.train_split.labels.tolist() == [1, 0, 0], task.name


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_regression_labels_are_floats(kind: str, tmp_path: Path) -> None:
    scores = [0.5, -3.0, 1e-3, 4.0]
    rows = [(f"text {i}", str(score)) for i, score in enumerate(scores)]
    task = load_path(WRITERS[kind](tmp_path, rows), kind="regression")[0]
    assert (task.kind, task.label_names, task.metric) == ("regression", (), "pearson_spearman")
    assert task.train_split.labels.dtype == np.float64
    assert task.train_split.labels.tolist() == scores
    assert [type(e.label) for e in list_of(task)] == [float] * 4


def test_the_cache_is_memory_mapped_and_used_again(tmp_path: Path) -> None:
    path = write_csv_rows(tmp_path, AWKWARD)
    first = read_table(path, Columns(), "classification")
    [cached] = find_cache_folder().iterdir()
    before = cached.stat()
    path.touch()  # a new time, the same content
    allocated = pa.total_allocated_bytes()
    again = read_table(path, Columns(), "classification")
    assert pa.total_allocated_bytes() == allocated
    assert pa.ipc.open_stream(cached.read_bytes()).read_all().column("text").to_pylist() == [t for t, _ in AWKWARD]
    assert [again[i] for i in range(len(again))] == [first[i] for i in range(len(first))]
    assert [cached] == list(find_cache_folder().iterdir())
    assert (cached.stat().st_ino, cached.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_table_is_pickled_as_the_name_of_its_file(tmp_path: Path) -> None:
    rows = [(f"text {i}", "ab"[i % 2]) for i in range(2000)]
    table = read_table(write_csv_rows(tmp_path, rows), Columns(), "classification")
    content = pickle.dumps(table)
    assert len(content) < 1000
    again = pickle.loads(content)
    assert [again[i] for i in range(len(again))] == [{"text": text, "label": label} for text, label in rows]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = write_csv_rows(tmp_path, AWKWARD)
    stamp = path.stat()
    load_one(path)
    changed = [(text.replace("plain", "pl4in"), label) for text, label in AWKWARD]
    write_csv_rows(tmp_path, changed)
    assert path.stat().st_size == stamp.st_size
    assert contents(load_one(path)) == changed


def test_other_columns_or_another_kind_are_another_table(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("text,other,label\na,b,1\nc,d,2\n", encoding="utf-8")
    assert [e.text for e in list_of(load_path(path)[0])] == ["a", "c"]
    assert [e.text for e in list_of(load_path(path, Columns("other"))[0])] == ["b", "d"]
    assert load_path(path, kind="regression")[0].train_split.labels.tolist() == [1.0, 2.0]


def test_a_bad_row_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    path = write_csv_rows(tmp_path, [*AWKWARD, (" ", "no")])
    with pytest.raises(DataError, match="is empty"):
        load_one(path)
    assert not list(find_cache_folder().glob("*"))


printable = st.text(min_size=1, max_size=40)
texts = printable.filter(str.strip)
labels = printable.map(str.strip).filter(lambda label: label and label.lower() != "nan")
tables = st.tuples(
    st.lists(st.tuples(texts, labels), min_size=1, max_size=12), st.tuples(texts, st.just("a")), st.just(("x", "b"))
).map(lambda parts: [*parts[0], *parts[1:]])


@pytest.mark.parametrize("kind", ["csv", "semicolon", "crlf", "tsv", "jsonl", "jsonl-escaped", "parquet"])
@given(rows=tables)
@example(rows=[("\ufeffafter a byte order mark", "\ufeff"), ("\x00", "\x7f"), ("\r", "\x85x")])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_texts_and_labels_survive_the_way_through_a_file(kind: str, rows: Rows, tmp_path: Path) -> None:
    rows = [(text, label) for text, label in rows if text.strip() and label.strip()]
    assert contents(load_one(WRITERS[kind](tmp_path, rows))) == rows


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_large_file_takes_little_memory_and_gives_the_right_rows(tmp_path: Path) -> None:
    count, path = 200_000, tmp_path / "large.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        file.writelines(f"row {i} {'of filler ' * 20},{i % 7}\n" for i in range(count))
    script = """
import re, sys
from pathlib import Path
from quickstudy.data.files import load_path

def peak():  # MiB; ru_maxrss would be the parent's, which a child starts with
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 2**10

small = Path(sys.argv[1]).with_name("small.csv")
small.write_text("text,label\\na,0\\nb,1\\n", encoding="utf-8")
load_path(small)[0].train_split[0]
before = peak()
split = load_path(Path(sys.argv[1]))[0].train_split
rows = [0, 1, 123_456, len(split) - 1]
print(peak() - before, len(split), *(f"{split[i].text.split()[1]}:{split[i].label}" for i in rows))
"""
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    grown, found, *rows = done.stdout.split()
    assert int(found) == count
    assert rows == [f"{i}:{i % 7}" for i in (0, 1, 123_456, count - 1)]
    # As Python objects the rows take over 60 MiB (and were all in memory at once in a list); the labels take 1.5 MiB.
    assert path.stat().st_size > 40 * 2**20
    assert float(grown) < 45


def test_arrow_split_gives_examples_with_the_labels_beside() -> None:
    rows = datasets.Dataset.from_dict({"s": ["a", "b", "c"], "t": ["d", "e", "f"], "z": [7, 8, 9]})
    pairs = ArrowSplit(rows, Columns("s", "t"), np.array([2, 0, 1]))
    assert len(pairs) == 3
    assert [pairs[i] for i in (2, 0)] == [Example("c", "f", 1), Example("a", "d", 2)]
    single = ArrowSplit(rows, Columns("t", None), np.array([0.5, 1.5, -1.0]))
    assert single[1] == Example("e", None, 1.5)
    assert type(pairs[0].label) is int


# Bad input


def refused(path: Path, *parts: str, columns: Columns = Columns()) -> None:
    with pytest.raises(DataError) as caught:
        load_path(path, columns)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_two_columns_of_one_name_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"data.{kind}"
    if kind == "csv":
        path.write_text("text,label, text\na,x,b\nc,y,d\n", encoding="utf-8")
    else:
        columns = [pa.array(["a", "c"]), pa.array(["x", "y"]), pa.array(["b", "d"])]
        pq.write_table(pa.Table.from_arrays(columns, names=["text", "label", "text"]), path)
    refused(path, f"{path}:1: two columns are called 'text'", "Rename")


def test_unnamed_columns_may_be_many(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text(",text,label,,\n0,a,x,,\n1,c,y,,\n", encoding="utf-8")
    assert contents(load_one(path)) == [("a", "x"), ("c", "y")]


def test_a_very_long_field_is_read(tmp_path: Path) -> None:
    rows = [("long " * 200_000, "x"), ("short", "y")]
    assert contents(load_one(write_csv_rows(tmp_path, rows))) == rows


def test_only_the_needed_columns_of_parquet_are_read(tmp_path: Path) -> None:
    """A date that Python cannot hold would be an error if it were decoded."""
    path = tmp_path / "data.parquet"
    far = pa.array([2**60, 2**60], pa.timestamp("us"))
    pq.write_table(pa.table({"when": far, "label": ["x", "y"], "text": ["a", "b"], "a.b": ["c", "d"]}), path)
    assert contents(load_one(path)) == [("a", "x"), ("b", "y")]
    assert [e.text_pair for e in list_of(load_path(path, Columns(text_pair="a.b"))[0])] == ["c", "d"]
    refused(
        path,
        "no column 'txt'; the columns are: 'when', 'label', 'text', 'a.b'",
        "--text-column 'text'",
        columns=Columns("txt"),
    )
    refused(path, "no column 'p' and none 'q'; the columns are: 'when', 'label'", columns=Columns("p", None, "q"))


def test_a_second_text_that_comes_late_is_refused_unless_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": 2, "text_pair": "c"}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    refused(path, f"{path}:2: there is a 'text_pair' here and none in the first row", "data.jsonl?pair=none")
    with pytest.raises(DataError, match=r"data\.jsonl:2: there is a 'text_pair' here"):
        read_texts(path)
    assert read_texts(path, pair="none") == [Example("a"), Example("b")]
    assert not load_path(path, Columns(text_pair="none"))[0].pair


@pytest.mark.parametrize("role", ["label", "pair"])
def test_a_column_is_not_read_as_two_things(role: str, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("label,text_pair,n\na,b,1\nc,d,2\n", encoding="utf-8")
    columns = Columns("label", None) if role == "label" else Columns("text_pair")
    refused(path, f"would be both text and {role}; the columns are: 'label'", f"--{role}-column", columns=columns)
    refused(path, "the column 'n' would be both text and label", columns=Columns("n", None, "n"))


def test_columns_of_json_are_joined_by_their_index(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps({"text": {"0": "a", "1": "b"}, "label": {"1": "y", "0": "x"}}), encoding="utf-8")
    assert contents(load_one(path)) == [("a", "x"), ("b", "y")]
    path.write_text(json.dumps({"text": {"0": "a", "2": "b"}, "label": {"1": "y", "0": "x"}}), encoding="utf-8")
    refused(path, "an object whose values are no columns of the same length")


def test_bytes_are_no_label(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"text": ["a", "c"], "label": [b"x", b"y"]}), path)
    refused(path, "2 rows cannot be used", "'label' is b'x', not a label")


@pytest.mark.parametrize("odd", ["9" * 5000, "[" * 100_000])
def test_json_that_python_cannot_hold_is_named(odd: str, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(f'{{"text": "a", "label": 1}}\n{{"text": "b", "label": {odd}}}\n', encoding="utf-8")
    refused(path, f"{path}:2: ")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that opens and cannot be read")
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_file_that_cannot_be_read_is_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"data.{suffix}"
    path.symlink_to("/proc/self/mem")
    refused(path, f"{path}: it cannot be read (Input/output error)", "permissions")
    with pytest.raises(DataError, match=str(path)):
        read_texts(path)


def test_paths_that_the_system_refuses_are_named(tmp_path: Path) -> None:
    refused(tmp_path / ("x" * 300), "it cannot be read (File name too long)")
    (tmp_path / "file").write_text("", encoding="utf-8")
    refused(tmp_path / "file" / "data.csv", "there is no such file or folder")


def test_the_cache_is_at_home_unless_a_variable_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("HOME", "/homes/ann")
    for own, above, folder in (
        ("", "", "/homes/ann/.cache/quickstudy"),
        ("", "/caches", "/caches/quickstudy"),
        ("/mine", "/caches", "/mine"),
    ):
        monkeypatch.setenv("QUICKSTUDY_CACHE", own)
        monkeypatch.setenv("XDG_CACHE_HOME", above)
        assert find_cache_folder() == Path(folder)
    monkeypatch.setattr(Path, "home", nobody)
    assert find_cache_folder() == Path("/mine")
    monkeypatch.delenv("QUICKSTUDY_CACHE")
    assert find_cache_folder() == Path("/caches/quickstudy")
    monkeypatch.delenv("XDG_CACHE_HOME")
    with pytest.raises(DataError, match=r"no home folder(?s:.*)QUICKSTUDY_CACHE"):
        find_cache_folder()


def test_a_cache_that_cannot_be_written_names_its_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    path = write_csv_rows(tmp_path, AWKWARD)
    for folder in (tmp_path / "file", tmp_path / "file" / "deep"):
        monkeypatch.setenv("QUICKSTUDY_CACHE", str(folder))
        refused(path, str(tmp_path / "file"), "the cache folder cannot be used", "Set QUICKSTUDY_CACHE to a folder")


def write_csv_rows(folder: Path, rows: Rows, delimiter: str = ",", end: str = "\n", start: str = "") -> Path:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows(rows)
    path = folder / ("data.tsv" if delimiter == "\t" else "data.csv")
    header = delimiter.join(("text", "label")) + end
    path.write_bytes((start + header + out.getvalue()).encode("utf-8"))
    return path


def write_jsonl(folder: Path, rows: Rows, *, escape: bool = False) -> Path:
    path = folder / "data.jsonl"
    lines = (json.dumps({"label": label, "text": text}, ensure_ascii=escape) for text, label in rows)
    path.write_bytes("".join(line + "\n" for line in lines).encode("utf-8"))
    return path


def write_parquet(folder: Path, rows: Rows) -> Path:
    path = folder / "data.parquet"
    pq.write_table(pa.table({"text": [t for t, _ in rows], "label": [label for _, label in rows]}), path)
    return path


WRITERS: dict[str, Callable[[Path, Rows], Path]] = {
    "csv": write_csv_rows,
    "semicolon": lambda folder, rows: write_csv_rows(folder, rows, ";"),
    "bom": lambda folder, rows: write_csv_rows(folder, rows, start="\ufeff"),
    "crlf": lambda folder, rows: write_csv_rows(folder, rows, end="\r\n"),
    "tsv": lambda folder, rows: write_csv_rows(folder, rows, "\t"),
    "jsonl": write_jsonl,
    "jsonl-escaped": lambda folder, rows: write_jsonl(folder, rows, escape=True),
    "parquet": write_parquet,
}


def load_one(path: Path) -> Task:
    [task] = load_path(path)
    return task


def list_of(task: Task) -> list[Example]:
    return [task.train_split[i] for i in range(len(task.train_split))]


def contents(task: Task) -> list[tuple[str, str]]:
    return [(example.text, task.label_names[int(example.label or 0)]) for example in list_of(task)]
