"""Files that people have: what is read, which columns are taken, which rows are bad, and predictions into a file."""

import csv
import gzip
import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoModel
from transformers.utils import logging as transformers_logging
from typer.testing import CliRunner

import quickstudy
from conftest import score_task, tiny_encoder, word_task
from quickstudy.adaptation.few import adapt_task
from quickstudy.cli.label_file import Places, label_file
from quickstudy.cli.main import app, main
from quickstudy.data import writing
from quickstudy.data.columns import Columns, choose_columns
from quickstudy.data.files import load_path
from quickstudy.data.reading import read_rows
from quickstudy.data.survey import survey_rows
from quickstudy.errors import DataError, RunError
from quickstudy.methods.catalog import make
from quickstudy.storage.lock import locked
from quickstudy.tasks.split import Example, ListSplit
from quickstudy.tasks.task import Task
from quickstudy.testing.tiny import WORDS

ROWS = [
    {"text": "a good film", "label": "yes"},
    {"text": "well, hello; “quoted” | piped", "label": "no"},
    {"text": 'she said "late"', "label": "yes"},
]

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process; its exit code, and what it printed."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["quickstudy", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two classes, of single texts; not to be changed."""
    return adapt_task(make("protonet", tiny_encoder(max_length=16)), word_task(rows=12)).save(
        tmp_path_factory.mktemp("files") / "model"
    )


# Reading


def as_csv(delimiter: str, rows: list[dict[str, str]] = ROWS) -> str:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


LINES = "\n".join(map(json.dumps, ROWS))
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}
FILES: dict[str, str | bytes] = {
    "comma.csv": as_csv(","),
    "semicolon.csv": as_csv(";"),
    "tab.csv": as_csv("\t"),
    "pipe.csv": as_csv("|"),
    "tab.tsv": as_csv("\t"),
    "comma.tsv": as_csv(","),
    "mark.csv": as_csv(";").encode("utf-8-sig"),
    "utf16.csv": as_csv("\t").encode("utf-16"),
    "utf16.jsonl": json.dumps(ROWS[0]).encode("utf-16") + f"\n{LINES.split(chr(10), 1)[1]}".encode("utf-16-le"),
    "packed.csv.gz": gzip.compress(as_csv(",").encode()),
    "packed16.CSV.GZ": gzip.compress(as_csv(",").encode("utf-16")),
    "lines.jsonl": LINES,
    "packed.jsonl.gz": gzip.compress(LINES.encode()),
    "list.json": json.dumps(ROWS, indent=2),
    "columns.json": json.dumps(COLUMNS),
    "pandas.json": json.dumps({name: dict(enumerate(column)) for name, column in COLUMNS.items()}),
    "lines.json": LINES,
    "table.parquet": as_parquet(),
    "packed.parquet.gz": gzip.compress(as_parquet()),
}


@pytest.mark.parametrize("name", FILES)
def test_every_file_gives_the_same_rows_and_task(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, FILES[name])
    assert [row for _, row in read_rows(path)] == ROWS
    [task] = load_path(path)
    assert task.name == name.lower().removesuffix(".gz").rsplit(".", 1)[0]
    assert task.label_names == ("no", "yes")
    assert [task.train_split[i].text for i in range(3)] == [row["text"] for row in ROWS]


def test_a_single_column_needs_no_quotes(tmp_path: Path) -> None:
    path = write(tmp_path / "texts.csv", 'Feedback\nwell, hello; all | of\tit\n"quoted, too"\n')
    assert [row for _, row in read_rows(path)] == [
        {"Feedback": "well, hello; all | of\tit"},
        {"Feedback": "quoted, too"},
    ]


def test_a_delimiter_in_a_name_does_not_mislead(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "text, as written;label\na;x\nb, c, d;y\n")
    assert [row for _, row in read_rows(path)][1] == {"text, as written": "b, c, d", "label": "y"}


def test_packed_files_and_excel_files_are_data_of_a_folder_and_other_json_files_are_not(tmp_path: Path) -> None:
    for name in ("train.json", "test.csv.gz"):
        write(tmp_path / "split" / name, FILES["list.json" if name.endswith("json") else "packed.csv.gz"])
    for name in ("a.csv.gz", "b.jsonl", "index.json", "~$b.xlsx"):
        write(tmp_path / "many" / name, FILES["packed.csv.gz" if name.endswith("gz") else "lines.jsonl"])
    assert set(load_path(tmp_path / "split")[0].splits) == {"train", "test"}
    assert [task.name for task in load_path(tmp_path / "many")] == ["many/a", "many/b"]


