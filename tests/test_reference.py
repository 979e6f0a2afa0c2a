"""References: one line of text names tasks of every source, and a wrong one is told what would be right."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quickstudy.data import glue as glue_module
from quickstudy.data import hub as hub_module
from quickstudy.data.columns import Columns
from quickstudy.data.glue import GLUE
from quickstudy.data.hub import load_hub
from quickstudy.data.reference import load_tasks
from quickstudy.data.samples import META_SPLITS, read_sample_index
from quickstudy.errors import DataError
from quickstudy.evaluation.metrics import score
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Task

SHARED = Path(__file__).parents[2] / "shared" / "data"

# Fields and metrics of gluebenchmark.com/tasks and the Hub's nyu-mll/glue, written down again.
OFFICIAL = {
    "cola": (("sentence",), "mcc"),
    "sst2": (("sentence",), "accuracy"),
    "mrpc": (("sentence1", "sentence2"), "accuracy_f1"),
    "stsb": (("sentence1", "sentence2"), "pearson_spearman"),
    "qqp": (("question1", "question2"), "accuracy_f1"),
    "mnli": (("premise", "hypothesis"), "accuracy"),
    "qnli": (("question", "sentence"), "accuracy"),
    "rte": (("sentence1", "sentence2"), "accuracy"),
    "wnli": (("sentence1", "sentence2"), "accuracy"),
}


def test_samples_names_all_bundled_tasks_in_the_order_of_the_index() -> None:
    assert [task.name for task in load_tasks("samples")] == [f"samples:{name}" for name in read_sample_index()]


@pytest.mark.parametrize("part", META_SPLITS)
def test_samples_with_a_part_names_the_tasks_of_that_part(part: str) -> None:
    wanted = [f"samples:{name}" for name, entry in read_sample_index().items() if entry.meta_split == part]
    assert [task.name for task in load_tasks(f"samples:{part}")] == wanted


def test_several_names_and_several_references_are_joined() -> None:
    tasks = load_tasks(["samples:spam,stance", "samples:emotion"])
    assert [task.name for task in tasks] == ["samples:spam", "samples:stance", "samples:emotion"]


def test_a_file_with_options_takes_those_columns(tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    path.write_text("note,second,code\na,b,1.5\nc,d,2\n", encoding="utf-8")
    [single] = load_tasks(f"{path}?text=note&label=code")
    [pair] = load_tasks(f"{path}?text=note&pair=second&label=code")
    [scores] = load_tasks(f"{path}?text=note&label=code&kind=regression")
    assert rows_of(single) == [("a", None, "1.5"), ("c", None, "2")]
    assert rows_of(pair) == [("a", "b", "1.5"), ("c", "d", "2")]
    assert (scores.kind, scores.train_split.labels.tolist()) == ("regression", [1.5, 2.0])


def test_a_column_name_may_be_url_encoded(tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text("the text & more,label\na,x\nb,y\n", encoding="utf-8")
    [task] = load_tasks(f"{tmp_path / 'few.csv'}?text=the+text+%26+more")
    assert rows_of(task) == [("a", None, "x"), ("b", None, "y")]


def test_relative_paths_start_from_the_base(tmp_path: Path) -> None:
    write_rows(tmp_path / "sub" / "few.csv", "ab")
    assert [task.name for task in load_tasks("sub/few.csv", base=tmp_path)] == ["few"]
    with pytest.raises(DataError, match="neither a file or folder"):
        load_tasks("sub/few.csv", base=tmp_path / "sub")


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (("train.csv", "validation.csv", "test.csv"), {"train", "validation", "test"}),
        (("train.jsonl", "valid.csv"), {"train", "validation"}),
        (("train.tsv", "dev.parquet", "notes.txt"), {"train", "validation"}),
        (("eval.csv", "train.csv"), {"train", "test"}),
        (("Train.csv", "val.csv", "._test.csv", ".test.csv"), {"train", "validation"}),
    ],
)
def test_a_folder_with_splits_is_one_task(files: Sequence[str], splits: set[str], tmp_path: Path) -> None:
    for file in files:
        write_rows(tmp_path / "rte" / file, "ab")
    [task] = load_tasks(str(tmp_path / "rte"))
    assert task.name == "rte"
    assert set(task.splits) == splits


def test_splits_share_their_labels(tmp_path: Path) -> None:
    write_rows(tmp_path / "t" / "train.csv", "cbb")
    write_rows(tmp_path / "t" / "test.csv", "da")
    [task] = load_tasks(str(tmp_path / "t"))
    assert task.label_names == ("a", "b", "c", "d")
    assert task.split("train").labels.tolist() == [2, 1, 1]
    assert task.test_split.labels.tolist() == [3, 0]


def test_a_folder_of_files_and_folders_is_a_collection(tmp_path: Path) -> None:
    write_rows(tmp_path / "corpora" / "b.csv", "xy")
    write_rows(tmp_path / "corpora" / "a.jsonl", "xy")
    write_rows(tmp_path / "corpora" / "c" / "train.tsv", "xy")
    write_rows(tmp_path / "corpora" / "deep" / "d.csv", "xy")
    (tmp_path / "corpora" / "empty").mkdir()
    (tmp_path / "corpora" / "readme.txt").write_text("not data", encoding="utf-8")
    names = [task.name for task in load_tasks(str(tmp_path / "corpora"))]
    assert names == ["corpora/a", "corpora/b", "corpora/c", "corpora/deep/d"]


def test_a_folder_with_published_draws_keeps_them(tmp_path: Path) -> None:
    """The LEOPARD layout: train_<draw>_<K>, scored on eval."""
    for draw, shots in [(0, 4), (1, 4), (0, 8), (10, 16)]:
        write_rows(tmp_path / "airline" / f"train_{draw}_{shots}.jsonl", "ab" * shots, text=f"{draw} {shots}")
    write_rows(tmp_path / "airline" / "eval.jsonl", "abc")
    [task] = load_tasks(str(tmp_path / "airline"))
    assert set(task.fixed_draws) == {(4, 0), (4, 1), (8, 0), (16, 10)}  # (K, draw)
    assert {key: len(rows) for key, rows in task.fixed_draws.items()} == {key: 2 * key[0] for key in task.fixed_draws}
    assert task.fixed_draws[16, 10][1] == Example("10 16 1", None, 1)
    assert task.label_names == ("a", "b", "c")
    assert list(task.splits) == ["test"]


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        (("a.csv", "b.csv", "test.csv"), ("(test.csv) lie beside other data (a.csv, b.csv)", "a folder of its own")),
        (("train.csv", "sub/train.csv"), ("(train.csv) lie beside other data (sub)", "a folder of its own")),
        (("train_0_4.csv", "eval.csv", "a.csv"), ("(eval.csv) lie beside other data (a.csv)",)),
        (("train_0_4.csv", "a.csv"), ("(draws) lie beside other data (a.csv)",)),
        (("test.csv", "val.csv"), ("there is test.csv, val.csv and no train file", "Add a train file")),
        (("train_0_4.csv", "train_1_4.csv"), ("no file to score on", "Add eval.")),
        (("train_0_4.csv", "train.csv"), ("no file to score on", "Add eval.")),
        (("train.csv", "train.jsonl"), ("train.csv and train.jsonl stand for the same", "Rename or remove one")),
        (("train.csv", "val.csv", "dev.csv"), ("dev.csv and val.csv stand for the same",)),
        (("train_0_4.csv", "train_0_4.tsv", "eval.csv"), ("train_0_4.csv and train_0_4.tsv stand for the same",)),
        (("a.csv", "a.jsonl"), ("a.csv and a.jsonl stand for the same", "Rename or remove one")),
        (("a.csv", "a/train.csv"), ("a.csv and a stand for the same",)),
    ],
)
def test_a_folder_that_can_be_read_in_two_ways_is_refused(
    files: Sequence[str], parts: Sequence[str], tmp_path: Path
) -> None:
    for file in files:
        write_rows(tmp_path / "t" / file, "ab")
    with pytest.raises(DataError) as caught:
        load_tasks(str(tmp_path / "t"))
    assert str(caught.value).startswith(f"{tmp_path / 't'}: ")
    for part in parts:
        assert part in str(caught.value)


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    for file in ("a.csv", "._a.csv", ".ipynb_checkpoints/a-checkpoint.csv", "c/train.csv", "c/.git/x.csv"):
        write_rows(tmp_path / "t" / file, "ab")
    (tmp_path / "t" / "a").mkdir()  # holds nothing, so it is no other task `a`
    assert [task.name for task in load_tasks(str(tmp_path / "t"))] == ["t/a", "t/c"]


def test_folders_keep_their_whole_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("v1.2", "v1.3"):
        write_rows(tmp_path / "sets" / version / "train.csv", "ab")
    assert [task.name for task in load_tasks(str(tmp_path / "sets"))] == ["sets/v1.2", "sets/v1.3"]
    monkeypatch.chdir(tmp_path / "sets" / "v1.2")
    assert [task.name for task in load_tasks(".")] == ["v1.2"]
    assert [task.name for task in load_tasks("..")] == ["sets/v1.2", "sets/v1.3"]


def test_a_second_text_can_be_passed_over(tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text("text,text_pair,label\na,b,x\nc,d,y\n", encoding="utf-8")
    [pair], [single] = (load_tasks(f"{tmp_path / 'few.csv'}{query}") for query in ("", "?pair=none"))
    assert (pair.pair, single.pair) == (True, False)
    assert rows_of(single) == [("a", None, "x"), ("c", None, "y")]


@pytest.mark.parametrize(
    ("reference", "what", "fix"),
    [
        ("samples:spam?text=foo", "option 'text'", "It takes no options"),
        ("samples?kind=regression", "option 'kind'", "It takes no options"),
        ("glue:rte?label=x", "option 'label'", "Choose one of: path, revision."),
        ("few.csv?config=x", "option 'config'", "Choose one of: bad, kind, label, lineage, pair, text."),
        ("hub:x?path=y", "option 'path'", "Choose one of: config, kind, label, lineage, pair, revision, text."),
        ("few.csv?pair=", "option 'pair' in 'few.csv?pair=' has no value", "Write pair=..., or leave it out."),
        ("few.csv?text", "option 'text' in 'few.csv?text' has no value", "Write text=..."),
        ("few.csv?text=text&text=label", "is given twice", "Leave one of them out."),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(reference: str, what: str, fix: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "few.csv", "ab")
    with pytest.raises(DataError) as caught:
        load_tasks(reference, base=tmp_path)
    assert what in str(caught.value)
    assert fix in str(caught.value)


def test_a_name_that_the_system_refuses_is_no_crash() -> None:
    with pytest.raises(DataError, match="File name too long"):
        load_tasks("x" * 300)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("samples:fin_company_ton", "Did you mean 'fin_company_tone'?"),
        ("samples:meta-tests", "Did you mean 'meta-test'?"),
        ("glue:rtee", "Did you mean 'rte'?"),
        ("glue:xyz", "Choose one of: cola, mnli,"),
        ("few.csv?txt=note", "Did you mean 'text'?"),
        ("few.csv?kind=regresion", "Did you mean 'regression'?"),
        ("sample", "Give a path, or samples, glue, glue:NAME, hub:ID, text:PATH or python-docs."),
        ("nothing/here.csv", "Give a path, or samples, glue, glue:NAME, hub:ID, text:PATH or python-docs."),
    ],
)
def test_an_unknown_name_is_told_the_nearest_one(reference: str, message: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "few.csv", "ab")
    with pytest.raises(DataError) as caught:
        load_tasks(reference, base=tmp_path)
    assert message in str(caught.value)
    assert reference.partition(":")[2].partition("?")[0] in str(caught.value)


@pytest.mark.parametrize("references", [["samples:spam", "samples:meta-train"], ["few.csv", "few.csv?label=label"]])
def test_a_task_named_twice_is_refused(references: list[str], tmp_path: Path) -> None:
    write_rows(tmp_path / "few.csv", "ab")
    with pytest.raises(DataError, match=r"task '(samples:spam|few)' is named twice\n  Remove one"):
        load_tasks(references, base=tmp_path)


def test_files_of_one_task_must_agree_on_the_second_text(tmp_path: Path) -> None:
    write_rows(tmp_path / "t" / "train.jsonl", "ab")
    (tmp_path / "t" / "test.jsonl").write_text('{"text": "a", "text_pair": "b", "label": "a"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="some files of task 't' have a second text and some do not"):
        load_tasks(str(tmp_path / "t"))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t" / "deeper").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no data files"):
        load_tasks(str(tmp_path / "t"))


# GLUE


def test_glue_is_its_nine_tasks_with_official_fields_and_metrics() -> None:
    assert {name: (fields_of(name), task.metric) for name, task in GLUE.items()} == OFFICIAL
    assert {name: len(task.labels) for name, task in GLUE.items()} == dict.fromkeys(GLUE, 2) | {"mnli": 3, "stsb": 0}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_glue_loads_from_a_local_folder_of_the_same_schema(suffix: str, tmp_path: Path) -> None:
    for name in GLUE:
        parts = ("matched", "mismatched") if name == "mnli" else ("",)
        splits = ["train", *("_".join(filter(None, ("validation", part))) for part in parts), "test"]
        for split in splits:
            write_glue(tmp_path / "glue" / name / f"{split}.{suffix}", name, split)
    tasks = load_tasks("glue?path=glue", base=tmp_path)
    assert [task.name for task in tasks] == [f"glue:{name}" for name in GLUE]
    for task in tasks:
        check_glue(task, task.name.removeprefix("glue:"))


def test_glue_loads_from_the_hub_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder laid out as the Hub's repository, with a configuration per task and a test split without labels."""
    repository, names = tmp_path / "repository", ("mnli", "stsb", "cola")
    configs = []
    for name in names:
        parts = ("matched", "mismatched") if name == "mnli" else ("",)
        splits = ["train", *("_".join(filter(None, (s, part))) for s in ("validation", "test") for part in parts)]
        for split in splits:
            feature = (
                datasets.ClassLabel(names=list(GLUE[name].labels)) if GLUE[name].labels else datasets.Value("float32")
            )
            rows = datasets.Dataset.from_list(glue_rows(name, split)).cast_column("label", feature)
            (repository / name).mkdir(parents=True, exist_ok=True)
            rows.to_parquet(repository / name / f"{split}.parquet")
        paths = [{"split": split, "path": f"{name}/{split}.parquet"} for split in splits]
        configs.append({"config_name": name, "data_files": paths})
    (repository / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n", encoding="utf-8")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(glue_module, "HUB_ID", str(repository))
    for task, name in zip(load_tasks(f"glue:{','.join(names)}"), names, strict=True):
        check_glue(task, name)


@pytest.mark.parametrize("name", ["rte", "mnli"])
def test_glue_says_which_file_is_missing(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no train file of GLUE's .*\n.*train.jsonl"):
        load_tasks(f"glue:{name}?path={tmp_path}")


def test_glue_refuses_a_label_it_does_not_have(tmp_path: Path) -> None:
    path = tmp_path / "rte" / "train.jsonl"
    write_glue(path, "rte", "train")
    path.write_text(path.read_text(encoding="utf-8").replace('"label": 1', '"label": 2'), encoding="utf-8")
    with pytest.raises(
        DataError, match=r"train\.jsonl:2: label '2' is not among the known labels\n  Choose one of: 0, 1"
    ):
        load_tasks(f"glue:rte?path={tmp_path}")


def test_glue_takes_its_labels_by_name_too(tmp_path: Path) -> None:
    path = tmp_path / "rte" / "train.csv"
    path.parent.mkdir()
    path.write_text("sentence1,sentence2,label\na,b,not_entailment\nc,d,entailment\n", encoding="utf-8")
    [task] = load_tasks(f"glue:rte?path={tmp_path}")
    assert task.train_split.labels.tolist() == [1, 0]
    path.write_text("sentence1,sentence2,label\na,b,not_entailment\nc,d,entailmen\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"train\.csv:3: label 'entailmen' .*\n  Did you mean 'entailment'?"):
        load_tasks(f"glue:rte?path={tmp_path}")


def test_glue_refuses_two_files_of_one_split(tmp_path: Path) -> None:
    for suffix in ("jsonl", "parquet"):
        write_glue(tmp_path / "rte" / f"train.{suffix}", "rte", "train")
    with pytest.raises(DataError, match=r"train\.jsonl and train\.parquet stand for the same"):
        load_tasks(f"glue:rte?path={tmp_path}")


@pytest.mark.parametrize("name", ["cola", "sst2", "mrpc", "stsb", "qnli", "rte", "wnli"])
def test_real_glue_files_load(name: str) -> None:
    if not (SHARED / "glue" / name).is_dir():
        pytest.skip("no local GLUE files beside the repository")
    [task] = load_tasks(f"glue:{name}?path={SHARED / 'glue'}")
    assert set(task.splits) == {"train", "validation"}
    assert len(task.train_split) > 500
    assert len(task.test_split) > 50
    for split in task.splits.values():
        if name == "stsb":
            assert split.labels.dtype == np.float64
            assert 0 <= split.labels.min() < split.labels.max() <= 5
        else:
            assert np.unique(split.labels).tolist() == [0, 1]
            assert len(task.label_names) == 2
        example = split[len(split) - 1]
        assert (example.text_pair is not None) == task.pair == (len(fields_of(name)) == 2)


@pytest.mark.parametrize("name", sorted(GLUE))
def test_every_glue_task_is_scored_by_its_own_metric(name: str) -> None:
    """Predictions with known scores: one of label 1 and one of label 0 is wrong, out of 4 and 6."""
    labels = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    task = Task(name, {}, GLUE[name].labels, GLUE[name].kind, metric=GLUE[name].metric)
    if name == "stsb":
        assert score(task, labels, [2.0 * y + 1 for y in labels])["metric"] == pytest.approx(1)
        return
    found = score(task, labels, [1, 1, 1, 0, 1, 0, 0, 0, 0, 0])["metric"]
    own = {"accuracy": 0.8, "accuracy_f1": (0.8 + 0.75) / 2, "mcc": (3 * 5 - 1) / 24}
    assert found == pytest.approx(own[OFFICIAL[name][1]])


# Hub


@pytest.fixture
def save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Save splits with the datasets library as a repository in a folder; return the folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hub"))

    def save_splits(features: datasets.Features | None = None, **splits: Mapping[str, Sequence[Any]]) -> str:
        folder = tmp_path / "repository"
        folder.mkdir()
        for split, columns in splits.items():
            datasets.Dataset.from_dict(dict(columns), features).to_parquet(folder / f"{split}.parquet")
        return str(folder)

    return save_splits


def test_a_hub_set_takes_its_names_from_its_class_label(save: Callable[..., str]) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["world", "biz"])}
    )
    folder = save(
        features,
        train={"text": ["a", "b", "c"], "label": [1, 0, 1]},
        test={"text": ["d", "e"], "label": [-1, -1]},  # withheld
        validation={"text": ["f"], "label": [0]},
    )
    [task] = load_tasks(f"hub:{folder}")
    assert task.name == f"hub:{folder}"
    assert task.label_names == ("world", "biz")
    assert set(task.splits) == {"train", "validation"}
    assert rows_of(task) == [("a", None, "biz"), ("b", None, "world"), ("c", None, "biz")]
    assert task.test_split[0] == Example("f", None, 0)


