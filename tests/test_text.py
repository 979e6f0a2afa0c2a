"""Text without labels as tasks: valid episodes, no leak between sides or sets, the same every time."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quickstudy.data.reference import load_corpus, load_tasks, with_whole_paths
from quickstudy.data.text import corpus, python_docs
from quickstudy.data.text.corpus import FAMILIES, open_corpus
from quickstudy.data.text.documents import read_documents
from quickstudy.data.text.package_tasks import load_package_tasks
from quickstudy.data.text.sentences import MASK, has_word, mask_word, split_sentences
from quickstudy.data.text.store import SIDES, TextStore, sample_documents, side_of, write_store
from quickstudy.data.text.table import Table, exchange_spans, keep_usable
from quickstudy.errors import DataError, RecipeError
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.mix import Mix
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.tasks.task import Task
from quickstudy.testing import check_sampler, check_task
from quickstudy.testing.tiny import word_task
from text_files import write_corpus, write_document

SPEC = EpisodeSpec((2, 4), (1, 4), 3)
SHARED = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def text_tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Task]]:
    """The tasks of a corpus by side; there is a fifth of the documents on each of the smaller sides."""
    folder = tmp_path_factory.mktemp("corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUICKSTUDY_CACHE", str(folder / "cache"))
        patch.setattr(corpus, "SHARES", (0.6, 0.8))
        file = write_corpus(folder / "notes.txt", 600)
        return {side: load_tasks(f"text:{file}?split={side}") for side in SIDES}


def store_of(file: Path) -> TextStore:
    """Write the sentences of a file without the tables of its tasks."""
    folder = file.parent / f"{file.name}.store"
    folder.mkdir()
    write_store(read_documents(file), folder, file.name)
    return TextStore(folder)


@pytest.fixture(scope="module")
def sampler(text_tasks: dict[str, list[Task]]) -> EpisodeSampler:
    return EpisodeSampler(text_tasks["meta-train"], SPEC, seed=3)


def test_every_kind_of_task_is_there_and_well_formed(text_tasks: dict[str, list[Task]]) -> None:
    names = {task.name.partition("/")[2] for task in text_tasks["meta-train"]}
    assert names >= {"clusters", "next-sentence", "same-document", "sentence-order", "shuffled-spans"}
    assert names >= {"cloze-names", "cloze-numbers", "smlmt-middle", "smlmt-rare"}
    assert all(list(task.splits) == ["train", "test"] for task in text_tasks["meta-test"])
    for task in text_tasks["meta-train"]:
        check_task(task)
        assert list(task.splits) == ["train"]
        counts = np.bincount(task.train_split.labels.astype(int))
        assert counts.min() >= 24, task.name


def test_the_sampler_keeps_its_contract(sampler: EpisodeSampler) -> None:
    check_sampler(sampler)


@SHARED
@given(index=st.integers(0, 10**9), seed=st.integers(0, 2**31))
def test_an_episode_is_valid_whatever_its_seed_and_index(
    text_tasks: dict[str, list[Task]], index: int, seed: int
) -> None:
    sampler = EpisodeSampler(text_tasks["meta-train"], SPEC, seed=seed)
    episode = sampler[index]
    assert episode == EpisodeSampler(text_tasks["meta-train"], SPEC, seed=seed)[index]
    for rows in (episode.support, episode.query):
        assert len(set(Counter(row.label for row in rows).values())) == 1, "labels are not balanced"
    sets = [{text for row in rows for text in (row.text, row.text_pair)} for rows in (episode.support, episode.query)]
    assert sets[0] & sets[1] <= {None}, "a text is in both sets"
    rows = (*episode.support, *episode.query)
    assert len({(row.text, row.text_pair) for row in rows}) == len(rows)
    for row in rows:
        if "smlmt" in episode.task or "cloze" in episode.task:
            assert MASK in row.text
            assert not has_word(row.text, episode.label_names[int(row.label or 0)])


def test_no_document_and_no_sentence_is_on_two_sides(text_tasks: dict[str, list[Task]]) -> None:
    documents, sentences = [], []
    for tasks in text_tasks.values():
        plain = [task for task in tasks if "sentence" in task.name or "document" in task.name]
        assert plain
        rows = [split[i] for task in plain for split in task.splits.values() for i in range(len(split))]
        texts = {text for row in rows for text in (row.text, row.text_pair) if text}
        sentences.append(texts)
        documents.append({text.rpartition(" ")[2].partition("x")[0] for text in texts})  # "… in row 12x3."
    for sets in (documents, sentences):
        assert not sets[0] & sets[1]
        assert not sets[0] & sets[2]
        assert not sets[1] & sets[2]


def test_pairs_are_what_their_labels_say(text_tasks: dict[str, list[Task]]) -> None:
    def place(text: str | None) -> tuple[str, int]:
        document, _, number = str(text).rpartition(" ")[2].rstrip(".").partition("x")
        return document, int(number)

    tasks = {task.name.partition("/")[2]: task for task in text_tasks["meta-train"]}
    for name in ("next-sentence", "same-document", "sentence-order"):
        split = tasks[name].train_split
        for row in (split[i] for i in range(len(split))):
            (first, i), (second, j) = place(row.text), place(row.text_pair)
            name_of_label = tasks[name].label_names[int(row.label or 0)]
            if name == "next-sentence":
                assert first == second
                assert (j == i + 1) == (name_of_label == "next")
            elif name == "same-document":
                assert (first == second) == (name_of_label == "same")
            else:
                assert (first, j - i) == (second, 1 if name_of_label == "as written" else -1)


def test_a_sentence_is_in_one_row_of_a_task(text_tasks: dict[str, list[Task]]) -> None:
    for task in text_tasks["meta-train"]:
        rows = task.train_split._table.rows.ravel()  # type: ignore[attr-defined]
        assert len(np.unique(rows)) == len(rows), task.name


def test_copies_count_once_and_stay_on_one_side(tmp_path: Path) -> None:
    text = "\n\n".join(write_document(i) for i in range(60))
    (tmp_path / "twice.txt").write_text(f"{text}\n\n{text}\n", encoding="utf-8")
    store = store_of(tmp_path / "twice.txt")
    assert len(store) == 2 * 60 * 12
    assert store.sides[:60].tolist() == store.sides[60:].tolist()
    _, numbers, _ = corpus._distinct_sentences(store)
    assert len(numbers) == 60 * 12


def test_all_kinds_of_files_give_the_same_sentences(tmp_path: Path) -> None:
    texts = [write_document(i) for i in range(30)]
    files = {name: tmp_path / name for name in ("a.txt", "a.txt.gz", "a.jsonl", "a.parquet", "a.csv")}
    files["a.txt"].write_text("\n\n".join(texts), encoding="utf-8")
    files["a.txt.gz"].write_bytes(gzip.compress("\n\n".join(texts).encode()))
    files["a.jsonl"].write_text("".join(json.dumps({"text": t, "label": 1}) + "\n" for t in texts), encoding="utf-8")
    pq.write_table(pa.table({"text": texts, "label": ["x"] * 30}), files["a.parquet"])
    files["a.csv"].write_text("text\n" + "".join(f'"{text}"\n' for text in texts), encoding="utf-8")
    stores = [store_of(file) for file in files.values()]
    wanted = [sentence for text in texts for sentence in split_sentences(text)]
    for store in stores:
        assert [store[i] for i in range(len(store))] == wanted
        assert np.array_equal(store.sides, stores[0].sides)


def test_a_file_of_a_folder_is_on_one_side(tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / f"note{i}.txt").write_text("\n\n".join(write_document(10 * i + j) for j in range(5)))
    assert len({d.group for d in read_documents(tmp_path)}) == 20
    assert len({d.group for d in read_documents(tmp_path / "note1.txt")}) == 5


def test_a_long_document_is_cut_and_its_pieces_stay_together(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("\n".join(write_document(i) for i in range(100)) + "\n\nThe end of the text.")
    documents = list(read_documents(tmp_path / "long.txt"))
    assert len(documents) > 3
    assert len({d.group for d in documents}) == 2
    assert max(len(d.text) for d in documents) < 30_000


def test_a_sample_of_documents_does_not_depend_on_their_order(tmp_path: Path) -> None:
    for name, step in (("a", 1), ("b", -1)):
        texts = [write_document(i) for i in range(400)][::step]
        (tmp_path / f"{name}.txt").write_text("\n\n".join(texts), encoding="utf-8")
    sampled = []
    for name in ("a", "b"):
        store = store_of(tmp_path / f"{name}.txt")
        sampled.append({store[int(store.documents[d])] for d in sample_documents(store, 1200)})
    assert sampled[0] == sampled[1]
    assert 50 < len(sampled[0]) < 150


def test_an_index_is_made_once_and_again_when_the_text_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_corpus(tmp_path / "c.txt", 60)
    first = open_corpus(str(file)).folder
    monkeypatch.setattr(corpus, "write_store", None)
    assert open_corpus(str(file)).folder == first
    monkeypatch.undo()
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(first.parent))
    write_corpus(file, 61)
    assert open_corpus(str(file)).folder != first


@pytest.mark.parametrize("damage", ["a sentence", "cut", "a table", "gone", "the seal"])
def test_a_damaged_index_is_made_again_and_said(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    file = write_corpus(tmp_path / "c.txt", 60)

    def content() -> dict[str, bytes]:
        return {each.name: each.read_bytes() for each in open_corpus(str(file)).folder.iterdir()}

    before, folder = content(), open_corpus(str(file)).folder
    assert "made again" not in caplog.text
    text = folder / "sentences.txt"
    if damage == "a sentence":
        text.write_bytes(text.read_bytes().replace(b"bridge", b"brigde", 1))
    elif damage == "cut":
        text.write_bytes(text.read_bytes()[:-10])
    elif damage == "a table":
        (folder / "meta-train.npz").write_bytes(b"")
    else:
        (folder / ("sides.bin" if damage == "gone" else "manifest.json")).unlink()
    assert content() == before
    assert "missing or was changed; all of it is made again" in caplog.text
    assert load_tasks(f"text:{file}")


def hub_set(folder: Path, rows: int = 60) -> Path:
    """Write a data set as `datasets` reads it from a folder, with what is to be scored in a split of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, first in (("train", 0), ("test", 1000)):
        lines = [json.dumps({"id": i, "body": write_document(first + i), "label": i % 2}) for i in range(rows)]
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_a_data_set_of_the_hub_is_a_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = hub_set(tmp_path / "owner" / "notes")
    plain = tmp_path / "plain.txt"
    plain.write_text("\n\n".join(write_document(i) for i in range(60)), encoding="utf-8")
    store, wanted = load_corpus(f"hub:{folder}"), load_corpus(str(plain))
    assert [store[i] for i in range(len(store))] == [wanted[i] for i in range(len(wanted))]
    assert np.array_equal(store.sides, wanted.sides)
    tasks, plain_tasks = load_tasks(f"text:hub:{folder}?text=body&tasks=smlmt"), load_tasks(f"text:{plain}?tasks=smlmt")
    assert [task.name for task in tasks] == [task.name.replace("plain.txt", "notes") for task in plain_tasks]
    assert tasks[0].train_split[3] == plain_tasks[0].train_split[3]
    few = load_corpus(f"hub:{folder}?rows=20&part=test")
    assert [few[i] for i in range(12)] == list(split_sentences(write_document(1000)))
    assert len(few.documents) == 21
    monkeypatch.setattr(corpus, "write_store", None)  # what was read is not read again
    assert load_corpus(f"hub:{folder}").folder == store.folder
    monkeypatch.undo()
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(store.folder.parent))
    hub_set(folder, 61)
    assert load_corpus(f"hub:{folder}").folder != store.folder
    reference = "text:hub:allenai/c4?config=en&rows=10"
    assert with_whole_paths(reference, Path("/data")) == reference


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("text:hub:", "names no text"),
        ("text:hub:nowhere/none", "the data set 'nowhere/none' could not be loaded"),
        ("text:hub:notes?part=dev", "could not be loaded: .*dev"),
        ("text:hub:notes?text=txt", "has no column 'txt'; it has: id, body, label"),
        ("text:hub:notes?rows=0", "rows=0"),
        ("text:hub:notes?rows=many", "rows=many"),
        ("text:c.txt?rows=10", "option 'rows'"),
        ("hub:notes?part=train", "option 'part'"),
    ],
)
def test_what_the_hub_does_not_give_is_said(
    tmp_path: Path, reference: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hub_set(tmp_path / "notes", 3)
    with pytest.raises(DataError, match=message):
        load_tasks(reference)


@SHARED
@given(
    words=st.lists(st.sampled_from(["red", "Fee", "fee", "3", "3.5", "3,000", "the-fee", "fee's", "İx"]), min_size=1)
)
def test_a_masked_word_is_gone_whatever_stands_around_it(words: list[str]) -> None:
    text = " ".join(words)
    for word in ("fee", "3", "3.5"):
        masked = mask_word(text, word)
        assert not has_word(masked, word)
        assert masked.count(MASK) == 0 or has_word(text, word)


@given(st.lists(st.sampled_from("abcdefghij"), min_size=8, max_size=30))
def test_exchanged_spans_keep_the_words(letters: list[str]) -> None:
    assert sorted(exchange_spans(" ".join(letters)).split()) == sorted(letters)


def test_sides_have_the_shares_that_they_are_said_to_have() -> None:
    counts = np.bincount([side_of(str(i)) for i in range(4000)]) / 4000
    assert counts == pytest.approx([0.9, 0.05, 0.05], abs=0.015)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("text:", "names no text"),
        ("text:missing.txt", "there is no such file or folder"),
        ("text:c.txt?tasks=smlm", "Did you mean 'smlmt'"),
        ("text:c.txt?split=train", "split=train"),
        ("text:c.txt?label=x", "option 'label'"),
        ("text:few.txt", "too little text in 'meta-train'"),
        ("text:few.txt?tasks=pairs", "for tasks 'pairs'"),
        ("text:words.txt", "no sentence of four words"),
        ("text:c.bin", "files of type '.bin' cannot be read"),
        ("text:c.jsonl?text=body", "there is no column 'body'"),
        ("text:broken.jsonl", "broken.jsonl:2: not valid JSON"),
        ("text:latin.txt", "latin.txt:1: not valid UTF-8"),
        ("text:empty", "the folder holds no texts"),
        ("python-docs:test", "python-docs has no 'test'"),
    ],
)
def test_what_cannot_be_read_is_said_and_leaves_nothing(
    tmp_path: Path, reference: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "c.txt", 40)
    (tmp_path / "few.txt").write_text("The fee was late again. They paid it on the same day.")
    (tmp_path / "words.txt").write_text("One two.\n\nThree.")
    (tmp_path / "c.bin").write_text("The fee was late again.")
    (tmp_path / "c.jsonl").write_text('{"text": "The fee was late again."}\n')
    (tmp_path / "broken.jsonl").write_text('{"text": "The fee was late again."}\n{"text": \n')
    (tmp_path / "latin.txt").write_bytes("Die Gebühr war wieder zu spät da.".encode("latin-1"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message.replace(".", r"\.")):
        load_tasks(reference)
    assert not list((tmp_path / "cache").glob(".*")), "something half-written is left in the cache"


def test_a_reference_to_text_names_it_from_any_folder() -> None:
    assert with_whole_paths("text:notes?tasks=smlmt", Path("/data")) == "text:/data/notes?tasks=smlmt"
    assert with_whole_paths("text:python-docs", Path("/data")) == "text:python-docs"
    assert with_whole_paths("python-docs:meta-test", Path("/data")) == "python-docs:meta-test"


def test_two_processes_may_read_a_corpus_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_corpus(tmp_path / "c.txt", 40)
    write = corpus.write_store

    def slow(*args: Any) -> None:
        monkeypatch.setattr(corpus, "write_store", write)
        open_corpus(str(file))  # the other process is ready first
        write(*args)

    monkeypatch.setattr(corpus, "write_store", slow)
    assert len(open_corpus(str(file))) == 40 * 12
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_only_the_kinds_that_are_asked_for_are_given(tmp_path: Path) -> None:
    file = write_corpus(tmp_path / "c.txt", 120)
    for family in FAMILIES:
        names = {task.name.partition("/")[2].partition("-")[0] for task in load_tasks(f"text:{file}?tasks={family}")}
        assert names <= {"smlmt", "clusters", "next", "same", "sentence", "shuffled", "cloze"}
        assert (family in names) == (family in ("smlmt", "clusters", "cloze"))


def test_the_docs_of_python_are_prose_and_split_by_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for p in range(40):
        folder = tmp_path / "site" / f"package{p}"
        folder.mkdir(parents=True)
        lines = [f'def f{i}():\n    """{write_document(100 * p + i, sentences=4)}"""\n' for i in range(12)]
        (folder / "module.py").write_text('"""Title.\n\n    code.here(1).\n"""\n' + "\n".join(lines))
        (folder / "bad.py").write_text('"""x')
    monkeypatch.setattr(python_docs, "topics", {"with": "The with statement wraps a block of code."})
    paths = dict.fromkeys(("stdlib", "purelib", "platlib"), str(tmp_path / "site"))
    monkeypatch.setattr(python_docs.sysconfig, "get_paths", lambda: paths)
    for function in (python_docs.read_package_texts, load_package_tasks.__globals__["_sentences_by_package"]):
        function.cache_clear()
    try:
        tasks = load_tasks("python-docs")
        labels = [set(task.label_names) for task in tasks]
        assert not labels[0] & labels[1]
        assert len(set.union(*labels)) == 40
        assert [sorted(task.splits) for task in tasks] == [["train"], ["test", "train"], ["test", "train"]]
        texts = {task.train_split[i].text for task in tasks for i in range(len(task.train_split))}
        assert not any("code.here" in text for text in texts)
        corpus_texts = [load_tasks(f"text:python-docs?tasks=order&split={side}")[0].train_split for side in SIDES[:1]]
        held_out = {tasks[2].train_split[i].text for i in range(len(tasks[2].train_split))}
        assert not {corpus_texts[0][i].text for i in range(len(corpus_texts[0]))} & held_out
    finally:
        for function in (python_docs.read_package_texts, load_package_tasks.__globals__["_sentences_by_package"]):
            function.cache_clear()


def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    store = store_of(write_corpus(tmp_path / "c.txt", 50))
    assert isinstance(store.documents.base, np.ndarray)  # mapped from the disk
    assert [store.document_of(i) for i in (0, 11, 12, len(store) - 1)] == [0, 0, 1, 49]


def test_a_mix_draws_its_groups_as_often_as_it_says() -> None:
    tasks = [word_task(name) for name in "abc"]
    mix = Mix((2, 1), (1.0, 3.0), (1.0, 0.0), episodes=2000)
    sampler = EpisodeSampler(tasks, EpisodeSpec(2, 1, 1), seed=0, mix=mix)
    early, late = (Counter(sampler[i].task for i in range(start, start + 400)) for start in (0, 1600))
    assert early["c"] / 400 == pytest.approx(0.675, abs=0.08)
    assert late["c"] / 400 == pytest.approx(0.075, abs=0.05)
    assert early["a"] / (early["a"] + early["b"]) == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    ("start", "end"), [((1.0,), None), ((0.0, 0.0), None), ((1.0, -1.0), None), ((1.0, 1.0), (1.0,))]
)
def test_impossible_weights_are_refused(start: tuple[float, ...], end: tuple[float, ...] | None) -> None:
    with pytest.raises(RecipeError):
        Mix((1, 1), start, end)


def test_a_long_sentence_is_cut_and_a_short_one_left_out() -> None:
    words = [f"W{i}" for i in range(203)]
    pieces = list(split_sentences("Too short. " + " ".join(words)))
    assert [len(piece.split()) for piece in pieces] == [80, 80, 43]
    assert " ".join(pieces).split() == words


def test_the_word_mask_is_no_label_because_it_stands_in_every_mask(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("The mask fell again.\n\nThe fee fell again.", encoding="utf-8")
    table = Table("t", "masked", ("mask", "fee"), np.array([[0], [1]]), np.array([0, 1]), "?")
    assert keep_usable(table, store_of(tmp_path / "m.txt")).labels.tolist() == [1]
