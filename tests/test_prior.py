"""Compact runs, and the one that comes with the package: a change of an untouched encoder, at a low rank."""

import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import quickstudy
from conftest import tiny_encoder, word_task, write_task
from quickstudy.build import build_encoder
from quickstudy.cli.main import app
from quickstudy.errors import DataError, RecipeError, RunError
from quickstudy.evaluation.leakage.fingerprint import (
    find_known_rows,
    load_fingerprints,
    save_fingerprints,
    take_fingerprints,
)
from quickstudy.evaluation.plan import plan_tasks
from quickstudy.evaluation.protocol import Protocol
from quickstudy.models.delta import Delta
from quickstudy.models.encoder import Encoder
from quickstudy.report.overlap import overlap_notes
from quickstudy.runs import Run
from quickstudy.tasks.split import Example, ListSplit
from quickstudy.tasks.task import Task

FEW = {"texts": ["a good film", "the late fee", "a bad book"], "labels": ["class0", "class1", "class1"]}


def _trained(untouched: Encoder, size: float = 0.1) -> Encoder:
    trained = untouched.copy()
    with torch.no_grad():
        for name, weight in trained.model.named_parameters():
            if "embeddings" not in name:
                weight += size * torch.randn_like(weight)
    return trained


def _weights(encoder: Encoder) -> dict[str, torch.Tensor]:
    return dict(encoder.model.named_parameters())


def test_a_delta_keeps_small_weights_and_the_best_part_of_large_ones() -> None:
    untouched = tiny_encoder()
    trained, again = _trained(untouched), untouched.copy()
    delta = Delta.between(untouched, trained, rank=3)
    delta.add_to(again)
    cut = [name.removesuffix(".a") for name in delta.tensors if name.endswith(".a")]
    assert cut
    for name, weight in _weights(again).items():
        change = (_weights(trained)[name] - _weights(untouched)[name]).detach()
        error = (weight - _weights(trained)[name]).detach()
        lost = torch.linalg.svdvals(change)[3:].norm() if name in cut else torch.tensor(0.0)
        assert error.norm() == pytest.approx(float(lost), abs=2e-3 * float(change.norm()) + 1e-9), name


def test_half_the_strength_is_half_the_way() -> None:
    untouched = tiny_encoder()
    trained, mixed = _trained(untouched), untouched.copy()
    Delta.between(untouched, trained, rank=64, strength=0.5).add_to(mixed)
    for name, weight in _weights(mixed).items():
        middle = (_weights(trained)[name] + _weights(untouched)[name]) / 2
        torch.testing.assert_close(weight, middle, atol=1e-3, rtol=0)


def test_a_delta_leaves_out_what_did_not_change() -> None:
    untouched = tiny_encoder()
    names = Delta.between(untouched, _trained(untouched), rank=2).tensors
    assert not any("embeddings" in name for name in names)


def test_a_delta_is_refused_by_an_encoder_that_it_was_not_taken_from(tmp_path: Path) -> None:
    untouched = tiny_encoder()
    Delta.between(untouched, _trained(untouched), rank=2).save(tmp_path / "delta.safetensors")
    loaded, other = Delta.load(tmp_path / "delta.safetensors"), _trained(untouched, 1e-4)
    before = {name: weight.clone() for name, weight in _weights(other).items()}
    with pytest.raises(RunError, match="not the one that was trained"):
        loaded.add_to(other)
    assert all(torch.equal(weight, before[name]) for name, weight in _weights(other).items())


def test_there_is_no_delta_of_an_encoder_that_was_not_changed() -> None:
    untouched = tiny_encoder()
    with pytest.raises(RunError, match="was not changed"):
        Delta.between(untouched, untouched.copy(), rank=2)


def _recipe(tiny_folder: Path, data: Path, method: dict[str, str], trains: str = "layers") -> dict[str, Any]:
    return {
        "encoder": {"name": str(tiny_folder)},
        "method": method,
        "tasks": {"train": [str(data)]},
        "episodes": {"n_query": 2},
        "outer": {"outer_steps": 3, "outer_lr": 1e-3, "trains": trains},
    }


