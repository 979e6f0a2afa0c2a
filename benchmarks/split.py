"""Split: which data sets are held out and scored, which choose settings, which are meta-trained on. Said once, kept.

    python benchmarks/split.py DATA            make split.json, check it, and print it by kind
    python benchmarks/split.py DATA --check    check that split.json is what the data give

    test         held out and scored; chosen by hand, with a reason each (split.toml)
    validation   whole data sets on which settings are chosen
    train        meta-trained on
    unused       kin of a test set

Kin are sets with the same source, the same texts, or the same labels under another name. They are always on one side.
Kin are named in split.toml. Sets that share 0.5 % of the texts of the smaller one become kin here. The groups that are
kin to no test set are divided kind by kind: about a third of each kind goes to validation. Groups that a shipped prior
may not be trained on go first, so that it loses least; among the rest the hash of the name decides. Only `permissive`
and `share-alike` sets may train such a prior. An experiment may train on all.
"""

import argparse
import json
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha1
from itertools import combinations
from math import ceil
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from quickstudy.data.reference import load_tasks
from quickstudy.evaluation.leakage.find import find_overlap
from quickstudy.evaluation.leakage.refuse import MOST
from quickstudy.evaluation.plan import plan_tasks
from quickstudy.evaluation.protocol import Protocol
from quickstudy.storage.files import write_json
from quickstudy.tasks.task import Task

HERE = Path(__file__).parent
FILE = HERE / "split.json"
SHARED = 0.005  # of the texts of the smaller set: two sets that share so many are kin
VALIDATION = 0.33  # of the sets of a kind that are neither test nor kin of it
LEAST_VALIDATION = 0.2  # of all sets
LARGE = 0.6  # a group with more of a kind's sets than this is not for validation
LEAST_LENGTH = 20  # characters; shorter texts, such as "thank you", are common to sets that are not kin

Side = Literal["test", "validation", "train", "unused"]
SIDES: tuple[Side, ...] = ("test", "validation", "train", "unused")
PERMITTED = ("permissive", "share-alike")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Member:
    """One data set and where it belongs.

    Attributes:
        side: What it is used for.
        kind: What its labels are about.
        terms: What its licence allows, in one word.
        kin: The name of its group of kin, which is that of the set itself if it has none.
        reason: Why it is held out, or not used.
    """

    side: Side
    kind: str
    terms: str
    kin: str
    reason: str = ""

    @property
    def permitted(self) -> bool:
        """Whether a prior that is shipped may be trained on it."""
        return self.terms in PERMITTED


Split = Mapping[str, Member]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--check", action="store_true", help="Change nothing; fail if split.json is another.")
    options = parser.parse_args()
    split = make_split(options.data)
    if options.check:
        assert read_split() == split, "split.json is not what split.toml and the data give"
    else:
        write_json(FILE, TypeAdapter(dict[str, Member]).dump_python(dict(split), mode="json", exclude_defaults=True))
    print_split(split)
    check_texts(split, options.data)


def read_split() -> dict[str, Member]:
    """Return the split as it is kept, by the folder of each set."""
    return TypeAdapter(dict[str, Member]).validate_json(FILE.read_text(encoding="utf-8"))


def references(names: Iterable[str], data: Path) -> list[str]:
    """Return references of quickstudy to data sets."""
    return [f"glue:{Path(n).name}?path={data / 'glue'}" if n.startswith("glue/") else str(data / n) for n in names]


def side(split: Split, wanted: Side) -> list[str]:
    """Return the names of the sets of one side."""
    return [name for name, member in split.items() if member.side == wanted]