@pytest.mark.parametrize(
    ("values", "names", "positions"),
    [
        (["b", "a", "b"], ("a", "b"), [1, 0, 1]),
        ([10, 2, 2], ("2", "10"), [1, 0, 0]),
        ([1.0, 0.0, 1.0], ("0", "1"), [1, 0, 1]),
        ([True, False, True], ("false", "true"), [1, 0, 1]),
    ],
)
def test_a_hub_set_without_class_label_takes_the_values_found(
    values: list[Any], names: tuple[str, ...], positions: list[int], save: Callable[..., str]
) -> None:
    task = load_hub(save(train={"text": ["x", "y", "z"], "label": values}))
    assert task.label_names == names
    assert task.train_split.labels.tolist() == positions


def test_hub_columns_are_named_in_the_reference(save: Callable[..., str]) -> None:
    folder = save(train={"q": ["x", "y"], "a": ["v", "w"], "grade": [0.5, 2.0]})
    [task] = load_tasks(f"hub:{folder}?text=q&pair=a&label=grade&kind=regression")
    assert (task.kind, task.pair, task.label_names) == ("regression", True, ())
    assert [task.train_split[i] for i in range(2)] == [Example("x", "v", 0.5), Example("y", "w", 2.0)]
    assert score(task, [0.5, 2.0], [1.0, 3.0])["metric"] == pytest.approx(1)