@pytest.fixture
def run(tiny_folder: Path, tmp_path: Path) -> Run:
    write_task(word_task("seen", rows=24, seed=9), tmp_path / "seen")
    recipe = _recipe(tiny_folder, tmp_path / "seen", {"name": "protonet", "names": "gated"})
    return quickstudy.pretrain(recipe, out=tmp_path / "run")


def test_a_compact_run_adapts_as_the_run_does(run: Run, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(run.folder), "--out", str(tmp_path / "small"), "--rank", "64"])
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "small" / "encoder").exists()
    whole, small = (quickstudy.adapt(folder, **FEW) for folder in (run.folder, tmp_path / "small"))
    texts = ["a good book", "the card"]
    torch.testing.assert_close(small.predict_proba(texts), whole.predict_proba(texts), atol=1e-3, rtol=0)
    untouched, trained = build_encoder(run.recipe), Run.open(tmp_path / "small").learner().encoder
    moved = [not torch.equal(weight, _weights(trained)[name]) for name, weight in _weights(untouched).items()]
    assert any(moved)


def test_a_compact_run_can_stand_on_the_encoder_before_an_earlier_run(
    run: Run, tiny_folder: Path, tmp_path: Path
) -> None:
    changes = ("method.name=r2d2", "method.intercept=free", "outer.trains=none", f"encoder.name={run.files.encoder}")
    second = quickstudy.pretrain(run.folder, tmp_path / "second", overrides=changes)
    first = run.learner()
    assert all(torch.equal(w, _weights(first.encoder)[n]) for n, w in _weights(second.learner().encoder).items())
    command = ["export", str(second.folder), "--out", str(tmp_path / "small"), "--base", str(tiny_folder)]
    result = CliRunner().invoke(app, [*command, "--rank", "64"])
    assert result.exit_code == 0, result.output
    texts = ["a good book", "the card"]
    whole, small = (quickstudy.adapt(folder, **FEW) for folder in (second.folder, tmp_path / "small"))
    torch.testing.assert_close(small.predict_proba(texts), whole.predict_proba(texts), atol=1e-3, rtol=0)


def test_the_mean_of_two_runs_is_the_mean_of_their_weights(run: Run, tmp_path: Path) -> None:
    second = quickstudy.pretrain(run.folder, tmp_path / "second", overrides=("seed=5",))
    command = ["export", str(run.folder), "--average", str(second.folder), "--out", str(tmp_path / "small")]
    result = CliRunner().invoke(app, [*command, "--rank", "64"])
    assert result.exit_code == 0, result.output
    mean = dict(Run.open(tmp_path / "small").learner().named_parameters())
    parts = [dict(each.learner().named_parameters()) for each in (run, second)]
    assert any(not torch.equal(parts[0][name], parts[1][name]) for name in mean)
    for name, weight in mean.items():
        torch.testing.assert_close(weight, (parts[0][name] + parts[1][name]) / 2, atol=1e-4, rtol=0)


def test_a_mean_of_runs_on_other_tasks_knows_the_texts_of_all_and_changes_nothing_that_none_changed(
    run: Run, tmp_path: Path
) -> None:
    write_task(word_task("more", rows=24, seed=5), tmp_path / "more")
    changes = (f'tasks.train=["{tmp_path / "more"}"]', "outer.outer_lr=1e-4")
    others = [quickstudy.pretrain(run.folder, tmp_path / str(n), overrides=(*changes, f"seed={n}")) for n in (5, 6)]
    small = run.compact(tmp_path / "small", rank=64, average=others)
    assert small.meta_train_tasks() == {"seen", "more"}
    assert small.recipe.tasks.train == ["more", "seen"]
    alone = [each.compact(tmp_path / f"{each.folder.name} alone", rank=64) for each in (run, others[0])]
    first, second = (set(each.fingerprints().tolist()) for each in alone)
    assert first < (first | second) == set(small.fingerprints().tolist())
    assert not [name for name in Delta.load(small.files.delta).tensors if name.startswith("embeddings.")]