def test_an_excel_file_is_read_from_its_first_sheet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "answers"
    sheet.append([])
    sheet.append(["ID", "Review", "Sentiment"])
    for number, row in enumerate(ROWS):
        sheet.append([number, row["text"], row["label"]])
        sheet.append([])
    book.create_sheet("notes").append(["nothing here"])
    book.save(tmp_path / "answers.xlsx")
    with caplog.at_level(logging.INFO, "quickstudy"):
        [task] = load_path(tmp_path / "answers.xlsx")
    assert [task.train_split[i].text for i in range(3)] == [row["text"] for row in ROWS]
    assert "the first of 2 sheets is read, 'answers'" in caplog.text
    assert [where.rpartition(":")[2] for where, _ in read_rows(tmp_path / "answers.xlsx")] == ["3", "5", "7"]
    sheet.append([4, "one cell", "too", "many"])
    sheet.append([5, None, "yes"])
    book.save(tmp_path / "answers.xlsx")
    with pytest.raises(DataError, match=r"(?s)2 rows cannot be used.*xlsx:9: 4 cells where.*xlsx:10: 'Review' is None"):
        load_path(tmp_path / "answers.xlsx")


def test_an_excel_file_is_read_as_excel_shows_it(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    hidden, sheet = book.active, book.create_sheet("answers")
    hidden.append(["text", "label"])
    hidden.append(["a list of choices", "none"])
    hidden.sheet_state = "hidden"
    for row in (["text", "label"], ["two_x000D_\nlines", "a"], ["good", "#N/A"], ["#REF!", "b"], ["bad", "b"]):
        sheet.append(row)
    book.active = 1
    book.save(tmp_path / "answers.xlsx")
    [task] = load_path(tmp_path / "answers.xlsx", skip_bad_rows=True)
    assert [task.train_split[i].text for i in range(len(task.train_split))] == ["two\r\nlines", "bad"]
    with pytest.raises(DataError, match=r"(?s)xlsx:3: the label in 'label' is missing.*xlsx:4: 'text' is None"):
        load_path(tmp_path / "answers.xlsx")


def test_without_openpyxl_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(DataError, match=r"pip install 'quickstudy\[excel\]'"):
        load_path(write(tmp_path / "few.xlsx", b"PK"))
    source = write(tmp_path / "new.csv", "text\na good film\n")
    with pytest.raises(DataError, match=r"pip install 'quickstudy\[excel\]'"):
        label_file(quickstudy.load_model(model), Places(source, tmp_path / "out.xlsx"))
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == ["few.xlsx", "new.csv"]


# Columns


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ("text label", ("text", None, "label")),
        ("Text LABEL", ("Text", None, "LABEL")),
        ("id Sentence Sentiment", ("Sentence", None, "Sentiment")),
        ("text sentence category", ("text", None, "category")),  # the usual name comes first
        ("title text label class", ("text", None, "label")),
        ("text text_pair label", ("text", "text_pair", "label")),
        ("premise hypothesis label", ("premise", "hypothesis", "label")),
        ("Sentence1 Sentence2 class", ("Sentence1", "Sentence2", "class")),
        ("text sentence1 sentence2 label", ("text", None, "label")),
        ("question answer Gold-Label", ("question", None, "Gold-Label")),
        ("id customer_message Team", ("customer_message", None, "Team")),
        ("id message customer_message label", ("message", None, "label")),  # a whole name comes first
        ("nothing here", ("text", None, "label")),  # the file is then refused with the names that it has
    ],
)
def test_columns_are_found_by_their_usual_names(names: str, chosen: tuple[str, str | None, str]) -> None:
    assert choose_columns(names.split(), Columns(), "few.csv") == Columns(*chosen)


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (
            "review tweet label",
            ("could be the text: 'review', 'tweet'", "--text-column 'review'", "few.csv?text=review"),
        ),
        ("first_comment last_comment label", ("could be the text: 'first_comment', 'last_comment'",)),
        ("text topic intent", ("could be the label: 'intent', 'topic'", "--label-column 'intent'")),
        ("premise hypothesis text1 text2 label", ("second text: 'text2', 'hypothesis'", "--pair-column 'text2'")),
    ],
)
def test_of_several_columns_none_is_guessed(names: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as caught:
        choose_columns(names.split(), Columns(), "few.csv")
    for part in parts:
        assert part in str(caught.value)


def test_a_column_that_is_named_ends_the_doubt() -> None:
    names = ["review", "tweet", "topic", "intent", "score"]
    asked = Columns(text="tweet", label="topic")
    assert choose_columns(names, asked, "few.csv") == Columns("tweet", None, "topic")
    assert choose_columns(["message class", "handled"], Columns(text="message class"), "f").label == "handled"
    assert choose_columns(["text", "category", "queue"], Columns(), "f").label == "category"
    shouted = Columns(text="TWEET", label="Topic")
    assert choose_columns(names, shouted, "few.csv") == Columns("tweet", None, "topic")
    assert choose_columns(["text", "stars"], Columns(), "f", "regression").label == "stars"
    assert choose_columns(["Verbatim"], Columns(), "f", labelled=False).text == "Verbatim"


def test_which_columns_were_taken_is_said_every_time_unless_they_are_the_usual_ones(
    tmp_path: Path, command: Command
) -> None:
    path = write(tmp_path / "few.csv", "id,Sentence,Sentiment\n1,a,x\n2,b,y\n")
    for _ in range(2):  # the second time the rows come from the cache
        told = notes(command("tasks", path)[2])
        assert told == ["few.csv: text from 'Sentence', label from 'Sentiment'"]
    assert notes(command("tasks", f"{path}?text=Sentence&label=Sentiment")[2]) == []
    assert notes(command("tasks", write(tmp_path / "usual.csv", as_csv(",")))[2]) == []


def test_all_columns_that_are_not_there_are_named_at_once(tmp_path: Path, command: Command) -> None:
    path = write(tmp_path / "few.csv", "id,Said,Handled by\n1,a,x\n2,b,y\n")
    code, _, errors = command("adapt", "--data", path, "--label-column", "Handledby", "--out", tmp_path / "model")
    assert code == 2
    assert (
        f"{path}:1: there is no column 'text' and none 'Handledby'; the columns are: 'id', 'Said', 'Handled by'"
        in errors
    )
    assert "--text-column '...' --label-column 'Handled by'" in errors


def notes(errors: str) -> list[str]:
    """Return the lines on standard error, without the last one, which says what to do next."""
    *lines, last = errors.splitlines()
    assert last.startswith("next: ")
    return lines


# Bad rows

BAD = "text,label\n" + "a,x\n,x\nb,y\nc\nd,\n" + " ,y\n" * 30


def test_all_bad_rows_are_named_with_their_lines(tmp_path: Path, command: Command) -> None:
    path = write(tmp_path / "few.csv", BAD)
    code, _, error = command("tasks", path)
    assert code == 2
    first, *lines, fix = error.splitlines()
    assert first == f"error: {path}: 33 rows cannot be used"
    assert lines[:3] == [
        "  few.csv:3: the text in 'text' is empty",
        "  few.csv:5: 1 field where the header has 2",
        "  few.csv:6: the label in 'label' is missing (empty or NaN)",
    ]
    assert len(lines) == 21
    assert lines[-1] == "  and 13 more"
    assert "--skip-bad-rows" in fix


def test_bad_rows_are_left_out_and_counted_if_asked_for(tmp_path: Path, command: Command) -> None:
    path = write(tmp_path / "few.csv", BAD)
    for _ in range(2):
        code, out, error = command("tasks", f"{path}?bad=skip", "--json")
        assert code == 0
        assert json.loads(out)[0]["rows"] == {"train": 2}
        assert error == (
            "few.csv: 33 bad rows are left out, and 2 kept\n  the first: few.csv:3: the text in 'text' is empty\n"
        )
    with pytest.raises(DataError, match="33 rows"):  # what was skipped before does not hide it
        load_path(path)
    with pytest.raises(DataError, match="2 rows cannot be used"):
        load_path(write(tmp_path / "all.csv", "text,label\n,x\n,y\n"), skip_bad_rows=True)


@pytest.mark.parametrize("name", ["few.jsonl", "few.json"])
def test_broken_json_rows_are_bad_rows(name: str, tmp_path: Path) -> None:
    rows = ['{"text": "a", "label": 1}', "[7]", '{"text": "b", "label": 2}', '{"text": 3, "label": 2}']
    joined = "\n".join(rows) if name == "few.jsonl" else f"[{', '.join(rows)}]"
    path = write(tmp_path / name, joined)
    place = r"few\.jsonl:{}" if name == "few.jsonl" else r"few\.json, row {}"
    with pytest.raises(DataError, match=rf"(?s)2 rows.*{place.format(2)}: a JSON list.*{place.format(4)}: 'text' is 3"):
        load_path(path)
    assert len(load_path(path, skip_bad_rows=True)[0].train_split) == 2


# Predictions into a file

NEW = [
    {"id": str(i), "text": " ".join(WORDS[(i + j) % len(WORDS)] for j in range(1 + i % 5)), "note": f"a, {i}\n\r;"}
    for i in range(50)
]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quickstudy.cli.label_file._CHUNK", 8)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz", ".jsonl.gz", ".xlsx"])
def test_a_file_is_labelled_beside_its_columns_in_its_order(
    suffix: str, model: Path, tmp_path: Path, command: Command
) -> None:
    if suffix == ".xlsx":
        pytest.importorskip("openpyxl")
    source, out = write(tmp_path / "new.csv", as_csv(";", NEW)), tmp_path / f"out{suffix}"
    code, printed, error = command("predict", model, source, "--out", out)
    assert code == 0, error
    loaded = quickstudy.load_model(model)
    rows = [row for _, row in read_rows(out)]
    assert all(isinstance(row, dict) for row in rows)
    texts = [row["text"] for row in NEW]
    note = "note" if suffix != ".xlsx" else "id"  # Excel keeps no lone carriage return
    assert [(row["id"], row["text"], row[note]) for row in rows] == [(r["id"], r["text"], r[note]) for r in NEW]
    assert [row["predicted_label"] for row in rows] == loaded.predict(texts)
    for row, chances in zip(rows, loaded.predict_proba(texts).tolist(), strict=True):
        assert list(row) == ["id", "text", "note", "predicted_label", "probability_class0", "probability_class1"]
        assert [float(row["probability_class0"]), float(row["probability_class1"])] == pytest.approx(chances, abs=1e-5)
    counts = [loaded.predict(texts).count(label) for label in loaded.label_names]
    assert printed.startswith(f"{out}: 50 rows; ")
    assert sorted(re.findall(r"class[01] (\d+)", printed.split(";")[1])) == sorted(map(str, counts))
    assert error.splitlines()[0] == "0/50 rows"
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == sorted([out.name, "new.csv"])