def test_every_hub_split_must_have_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = datasets.Dataset.from_dict({"text": ["a", "b"], "text_pair": ["c", "d"], "label": ["x", "y"]})
    for name in ("label", "text_pair"):
        parts = datasets.DatasetDict({"train": whole, "test": whole.remove_columns(name)})
        monkeypatch.setattr(hub_module, "fetch", lambda *_, parts=parts: parts)
        with pytest.raises(DataError, match=f"the split 'test' of hub:some has no column '{name}'; it has: text"):
            load_hub("some")
    assert not load_hub("some", Columns(text_pair="none")).pair


def test_hub_columns_that_are_not_needed_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    far = pa.array([2**60, 2**60], pa.timestamp("us"))  # a date that Python cannot hold
    rows = datasets.Dataset(pa.table({"text": ["a", "b"], "label": ["x", "y"], "when": far}))
    monkeypatch.setattr(hub_module, "fetch", lambda *_: datasets.DatasetDict({"train": rows}))
    assert rows_of(load_hub("some")) == [("a", None, "x"), ("b", None, "y")]


def test_hub_splits_take_the_names_of_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"]})
    for found, wanted in (
        (("train", "dev", "eval"), {"train", "validation", "test"}),
        (
            ("train", "validation", "dev", "extra"),
            {"train", "validation", "dev", "extra"},
        ),  # none takes another's place
    ):
        parts = datasets.DatasetDict(dict.fromkeys(found, rows))
        monkeypatch.setattr(hub_module, "fetch", lambda *_, parts=parts: parts)
        assert set(load_hub("some").splits) == wanted