def make_split(data: Path) -> dict[str, Member]:
    """Return the split that split.toml and the data give."""
    decided = tomllib.loads((HERE / "split.toml").read_text(encoding="utf-8"))
    index = read_index(data)
    kinds = {name: _kind(name, entry, decided["kind"]) for name, entry in index.items()}
    terms = {name: entry.get("terms") or _terms(name, decided["terms"]) for name, entry in index.items()}
    groups = group_kin(index, decided["kin"], shared_texts(index, data))
    _check_decided(decided, index)
    sides = _assign(groups, kinds, terms, decided["test"])
    kin = {name: title for title, names in groups.items() for name in names}
    reasons = {n: f"kin of {_test_kin(groups[kin[n]], decided['test'])}" for n in sides if sides[n] == "unused"}
    reasons |= decided["test"]
    members = {
        name: Member(sides[name], kinds[name], terms[name], kin[name], reasons.get(name, "")) for name in sorted(index)
    }
    _check_share(members)
    return members


def read_index(data: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of both indexes by the folder of their set."""
    folders = {"glue": "glue", "task": "tasks", "leopard": "leopard"}
    first = json.loads((data / "index.json").read_text(encoding="utf-8"))
    more = json.loads((data / "more" / "index.json").read_text(encoding="utf-8"))
    return {f"{folders[entry['kind']]}/{entry['name']}": entry for entry in first} | {
        f"more/tasks/{entry['name']}": entry for entry in more
    }


def shared_texts(names: Iterable[str], data: Path) -> list[tuple[str, str]]:
    """Return the pairs of sets that share many texts."""
    sizes: dict[str, int] = {}
    holders: dict[int, list[str]] = defaultdict(list)
    for name in names:
        texts = _texts(data / name)
        sizes[name] = len(texts)
        for text in texts:
            holders[text].append(name)
    shared = Counter(pair for sets in holders.values() for pair in combinations(sorted(sets), 2))
    return [(a, b) for (a, b), count in shared.items() if count >= SHARED * min(sizes[a], sizes[b])]


def _texts(folder: Path) -> set[int]:
    """Return the texts of a set, as hashes of their words."""
    rows = (json.loads(line) for file in folder.glob("*.jsonl") for line in file.open(encoding="utf-8"))
    texts = (v for row in rows for key, v in row.items() if key != "label" and isinstance(v, str))
    normal = (" ".join(_WORD.findall(text.casefold())) for text in texts)
    return {hash(text) for text in normal if len(text) >= LEAST_LENGTH}


def group_kin(
    names: Iterable[str], declared: Mapping[str, Sequence[str]], pairs: Iterable[tuple[str, str]]
) -> dict[str, list[str]]:
    """Return the groups of kin, by name: sets that are connected by what is declared or by shared texts."""
    names = sorted(names)
    title = {name: name for name in names}
    lists = {group: [n for n in names if any(fnmatchcase(n, p) for p in ps)] for group, ps in declared.items()}

    def join(members: Sequence[str], called: str) -> None:
        joined = {title[name] for name in members}
        for name in names:
            if title[name] in joined:
                title[name] = called

    for group, members in lists.items():
        join(members, group)
    for a, b in sorted(pairs):
        join([a, b], min(title[a], title[b], key=lambda group: (group not in declared, group)))
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[title[name]].append(name)
    return dict(groups)


def _assign(
    groups: Mapping[str, Sequence[str]], kinds: Mapping[str, str], terms: Mapping[str, str], test: Iterable[str]
) -> dict[str, Side]:
    """Return the side of each set."""
    test = set(test)
    sides: dict[str, Side] = {}
    free = {group: names for group, names in groups.items() if not test & set(names)}
    for group in groups.keys() - free.keys():
        sides |= {name: "test" if name in test else "unused" for name in groups[group]}
    of_kind = Counter(kinds[name] for names in free.values() for name in names)
    taken: Counter[str] = Counter()
    order = sorted(free, key=lambda group: (any(terms[n] in PERMITTED for n in free[group]), _hash(group)))
    for group in order:
        counts = Counter(kinds[name] for name in free[group])
        kind = counts.most_common(1)[0][0]
        wanted = taken[kind] < ceil(VALIDATION * of_kind[kind]) and counts[kind] <= LARGE * of_kind[kind]
        if wanted:
            taken += counts
        sides |= dict.fromkeys(free[group], "validation" if wanted else "train")
    return sides


def _hash(text: str) -> str:
    return sha1(text.encode()).hexdigest()


def _kind(name: str, entry: Mapping[str, Any], kinds: Sequence[Mapping[str, Any]]) -> str:
    for kind in kinds:
        named = name in kind.get("sets", ())
        by_label = entry.get("label_kind") in kind.get("label_kinds", ())
        by_domain = "label_kind" in entry and entry["domain"] in kind.get("domains", ())
        if named or by_label or by_domain:
            return str(kind["name"])
    raise SystemExit(f"{name} ({entry.get('label_kind')}) is of no kind: add it to split.toml")


def _terms(name: str, lists: Mapping[str, Sequence[str]]) -> str:
    return next((terms for terms, names in lists.items() if name in names), "unclear")


def _test_kin(names: Iterable[str], test: Iterable[str]) -> str:
    return ", ".join(name for name in names if name in set(test))


def _check_decided(decided: Mapping[str, Any], index: Mapping[str, Any]) -> None:
    """Check that all names in split.toml are there, and that patterns match something."""
    named = [*decided["test"], *(n for kind in decided["kind"] for n in kind.get("sets", ()))]
    named += [n for names in (*decided["terms"].values(), *decided["kin"].values()) for n in names]
    for name in named:
        assert any(fnmatchcase(there, name) for there in index), f"split.toml names {name}, and there is no such set"


def _check_share(split: Split) -> None:
    """Check the promises: enough validation sets, and each kind on every side that is used."""
    validation = side(split, "validation")
    assert len(validation) >= LEAST_VALIDATION * len(split), f"only {len(validation)} sets are for validation"
    for wanted in SIDES[:3]:
        lacking = {member.kind for member in split.values()} - {split[name].kind for name in side(split, wanted)}
        assert not lacking, f"{wanted} has no set of {lacking}"
    sides: dict[str, set[str]] = defaultdict(set)
    for member in split.values():
        sides[member.kin].add(member.side)
    assert all(len(given - {"unused"}) <= 1 for given in sides.values()), "kin are on two sides"


def check_texts(split: Split, data: Path) -> None:
    """Look for held-out texts among those that are meta-trained on, row by row, with the library's own search."""
    trained = _load(side(split, "train"), data)
    most: dict[Side, float] = {"test": MOST, "validation": 0.05}  # "yeah okay" and "love it" are in many sets
    for wanted in most:
        protocol = Protocol(shots=(4,), draws=1)
        tasks = [task for task in _load(side(split, wanted), data) if task.kind == "classification"]
        overlaps = find_overlap(trained, plan_tasks(protocol, tasks))
        rows = sum(overlap.overlapping_rows for overlap in overlaps)
        print(f"{wanted}: {len(tasks)} tasks, {rows} of their scored rows are also in train")
        for overlap in overlaps:
            if overlap.overlapping_fraction > MOST / 2:
                print(f"  {overlap.task}: {dict(overlap.rows)} of {overlap.total}, in {', '.join(overlap.sources)}")
            assert overlap.overlapping_fraction <= most[wanted], f"{overlap.task} is not held out"


def _load(names: Iterable[str], data: Path) -> list[Task]:
    return load_tasks(references(names, data))


def print_split(split: Split) -> None:
    """Print how many sets of each kind are on each side, and which are tested."""
    print("| kind | sets | test | validation | train | of these for a shipped prior | unused |")
    print("|---|---|---|---|---|---|---|")
    kinds = dict.fromkeys(member.kind for member in sorted(split.values(), key=lambda member: member.kind))
    for kind in (*kinds, "all"):
        members = [member for member in split.values() if kind in (member.kind, "all")]
        counts = Counter(member.side for member in members)
        permitted = sum(member.permitted for member in members if member.side == "train")
        cells = len(members), counts["test"], counts["validation"], counts["train"], permitted, counts["unused"]
        print(f"| {kind} | {' | '.join(map(str, cells))} |")
    print("\n| test set | kind | terms | why |\n|---|---|---|---|")
    for name in side(split, "test"):
        print(f"| {name} | {split[name].kind} | {split[name].terms} | {split[name].reason} |")
    print()


if __name__ == "__main__":
    main()