@pytest.mark.usefixtures("small_chunks")
def test_columns_keep_their_types(model: Path, tmp_path: Path, command: Command) -> None:
    table = pa.table(
        {
            "when": pa.array([1, 2], pa.timestamp("s")),
            "text": ["good film", "bad"],
            "n": pa.array([1, None], pa.int32()),
        }
    )
    pq.write_table(table, tmp_path / "new.parquet")
    command("predict", model, tmp_path / "new.parquet", "--out", tmp_path / "out.parquet")
    read = pq.read_table(tmp_path / "out.parquet")
    assert read.select(["when", "text", "n"]) == pq.read_table(tmp_path / "new.parquet")
    lines = [{"text": "good", "n": 1, "m": 2**70, "k": [1]}, {"text": "bad", "n": 0.5, "m": None, "late": True}]
    write(tmp_path / "new.jsonl", "\n".join(map(json.dumps, lines)))
    command("predict", model, tmp_path / "new.jsonl", "--out", tmp_path / "two.parquet")
    read = pq.read_table(tmp_path / "two.parquet").drop_columns(
        ["predicted_label", "probability_class0", "probability_class1"]
    )
    assert read.to_pylist() == [
        {"text": "good", "n": 1.0, "m": str(2**70), "k": "[1]", "late": None},
        {"text": "bad", "n": 0.5, "m": None, "k": None, "late": True},
    ]
    command("predict", model, tmp_path / "new.jsonl", "--out", tmp_path / "two.jsonl")
    read = [row for _, row in read_rows(tmp_path / "two.jsonl")]
    assert [{name: row[name] for name in line} for line, row in zip(lines, read, strict=True)] == lines