def test_a_hub_configuration_is_named_and_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "repository"
    repository.mkdir()
    for name in ("one", "two"):
        datasets.Dataset.from_dict({"text": ["a", "b"], "label": ["x", name]}).to_parquet(
            repository / f"{name}.parquet"
        )
    configs = [{"config_name": name, "data_files": f"{name}.parquet"} for name in ("one", "two")]
    (repository / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n", encoding="utf-8")
    tasks = load_tasks([f"hub:{repository}?config={name}" for name in ("one", "two")])
    assert [task.name for task in tasks] == [f"hub:{repository}?config=one", f"hub:{repository}?config=two"]
    assert [task.label_names for task in tasks] == [("one", "x"), ("two", "x")]
    with pytest.raises(DataError, match=rf"Name one: hub:{repository}\?config=\.\.\. .*'one', 'two'"):
        load_tasks(f"hub:{repository}")


def test_an_error_of_the_hub_without_words_is_named_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise TimeoutError("\n")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match="could not be loaded: TimeoutError"):
        load_hub("some")


def test_hub_rows_without_text_or_label_are_left_out(save: Callable[..., str]) -> None:
    texts, labels = ["a", "", None, " \n", "e", "f", "h"], ["x", "x", "y", "y", None, "y", " "]
    test = {"text": ["g"], "label": ["x"], "first": ["x"]}
    folder = save(train={"text": texts, "label": labels, "first": labels}, test=test)
    assert rows_of(load_hub(folder)) == [("a", None, "x"), ("f", None, "y")]
    pair = load_hub(folder, Columns("first", "text", "label"))
    assert rows_of(pair) == [("x", "a", "x"), ("y", "f", "y")]


