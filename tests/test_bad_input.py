"""Bad input: through the command line, each mistake gets a message with its place and the way out, no half output."""

import gzip
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import tiny_encoder
from quickstudy import api
from quickstudy.cli.main import main
from quickstudy.errors import DataError
from quickstudy.tasks.split import Example

GOOD = "text,label\n" + "".join(f"a {word} film,{label}\n" for word in ("good", "great", "fine") for label in "xy")

TABLE = pd.DataFrame({"text": ["good", "bad"], "label": ["x", "y"]})

RECIPE = """\
name = "tiny"
seed = 0

[encoder]
name = "{folder}/tiny"

[method]
name = "maml"
inner_lr = 0.1
inner_steps = 1
adapts = "layers:-1"

[tasks]
train = ["{folder}/train.csv"]
validation = ["{folder}/validation.csv"]

[episodes]
n_way = 2
k_shot = 2
n_query = 1

[outer]
outer_steps = 2
outer_lr = 1e-4
meta_batch_size = 1
validation_episodes = 1
"""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    def refused(self, *parts: str, out: Path | None = None) -> None:
        """One short message with all these parts, exit code 2, and no output folder."""
        assert self.code == 2, self.err
        assert self.err.startswith("error: ")
        assert "Traceback" not in self.err
        assert len(self.err.splitlines()) <= 3
        for part in parts:
            assert part in self.err
        if out:
            assert not out.exists()
            assert not [path for path in out.parent.iterdir() if path.name.startswith(f".{out.name}.")]