def write_rows(target: Path, rows: list[dict[str, object]], schema: pa.Schema) -> list[object]:
    writer = writing.open_writer(target, target, schema)
    writer.write(rows)
    writer.close()
    return [row for _, row in read_rows(target)]


def test_values_that_a_format_does_not_have_are_written_in_another_way(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    number, tag = 1234567890123456789, 2**53 + 1
    rows: list[dict[str, object]] = [{"id\x01": number, "n": tag, "x": float("inf")}, {"id\x01": 7, "n": 0.5, "x": 1.0}]
    source = write(tmp_path / "new.jsonl", "".join(f'{{"text": "a", "n": {row["n"]}}}\n' for row in rows))
    schema = pa.schema([("id\x01", pa.int64()), survey_rows(source, Columns()).schema.field("n"), ("x", pa.float64())])
    assert write_rows(tmp_path / "out.xlsx", rows, schema) == [  # Excel keeps 15 digits
        {"id": str(number), "n": str(tag), "x": None},
        {"id": 7, "n": 0.5, "x": 1},
    ]
    assert write_rows(tmp_path / "out.jsonl", rows, schema) == [rows[0] | {"x": None}, rows[1]]
    texts = [row | {"n": str(row["n"])} for row in rows]  # a column of floats does not hold the first
    assert write_rows(tmp_path / "out.parquet", rows, schema) == texts


def test_numbers_and_pairs_are_written_too(tmp_path: Path, command: Command) -> None:
    model = adapt_task(make("protonet", tiny_encoder()), score_task()).save(tmp_path / "scores")
    command("predict", model, write(tmp_path / "new.csv", "text\ngood\nbad\n"), "--out", tmp_path / "out.csv")
    values = [float(row["predicted_value"]) for _, row in read_rows(tmp_path / "out.csv")]
    assert values == pytest.approx(quickstudy.load_model(model).predict(["good", "bad"]))
    pairs = adapt_task(make("protonet", tiny_encoder()), word_task(rows=12, pair=True)).save(tmp_path / "pairs")
    source = write(tmp_path / "pairs.csv", "premise,hypothesis\ngood film,bad\nnew,old\n")
    code, _, error = command("predict", pairs, source, "--out", tmp_path / "pairs.jsonl")
    assert code == 0
    assert "text from 'premise', text 2 from 'hypothesis'" in error
    wanted = quickstudy.load_model(pairs).predict([("good film", "bad"), ("new", "old")])
    assert [row["predicted_label"] for _, row in read_rows(tmp_path / "pairs.jsonl")] == wanted


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("new.csv --out there.csv", ("there.csv: this exists already", "--overwrite", "--resume")),
        ("new.csv --out new.csv", ("the file to write is the file to read",)),
        ("new.csv --out new.csv --overwrite", ("the file to write is the file to read",)),
        ("new.csv --out out.csv --overwrite --resume", ("opposites",)),
        ("new.csv --out out.xls", ("files of type '.xls' cannot be written", "Choose one of: .csv")),
        ("new.csv --out out.parquet.gz", ("cannot be written",)),
        ("new.csv --out no/out.csv", ("there is no such folder",)),
        ("new.csv --resume", ("--resume goes with --out",)),
        ("good --skip-bad-rows", ("--skip-bad-rows is for a file of texts",)),
        ("good bad --out out.csv", ("--out is for a file of texts",)),
        ("none.csv", ("none.csv: there is no such file",)),
        ("none --out out.csv", ("none: there is no such file",)),
        ("bad.csv --out out.csv", ("2 rows cannot be used", "bad.csv:2: ", "bad.csv:4: ")),
        ("taken.csv --out out.csv", ("taken.csv:1: there is a column 'predicted_label' already",)),
        ("pairs.csv --out out.csv", ("this model reads single texts",)),
        ("new.csv --out there.csv --resume", ("this file holds no predictions",)),
        ("new.csv --out other.csv --resume", ("other.csv:2: this row was not made from the row of",)),
    ],
)
def test_what_cannot_be_labelled_or_written_is_refused_and_nothing_is_written(
    words: str, parts: tuple[str, ...], model: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "new.csv", "text\ngood\nbad\n")
    write(tmp_path / "there.csv", "a,b\n1,2\n")
    write(tmp_path / "other.csv", "text,predicted_label,probability_class0,probability_class1\nawful,0,1.0,0.0\n")
    write(tmp_path / "bad.csv", "text,n\n,1\ngood,2\n ,3\n")
    write(tmp_path / "taken.csv", "text,predicted_label\ngood,2\n")
    write(tmp_path / "pairs.csv", "text,text_pair\ngood,bad\n")
    before = {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    code, _, error = command("predict", model, *words.split())
    assert code == 2, error
    for part in parts:
        assert part in error
    assert {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before


def test_a_file_is_replaced_and_bad_rows_are_left_out_if_asked_for(
    model: Path, tmp_path: Path, command: Command
) -> None:
    source, out = write(tmp_path / "bad.csv", "text,n\n,1\ngood,2\n ,3\n"), write(tmp_path / "out.csv", "old")
    code, _, error = command("predict", model, source, "--out", out, "--overwrite", "--skip-bad-rows")
    assert code == 0
    assert error.splitlines()[0] == "bad.csv: 2 bad rows are left out, and 1 kept"
    assert [row["n"] for _, row in read_rows(out)] == ["2"]
    printed = json.loads(command("predict", model, source, "--skip-bad-rows", "--json")[1])
    assert [row["text"] for row in printed] == ["good"]


class Stopped:
    """A model that fails in the way it is told after some chunks."""

    def __init__(self, model: Any, error: BaseException, chunks: int) -> None:
        self._model, self._error, self._left = model, error, chunks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict_proba(self, texts: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise self._error
        return self._model.predict_proba(texts)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz"])
def test_a_stopped_file_is_whole_and_is_gone_on_with(suffix: str, model: Path, tmp_path: Path) -> None:
    source, out = write(tmp_path / "new.csv", as_csv(",", NEW)), tmp_path / f"out{suffix}"
    loaded, whole = quickstudy.load_model(model), tmp_path / f"whole{suffix}"
    label_file(loaded, Places(source, whole))
    done = label_file(Stopped(loaded, KeyboardInterrupt(), 2), Places(source, out))  # type: ignore[arg-type]
    assert (done.interrupted, done.rows, done.total) == (True, 16, 50)
    assert [row for _, row in read_rows(out)] == [row for _, row in read_rows(whole)][:16]
    broken: Any = Stopped(loaded, RunError("NaN", fix="Adapt again."), 2)  # the first looks whose predictions there are
    with pytest.raises(RunError, match=r"holds the first 24 of 50 rows\. Go on with the same command and --resume"):
        label_file(broken, Places(source, out, resume=True))
    assert [row for _, row in read_rows(out)] == [row for _, row in read_rows(whole)][:24]
    for _ in range(2):  # the second time there is nothing left to do
        assert label_file(loaded, Places(source, out, resume=True)).rows == 50
        assert out.read_bytes() == whole.read_bytes()
    label_file(Stopped(loaded, KeyboardInterrupt(), 0), Places(source, tmp_path / "none.csv"))  # type: ignore[arg-type]
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == sorted(
        [out.name, whole.name, source.name]
    )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_file_is_not_gone_on_with_by_another_model_or_from_other_pairs(suffix: str, tmp_path: Path) -> None:
    learner = make("protonet", tiny_encoder(max_length=16))
    mixed = [Example(text, "the card", i % 2) for i, text in enumerate(["great film", "poor book", "the card", "fee"])]
    first, other, renamed = (
        adapt_task(learner, Task("pairs", {"train": ListSplit(rows)}, names, pair=True))
        for rows, names in ((mixed, ("c", "d")), (mixed[:2], ("c", "d")), (mixed, ("e", "f")))
    )
    source, out = tmp_path / "new.csv", tmp_path / f"out{suffix}"
    write(source, "text,text_pair\ngood,card\nbad,book\n")
    label_file(first, Places(source, out))
    before = out.read_bytes()
    for model, what in ((other, "another model made this prediction"), (renamed, "the columns are not those of")):
        with pytest.raises(DataError, match=what):
            label_file(model, Places(source, out, resume=True))
    write(source, "text,text_pair\ngood,card\nbad,film\n")
    with pytest.raises(DataError, match="this row was not made from the row of"):
        label_file(first, Places(source, out, resume=True))
    assert out.read_bytes() == before


@pytest.mark.usefixtures("small_chunks")
def test_a_full_disk_keeps_the_whole_rows(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = write(tmp_path / "new.csv", as_csv(",", NEW)), tmp_path / "out.csv"
    add, calls = writing._TextWriter._add, iter(range(100))

    def full(self: Any, text: str) -> None:
        if next(calls) == 3:  # the header and two chunks are written
            self._file.write(text[:10].encode())
            raise OSError(28, "No space left on device")
        add(self, text)

    monkeypatch.setattr(writing._TextWriter, "_add", full)
    with pytest.raises(RunError, match=r"there is no space to write this(?s:.*)holds the first 16 of 50 rows"):
        label_file(quickstudy.load_model(model), Places(source, out))
    assert [row["id"] for _, row in read_rows(out)] == [str(i) for i in range(16)]


def test_two_processes_do_not_write_one_file(model: Path, tmp_path: Path) -> None:
    source, out = write(tmp_path / "new.csv", as_csv(",", NEW)), tmp_path / "out.csv"
    loaded = quickstudy.load_model(model)
    with locked(out), pytest.raises(RunError, match=r"this file is in use by process \d+(?s:.*)choose another --out"):
        label_file(loaded, Places(source, out))
    assert label_file(loaded, Places(source, out)).rows == 50
    assert {file.name for file in tmp_path.iterdir()} >= {"new.csv", "out.csv"}
    assert not [file.name for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_texts_that_are_cut_are_counted_and_said(model: Path, tmp_path: Path, command: Command) -> None:
    long = " ".join(WORDS[:10] * 3)
    source = write(tmp_path / "new.csv", f"text\ngood\n{long}\n{long} again\n")
    said = "2 texts are longer than 16 tokens, and only their first 16 are read (encoder.max_length in the recipe)"
    assert notes(command("predict", model, source, "--out", tmp_path / "out.csv")[2])[-1] == said
    assert notes(command("predict", model, source)[2]) == [said]
    assert command("predict", model, "good", long)[2].startswith("1 text is longer than 16 tokens")
    assert notes(command("predict", model, "good")[2]) == []


@pytest.mark.usefixtures("small_chunks")
def test_predict_says_what_to_do_next(model: Path, tmp_path: Path, command: Command) -> None:
    model = Path(shutil.copytree(model, tmp_path / "my model"))
    source = write(tmp_path / "new texts.csv", "text\ngood\nbad\n")
    whole = f"next: quickstudy predict '{model}' {{}} --out labelled.csv\n"
    assert command("predict", model, "good")[2] == whole.format("FILE")
    assert command("predict", model, source)[2] == whole.format(f"'{source}'")
    assert command("predict", model, source, "--json")[2] == ""
    last = command("predict", model, source, "--out", tmp_path / "out.csv")[2].splitlines()[-1]
    assert last.startswith("next: check the rows of lowest probability")


def test_texts_of_pairs_that_are_cut_are_counted() -> None:
    long = " ".join(WORDS[:10] * 3)
    encoder = tiny_encoder(max_length=16, pair="separate")
    assert encoder.count_cut([quickstudy.Example("good", long), quickstudy.Example("bad", "good")]) == 1
    exactly = " ".join(WORDS[:14])  # with the two marks 16 tokens
    assert encoder.count_cut([quickstudy.Example(exactly), quickstudy.Example(f"{exactly} good")]) == 1


def test_a_single_word_that_is_no_file_is_a_text(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "good film.csv", "text\nbad\n")
    long = f"{'good ' * 80}see my notes.csv"
    write(tmp_path / "good", "no suffix, so it is a word")
    for word, texts in (
        *(("good", ["good"]), ("see my notes.csv", ["see my notes.csv"]), ("good film.csv", ["bad"])),
        (long, [long]),
    ):
        done = CliRunner().invoke(app, ["predict", str(model), word, "--json"])
        assert [row["text"] for row in json.loads(done.stdout)] == texts
    write(tmp_path / "notes.txt", "good\nbad\n")
    done = CliRunner().invoke(app, ["predict", str(model), "notes.txt"])
    assert (done.stdout, str(done.exception).splitlines()[0]) == (
        "",
        "notes.txt: files of type '.txt' cannot be read",
    )


@pytest.mark.parametrize("json_wanted", [False, True])
def test_characters_that_the_output_does_not_have_are_codes(
    json_wanted: bool, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, out = "good café 文 🙂", io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "argv", ["quickstudy", "predict", str(model), text, *(["--json"] if json_wanted else [])])
    with pytest.raises(SystemExit) as stop:
        main()
    out.flush()
    printed = out.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert not stop.value.code
    if json_wanted:
        assert json.loads(printed)[0]["text"] == text
    else:
        assert r"good caf\xe9 \u6587 \U0001f642" in printed


def test_what_looks_like_a_sign_of_a_table_stays_as_it_is(model: Path, command: Command) -> None:
    assert "good :heart: [bold]film" in command("predict", model, "good :heart: [bold]film")[1]


# Processes of their own


def quick(*words: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "quickstudy", *map(str, words)]
    return subprocess.run(command, capture_output=True, check=False, env=alone, **options)


@pytest.mark.parametrize("name", ["packed16.CSV.GZ", "list.json", "table.parquet"])
def test_standard_input_is_a_file_of_any_format(name: str, model: Path, tmp_path: Path) -> None:
    path = write(tmp_path / name, FILES[name])
    done = quick("predict", model, "-", "--json", input=path.read_bytes())
    assert done.returncode == 0, done.stderr
    assert [row["text"] for row in json.loads(done.stdout)] == [row["text"] for row in ROWS]


def test_mistakes_in_standard_input_are_named_as_such(model: Path, tmp_path: Path) -> None:
    done = quick("predict", model, "-", "--out", tmp_path / "out.csv", input=b"text,n\ngood,1\n,2\n")
    assert done.returncode == 2
    assert done.stderr.decode().startswith("error: standard input:3: the text in 'text' is empty")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.skipif(os.name == "nt", reason="pipes of Unix")
def test_a_pipe_by_its_name_is_read_once(model: Path, tmp_path: Path) -> None:
    content = as_csv(",").encode()
    done = quick("predict", model, "/dev/stdin", "--json", input=content)
    assert [row["text"] for row in json.loads(done.stdout)] == [row["text"] for row in ROWS], done.stderr
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = subprocess.Popen(["sh", "-c", f"cat > {pipe}"], stdin=subprocess.PIPE)
    assert writer.stdin
    writer.stdin.write(content.replace(b"\n", b"\n,late\n", 1))
    writer.stdin.close()
    done = quick("predict", model, "--data", pipe, "--out", tmp_path / "out.csv")
    assert writer.wait() == 0
    assert done.stderr.decode().startswith(f"error: {pipe}:2: ")
    with pytest.raises(DataError, match="this is a pipe or a device, not a file"):
        list(read_rows(pipe))


def test_adapt_reads_standard_input(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    tiny_encoder().save(tmp_path / "tiny")
    few = as_csv(",", [{"Text": word, "Category": label} for word in ("good", "bad", "old", "new") for label in "ab"])
    write(tmp_path / "few.csv", few)
    recipe = {
        "encoder": {"name": str(tmp_path / "tiny")},
        "tasks": {"train": [str(tmp_path / "few.csv")]},
        "episodes": {"n_way": 2, "k_shot": 1, "n_query": 1},
        "outer": {"outer_steps": 1, "meta_batch_size": 1},
    }
    quickstudy.pretrain(recipe, tmp_path / "run")
    done = quick("adapt", tmp_path / "run", "--data", "-", "--out", tmp_path / "model", input=few.encode())
    assert done.returncode == 0, done.stderr
    assert notes(done.stderr.decode()) == ["stdin.csv: text from 'Text', label from 'Category'"]
    assert quickstudy.load_model(tmp_path / "model").label_names == ("a", "b")


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_ctrl_c_leaves_whole_rows_and_says_how_to_go_on(model: Path, tmp_path: Path) -> None:
    count, source, out = 30_000, tmp_path / "new.csv", tmp_path / "out.csv"
    with source.open("w", encoding="utf-8") as file:
        file.write("id,text\n")
        file.writelines(f"{i},{WORDS[i % len(WORDS)]} {WORDS[i % 7]} {i}\n" for i in range(count))
    command = [sys.executable, "-m", "quickstudy", "predict", model, source, "--out", out]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=alone) as process:
        unfinished = tmp_path / ".out.csv.part"
        while process.poll() is None and not (unfinished.exists() and unfinished.stat().st_size > 10_000):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        printed, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert printed == ""
    assert "Traceback" not in error
    told = re.search(r"stopped: \S+/out\.csv holds the first ([\d,]+) of 30,000 rows\. .* --resume\.", error)
    assert told
    rows = [row for _, row in read_rows(out)]
    assert [row["id"] for row in rows] == [str(i) for i in range(int(told[1].replace(",", "")))]
    assert 0 < len(rows) < count
    assert not unfinished.exists()
    done = quick("predict", model, source, "--out", out, "--resume", "--json")
    assert json.loads(done.stdout)["rows"] == count
    ids = [(row["id"], bool(row["predicted_label"])) for _, row in read_rows(out)]
    assert ids == [(str(i), True) for i in range(count)]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_rows(model: Path, tmp_path: Path) -> None:
    count, source = 20_000, tmp_path / "new.csv"
    with source.open("w", encoding="utf-8") as file:
        file.write("text\n")
        file.writelines(
            f"{' '.join(WORDS[(i * j) % len(WORDS)] for j in range(14))} {'x' * 1500} {i}\n" for i in range(count)
        )
    script = """
import re, sys
from pathlib import Path
import quickstudy
from quickstudy.cli.label_file import Places, label_file

peaks = []

def peak(done, total):
    peaks.append(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 2**10)

label_file(quickstudy.load_model(sys.argv[1]), Places(*map(Path, sys.argv[2:])), on_rows=peak)
print(peaks[2], peaks[-1])
"""
    words = [sys.executable, "-c", script, model, source, tmp_path / "out.csv"]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=alone)
    early, late = map(float, done.stdout.split())
    assert (tmp_path / "out.csv").stat().st_size > 30 * 2**20
    assert late - early < 12


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="permissions of Unix")
@pytest.mark.usefixtures("open_umask")
def test_files_of_a_model_get_the_permissions_that_new_files_have(tmp_path: Path) -> None:
    folder = adapt_task(make("protonet", tiny_encoder()), word_task(rows=12)).save(tmp_path / "model")
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    assert {"model.safetensors", "head.safetensors", "adapted.json"} <= set(modes)
    assert set(modes.values()) == {0o640}
    assert folder.stat().st_mode & 0o777 == 0o750


def test_python_shows_no_bars_and_leaves_those_of_others_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = adapt_task(make("protonet", tiny_encoder()), word_task(rows=12))
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.enable_progress_bar()
    try:
        model.save(tmp_path / "model")
        quickstudy.load_model(tmp_path / "model")
        assert transformers_logging.is_progress_bar_enabled()
        printed = capfd.readouterr()
        assert (printed.out, printed.err) == ("", "")
        AutoModel.from_pretrained(tmp_path / "model" / "encoder")
        assert "Loading weights" in capfd.readouterr().err
    finally:
        if not shown:
            transformers_logging.disable_progress_bar()


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path
