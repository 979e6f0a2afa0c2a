"""Experiments: the scripts that meta-train many runs, at tiny size: what they compute, keep, go on with and refuse."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

import domain_adaptation
import experiment
import from_scratch
import hybrid
import numpy as np
import pytest
import split
import tournament
from raw_texts import without_like, write_raw_texts
from records import read

from conftest import tiny_encoder
from quickstudy.build import encoder_source
from quickstudy.config import load_recipe
from quickstudy.data.reference import load_task_groups, load_tasks
from quickstudy.errors import RunError
from quickstudy.evaluation.plan import plan_tasks
from quickstudy.evaluation.protocol import Protocol
from quickstudy.models.encoder import Encoder
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.mix import Mix
from quickstudy.tasks.sampler import EpisodeSampler
from text_files import write_document

pytestmark = pytest.mark.usefixtures("fresh_accelerator")

SIDES = {"a": "train", "b": "train", "c": "validation", "d": "validation", "e": "test"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Five sets of sentences, with their split and a tiny encoder; the cache is shared by the tests of this file."""
    folder = tmp_path_factory.mktemp("data")
    for number, name in enumerate(SIDES):
        (folder / "tasks" / name).mkdir(parents=True)
        for part, rows in (("train", 300), ("test", 30)):
            texts = [write_document(1000 * number + i, seed=len(part), sentences=1) for i in range(rows)]
            lines = [json.dumps({"text": text, "label": "odd" if i % 2 else "even"}) for i, text in enumerate(texts)]
            (folder / "tasks" / name / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    entries = [{"kind": "task", "name": name, "domain": "finance" if name in "cd" else "law"} for name in SIDES]
    (folder / "more").mkdir()
    (folder / "index.json").write_text(json.dumps(entries), encoding="utf-8")
    (folder / "more" / "index.json").write_text("[]", encoding="utf-8")
    members = {
        f"tasks/{name}": {"side": side, "kind": "tone", "terms": "permissive", "kin": name}
        for name, side in SIDES.items()
    }
    (folder / "split.json").write_text(json.dumps(members), encoding="utf-8")
    (folder / "tiny").mkdir()
    tiny_encoder().save(folder / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "FILE", folder / "split.json")
        patch.setattr(experiment, "TOLERANCE", float("inf"))  # tests are not timed
        patch.setattr(from_scratch, "COUNTED", 2)
        yield folder


@pytest.fixture(autouse=True)
def _shared_cache(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(data / "cache"))


Call = Callable[..., list[str]]


@pytest.fixture
def call(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call a script's `main`, with its runs (or some) in this process; return the names of those that were computed."""

    def run(script: ModuleType, *words: object, out: Path = tmp_path / "out", only: str = "") -> list[str]:
        computed: list[str] = []

        def here(options: argparse.Namespace, names: Iterable[str]) -> None:
            for name in names:
                if only in name and not experiment.figures_file(options, name).exists():
                    computed.append(name)
                    script.work(options, name)

        monkeypatch.setattr(script, "run_all", here)
        precision = () if script is tournament else ("--precision", "no", "--encoder", data / "tiny")
        asked = ("script", data, "--out", out, "--core-seconds", 0.2, *precision, *words)
        monkeypatch.setattr(sys, "argv", [str(word) for word in asked])
        script.main()
        return computed

    return run


HYBRID = ("--shots", "2", "--draws", 2, "--limit", 20, "--shares", "25", "--text-tasks", "smlmt")


def test_hybrid_compares_arms_and_computes_each_run_once(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(hybrid, *HYBRID) == ["baselines", "supervised 0", "hybrid-25 0"]
    printed = capsys.readouterr().out
    assert "600 raw texts of 2 sets; 0 dropped" in printed
    assert "Gain over supervised at 2 shots, in points, with the 95 % interval over 2 tasks" in printed
    assert "| hybrid-25 | 0 |" in printed
    with pytest.raises(RunError, match="is there already"):
        call(hybrid, *HYBRID)
    assert call(hybrid, *HYBRID, "--resume", "--seeds", "0,1") == ["supervised 1", "hybrid-25 1"]
    (tmp_path / "out" / "figures" / "hybrid-25-1.json").unlink()
    with pytest.raises(SystemExit, match="not finished: hybrid-25 1"):
        call(hybrid, *HYBRID, "--tables", "--seeds", "0,1")
    with pytest.raises(RunError, match="asked for in another way"):
        call(hybrid, *HYBRID, "--resume", "--limit", 10)


def test_figures_go_on_elsewhere_and_are_mixed_with_no_others(call: Call, tmp_path: Path) -> None:
    figures = ("--figures", tmp_path / "kept")
    with pytest.raises(SystemExit, match="not finished: baselines, hybrid-25 0"):
        call(hybrid, *HYBRID, *figures, out=tmp_path / "first", only="supervised")
    assert call(hybrid, *HYBRID, *figures, out=tmp_path / "second") == ["baselines", "hybrid-25 0"]
    (tmp_path / "kept" / "baselines.json").unlink()
    with pytest.raises(AssertionError, match="in several ways"):
        call(hybrid, *HYBRID, *figures, "--max-length", 32, out=tmp_path / "third")


def test_labelled_tasks_are_drawn_in_hybrid_as_they_are_without_text(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["hybrid.py", str(data), "--out", str(tmp_path / "out"), "--text", "python-docs"])
    options = hybrid.parse_options()
    recipe, alone = hybrid.recipe_of(options, 0.25, 3), hybrid.recipe_of(options, 0.0, 3)
    assert (recipe.outer, recipe.episodes, recipe.method) == (alone.outer, alone.episodes, alone.method)
    assert (recipe.outer.mixed_precision, recipe.outer.max_length, recipe.seed) == ("bf16", 64, 3)
    assert recipe.tasks.train == [*alone.tasks.train, "text:python-docs?tasks=smlmt,clusters"]
    assert recipe.tasks.weights is not None
    groups = load_task_groups(alone.tasks.train)
    tasks = [task for group in groups for task in group]
    sampler = EpisodeSampler(tasks, EpisodeSpec(2, 1, 1), seed=0, weighting="temperature", temperature=3.0)
    shares = Mix((1, 1, 1), tuple(recipe.tasks.weights)).shares(0)
    assert shares[-1] == pytest.approx(0.25)
    assert shares[:2] / shares[:2].sum() == pytest.approx(sampler.weights)


ADAPTATION = ("--shots", "2", "--draws", 2, "--limit", 20, "--set", "language.batch_size=4")


def test_domain_adaptation_tells_before_and_after(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = call(domain_adaptation, *ADAPTATION)
    assert names == [
        "baselines",
        *(f"{arm} {name} 0" for name, arm in (("c", "frozen"), ("d", "frozen"))),
        *(f"{arm} {name} 0" for name in "cd" for arm in ("language", "language-tasks")),
    ]
    printed = capsys.readouterr().out
    assert "| texts of | sets | raw texts | dropped | perplexity, frozen | language | language-tasks |" in printed
    row = next(line for line in printed.splitlines() if line.startswith("| c | 1 | 300 | 0 |"))
    assert len([float(cell) for cell in row.strip("| ").split(" | ")[4:]]) == 3
    changes = [line for line in printed.splitlines() if line.startswith(("| language |", "| language probe |"))]
    assert {tuple(line.strip("| ").split(" | ")[:4]) for line in changes} >= {
        ("language", "protonet", "2", "0"),
        ("language probe", "linear-probe", "2", "0"),
    }
    check_differences(tmp_path / "out" / "figures")
    (tmp_path / "out" / "figures" / "language-c-0.json").unlink()
    with pytest.raises(SystemExit, match="not finished: language c 0"):
        call(domain_adaptation, *ADAPTATION, "--tables")
    assert "over 1 tasks" in capsys.readouterr().out  # only what is whole is compared
    assert call(domain_adaptation, *ADAPTATION, "--resume") == ["language c 0"]


def test_an_encoder_that_was_not_trained_gives_the_figures_of_before(call: Call, tmp_path: Path) -> None:
    words, figures = (*ADAPTATION, "--by", "domain", "--set", "outer.outer_lr=1e-30"), tmp_path / "out" / "figures"
    for only, resume in (("baselines", ()), ("language finance", ("--resume",))):
        with pytest.raises(SystemExit, match="not finished"):
            call(domain_adaptation, *words, *resume, only=only)
    before = read(figures / "baselines.json", experiment.Figures)
    after = read(figures / "language-finance-0.json", experiment.Figures)
    for name, earlier in (("language 0", "protonet"), ("language probe 0", "linear-probe")):
        scores = [
            [(draw.task, draw.draw, draw.score) for draw in kept.draws if draw.learner == learner]
            for kept, learner in ((after, name), (before, earlier))
        ]
        assert sorted(scores[0]) == sorted(scores[1]) != []


def check_differences(figures: Path) -> None:
    """Check that differences have the sign of what became better, and are in their intervals."""
    draws = [draw for file in figures.glob("*.json") for draw in read(file, experiment.Figures).draws]
    options = argparse.Namespace(shots=(2,), seeds=[0])
    for arm, before, _, _, points, sets, rows in domain_adaptation.differences(draws, options):
        means = [
            np.mean([np.mean([d.score for d in draws if (d.learner, d.task) == (name, task)]) for task in "cd"])
            for name in (f"{arm} 0", before)
        ]
        assert float(points) == pytest.approx(100 * (means[0] - means[1]), abs=0.06)
        for interval in filter(None, (sets, rows)):
            low, high = json.loads(interval.replace("+", ""))
            assert low <= float(points) <= high


def test_no_raw_text_is_like_a_scored_one(tmp_path: Path) -> None:
    texts = [write_document(i, sentences=1) for i in range(40)]
    near = " ".join(["Some", *texts[1].split()[1:]])
    quoting = f"He said: {texts[2]}"
    rows = [*texts[3:], texts[0], near, quoting, texts[1].upper(), *texts[3:5]]
    for name, split_rows in (("train", rows), ("test", texts[:3])):
        lines = [json.dumps({"text": text, "label": str(i % 2)}) for i, text in enumerate(split_rows)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tasks = load_tasks(str(tmp_path))
    scored = plan_tasks(Protocol(shots=(2,), draws=1), tasks)
    written = write_raw_texts(tasks, scored, tmp_path / "raw" / "texts.jsonl")
    kept = [json.loads(line)["text"] for line in (tmp_path / "raw" / "texts.jsonl").read_text("utf-8").splitlines()]
    assert kept == texts[3:]
    assert (written.texts, written.dropped, written.characters) == (37, 4, sum(map(len, kept)))
    assert without_like(rows, []) == rows


SCRATCH_SIZE = {"vocabulary": 300, "layers": 1, "hidden_size": 32, "heads": 2}
SCRATCH = (
    *("--text", "train-sets", "--shots", "2", "--draws", 2, "--limit", 20),
    *(word for key, value in SCRATCH_SIZE.items() for word in ("--set", f"encoder.from_scratch.{key}={value}")),
    *("--set", "outer.warmup_steps=0", "--set", "language.batch_size=4", "--set", "outer.validate_every=1000"),
)


def test_from_scratch_gives_both_arms_the_same_operations(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(from_scratch, *SCRATCH) == ["baselines", "language 0", "language-episodes 0"]
    printed = capsys.readouterr().out
    for learner in ("language", "language-episodes", "random", "tf-idf", "protonet", "random probe"):
        assert f"\n| {learner} | " in printed
    assert "Gain over language at 2 shots" in printed
    out = tmp_path / "out"
    steps = read(out / "figures" / "steps.json", from_scratch.Steps)
    share = load_recipe(from_scratch.RECIPE).language.share  # type: ignore[union-attr]
    operations = steps.operations
    both = steps.of_arm["language-episodes"] * (share * operations["language"] + (1 - share) * operations["episodes"])
    assert steps.of_arm["language"] * operations["language"] == pytest.approx(both, abs=operations["language"])
    for arm, masked in (("language", 1.0), ("language-episodes", share)):
        recipe = load_recipe(out / "runs" / f"{arm} 0")
        assert recipe.language is not None
        assert (recipe.language.share, recipe.outer.outer_steps) == (masked, steps.of_arm[arm])
        kept = read(out / "figures" / f"{arm}-0.json", experiment.Figures)
        assert kept.perplexity is not None
        assert kept.perplexity < 400
        assert kept.spent.outer_steps == steps.of_arm[arm]
    assert call(from_scratch, *SCRATCH, "--resume") == []
    with pytest.raises(RunError, match="for another budget"):
        call(from_scratch, *SCRATCH, "--resume", "--core-seconds", 7)


def test_the_arms_of_from_scratch_begin_alike(data: Path, tmp_path: Path, call: Call) -> None:
    monkey = ["script", str(data), "--out", str(tmp_path / "out"), *map(str, SCRATCH)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", monkey)
        options = from_scratch.parse_options()
    options.out.mkdir()
    from_scratch.prepare_text(options, ())
    one, other = (encoder_source(from_scratch.recipe_of(options, 1, steps)) for steps in (5, 9))
    assert one == other
    assert Encoder.load(one).model.config.num_hidden_layers == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere",), "nowhere is no folder"),
        ((".", "--shares", "0"), "--shares: invalid percents value: '0'"),
        ((".", "--side", "train"), "invalid choice: 'train'"),
        ((".",), "out: this experiment is there already\n  Go on with --resume"),
    ],
)
def test_bad_input_ends_with_a_message(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(sys, "argv", ["hybrid.py", *words, "--out", "out"])
    with pytest.raises(SystemExit) as stop:
        experiment.call(hybrid.main)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_run_that_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys\nname = sys.argv[-1]\nprint(name)\nsys.exit(name == 'bad 0')\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [str(script)])
    options = argparse.Namespace(out=tmp_path, figures=tmp_path / "figures", jobs=2, nice=0)
    for folder in ("logs", "figures"):
        (tmp_path / folder).mkdir()
    (tmp_path / "figures" / "done-0.json").touch()
    experiment.run_all(options, ["bad 0", "good 0", "done 0"])
    assert (tmp_path / "logs" / "good 0.log").read_text("utf-8") == "good 0\n"
    assert not (tmp_path / "logs" / "done 0.log").exists()
