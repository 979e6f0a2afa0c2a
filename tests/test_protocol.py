"""Protocols: which trials each one draws, that they are the same for ever, and that saved draws bring them back."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import score_task, tiny_encoder, word_task
from quickstudy.adaptation.full import finetune_task
from quickstudy.comparison.compare import compare
from quickstudy.errors import DataError, RunError
from quickstudy.evaluation.draws import draw_trials, most_shots, scored_examples, support_sets
from quickstudy.evaluation.evaluate import evaluate_learners, scored_draw
from quickstudy.evaluation.metrics import score
from quickstudy.evaluation.plan import plan_tasks
from quickstudy.evaluation.protocol import Protocol
from quickstudy.evaluation.record import Costs, Footprint
from quickstudy.evaluation.saved_draws import load_protocol, save_draws
from quickstudy.evaluation.trial import Trial, trials_hash
from quickstudy.full_settings import FullSettings
from quickstudy.methods.catalog import make
from quickstudy.methods.label_names import LabelNames
from quickstudy.models.batch import encode_set
from quickstudy.models.target import Classes, Scores
from quickstudy.tasks.split import Example, ListSplit
from quickstudy.tasks.task import Task

SAVED = [
    Protocol("few-shot", (1, 4), 3, limit=20),
    Protocol("episodic", (1, 2), 4, n_way=2, n_query=3),
    Protocol("full", draws=2),
]
SIZE = Footprint("cpu", 1, 0, 0, 0)
DIGESTS = ["5258f9357c89db12", "ed99841039ed3eef", "cbcf50a489ab8e39"]


def test_few_shot_draws_from_train_and_scores_the_test_split() -> None:
    task = word_task(n_way=3)
    found = draw_trials(Protocol("few-shot", (2, 4), 3, seed=1, limit=25), task)
    assert [(t.shots, t.draw) for t in found] == [(k, d) for k in (2, 4) for d in range(3)]
    assert [t.support for t in found[3:]] == list(support_sets(task, 4, 3, seed=1).values())
    assert all(t.tests is found[0].tests for t in found)
    assert found[0].tests == scored_examples(task, 25, seed=1)


def test_standard_takes_published_draws_and_the_others_say_which_they_take() -> None:
    task = word_task()
    own = {(4, d): ListSplit([Example(f"draw {d}", label=i) for i in (0, 1) * 4]) for d in (1, 2)}
    fixed = replace(task, fixed_draws=own)
    assert draw_trials(Protocol("standard", (4,), 3), fixed) == draw_trials(Protocol("fixed-draws", (4,), 3), fixed)
    assert [t.draw for t in draw_trials(Protocol("standard", (4,), 3), fixed)] == [1, 2]
    assert draw_trials(Protocol("few-shot", (4,), 3), fixed) == draw_trials(Protocol("standard", (4,), 3), task)
    with pytest.raises(DataError, match="no published draws"):
        draw_trials(Protocol("fixed-draws"), task)


def test_an_episode_has_n_ways_k_shots_and_q_queries_from_the_test_split() -> None:
    task = word_task(n_way=5, rows=100)
    found = draw_trials(Protocol("episodic", (2,), 30, n_way=3, n_query=4), task)
    tests = {task.test_split[i].text for i in range(len(task.test_split))}
    for t in found:
        assert [np.bincount([int(e.label or 0) for e in part]).tolist() for part in (t.support, t.tests)] == [
            [2] * 3,
            [4] * 3,
        ]
        assert {e.text for e in (*t.support, *t.tests)} <= tests
        assert not {e.text for e in t.support} & {e.text for e in t.tests} or len(tests) < 50
    assert len({t.label_names for t in found}) > 10
    assert found == draw_trials(Protocol("episodic", (2,), 30, n_way=3, n_query=4), task)
    (fewer,) = draw_trials(Protocol("episodic", (2,), 1, n_way=20, n_query=4), task)
    assert len(fewer.label_names) == 5


def test_episodes_are_scored_by_their_own_labels() -> None:
    task = word_task(n_way=5, rows=100)
    protocol = Protocol("episodic", (2,), 4, n_way=3, n_query=4)
    learner = make("protonet", tiny_encoder(normalize=True))
    draws = evaluate_learners({"x": learner}, plan_tasks(protocol, [task]))
    for each, t in zip(draws, draw_trials(protocol, task), strict=True):
        model = learner.adapt(encode_set(learner.encoder, t.support), Classes(t.label_names))
        predicted = [t.label_names.index(str(name)) for name in model.predict(t.tests)]
        wanted = score(
            replace(task, label_names=t.label_names, label_descriptions={}), [e.label for e in t.tests], predicted
        )
        assert each.scores == wanted
        inside = [task.label_names.index(name) for name in t.label_names]
        assert each.labels is not None
        confusion, f1 = np.array(each.labels.confusion), each.labels.per_class.f1
        assert confusion.shape == (5, 5)
        assert [value is not None for value in f1] == [i in inside for i in range(5)]
        assert np.mean([value for value in f1 if value is not None]) == pytest.approx(each.scores["f1"])
        assert confusion[np.ix_(inside, inside)].sum() == confusion.sum() == 12


def test_full_fine_tunes_on_all_of_train_and_scores_the_task_s_own_metric(tiny_folder: Path, tmp_path: Path) -> None:
    task = word_task(rows=24)
    for split in ("train", "test"):
        lines = [
            json.dumps({"text": e.text, "label": task.label_names[int(e.label or 0)]})
            for e in (task.split(split)[i] for i in range(len(task.split(split))))
        ]
        (tmp_path / "tone").mkdir(exist_ok=True)
        (tmp_path / "tone" / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    results = compare(
        ["protonet"],
        [str(tmp_path / "tone")],
        tmp_path / "out",
        protocol=Protocol("full", draws=2),
        encoder=str(tiny_folder),
    )
    assert [(each.shots, each.draw, each.main) for each in results.draws] == [
        ("all", 0, "metric"),
        ("all", 1, "metric"),
    ]
    assert [table.shots for table in results.tables] == ["all"]
    learner = make("protonet", tiny_encoder())
    model = finetune_task(learner.encoder, task, FullSettings(seed=1))
    tests = [task.test_split[i] for i in range(len(task.test_split))]
    predicted = [task.label_names.index(str(name)) for name in model.predict(tests)]
    assert results.draws[1].scores["accuracy"] == score(task, [e.label for e in tests], predicted)["accuracy"]


@pytest.mark.parametrize("protocol", SAVED, ids=lambda protocol: protocol.name)
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_saved_draws_bring_the_trials_back_whatever_the_order_of_the_rows(
    protocol: Protocol, kind: str, tmp_path: Path
) -> None:
    task = word_task(n_way=3) if kind == "classification" else score_task()
    found = draw_trials(protocol, task)
    file = tmp_path / "draws.json"
    save_draws(file, protocol, plan_tasks(protocol, [task]))
    loaded = load_protocol(file)
    assert (loaded.name, loaded.shots, loaded.draws, loaded.limit) == (
        protocol.name,
        protocol.shots,
        protocol.draws,
        protocol.limit,
    )
    shuffled = _shuffled(task)
    (again,) = (list(planned.trials) for planned in plan_tasks(loaded, [shuffled]))
    assert again == found
    assert draw_trials(protocol, shuffled) != found
    assert len({id(t.tests) for t in again}) == len({id(t.tests) for t in found})


def test_saved_draws_whose_texts_are_gone_are_refused(tmp_path: Path) -> None:
    task = word_task(n_way=3)
    file = tmp_path / "draws.json"
    save_draws(file, SAVED[0], plan_tasks(SAVED[0], [task]))
    rows = [task.train_split[i] for i in range(1, len(task.train_split))]
    cut = replace(task, splits={"train": ListSplit(rows), "test": ListSplit(rows)})
    with pytest.raises(DataError, match="are not in task 'tone': its data changed"):
        plan_tasks(load_protocol(file), [cut])
    with pytest.raises(DataError, match="there are no draws of task 'other'"):
        plan_tasks(load_protocol(file), [word_task("other")])
    (tmp_path / "odd.json").write_text("{}", encoding="utf-8")
    for wrong in ("odd.json", "none.json"):
        with pytest.raises(DataError, match="this is no file of draws"):
            load_protocol(tmp_path / wrong)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "fewshot"}, "there is no protocol 'fewshot'\n.*few-shot"),
        ({"version": 2}, "draws version 1 of its protocols, not 2"),
        ({"shots": (0,)}, r"shots = \[0\] is not possible"),
        ({"shots": ()}, r"shots = \[\] is not possible"),
        ({"draws": 0}, r"draws = 0 is not possible\n  Give a whole number above 0\."),
        ({"name": "episodic", "n_way": 0}, "n_way = 0 is not possible"),
        ({"n_query": 0}, "n_query = 0 is not possible"),
        ({"draws": 2.5}, r"draws = 2\.5 is not possible"),
        ({"limit": 0}, r"limit = 0 is not possible\n  Give a whole number above 0\."),
        ({"shots": ("4",)}, r"shots = \['4'\] is not possible"),
    ],
)
def test_an_impossible_protocol_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Protocol(**settings)


@pytest.mark.parametrize(("protocol", "digest"), list(zip(SAVED, DIGESTS, strict=True)))
def test_draws_of_version_1_never_change(protocol: Protocol, digest: str) -> None:
    """The draws of a version are a promise: these digests were written down when it was made."""
    task = word_task(n_way=3)
    assert trials_hash(draw_trials(protocol, task))[:16] == digest


def test_the_defaults_are_those_of_the_documentation() -> None:
    assert Protocol() == Protocol("standard", (4, 8, 16), draws=10, seed=0, limit=None, n_way=5, n_query=15)


def test_a_draw_of_scores_has_no_row_twice() -> None:
    task = Task(
        "scores", {"train": ListSplit([Example(f"text {i}", label=float(i)) for i in range(12)])}, kind="regression"
    )
    for support in support_sets(task, 6, 3, 0).values():
        assert {example.label for example in support} == set(range(12))


def test_a_number_of_shots_that_is_given_twice_counts_once() -> None:
    assert Protocol(shots=(4, 2, 4)).shots == (2, 4)


def test_an_episode_s_metric_does_not_depend_on_the_order_of_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """F1 of label 1, as of MRPC: the task's label 1, wherever an episode has it."""
    task = replace(word_task(), metric="accuracy_f1")
    tests = tuple(task.test_split[i] for i in range(20))
    turned = tuple(replace(e, label=1 - int(e.label or 0)) for e in tests)
    scores = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    names = task.label_names
    straight, reversed_labels = (
        scored_draw("x", task, Trial(1, 0, labels, (), rows), values, SIZE, Costs(), with_mistakes=False).scores[
            "metric"
        ]
        for labels, rows, values in ((names, tests, scores), (names[::-1], turned, scores.flip(-1)))
    )
    assert straight == reversed_labels == score(task, [e.label for e in tests], scores.argmax(-1))["metric"]


