"""Protocol: what a learner adapts to and what it is scored on; named, versioned, and saved with the results.

    standard       fixed-draws where a task has published support sets, few-shot where it has none
    few-shot       K rows of each class of train, D draws; scored on the test split, or a fixed sample of it
    fixed-draws    the published support sets of K shots, the first D; scored likewise
    episodic       D episodes of N ways, K shots and Q queries, both from the test split (Vinyals et al. 2016); of a regression
                   task N K and N Q rows
    full           all of train, D seeds of full fine-tuning; scored by the task's own metric, as GLUE does

Trials are a pure function of (protocol, task): all learners get the same ones. The number of a version stands for the way they
are drawn and goes up when that changes; what was drawn is saved by the hash of each example's content, so that a file of draws
gives the same trials in every later version, whatever became of the order of the rows.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, get_args

from quickstudy.errors import DataError, did_you_mean
from quickstudy.evaluation.draws import Support, all_examples, scored_examples, support_sets, with_test_split
from quickstudy.seeding import derive_seed
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.tasks.split import Example, ListSplit, readable
from quickstudy.tasks.task import Task

ProtocolName = Literal["standard", "few-shot", "fixed-draws", "episodic", "full"]
Shots = int | Literal["all"]

VERSION = 1


@dataclass(frozen=True, slots=True)
class Protocol:
    """How learners are evaluated.

    Attributes:
        name: One of the above.
        shots: Labelled examples per class (K), several values; `("all",)` for `full`.
        draws: Support sets per K; episodes, or seeds.
        seed: Which.
        limit: Score at most so many test rows, a fixed random sample; None for all.
        n_way: Classes of an episode (N), at most what the task has.
        n_query: Queries per class of an episode (Q).
        version: Of the way trials are drawn.
        saved: File with draws to use in place of drawing (see `save_draws`).

    Raises:
        DataError: Impossible numbers, an unknown name, or a version that this quickstudy does not know.
    """

    name: ProtocolName = "standard"
    shots: tuple[Shots, ...] = (4, 8, 16)
    draws: int = 10
    seed: int = 0
    limit: int | None = None
    n_way: int = 5
    n_query: int = 15
    version: int = VERSION
    saved: str | None = None

    def __post_init__(self) -> None:
        if self.name not in get_args(ProtocolName):
            raise DataError(f"there is no protocol {self.name!r}", fix=did_you_mean(self.name, get_args(ProtocolName)))
        if self.version != VERSION and not self.saved:
            raise DataError(
                f"this quickstudy draws version {VERSION} of its protocols, not {self.version}",
                fix="Use the draws that were saved with the results: --protocol FOLDER/draws.json",
            )
        if self.name == "full":
            object.__setattr__(self, "shots", ("all",))
        elif not self.shots or len(self.counts) < len(self.shots) or min(self.counts) < 1:
            raise DataError(f"shots = {list(self.shots)} is not possible", fix="Give whole numbers above 0.")
        else:
            object.__setattr__(self, "shots", tuple(sorted(set(self.counts))))
        for name, value in (("draws", self.draws), ("limit", self.limit)):
            if value is not None and value < 1:
                raise DataError(f"{name} = {value} is not possible", fix="Give a whole number above 0.")

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of shots that are numbers: none of `full`."""
        return tuple(k for k in self.shots if isinstance(k, int))


@dataclass(frozen=True, slots=True)
class Trial:
    """One support set and what a learner that adapted to it is scored on.

    Attributes:
        shots: Labelled examples per class, or `all`.
        draw: Its number.
        label_names: Position = label; empty for regression. An episode has labels of its own.
        support: To adapt to.
        tests: To score; the same object for trials that share their test rows.
    """

    shots: Shots
    draw: int
    label_names: tuple[str, ...]
    support: Support
    tests: Support


def plan(protocol: Protocol, tasks: Sequence[Task]) -> dict[str, list[Trial]]:
    """Return the trials of each task by its name; see `trials`.

    Raises:
        DataError: Also if two tasks have one name, or no task has a trial.
    """
    names = [task.name for task in tasks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"two tasks have the name {twice!r}", fix="Name each once; rename one of the files.")
    plans = {task.name: trials(protocol, task) for task in tasks}
    if not any(plans.values()):
        raise DataError(f"no task has draws of {', '.join(map(str, protocol.shots))} shots", fix="Use other --shots.")
    return plans


def scored(task: Task, planned: Sequence[Trial]) -> Task:
    """Return the task with the rows that are scored, whatever split they are from, as its test split."""
    rows = dict.fromkeys(e for tests in {id(t.tests): t.tests for t in planned}.values() for e in tests)
    return replace(task, splits={**task.splits, "test": ListSplit(rows)})


def trials(protocol: Protocol, task: Task) -> list[Trial]:
    """Return the trials of a task, by shots and draw; published draws may lack some numbers of shots.

    Raises:
        DataError: Too few examples, nothing to score, or no published draws where they are asked for.
    """
    if protocol.saved:
        return _saved(protocol.saved, task)
    ready = with_test_split(task, protocol.seed)
    if protocol.name == "episodic":
        return list(_episodes(protocol, ready))
    tests = scored_examples(ready, protocol.limit, protocol.seed)
    if not tests:
        raise DataError(
            f"task {task.name!r} has no row left to score",
            fix="Add a test file, or more rows: half of those of each label are held out.",
        )
    if protocol.name == "full":
        train = all_examples(ready.train_split)
        return [Trial("all", d, task.label_names, train, tests) for d in range(protocol.draws)]
    if protocol.name == "fixed-draws" and not task.fixed_draws:
        raise DataError(
            f"task {task.name!r} has no published draws",
            fix="Use --protocol few-shot, or add files train_<draw>_<shots>.jsonl.",
        )
    source = replace(ready, fixed_draws={}) if protocol.name == "few-shot" else ready
    return [
        Trial(k, d, task.label_names, support, tests)
        for k in protocol.counts
        for d, support in support_sets(source, k, protocol.draws, protocol.seed).items()
    ]