def test_runs_of_other_methods_have_no_mean(run: Run, tmp_path: Path) -> None:
    second = quickstudy.pretrain(run.folder, tmp_path / "second", overrides=("method.scale=2.0",))
    with pytest.raises(RunError, match="this run has another method or encoder"):
        run.compact(tmp_path / "small", rank=2, average=[second])
    assert not (tmp_path / "small").exists()


def test_a_run_counts_once_in_a_mean(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="two runs have the same recipe and seed"):
        run.compact(tmp_path / "small", rank=2, average=[run])
    assert not (tmp_path / "small").exists()


def test_runs_that_began_at_random_in_different_places_have_no_mean(tiny_folder: Path, tmp_path: Path) -> None:
    """What a network learned from one random start is not near what it learned from another: the mean is neither."""
    write_task(word_task("seen", rows=24, seed=9), tmp_path / "seen")
    recipe = _recipe(tiny_folder, tmp_path / "seen", {"name": "relation", "hidden": 4})
    first = quickstudy.pretrain(recipe, out=tmp_path / "first")
    second = quickstudy.pretrain(first.folder, tmp_path / "second", overrides=("seed=5",))
    with pytest.raises(RunError, match=r"began with other random weights \(rule\.net\.project"):
        first.compact(tmp_path / "small", rank=2, average=[second])
    assert not (tmp_path / "small").exists()


def test_a_method_that_learns_nothing_beside_the_encoder_needs_to_train_it(tiny_folder: Path, tmp_path: Path) -> None:
    write_task(word_task("seen", rows=24, seed=9), tmp_path / "seen")
    recipe = _recipe(tiny_folder, tmp_path / "seen", {"name": "fomaml", "start": "zero"}, trains="none")
    with pytest.raises(RecipeError, match="learns nothing beside the encoder"):
        quickstudy.pretrain(recipe, out=tmp_path / "run")


def test_a_damaged_delta_is_an_error(run: Run, tmp_path: Path) -> None:
    small = run.compact(tmp_path / "small", rank=2)
    small.files.delta.write_bytes(small.files.delta.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"delta\.safetensors is missing or was changed"):
        small.learner()


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), 0.0, 1e30])
def test_a_strength_that_makes_no_change_that_can_be_written_is_refused(
    run: Run, tmp_path: Path, strength: float
) -> None:
    with pytest.raises(RunError, match=r"the strength \w+\.?\w* is not possible|too large for half precision"):
        run.compact(tmp_path / "small", rank=2, strength=strength)
    assert not (tmp_path / "small").exists()


def test_a_compact_run_is_not_made_compact_again(run: Run, tmp_path: Path) -> None:
    small = run.compact(tmp_path / "small", rank=2)
    with pytest.raises(RunError, match="compact already"):
        small.compact(tmp_path / "smaller", rank=1)
    with pytest.raises(RunError, match="compact already\n  Average the runs that it was made from"):
        run.compact(tmp_path / "smaller", rank=1, average=[small])


def _task(texts: list[tuple[str, str | None]]) -> Task:
    rows = [Example(text, pair, number % 2) for number, (text, pair) in enumerate(texts)]
    return Task("rows", {"train": ListSplit(rows), "test": ListSplit(rows)}, ("a", "b"), pair=texts[0][1] is not None)


@pytest.mark.parametrize(
    ("trained", "same"),
    [
        (("The late fee, again!", None), ("the LATE fee  again", None)),
        (("Is it late?", "It is."), ("is it late", "it is")),
        (("Is it late?", "It is."), ("It is.", "Is it late?")),
    ],
)
def test_fingerprints_find_rows_with_the_same_words(
    trained: tuple[str, str | None], same: tuple[str, str | None], tmp_path: Path
) -> None:
    other: tuple[str, str | None] = ("something else", None if trained[1] is None else "and more")
    save_fingerprints(take_fingerprints([_task([trained, trained])]), tmp_path / "seen.npy")
    planned = plan_tasks(Protocol(shots=(1,), draws=1), [_task([same, other, other])])
    (overlap,) = find_known_rows(load_fingerprints(tmp_path / "seen.npy"), planned, "training")
    assert (overlap.overlapping_rows, overlap.total) == (1, 3)