def test_scores_that_are_not_finite_are_refused_by_name() -> None:
    task = word_task()
    trial = Trial(1, 3, task.label_names, (), (task.test_split[0],))
    with pytest.raises(RunError, match=r"maml gives scores of 'tone' that are not finite \(1 shots, draw 3\)"):
        scored_draw("maml", task, trial, torch.full((1, 2), float("nan")), SIZE, Costs(), with_mistakes=False)


def test_a_planned_task_holds_each_scored_example_once_and_no_other_row() -> None:
    (planned,) = plan_tasks(Protocol("episodic", (1, 2), 4, n_way=2, n_query=3), [word_task(n_way=3)])
    assert set(planned.scored) == {example for trial in planned.trials for example in trial.tests}
    assert len(set(planned.scored)) == len(planned.scored)
    assert (planned.task.splits, planned.task.fixed_draws) == ({}, {})
    assert [len(trials) for trials in planned.by_shots.values()] == [4, 4]


def test_most_shots_is_what_support_sets_can_have() -> None:
    for task in (word_task(n_way=3), replace(word_task(), splits={"train": word_task().train_split}), score_task()):
        most = most_shots(task)
        assert draw_trials(Protocol(shots=(most,), draws=1), task)
        with pytest.raises(DataError, match="fewer"):
            draw_trials(Protocol(shots=(most + 1,), draws=1), task)
    published = {(k, d): ListSplit([]) for k, d in ((4, 9), (8, 0), (2, 30))}
    assert most_shots(replace(word_task(), fixed_draws=published)) == 8


