"""Many real processes, over gloo: the gradient of one, whatever their number; when one fails, all end and say why."""

import csv
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from conftest import tiny_encoder, word_task
from quickstudy.build import build_learner
from quickstudy.runs import Run
from quickstudy.tasks.split import Example

HERE = Path(__file__).parent
STEPS = 4
ALONE = {name: value for name, value in os.environ.items() if name not in {"RANK", "WORLD_SIZE", "LOCAL_RANK"}}
ALONE |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}


@dataclass
class Ended:
    """How some processes ended."""

    folder: Path
    codes: list[int | None]
    seconds: float

    def text(self, stream: str = "err") -> list[str]:
        """What each of them printed."""
        return [(self.folder / f"{i}.{stream}").read_text() for i in range(len(self.codes))]

    def written(self) -> list[Any]:
        """What each of them left."""
        assert self.codes == [0] * len(self.codes), self.text()
        return [json.loads((self.folder / f"{i}.json").read_text()) for i in range(len(self.codes))]

    def tensors(self) -> list[dict[str, torch.Tensor]]:
        """The tensors that each of them left."""
        return [load_file(self.folder / f"{i}.safetensors") for i in range(len(self.codes))]


Ranks = Callable[..., Ended]


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    """Run a function of ranks.py in so many processes."""
    words = [sys.executable, str(HERE / "ranks.py")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ALONE) as server:
        assert server.stdin
        assert server.stdout

        def run(call: str, world: int, folder: Path, **options: Any) -> Ended:
            folder.mkdir(parents=True, exist_ok=True)
            request = {"call": call, "world_size": world, "folder": str(folder), "options": options}
            print(json.dumps(request), file=server.stdin, flush=True)
            return Ended(folder, **json.loads(server.stdout.readline()))

        yield run
        server.stdin.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny encoder, task files and a recipe; not to be changed."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "tiny").mkdir()
    tiny_encoder(normalize=True).save(folder / "tiny")
    for name, n_way in (("alpha", 2), ("beta", 3), ("gamma", 2)):
        _csv(folder / f"{name}.csv", [(e.text, e.label) for e in word_task(name, n_way=n_way).train_split])
    recipe = f"""
        encoder = {{ name = "{folder}/tiny", normalize = true }}
        method = {{ name = "protonet" }}
        tasks = {{ train = ["{folder}/alpha.csv", "{folder}/beta.csv"], validation = ["{folder}/gamma.csv"] }}
        episodes = {{ n_way = [2, 3], k_shot = 2, n_query = 3 }}
        [outer]
        outer_steps = {STEPS}
        outer_lr = 1e-3
        meta_batch_size = 5
        validate_every = 2
        validation_episodes = 4
        trains = "all"
    """
    (folder / "recipe.toml").write_text(recipe, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def whole(made: Path, ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process; not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    ended = ranks("command", 1, folder, words=_pretrain(made, folder))
    assert ended.codes == [0], ended.text()
    return folder / "run"


@pytest.mark.parametrize(
    ("method", "dtype", "tolerance"),
    [*((method, "float64", 1e-12) for method in ("maml", "protonet", "reptile")), ("maml", "float32", 1e-6)],
)
def test_the_meta_gradient_is_that_of_one_process(
    method: str, dtype: str, tolerance: float, ranks: Ranks, tmp_path: Path
) -> None:
    alone = ranks("gradient", 1, tmp_path / "1", method=method, dtype=dtype, size=5)
    ((facts,), (wanted,)) = alone.written(), alone.tensors()
    largest = max(float(g.abs().max()) for g in wanted.values())
    assert largest > 1e-4
    for world in (2, 4):  # 5 episodes: uneven in both
        ended = ranks("gradient", world, tmp_path / str(world), method=method, dtype=dtype, size=5)
        told = ended.written()
        assert [facts_there["drawn"] for facts_there in told] == [list(range(i, 5, world)) for i in range(world)]
        assert facts["drawn"] == [0, 1, 2, 3, 4]
        assert all(facts_there["loss"] == pytest.approx(facts["loss"], rel=1e-6) for facts_there in told)
        assert all(facts_there["accuracy"] == pytest.approx(facts["accuracy"], rel=1e-6) for facts_there in told)
        for grads in ended.tensors():
            assert grads.keys() == wanted.keys()  # what no episode reaches has none
            assert _largest_difference(grads, wanted) <= tolerance * largest


def test_more_processes_than_episodes_change_nothing(ranks: Ranks, tmp_path: Path) -> None:
    options = {"method": "maml", "dtype": "float64", "size": 3}
    (wanted,) = ranks("gradient", 1, tmp_path / "1", **options).tensors()
    ended = ranks("gradient", 4, tmp_path / "4", **options)
    assert [facts["drawn"] for facts in ended.written()] == [[0], [1], [2], []]
    assert all(_largest_difference(grads, wanted) <= 1e-12 for grads in ended.tensors())


def test_without_the_sum_the_meta_gradient_is_another(ranks: Ranks, tmp_path: Path) -> None:
    options = {"method": "maml", "dtype": "float64", "size": 4}
    (wanted,) = ranks("gradient", 1, tmp_path / "1", **options).tensors()
    ended = ranks("gradient", 2, tmp_path / "2", **options, summed=False)
    largest = max(float(g.abs().max()) for g in wanted.values())
    nothing = {name: torch.zeros_like(g) for name, g in wanted.items()}  # of what no episode of a process reaches
    assert all(_largest_difference(nothing | grads, wanted) > 0.01 * largest for grads in ended.tensors())


def test_all_start_and_end_with_the_main_ones_parameters_and_stop_when_it_does(ranks: Ranks, tmp_path: Path) -> None:
    ended = ranks("patience", 2, tmp_path)
    main, other = ended.written()
    assert main == other == [[0, 0.1], [1, 0.5], [2, 0.4], [3, 0.3]]  # two steps without a better score
    main, other = ended.tensors()
    assert all(torch.equal(main[name], other[name]) for name in main)


def test_torchrun_leaves_one_run_folder_with_the_figures_of_one_process(
    made: Path, whole: Path, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "quickstudy"]
    env = ALONE | {"QUICKSTUDY_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [*words, *_pretrain(made, tmp_path)], env=env, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
    kept = Run.open(whole).kept
    assert kept
    assert [line.split("  ")[0] for line in done.stdout.splitlines()] == [
        *(f"step {step}/{STEPS}" for step in range(STEPS + 1)),
        f"kept: {kept.describe()}",
        f"encoder and report: {tmp_path / 'run'}",
    ]
    files = {p.relative_to(whole) for p in whole.rglob("*")}
    assert {p.relative_to(tmp_path / "run") for p in (tmp_path / "run").rglob("*")} == files
    _assert_same_figures(tmp_path / "run", whole)
    assert len(list((tmp_path / "cache").iterdir())) == 3  # one file per table, nothing half-written


@pytest.mark.parametrize(
    ("fault", "at", "message"),
    [
        ("episode", 1, "error: process 1 of 3: ValueError: this episode is broken\n"),
        ("episode", 0, "error: process 0 of 3: ValueError: this episode is broken\n"),
        ("infinite gradient", 1, "and the norm of its gradient inf in outer step 1\n  Lower inner_lr"),
        ("update", 1, "error: process 1 of 3: RuntimeError: out of memory\n"),
        ("validation", 2, "error: process 2 of 3: ValueError: cannot be scored\n"),
        ("data", 2, "error: a.csv: process 2 of 3: there is no such file\n  Check the path.\n"),
        ("disk", 0, "error: last: process 0 of 3: No space left on device\n  Check space and permissions.\n"),
        ("report", 0, "error: report.html: process 0 of 3: No space left on device\n  Check space and permissions.\n"),
    ],
)
def test_when_one_process_fails_all_end_and_its_message_is_shown_once(
    fault: str, at: int, message: str, made: Path, ranks: Ranks, tmp_path: Path
) -> None:
    ended = ranks("command", 3, tmp_path, words=_pretrain(made, tmp_path), fault=fault, at=at)
    assert ended.codes == [2, 2, 2], ended.text()
    texts = ended.text()
    assert message in texts[0]
    assert "".join(texts).count("error: ") == 1
    bug = fault in {"episode", "update", "validation"}  # nothing that a user could mend: show where it happened
    assert [("Traceback" in text) for text in texts] == [bug and process == at for process in range(3)]
    assert (tmp_path / "run").exists() == (fault != "data")


def test_all_processes_leave_out_what_is_sick_in_one(made: Path, ranks: Ranks, tmp_path: Path) -> None:
    ended = ranks("command", 3, tmp_path, words=_pretrain(made, tmp_path), fault="nan", at=2)
    assert ended.codes == [0, 0, 0], ended.text()
    records = Run.open(tmp_path / "run").metrics()
    assert [len(record.left_out) for record in records[:4]] == [0, 0, 1, 1]  # one of three episodes, from step 2
    assert all(math.isfinite(record.loss) for record in records[1:])
    assert "is left out" in ended.text()[0]


@pytest.mark.parametrize("at", [0, 2])
def test_when_one_process_is_killed_all_end_and_the_run_goes_on_with_any_number(
    at: int, made: Path, whole: Path, ranks: Ranks, tmp_path: Path
) -> None:
    words = [*_pretrain(made, tmp_path), "--set", "outer.validate_every=1"]
    ended = ranks("command", 4, tmp_path, words=words, fault="killed", at=at)
    assert ended.codes == [-9 if process == at else 2 for process in range(4)], ended.text()
    for process, text in enumerate(ended.text()):
        assert (f"error: process {process} of 4 has lost the others (" in text) == (process != at)
        assert "Traceback" not in text
    resumed = ranks("command", 2, tmp_path, words=[*words, "--resume"])
    assert resumed.codes == [0, 0], resumed.text()
    _assert_same_figures(tmp_path / "run", whole, same_validation=False)


def test_what_is_wrong_for_all_is_said_once_as_ever(made: Path, whole: Path, ranks: Ranks, tmp_path: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*")}
    ended = ranks("command", 3, tmp_path, words=_pretrain(made, whole.parent))
    assert ended.codes == [2, 2, 2]
    assert ended.text() == [
        f"error: {whole}: this folder exists already\n  Choose another --out, or --resume it.\n",
        "",
        "",
    ]
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("*")} == before
    ended = ranks("command", 3, tmp_path, words=[*_pretrain(made, tmp_path), "--set", "outer.step=1"])
    assert ended.codes == [2, 2, 2]
    assert ended.text()[0].startswith("error: --set outer.step=1: unknown setting 'outer.step'")
    assert ended.text()[1:] == ["", ""]


def test_several_processes_may_fill_the_cache_at_once(ranks: Ranks, tmp_path: Path) -> None:
    rows = [(f"text {i}", i % 3) for i in range(5000)]
    _csv(tmp_path / "rows.csv", rows)
    ended = ranks("cache", 4, tmp_path, rows=len(rows), start=time.time() + 0.5)
    first, last = ({"text": text, "label": str(label)} for text, label in (rows[0], rows[-1]))
    assert ended.written() == [[len(rows), first, last]] * 4
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".arrow"]


def _pretrain(made: Path, folder: Path) -> list[str]:
    return ["pretrain", str(made / "recipe.toml"), "--out", str(folder / "run")]


def _csv(path: Path, rows: list[tuple[Any, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


def _largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in b)


def _assert_same_figures(run: Path, other: Path, *, same_validation: bool = True) -> None:
    log_here, log_there = (Run.open(folder).metrics() for folder in (run, other))
    assert [record.step for record in log_here] == list(range(STEPS + 1))
    for record, expected in zip(log_here[1:], log_there[1:], strict=True):
        for name in ("loss", "accuracy", "grad_norm", "lr"):
            assert getattr(record, name) == pytest.approx(getattr(expected, name), rel=1e-4)
    if same_validation:
        scores = [[record.validation for record in log if record.step % 2 == 0] for log in (log_here, log_there)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-4)
        # Features, not weights: the gradients of the keys' biases are rounding errors, and AdamW makes whole steps
        # of them.
        texts = [Example("a good old film"), Example("the late fee was high")]
        opened = Run.open(other)
        here, there, before = (
            learner.encoder(learner.encoder.tokenize(texts))
            for learner in (Run.open(run).learner(), opened.learner(), build_learner(opened.recipe))
        )
        torch.testing.assert_close(here, there, rtol=0, atol=1e-5)
        assert (before - there).abs().max() > 1e-3