Cli = Callable[..., Result]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tiny encoder, two data files, a recipe, the run made of it, and two models: of texts and of pairs."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUICKSTUDY_CACHE", str(folder / "cache"))
        (folder / "tiny").mkdir()
        tiny_encoder().save(folder / "tiny")
        for name in ("train", "validation"):
            (folder / f"{name}.csv").write_text(GOOD, encoding="utf-8")
        (folder / "recipe.toml").write_text(RECIPE.format(folder=folder), encoding="utf-8")
        run = api.pretrain(folder / "recipe.toml", folder / "run")
        api.adapt(run, texts=["good", "bad"], labels=["x", "y"]).save(folder / "single")
        api.adapt(run, texts=[("good", "bad"), ("bad", "red")], labels=["x", "y"]).save(folder / "pair")
    yield folder
    assert (folder / "run" / "config.toml").is_file()


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path) -> Cli:
    """Run the command line in this process, in an empty folder; the exit code and what it printed."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*words: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["quickstudy", *map(str, words)])
        before = files_of(trained)
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        error = re.sub(r"(?m)^.*Loading weights:.*$\n?", "", printed.err)  # a bar that only in-process runs show
        assert files_of(trained) == before
        assert not list((tmp_path / "here").iterdir())
        return Result(int(caught.value.code or 0), printed.out, error)

    return run


# Data files: (name, content, line of the mistake, what the message says and the way out)


def parquet(rows: Sequence[tuple[str | None, str | float | None]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]}), sink)
    return sink.getvalue()


def broken_parquet() -> bytes:
    """A file whose 502nd text is not UTF-8, which Parquet does not check."""
    texts = [b"a text"] * 501 + [b"caf\xff"]
    broken = pa.Array.from_buffers(pa.string(), len(texts), pa.array(texts, pa.binary()).buffers())
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": broken, "label": ["x"] * len(texts)}), sink)
    return sink.getvalue()


BROKEN_PARQUET = broken_parquet()

BAD_FILES: dict[str, tuple[str, str | bytes, int | None, Sequence[str]]] = {
    "missing text column": (
        "f.csv",
        "id,txt,label\n1,a,x\n2,b,y\n",
        1,
        ("no column 'text'; the columns are: 'id', 'txt', 'label'", "--text-column 'txt'"),
    ),
    "missing label column": (
        "f.jsonl",
        '{"id": 1, "text": "a", "lable": 1}\n',
        1,
        ("--label-column 'lable'", "f.jsonl?label=lable"),
    ),
    "one class only": ("f.csv", "text,label\na,x\nb,x\n", None, ("every row has the label 'x'", "at least two labels")),
    "empty text": ("f.csv", "text,label\na,x\n,y\n", 3, ("the text in 'text' is empty", "delete the row")),
    "blank text": ("f.jsonl", '\n{"text": " \\n", "label": "x"}\n', 2, ("the text in 'text' is empty",)),
    "empty second text": ("f.csv", "text,text_pair,label\na,b,x\nc, ,y\n", 3, ("the text in 'text_pair' is empty",)),
    "text that is a number": ("f.jsonl", '{"text": 7, "label": "x"}\n', 1, ("'text' is 7, not a text",)),
    "text that is null": ("f.parquet", parquet([("a", "x"), (None, "y")]), 2, ("'text' is None, not a text",)),
    "empty label": ("f.tsv", "text\tlabel\na\tx\nb\t\n", 3, ("the label in 'label' is missing", "Label the row.")),
    "NaN label as text": ("f.csv", "text,label\na,x\nb,NaN\n", 3, ("missing (empty or NaN)", "Label the row.")),
    "NaN label as number": ("f.jsonl", '{"text": "a", "label": NaN}\n', 1, ("missing (empty or NaN)",)),
    "broken text in Parquet": ("f.parquet", BROKEN_PARQUET, 502, ("not valid UTF-8 (byte 0xff at position 4)",)),
    "NaN label in Parquet": ("f.parquet", parquet([("a", 1.0), ("b", float("nan"))]), 2, ("missing (empty or NaN)",)),
    "null label": ("f.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": null}\n', 2, ("missing",)),
    "label left out": ("f.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n', 2, ("'label' is missing",)),
    "list as label": ("f.jsonl", '{"text": "a", "label": [1]}\n', 1, ("'label' is [1], not a label",)),
    "latin-1": (
        "f.csv",
        "text,label\na,x\ncafé,y\n".encode("latin-1"),
        3,
        ("not valid UTF-8 (byte 0xe9 at position 4 of the line)", "iconv -f WINDOWS-1252 -t UTF-8 f.csv"),
    ),
    "UTF-16 without mark": ("f.jsonl", '{"text": "a"}\n'.encode("utf-16-le"), 1, ("is UTF-16, not UTF-8", "iconv")),
    "half a UTF-16 character": ("f.csv", GOOD.encode("utf-16")[:-1], None, ("not valid UTF-16", "Save it as UTF-8")),
    "not gzip": ("f.csv.gz", GOOD, None, ("not a whole gzip file", "Copy it again.")),
    "half a gzip file": ("f.csv.gz", gzip.compress(GOOD.encode())[:-9], None, ("not a whole gzip file",)),
    "JSON of something else": ("f.json", '{"text": "a", "label": "x"}\n7', 2, ("a JSON int where an",)),
    "columns of two lengths": ("f.json", '{"text": ["a", "b"], "label": ["x"]}', None, ("columns of the same length",)),
    "JSON that is a number": ("f.json", "7", None, ("a JSON int where rows are expected", "Write a list of objects")),
    "JSON that ends early": ("f.json", '[{"text": "a",\n', None, ("not valid JSON", "line 2, column 1")),
    "no Excel file": ("f.xlsx", b"PK", None, ("Excel file",)),
    "broken JSON": (
        "f.jsonl",
        '{"text": "a", "label": "x"}\n{"text": "b", "label": \n',
        2,
        ("not valid JSON (Expecting value at column", "Each line must be one JSON object"),
    ),
    "JSON list": ("f.jsonl", '["a", "x"]\n', 1, ("a JSON list where an object is expected", "one JSON object")),
    "half a character": ("f.jsonl", '{"text": "a \\ud83d", "label": 1}\n', 1, ("half of a surrogate pair", "delete")),
    "too many fields": (
        "f.csv",
        "text,label\na,x\nwell, hello,y\n",
        3,
        ("3 fields where the header has 2", "double quotes"),
    ),
    "too few fields": ("f.csv", 'text,label\n"a\nb",x\nc\n', 4, ("1 field where the header has 2",)),
    "quote left open": ("f.csv", 'text,label\n"a,x\nb,y\n', 3, ("broken CSV", "close every quoted field")),
    "text after a quote": ("f.csv", 'text,label\na,x\n"b" c,y\n', 3, ("broken CSV", 'twice ("")')),
    "no rows": ("f.csv", "text,label\n", None, ("the file has no rows", "one labelled text per row")),
    "empty file": ("f.jsonl", "", None, ("the file has no rows",)),
    "not Parquet": ("f.parquet", b"PAR2", None, ("not a readable Parquet file",)),
    "another format": ("f.xls", b"PK", None, ("files of type '.xls' cannot be read", ".csv, .tsv, .json, .jsonl")),
}


@pytest.mark.parametrize("case", BAD_FILES)
@pytest.mark.parametrize("verb", ["adapt", "evaluate", "pretrain"])
def test_a_bad_data_file_is_named_with_its_line(verb: str, case: str, cli: Cli, trained: Path, tmp_path: Path) -> None:
    name, content, line, parts = BAD_FILES[case]
    path, out = write(tmp_path / name, content), tmp_path / "out"
    words = {
        "adapt": ("adapt", trained / "run", "--data", path, "--out", out),
        "evaluate": ("evaluate", trained / "run", "--tasks", path),
        "pretrain": ("pretrain", trained / "recipe.toml", "--set", f'tasks.train=["{path}"]', "--out", out),
    }[verb]
    place = f"{path}:{line}: " if line else f"{path}: "
    cli(*words).refused(f"error: {place}", *parts, out=out)


@pytest.mark.parametrize("case", [case for case in BAD_FILES if "label" not in case and "class" not in case])
def test_a_bad_file_of_texts_to_predict_is_named_with_its_line(
    case: str, cli: Cli, trained: Path, tmp_path: Path
) -> None:
    name, content, line, parts = BAD_FILES[case]
    path = write(tmp_path / name, content)
    cli("predict", trained / "single", "--data", path).refused(f"error: {path}{f':{line}' if line else ''}: ", *parts)


def test_a_regression_label_that_is_no_number_is_named(cli: Cli, trained: Path, tmp_path: Path) -> None:
    path, out = write(tmp_path / "f.csv", "text,label\na,1.5\nb,high\n"), tmp_path / "out"
    found = cli("adapt", trained / "run", "--data", path, "--regression", "--out", out)
    found.refused(f"{path}:3: 'label' is 'high', not a number", "A regression label is a number.", out=out)


# Recipes: (what is replaced, by what, start of the line of the mistake, what the message says and the way out)

METHOD = 'name = "maml"\ninner_lr = 0.1\ninner_steps = 1\nadapts = "layers:-1"'
BAD_RECIPES: dict[str, tuple[str, str, str, Sequence[str]]] = {
    "unknown setting": (
        "outer_steps = 2",
        "outer_step = 2",
        "outer_step =",
        ("unknown setting 'outer.outer_step'", "Did you mean 'outer_steps'?"),
    ),
    "setting with a dash": (
        "outer_steps = 2",
        "outer-steps = 2",
        "outer-steps",
        ("unknown setting 'outer.outer-steps'", "Did you mean 'outer_steps'?"),
    ),
    "unknown section": ("[episodes]", "[episode]", "[episode]", ("setting 'episode'", "Did you mean 'episodes'?")),
    "unknown setting on top": ("seed = 0", "my-seed = 0", "my-seed", ("setting 'my-seed'", "Did you mean 'seed'?")),
    "setting in the wrong place": ("seed = 0", "n_way = 2", "n_way = 2", ("unknown setting 'n_way'", "Choose one of:")),
    "tasks.train is missing": (
        'train = ["{folder}/train.csv"]\n',
        "",
        "[tasks]",
        ("the setting 'tasks.train' is missing", 'A recipe needs at least: [tasks] train = ["samples:meta-train"]'),
    ),
    "tasks is missing": (
        '[tasks]\ntrain = ["{folder}/train.csv"]\nvalidation = ["{folder}/validation.csv"]\n',
        "",
        "",
        ("the setting 'tasks' is missing", "A recipe needs at least:"),
    ),
    "no train tasks": (
        'train = ["{folder}/train.csv"]',
        "train = []",
        "train",
        ("tasks.train = []", "at least 1 item"),
    ),
    "text for a number": ("outer_steps = 2", 'outer_steps = "many"', "outer_steps", ("= 'many'", "a valid integer")),
    "number for a list": ("train = [", "train = 3 # ", "train", ("tasks.train = 3", "should be a valid list")),
    "list of the wrong length": ("n_way = 2", "n_way = [2, 3, 4]", "n_way", ("episodes.n_way = [2, 3, 4]",)),
    "negative rate": ("outer_lr = 1e-4", "outer_lr = -1", "outer_lr", ("outer.outer_lr = -1", "greater than 0")),
    "infinite rate": ("outer_lr = 1e-4", "outer_lr = inf", "outer_lr", ("outer.outer_lr = inf", "finite number")),
    "unknown choice": (
        "outer_lr = 1e-4",
        'mixed_precision = "int8"',
        "mixed_precision",
        ("outer.mixed_precision = 'int8'", "'no' or 'bf16'"),
    ),
    "unknown tracker": ("outer_lr = 1e-4", 'trackers = ["diary"]', "trackers", ("diary", "tensorboard")),
    "text without quotes": ("outer_steps = 2", "outer_steps = two", "outer_steps", ("not valid TOML", "need quotes")),
    "key without a value": ("seed = 0", "seed", "seed", ("not valid TOML", "its own line")),
    "list left open": (
        "validation_episodes = 1",
        "trackers = [",
        "trackers",
        ("not valid TOML", "lists need brackets"),
    ),
    "setting written twice": ("seed = 0", "seed = 0\nseed = 1", "seed = 1", ("not valid TOML", "overwrite")),
    "unknown method": ('"maml"', '"mamel"', 'name = "mamel"', ("no method 'mamel'", "Did you mean 'maml'?")),
    "unknown method setting": (
        "inner_steps = 1",
        "inner_stepz = 1",
        "inner_stepz",
        ("method 'maml' has no setting 'inner_stepz'", "Did you mean 'inner_steps'?"),
    ),
    "text for a method's number": ("inner_lr = 0.1", 'inner_lr = "fast"', "inner_lr", ("'maml' takes float here",)),
    "inner loop without steps": ("inner_steps = 1", "inner_steps = 0", "inner_steps", ("Give a number above 0.",)),
    "inner loop without end": ("inner_steps = 1", "inner_steps = 1000000", "inner_steps", ("Give at most 10,000.",)),
    "head that never learns": ("inner_lr = 0.1", "head_lr = 0", "head_lr", ("Give a number above 0.",)),
    "network that fits nowhere": (
        METHOD,
        'name = "in-context"\nhidden = 10000000',
        "hidden",
        ("hidden = 10000000 is not possible", "Give at most 8,192."),
    ),
    "meta-batch without end": (
        "meta_batch_size = 1",
        "meta_batch_size = 1000000000000",
        "meta_batch_size",
        ("less than or equal to 65536",),
    ),
    "fraction for a method's count": ("inner_steps = 1", "inner_steps = 1.5", "inner_steps", ("takes int here",)),
    "yes for a method's count": ("inner_steps = 1", "inner_steps = true", "inner_steps", ("takes int here",)),
    "negative method setting": ("inner_lr = 0.1", "inner_lr = -0.1", "inner_lr", ("-0.1 is not possible", "negative")),
    "scale of zero": (METHOD, 'name = "protonet"\nscale = 0', "scale = 0", ("scale = 0 is not possible", "above 0")),
    "baseline": (METHOD, 'name = "linear-probe"', 'name = "linear', ("is a baseline", "choose another method")),
    "other baseline": (METHOD, 'name = "finetune"', 'name = "finetune"', ("is a baseline", "Evaluate it directly")),
    "more layers than there are": ("layers:-1", "layers:-9", "adapts", ("the encoder has 2 layers", "Choose 1 to 2.")),
    "unknown filter": ("layers:-1", "layer:-1", "adapts", ("no parameter filter 'layer:-1'", "layers:-m")),
    "more labels than a task has": (
        "n_way = 2",
        "n_way = 5",
        "n_way",
        ("task 'train' cannot give a 5-way 2-shot episode", "(x: 3, y: 3)", "Lower n_way or k_shot"),
    ),
    "more shots than a task has": ("k_shot = 2", "k_shot = 3", "n_way", ("2-way 3-shot episode", "Lower n_way")),
    "one label": ("n_way = 2", "n_way = 1", "n_way", ("n_way = 1 is not possible", "at least 2")),
    "range upside down": (
        "k_shot = 2",
        "k_shot = [3, 1]",
        "k_shot",
        ("k_shot = (3, 1) is not possible", "low <= high"),
    ),
    "no query": ("n_query = 1", "n_query = 0", "n_query", ("episodes.n_query = 0", "greater than or equal to 1")),
    "same task in both parts": (
        "validation.csv",
        "train.csv",
        "validation",
        ("meta-training and meta-validation share the task 'train'", "take it out of one"),
    ),
    "same task twice": (
        'train.csv"',
        'train.csv", "{folder}/train.csv"',
        "train",
        ("'train' is named twice", "Remove"),
    ),
    "no such data": ("train.csv", "trian.csv", "train", ("neither a file or folder nor a known source", "Give a path")),
    "no such sample": ("{folder}/validation.csv", "samples:spm", "validation", ("Did you mean 'spam'?",)),
    "no such encoder": ("/tiny", "/tinny", 'name = "{folder}/tinny"', ("tinny' could not be loaded", "a local folder")),
    "patience without validation": (
        'validation = ["{folder}/validation.csv"]\n\n[episodes]\nn_way = 2\nk_shot = 2\nn_query = 1\n\n[outer]\n',
        "[episodes]\nn_way = 2\nk_shot = 2\nn_query = 1\n\n[outer]\npatience = 2\n",
        "patience",
        ("patience counts meta-validations", "Give tasks.validation"),
    ),
    "warm-up without end": (
        "outer_steps = 2",
        "outer_steps = 2\nwarmup_steps = 2",
        "warmup_steps",
        ("2 steps of warm-up do not end within 2 outer steps", "it is a tenth"),
    ),
    "name that is a path": (
        'name = "tiny"',
        'name = "../tiny"',
        "name",
        ("name = '../tiny'", "should match pattern"),
    ),
}


@pytest.mark.parametrize("case", BAD_RECIPES)
def test_a_bad_recipe_is_refused_with_the_line(case: str, cli: Cli, trained: Path, tmp_path: Path) -> None:
    old, new, start, parts = BAD_RECIPES[case]
    assert RECIPE.count(old) >= 1
    text = RECIPE.replace(old, new, 1).replace("{folder}", str(trained))
    path, out = write(tmp_path / "recipe.toml", text), tmp_path / "out"
    start = start.replace("{folder}", str(trained))
    line = next(number for number, found in enumerate(text.splitlines(), 1) if found.startswith(start))
    cli("pretrain", path, "--out", out).refused(f"error: {path}:{line}: ", *parts, out=out)


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("outer.outer_step=2", ("unknown setting 'outer.outer_step'", "Did you mean 'outer_steps'?")),
        ("outr.outer_steps=2", ("unknown setting 'outr'", "Did you mean 'outer'?")),
        ("outer.outer_steps=many", ("outer.outer_steps = 'many'", "a valid integer")),
        ("outer.outer_steps", ("not a setting", "Write --set section.key=value.")),
        (".=1", ("not a setting", "Write --set section.key=value.")),
        ("name.first=1", ("'name' is not a section", "Write --set section.key=value.")),
        ("method.name=mamel", ("no method 'mamel'", "Did you mean 'maml'?")),
        ("method.inner_stepz=3", ("has no setting 'inner_stepz'", "Did you mean 'inner_steps'?")),
        ("method.adapts=layers:-9", ("the encoder has 2 layers", "Choose 1 to 2.")),
        ("episodes.n_way=[4,5]", ("cannot give a 4-way 2-shot episode", "Lower n_way or k_shot")),
        ("tasks.train=[]", ("tasks.train = []", "at least 1 item")),
    ],
)
def test_a_bad_override_is_named(setting: str, parts: Sequence[str], cli: Cli, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = cli("pretrain", trained / "recipe.toml", "--set", "seed=1", "--set", setting, "--out", out)
    found.refused(f"error: --set {setting}: ", *parts, out=out)


def test_a_pooler_that_is_not_there_is_refused(cli: Cli, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    tiny_encoder("distilbert").save(tmp_path / "plain")
    words = (
        "--set",
        f"encoder.name={tmp_path / 'plain'}",
        "--set",
        "encoder.pooling=pooler",
        "--out",
        tmp_path / "out",
    )
    found = cli("pretrain", trained / "recipe.toml", *words)
    found.refused("has no pooler", "Use pooling = 'mean' or 'cls'.", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (None, (": the recipe cannot be read (there is no such file)", "Check the path")),
        (b"\nname = '\xe9'", (":2: the recipe cannot be read (it is not UTF-8 text", "a recipe is UTF-8 text")),
        (f"a = {'[' * 5000}".encode(), (": not valid TOML (lists or tables are nested too deep)",)),
    ],
)
def test_a_recipe_that_cannot_be_read_is_refused(
    content: bytes | None, parts: Sequence[str], cli: Cli, tmp_path: Path
) -> None:
    path, out = tmp_path / "recipe.toml", tmp_path / "out"
    if content:
        path.write_bytes(content)
    cli("pretrain", path, "--out", out).refused(f"error: {path}", *parts, out=out)


# Folders


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file"])
@pytest.mark.parametrize("verb", ["pretrain", "adapt"])
def test_an_output_that_exists_is_left_as_it_was(verb: str, kind: str, cli: Cli, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine", encoding="utf-8")
    else:
        out.mkdir()
    if kind == "folder":
        (out / "notes.txt").write_text("mine", encoding="utf-8")
    before = files_of(tmp_path)
    words = {
        "pretrain": ("pretrain", trained / "recipe.toml"),
        "adapt": ("adapt", trained / "run", "--data", trained / "train.csv"),
    }[verb]
    cli(*words, "--out", out).refused(f"error: {out}: this ", "exists already", "Choose another")
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("verb", ["pretrain", "adapt"])
def test_an_output_below_a_file_is_refused(verb: str, cli: Cli, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    words = {
        "pretrain": ("pretrain", trained / "recipe.toml"),
        "adapt": ("adapt", trained / "run", "--data", trained / "train.csv"),
    }[verb]
    found = cli(*words, "--out", tmp_path / "file" / "out")
    found.refused("the folder cannot be made", "Choose another --out.")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("verb", ["adapt", "evaluate", "report", "pretrain"])
def test_what_is_no_run_folder_is_refused(verb: str, there: bool, cli: Cli, trained: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "norun", tmp_path / "out"
    if there:
        folder.mkdir()
    words = {
        "adapt": ("adapt", folder, "--data", trained / "train.csv", "--out", out),
        "evaluate": ("evaluate", folder, "--tasks", trained / "train.csv"),
        "report": ("report", folder),
        "pretrain": ("pretrain", trained / "recipe.toml", "--out", folder, "--resume"),
    }[verb]
    found = cli(*words)
    found.refused(f"error: {folder}: this is not a run folder", "Make one with: quickstudy pretrain", out=out)
    assert folder.exists() == there


@pytest.mark.parametrize("verb", ["adapt", "evaluate"])
def test_an_unfinished_run_is_refused(verb: str, cli: Cli, trained: Path, tmp_path: Path) -> None:
    run, out = shutil.copytree(trained / "run", tmp_path / "run"), tmp_path / "out"
    (run / "meta_learner.safetensors").unlink()
    words = {"adapt": ("--data", trained / "train.csv", "--out", out), "evaluate": ("--tasks", trained / "train.csv")}
    found = cli(verb, run, *words[verb], *(("--shots", 1) if verb == "evaluate" else ()))
    found.refused(f"error: {run}: this run is not finished", "quickstudy pretrain --resume", out=out)


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("meta_learner.safetensors", "what the method learned cannot be read"),
        ("encoder/model.safetensors", "could not be loaded"),
        ("encoder/config.json", "could not be loaded"),
        ("config.toml", "config.toml:1: not valid TOML"),
    ],
)
def test_a_damaged_run_is_refused(
    file: str, message: str, checked: bool, cli: Cli, trained: Path, tmp_path: Path
) -> None:
    run, out = shutil.copytree(trained / "run", tmp_path / "run"), tmp_path / "out"
    (run / file).write_bytes((run / file).read_bytes()[:5])
    if not checked:
        (run / "manifest.json").unlink()
    elif file != "config.toml":
        message = f"the run folder is broken: {file} is missing or was changed"
    cli("adapt", run, "--data", trained / "train.csv", "--out", out).refused(message, str(run), out=out)


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize(("file", "keep"), [("adapted.json", 5), ("head.safetensors", 5), ("head.safetensors", 0)])
def test_a_damaged_model_is_refused(
    file: str, keep: int, checked: bool, cli: Cli, trained: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(trained / "single", tmp_path / "model")
    (model / file).write_bytes((model / file).read_bytes()[:keep])
    if not checked:
        (model / "manifest.json").unlink()
    cli("predict", model, "good").refused(f"error: {model}: the model folder is broken", "or adapt again.")


@pytest.mark.parametrize("where", ["nothing", "run"])
def test_what_is_no_model_folder_is_refused(where: str, cli: Cli, trained: Path) -> None:
    found = cli("predict", trained / where, "good")
    found.refused(f"error: {trained / where}: this is not a model folder", "Make one with: quickstudy adapt")


# Verbs


@pytest.mark.parametrize("shots", ["x", "0", "4,,8", "-1", "", "4;8", "1.5"])
def test_shots_that_are_no_numbers_are_refused(shots: str, cli: Cli, trained: Path) -> None:
    found = cli("evaluate", trained / "run", "--tasks", trained / "train.csv", f"--shots={shots}")
    found.refused(f"--shots {shots!r} is not a list of whole numbers above 0", "Write it like 4,8,16.")


@pytest.mark.parametrize(("files", "held"), [(("data.csv",), 5), (("train.csv", "test.csv"), 10)])
def test_fewer_examples_of_a_class_than_shots_are_refused(
    files: Sequence[str], held: int, cli: Cli, trained: Path, tmp_path: Path
) -> None:
    """20 rows of x and 10 of y; without a test file half of them are held out."""
    (tmp_path / "few").mkdir()
    rows = "text,label\n" + "".join(f"text {i},{'xxy'[i % 3]}\n" for i in range(30))
    for name in files:
        write(tmp_path / "few" / name, rows)
    task = tmp_path / "few" if len(files) > 1 else tmp_path / "few" / files[0]
    found = cli("evaluate", trained / "run", "--tasks", task, "--shots", "2,16", "--draws", 1)
    found.refused(f"task '{task.stem}' has {held} training examples of 'y', fewer than the 16 shots asked for")
    found.refused(f"Use --shots {held} or fewer, or add examples.")


def test_a_task_without_rows_to_score_is_refused(cli: Cli, trained: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "two.csv", "text,label\na,x\nb,y\n")
    found = cli("evaluate", trained / "run", "--tasks", path, "--shots", 1)
    found.refused("task 'two' has no row left to score", "Add a test file, or more rows")


def test_too_few_rows_for_an_episode_are_refused(cli: Cli, trained: Path, tmp_path: Path) -> None:
    path, out = write(tmp_path / "two.csv", "text,label\na,x\nb,y\n"), tmp_path / "out"
    found = cli("pretrain", trained / "recipe.toml", "--set", f'tasks.train=["{path}"]', "--out", out)
    found.refused("task 'two' cannot give a 2-way 2-shot episode", "(x: 1, y: 1)", "add labelled rows", out=out)


def test_too_many_rows_for_a_support_set_are_refused(cli: Cli, trained: Path, tmp_path: Path) -> None:
    rows = "".join(f"text {i},{i % 2}\n" for i in range(2001))
    path, out = write(tmp_path / "many.csv", "text,label\n" + rows), tmp_path / "out"
    found = cli("adapt", trained / "run", "--data", path, "--out", out)
    found.refused("2,001 labelled rows are too many for one support set", "quickstudy adapt --full", out=out)


def test_results_are_not_replaced_without_asking(cli: Cli, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    (tmp_path / "run" / "results.json").write_text("{}", encoding="utf-8")
    found = cli("evaluate", tmp_path / "run", "--tasks", trained / "train.csv", "--shots", 1)
    found.refused(f"error: {tmp_path / 'run' / 'results.json'}: this run has results already", "--overwrite")
    assert (tmp_path / "run" / "results.json").read_text(encoding="utf-8") == "{}"


def test_two_tasks_of_one_name_are_refused(cli: Cli, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write(tmp_path / "other" / "train.csv", GOOD)
    both = ("--tasks", trained / "train.csv", "--tasks", tmp_path / "other" / "train.csv")
    cli("evaluate", trained / "run", *both, "--shots", 1).refused("two tasks have the name 'train'", "Name each once")


def test_settings_that_a_resumed_run_would_ignore_are_refused(cli: Cli, trained: Path) -> None:
    words = ("pretrain", trained / "recipe.toml", "--out", trained / "run", "--resume", "--set", "seed=1")
    place = f"error: {trained / 'run' / 'config.toml'}: a resumed run keeps its settings"
    cli(*words).refused(place, "(seed: the run has 0, asked for 1)", "start a new run")


@pytest.mark.parametrize("option", ["--epochs", "--lr", "--batch-size", "--seed"])
def test_options_of_full_fine_tuning_alone_are_refused(option: str, cli: Cli, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    found = cli("adapt", trained / "run", "--data", trained / "train.csv", "--out", out, option, 1)
    found.refused(f"{option} is for full fine-tuning", "Add --full", out=out)


def test_a_system_error_is_one_message(cli: Cli, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "results.json")

    monkeypatch.setattr(api, "evaluate", full)
    words = ("evaluate", trained / "run", "--tasks", trained / "train.csv")
    cli(*words).refused("error: results.json: No space left on device", "Check space and permissions")


def test_the_report_of_damaged_results_is_refused(cli: Cli, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    (tmp_path / "run" / "results.json").write_text('{"half', encoding="utf-8")
    place = tmp_path / "run" / "results.json"
    cli("report", tmp_path / "run").refused(
        f"error: {place}: the file is damaged", "Evaluate again: quickstudy evaluate"
    )


@pytest.mark.parametrize(
    ("texts", "labels", "parts"),
    [
        ("abc", ["x", "y", "x"], ("texts is a single text", "Give a list")),
        (["a", "b"], ["x", float("nan")], ("labels[1]: the label", "missing")),
        (["a", "b"], [None, "y"], ("labels[0]: the label", "missing")),
        (["a", float("nan")], ["x", "y"], ("texts[1]: nan is not a text", "Give a text")),
        (["a", " "], ["x", "y"], ("texts[1]: this text is empty",)),
        (["a", ("b", "c")], ["x", "y"], ("texts[1]: single texts and pairs are mixed",)),
        ([("a", "b", "c")], ["x"], ("texts[0]: ('a', 'b', 'c') is not a text",)),
        (TABLE, ["x", "y"], ("texts is a table", "its columns are: text, label", "table['text']")),
        (TABLE["text"], TABLE[["label"]], ("labels is a table", "its columns are: label")),
        (TABLE.to_dict("list"), ["x", "y"], ("texts is a table", "its columns are: text, label")),
        (7, ["x"], ("texts is 7", "Give a list")),
        (["a", "b"], ["x", pd.NA], ("labels[1]: the label", "missing")),
    ],
)
def test_texts_and_labels_from_python_are_checked(
    texts: object, labels: object, parts: Sequence[str], trained: Path
) -> None:
    with pytest.raises(DataError) as caught:
        api.adapt(trained / "run", texts=texts, labels=labels)  # type: ignore[arg-type]
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "parts"),
    [
        (TABLE, ("texts is a table", "its columns are: text, label", "Give the column, e.g. table['text']")),
        (pa.table({"text": ["good"]}), ("texts is a table",)),
        ({"text": ["good"]}, ("texts is a table", "its columns are: text")),
        (None, ("texts is None", "Give a list")),
        ([None], ("texts[0]: None is not a text", "Give a text, or (text, second text) for a pair.")),
        (["good", 1], ("texts[1]: 1 is not a text",)),
        ([("good", None)], ("texts[0]: ('good', None) is not a text",)),
        ([()], ("texts[0]: () is not a text",)),
        ([b"good"], ("texts[0]: b'good' is not a text",)),
        (np.array(["good", None], dtype=object), ("texts[1]: None is not a text",)),
        (pd.Series(["good", float("nan")], dtype=object), ("texts[1]: nan is not a text",)),
        (["good", ""], ("texts[1]: this text is empty", "Leave it out.")),
        (["good", "caf\udce9"], ("texts[1]: half of a surrogate pair, or a byte that is no text", "Decode it")),
        (["good", ("good", "bad")], ("texts[1]: this model reads single texts, and there is a second one",)),
        ([], ("there is no text to predict",)),
    ],
)
def test_what_is_no_text_is_named_with_its_position(texts: object, parts: Sequence[str], trained: Path) -> None:
    model = api.load_model(trained / "single")
    for predict in (model.predict, model.predict_proba, model.logits):
        with pytest.raises(DataError) as caught:
            predict(texts)  # type: ignore[operator]
        for part in parts:
            assert part in str(caught.value)


def test_columns_and_arrays_of_texts_are_read_like_lists(trained: Path) -> None:
    texts, pairs = ["good", "bad"], [("good", "bad"), ("red", "good")]
    for folder, given, others in (
        (
            "single",
            texts,
            [pd.Series(texts), np.array(texts), np.array(texts, dtype=object), pa.array(texts).to_numpy(False)],
        ),
        (
            "pair",
            pairs,
            [np.array(pairs), pd.Series(pairs), [list(pair) for pair in pairs], [Example(*p) for p in pairs]],
        ),
    ):
        model = api.load_model(trained / folder)
        for other in others:
            assert model.predict_proba(other).tolist() == model.predict_proba(given).tolist()
    model = api.load_model(trained / "single")
    assert model.predict("good") == model.predict(Example("good")) == model.predict(["good"])
    labels = pd.Series(["x", "y"])
    adapted = api.adapt(trained / "run", texts=np.array(texts), labels=labels)
    assert adapted.predict(texts) == api.adapt(trained / "run", texts=texts, labels=list(labels)).predict(texts)


@pytest.mark.parametrize("numbers", [{"shots": [0]}, {"shots": []}, {"draws": 0}, {"limit": 0}])
def test_numbers_from_python_that_cannot_be_are_refused(numbers: dict[str, object], trained: Path) -> None:
    with pytest.raises(DataError, match=r"is not possible\n  Give (a whole number|whole numbers) above 0"):
        api.evaluate(trained / "run", trained / "train.csv", **numbers)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no task"):
        api.evaluate(trained / "run", [])


def test_adapting_to_several_tasks_at_once_is_refused(cli: Cli, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = cli("adapt", trained / "run", "--data", "samples:spam,stance", "--out", out)
    found.refused("'samples:spam,stance' holds 2 tasks", "Name one of them.", out=out)


def test_published_draws_without_those_shots_are_refused(cli: Cli, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "drawn").mkdir()
    for name in ("train_0_4", "eval"):
        write(tmp_path / "drawn" / f"{name}.csv", GOOD)
    found = cli("evaluate", trained / "run", "--tasks", tmp_path / "drawn", "--shots", "8,16", "--allow-overlap")
    found.refused("no task has draws of 8, 16 shots", "Use other --shots.")


@pytest.mark.parametrize(
    ("model", "words", "parts"),
    [
        ("pair", ["good"], ("reads pairs of texts, and a second text is missing", "--pair", "text_pair")),
        ("pair", ["good", "--pair", " "], ("texts[0]: this text is empty", "Leave it out.")),
        ("pair", ["--data", "train.csv"], ("reads pairs of texts, and a second text is missing", "text_pair")),
        ("single", ["good", "--pair", "bad"], ("reads single texts, and there is a second one", "Leave it out.")),
        ("single", ["good", ""], ("texts[1]: this text is empty", "Leave it out.")),
        ("single", ["good", "bad", "--pair", "one"], ("2 texts but 1 --pair", "Give one --pair per text.")),
        ("single", [], ("give texts or a file, one of the two", 'quickstudy predict model/ "a text"')),
        ("single", ["good", "--data", "train.csv"], ("give texts or a file, one of the two",)),
        ("pair", ["--data", "train.csv", "--pair", "b"], ("--pair is for texts on the command line", "--pair-column")),
        ("single", ["--data", "nothing.csv"], ("nothing.csv: there is no such file", "Check the path.")),
    ],
)
def test_texts_that_do_not_fit_the_model_are_refused(
    model: str, words: list[str], parts: Sequence[str], cli: Cli, trained: Path
) -> None:
    found = [str(trained / word) if word.endswith(".csv") else word for word in words]
    cli("predict", trained / model, *found).refused(*parts)


# Comparisons


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            "compare protonets --tasks T --out O",
            ("'protonets' is neither a run folder, a recipe file nor a method", "protonet"),
        ),
        ("compare protonet protonet --tasks T --out O", ("two learners are called 'protonet'", "Give each once")),
        ("compare protonet --tasks T --tasks T --out O", ("two tasks have the name 'train'", "Name each once")),
        ("compare protonet --tasks none.csv --out O", ("'none.csv' is neither a file or folder",)),
        ("compare protonet --tasks T --protocol fewshot --out O", ("there is no protocol 'fewshot'", "few-shot")),
        ("compare protonet --tasks T --protocol none.json --out O", ("none.json: this is no file of draws",)),
        ("compare protonet --tasks T --protocol fixed-draws --out O", ("no published draws", "--protocol few-shot")),
        (
            "compare protonet --tasks T --shots 9 --out O",
            ("fewer than the 9 shots asked for", "Use --shots 1 or fewer"),
        ),
        ("compare protonet --tasks T --shots 0 --out O", ("--shots '0' is not a list", "Write it like 4,8,16")),
        ("compare protonet --tasks T --shots 1 --out R", ("this folder is no comparison", "Choose another --out")),
        ("compare U --tasks T --shots 1 --out O", ("this run is not finished", "--resume")),
        ("compare R --tasks T --shots 1 --out O", ("were meta-trained on", "--allow-overlap")),
        (
            "compare protonet --tasks T --protocol D --shots 4 --out O",
            ("saved draws are taken as they are, without --shots",),
        ),
        ("recommend O", ("this folder holds no comparison", "quickstudy compare")),
        ("recommend O --tasks none.csv", ("'none.csv' is neither a file or folder",)),
        ("report O", ("this is not a run folder",)),
    ],
)
def test_a_comparison_that_cannot_be_is_refused_before_anything_is_written(
    words: str, parts: Sequence[str], cli: Cli, trained: Path, tmp_path: Path
) -> None:
    places = {
        "D": "draws.json",
        "T": trained / "train.csv",
        "R": trained / "run",
        "O": tmp_path / "out",
        "U": shutil.copytree(trained / "run", tmp_path / "unfinished"),
    }
    (tmp_path / "unfinished" / "meta_learner.safetensors").unlink()
    cli(*(places.get(word, word) for word in words.split())).refused(*parts, out=tmp_path / "out")


def test_results_that_are_none_are_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    place = tmp_path / "out" / "results.json"
    for content in ("{", "[]", '{"by_shots": {"4": {}}}', '{"format": 2, "draws": []}'):
        place.write_text(content, encoding="utf-8")
        cli("recommend", tmp_path / "out").refused(f"error: {place}: ", "Give the same `quickstudy compare` again")


# The real thing: a process of its own


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("pretrain bad.toml --out out", ("error: bad.toml:2: unknown setting 'outer.step'", "Choose one of:")),
        ("tasks bad.csv", ("error: bad.csv:2: the text in 'text' is empty", "delete the row")),
        ("adapt run --data good.csv --out there", ("error: there: this exists already", "Choose another name")),
        ("evaluate run --tasks good.csv --shots many", ("error: --shots 'many' is not a list", "like 4,8,16")),
    ],
)
def test_a_process_of_its_own_prints_one_message_and_leaves_with_code_2(
    words: str, parts: Sequence[str], trained: Path, tmp_path: Path
) -> None:
    write(tmp_path / "bad.toml", "[outer]\nstep = 1\n")
    write(tmp_path / "bad.csv", "text,label\n,x\n")
    write(tmp_path / "good.csv", GOOD)
    (tmp_path / "there").mkdir()
    shutil.copytree(trained / "run", tmp_path / "run")
    before = files_of(tmp_path)
    command = [sys.executable, "-m", "quickstudy", *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    Result(done.returncode, done.stdout, done.stderr).refused(*parts, out=tmp_path / "out")
    assert done.stdout == ""
    assert files_of(tmp_path) == before


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def files_of(folder: Path) -> dict[str, bytes | None]:
    """All that is below a folder, with its content; without the cache of tables."""
    found = (path for path in folder.rglob("*") if "cache" not in path.relative_to(folder).parts)
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in found}