@pytest.mark.parametrize(
    ("columns", "kind", "message"),
    [
        (
            Columns("txt"),
            "classification",
            "has no column 'txt'; it has: text, label, number, parts\n  Did you mean 'text'?",
        ),
        (Columns(label="class"), "classification", "has no column 'class'"),
        (Columns(label="parts"), "classification", "the column 'parts' holds list"),
        (Columns("parts"), "classification", "the column 'parts' holds list"),
        (Columns("number"), "classification", "the column 'number' holds int64, not text"),
        (Columns("text", "number"), "classification", "the column 'number' holds int64, not text"),
        (Columns(), "regression", "the column 'label' holds string, not numbers"),
    ],
)
def test_a_hub_column_that_does_not_fit_is_refused(
    columns: Columns, kind: Any, message: str, save: Callable[..., str]
) -> None:
    folder = save(train={"text": ["x", "y"], "label": ["a", "b"], "number": [1, 2], "parts": [["a"], ["b"]]})
    with pytest.raises(DataError) as caught:
        load_hub(folder, columns, kind)
    assert message in str(caught.value)


@pytest.mark.parametrize("reference", ["hub:nobody/nothing-at-all", "glue:rte"])
def test_the_hub_out_of_reach_names_the_way_out(
    reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hub"))
    with pytest.raises(DataError) as caught:
        load_tasks(reference)
    message = str(caught.value)
    assert "could not be loaded" in message
    assert "Offline: use local files, or the bundled tasks (samples)." in message
    assert len(message.splitlines()) == 2


# Helpers


def rows_of(task: Task) -> list[tuple[str, str | None, str]]:
    examples = (task.train_split[i] for i in range(len(task.train_split)))
    return [(e.text, e.text_pair, task.label_names[int(e.label or 0)]) for e in examples]


def write_rows(path: Path, labels: str, *, text: str = "text") -> None:
    """Write one row per letter, which is its label, in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"text": f"{text} {i}", "label": label} for i, label in enumerate(labels)]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return
    between = "\t" if path.suffix == ".tsv" else ","
    lines = [json.dumps(r) for r in rows]
    if path.suffix != ".jsonl":
        lines = [between.join(("text", "label")), *(between.join(r.values()) for r in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def fields_of(name: str) -> tuple[str, ...]:
    return tuple(filter(None, (GLUE[name].text, GLUE[name].text_pair)))


def glue_rows(name: str, split: str) -> list[dict[str, Any]]:
    """Six rows with GLUE's columns; test labels are withheld."""
    labels: list[float] = [0.0, 2.5, 5.0] * 2 if name == "stsb" else [i % len(GLUE[name].labels) for i in range(6)]
    if split.startswith("test"):
        labels = [-1] * 6
    return [
        {field: f"{split} {field} {i}" for field in OFFICIAL[name][0]} | {"label": label, "idx": i}
        for i, label in enumerate(labels)
    ]


def write_glue(path: Path, name: str, split: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = glue_rows(name, split)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def check_glue(task: Task, name: str) -> None:
    """The task has exactly what `glue_rows` gave it."""
    mismatched = {"validation_mismatched"} if name == "mnli" else set()
    assert set(task.splits) == {"train", "validation"} | mismatched
    assert task.metric == OFFICIAL[name][1]
    assert task.pair == (len(OFFICIAL[name][0]) == 2)
    assert task.kind == ("regression" if name == "stsb" else "classification")
    assert task.test_split is task.splits["validation"]
    for split, rows in task.splits.items():
        source = "validation_matched" if name == "mnli" and split == "validation" else split
        wanted = [
            Example(*(row[field] for field in OFFICIAL[name][0]), label=row["label"]) for row in glue_rows(name, source)
        ]
        assert [rows[i] for i in range(len(rows))] == wanted
        assert rows.labels.dtype == (np.float64 if name == "stsb" else np.int64)