def test_episodes_that_cannot_be_drawn_are_refused_with_the_options_that_help() -> None:
    with pytest.raises(DataError, match=r"Use fewer --shots or --n-way, or add rows\.$"):
        draw_trials(Protocol("episodic", (40,), 2, n_way=2, n_query=40), word_task())


@pytest.mark.parametrize("split", ["test", "validation"])
def test_episodes_come_from_the_validation_split_only_where_there_is_no_test_split(split: str) -> None:
    both = word_task(rows=100)
    rows = {"train": both.train_split, split: both.test_split}
    trial, *_ = draw_trials(Protocol("episodic", (2,), 3, n_way=2, n_query=4), replace(both, splits=rows))
    assert {e.text for e in (*trial.support, *trial.tests)} <= {both.test_split[i].text for i in range(100)}


def test_episodes_of_regression_have_rows_for_the_ways_of_the_protocol() -> None:
    for trial in draw_trials(Protocol("episodic", (2,), 2, n_way=3, n_query=4), score_task()):
        assert (len(trial.support), len(trial.tests), trial.label_names) == (6, 12, ())


def test_label_names_are_the_nearest_of_their_embeddings() -> None:
    encoder = tiny_encoder(normalize=True)
    task = replace(word_task(n_way=3), label_names=("good", "bad_day", "hue"), label_descriptions={"hue": "red"})
    target = Classes(task.label_names, task.label_texts)
    model = LabelNames(encoder).adapt(encode_set(encoder, [task.train_split[0]]), target)
    texts = [task.test_split[i] for i in range(20)]
    with torch.no_grad():
        names, found = (
            encoder(encoder.tokenize([Example(t) for t in of]))
            for of in (["good", "bad day", "red"], [e.text for e in texts])
        )
    wanted = torch.cdist(found, names).argmin(-1).tolist()
    assert [task.label_names.index(str(name)) for name in model.predict(texts)] == wanted
    scores = score_task()
    model = LabelNames(encoder).adapt(encode_set(encoder, [scores.train_split[0]]), Scores())
    assert model.predict([scores.test_split[0]]) == [0.0]


def _shuffled(task: Task) -> Task:
    def mixed(name: str) -> Iterator[Example]:
        rows = [task.splits[name][i] for i in range(len(task.splits[name]))]
        random.Random(3).shuffle(rows)
        yield from rows

    return replace(task, splits={name: ListSplit(mixed(name)) for name in task.splits})