def test_fingerprints_of_other_rows_hardly_ever_meet() -> None:
    numbers = iter(range(10**9))
    trained, tested = ([(f"text number {next(numbers)}", None) for _ in range(size)] for size in (50_000, 20_000))
    planned = plan_tasks(Protocol(shots=(1,), draws=1), [_task(list(tested))])
    overlaps = find_known_rows(take_fingerprints([_task(list(trained))]), planned, "training")
    assert sum(overlap.overlapping_rows for overlap in overlaps) <= 5  # 0.2 are expected


def test_what_a_compact_run_saw_is_refused_where_its_texts_are_not(run: Run, tmp_path: Path) -> None:
    small, seen = run.compact(tmp_path / "small", rank=2), tmp_path / "seen"
    (seen / "train.jsonl").replace(seen / "test.jsonl")
    write_task(word_task("train", rows=24, seed=5), tmp_path / "other")
    (tmp_path / "other" / "train.jsonl").replace(seen / "train.jsonl")
    seen.rename(tmp_path / "moved")
    options: Any = {"protocol": Protocol(shots=(1,), draws=1)}
    with pytest.raises(DataError, match=r"100\.0 % of the scored rows .* were meta-trained on in the training of run"):
        quickstudy.compare(small.folder, tmp_path / "moved", tmp_path / "refused", **options)
    write_task(word_task("held", rows=24, seed=3), tmp_path / "held")
    results = quickstudy.compare(small.folder, tmp_path / "held", tmp_path / "compared", **options)
    (note,) = overlap_notes(results.learners["small"])
    assert "only rows with the same words were looked for" in note


def test_options_of_the_other_export_are_refused(run: Run, tmp_path: Path) -> None:
    quickstudy.adapt(run, **FEW).save(tmp_path / "model")
    for folder, option in ((run.folder, ["--int8"]), (tmp_path / "model", ["--rank", "4"])):
        result = CliRunner().invoke(app, ["export", str(folder), "--out", str(tmp_path / "out"), *option])
        assert isinstance(result.exception, RecipeError)
        assert not (tmp_path / "out").exists()


def test_the_prior_is_used_if_no_run_is_named(tmp_path: Path) -> None:
    complaints = Path(__file__).parents[1] / "examples" / "complaints.csv"
    result = CliRunner().invoke(app, ["adapt", "--data", str(complaints), "--out", str(tmp_path / "model")])
    assert result.exit_code == 0, result.output
    model = quickstudy.load_model(tmp_path / "model")
    assert model.method == "r2d2"
    assert model.learned is not None
    assert model.learned.prior == "prior"
    (label,) = model.predict(["Somebody used my card to buy things I know nothing of"])
    assert label in model.label_names


def test_the_prior_is_better_than_a_linear_probe_on_bundled_tasks_that_it_never_saw(tmp_path: Path) -> None:
    """A check that the shipped files are the trained ones; the claim itself is the leaderboard's."""
    results = quickstudy.compare(
        ["prior", "linear-probe"], "samples:meta-test", tmp_path / "out", protocol=Protocol(shots=(4,), draws=3)
    )
    means = {
        name: statistics.mean(draw.score for draw in results.draws if draw.learner == name)
        for name in ("prior", "linear-probe")
    }
    assert means["prior"] > means["linear-probe"] + 0.01


def test_the_prior_cannot_hold_results() -> None:
    with pytest.raises(RunError, match="cannot hold results"):
        quickstudy.evaluate("prior", "samples:meta-test")


def test_a_compact_run_names_tasks_and_no_paths(run: Run, tmp_path: Path) -> None:
    small = run.compact(tmp_path / "small", rank=2)
    assert Run.open(small.folder).recipe.tasks.train == ["seen"]
    assert str(tmp_path / "seen") not in small.files.config.read_text(encoding="utf-8")