def by_shots(planned: Sequence[Trial]) -> dict[Shots, list[Trial]]:
    """Return trials by their number of shots."""
    return {k: [trial for trial in planned if trial.shots == k] for k in dict.fromkeys(t.shots for t in planned)}


def _episodes(protocol: Protocol, task: Task) -> Iterator[Trial]:
    split = "test" if "test" in task.splits else "validation"
    for k in protocol.counts:
        n_way = min(protocol.n_way, len(task.label_names) or protocol.n_way)
        spec = EpisodeSpec(n_way, k, protocol.n_query)
        seed = derive_seed(protocol.seed, "episodic", task.name, k)
        try:
            sampler = EpisodeSampler([task], spec, seed=seed, split=split)
        except DataError as error:  # it speaks of settings of a recipe
            raise DataError(error.what, fix="Use fewer --shots or --n-way, or add rows.") from error
        for d in range(protocol.draws):
            episode = sampler[d]
            yield Trial(k, d, episode.label_names, episode.support, episode.query)


def save_draws(protocol: Protocol, found: Mapping[str, Sequence[Trial]]) -> dict[str, Any]:
    """Return a protocol and its trials of each task as plain values, examples as hashes of their content."""
    tasks = {}
    for name, of_task in found.items():
        # Trials that share their test rows, or all of train, share one list.
        sets = {id(part): (part, trial) for trial in of_task for part in (trial.support, trial.tests)}
        places = {key: place for place, key in enumerate(sets)}
        tasks[name] = {
            "sets": [_contents(part, trial.label_names) for part, trial in sets.values()],
            "trials": [
                {
                    "shots": trial.shots,
                    "draw": trial.draw,
                    "labels": list(trial.label_names),
                    "support": places[id(trial.support)],
                    "tests": places[id(trial.tests)],
                }
                for trial in of_task
            ],
        }
    settings = asdict(protocol)
    del settings["saved"]
    return {"protocol": settings, "tasks": tasks}


def load_protocol(file: str | Path) -> Protocol:
    """Return the protocol of a file of draws; its trials are those of the file.

    Raises:
        DataError: There is no such file, or it is not one of draws.
    """
    settings = _read(Path(file))["protocol"]
    return Protocol(**{**settings, "shots": tuple(settings["shots"]), "saved": str(file)})


def _read(file: Path) -> dict[str, Any]:
    try:
        return _parsed(file, file.stat().st_mtime_ns)
    except (OSError, ValueError) as error:
        fix = f"Give a draws.json that compare wrote, or one of: {', '.join(get_args(ProtocolName))}."
        raise DataError(f"this is no file of draws ({error})", where=str(file), fix=fix) from error


@lru_cache(maxsize=2)
def _parsed(file: Path, _written: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if set(found) != {"protocol", "tasks"}:
        raise ValueError(f"it holds {', '.join(found)}")
    return found


def _saved(file: str, task: Task) -> list[Trial]:
    """Return the trials of a task as they were saved: the same texts, wherever they now stand."""
    known = _read(Path(file))["tasks"]
    if task.name not in known:
        raise DataError(f"there are no draws of task {task.name!r}", where=file, fix=did_you_mean(task.name, known))
    examples = {}
    for split in (*task.splits.values(), *task.fixed_draws.values()):
        for example in all_examples(split):
            examples[content(example, task.label_names)] = example

    def restore(hashes: Sequence[str], labels: Sequence[str]) -> Support:
        if missing := sum(one not in examples for one in hashes):
            raise DataError(
                f"{missing} of {len(hashes)} texts of a draw are not in task {task.name!r}: its data changed",
                where=file,
                fix="Use the data that the draws were made from.",
            )
        return tuple(_with_label(examples[one], task.label_names, labels) for one in hashes)

    saved = known[task.name]
    parts: dict[tuple[int, tuple[str, ...]], Support] = {}  # what was shared is shared again

    def part(place: int, labels: tuple[str, ...]) -> Support:
        if (place, labels) not in parts:
            parts[place, labels] = restore(saved["sets"][place], labels)
        return parts[place, labels]

    found = []
    for one in saved["trials"]:
        labels = tuple(one["labels"])
        found.append(Trial(one["shots"], one["draw"], labels, part(one["support"], labels), part(one["tests"], labels)))
    return found


def _with_label(example: Example, own: Sequence[str], labels: Sequence[str]) -> Example:
    return replace(example, label=labels.index(own[int(example.label or 0)])) if labels else example


def _contents(examples: Support, label_names: Sequence[str]) -> list[str]:
    return [content(example, label_names) for example in examples]


def content(example: Example, label_names: Sequence[str]) -> str:
    """Return a hash of an example's texts and the name of its label (or its score).

    >>> content(Example("a", label=1), ("x", "y")) == content(Example("a", label=0), ("y",))
    True
    """
    plain = list(readable(example, label_names).values())
    return blake2b(json.dumps(plain).encode(), digest_size=10).hexdigest()
