"""Fuzz: whatever stands in a file, reading it gives rows or one error with its name; `dev/fuzz.py` is the long form."""

import json
import random
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quickstudy.errors import QuickstudyError
from quickstudy.storage.reading import UnreadableError, decode, parse_json, parse_toml, seal, unseal
from quickstudy.storage.trust import is_inside
from quickstudy.training.record import StepRecord
from quickstudy.visible import visible

sys.path.append(str(Path(__file__).parent.parent / "dev"))

import fuzz_folders
from damage_trial import make_folders, quick_pages
from fuzz import FORMATS, GOOD, mutate, read

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
QUICK = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

numbers = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "xlsx"])
@QUICK
@given(seed=st.integers(0, 2**32))
def test_a_changed_file_is_read_or_refused_by_its_name(name: str, seed: int, tmp_path: Path) -> None:
    chooser = random.Random(seed)
    file = tmp_path / f"input.{name}"
    file.write_bytes(mutate(chooser.choice(FORMATS[name]()), chooser))
    assert read(file) in GOOD


@pytest.mark.parametrize("name", ["csv", "jsonl", "json", "parquet", "toml"])
@QUICK
@given(content=st.binary(max_size=200))
def test_bytes_of_any_kind_are_read_or_refused_by_their_name(name: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / f"input.{name}"
    file.write_bytes(content)
    assert read(file) in GOOD


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: str(file.name))
def test_what_once_failed_does_not_fail_again(file: Path) -> None:
    assert read(file) == "refused"


@settings(QUICK, max_examples=25)
@given(values=st.dictionaries(st.text(), plain, max_size=4))
def test_a_seal_holds_for_every_object_and_breaks_with_any_change(values: dict[str, object]) -> None:
    values.pop("seal", None)
    sealed = json.loads(json.dumps(seal(values)))
    assert unseal(sealed) == json.loads(json.dumps(values))
    with pytest.raises(UnreadableError):
        unseal(sealed | {"one more": 1} if "one more" not in values else {**sealed, "one more": [values["one more"]]})


@QUICK
@given(content=st.binary(max_size=80) | plain.map(lambda value: json.dumps(value).encode()))
def test_reading_raises_one_kind_of_error(content: bytes) -> None:
    for parse in (parse_json, parse_toml, StepRecord.from_json):
        said = ""
        try:
            parse(decode(content))
        except UnicodeError:
            said = "another kind"
        except ValueError as error:
            said = "" if str(error) else "nothing"
        assert not said


@QUICK
@given(text=st.text())
def test_visible_text_has_no_control_character_and_keeps_all_others(text: str) -> None:
    shown = visible(text)
    assert len(shown) == len(text)
    assert not [c for c in shown if (c < " " and c not in "\t\n") or "\x7f" <= c < "\xa0" or "\u202a" <= c <= "\u202e"]
    assert all(a == b or a < " " or a >= "\x7f" for a, b in zip(text, shown, strict=True))


@QUICK
@given(parts=st.lists(st.sampled_from(["..", ".", "a", "b.json", "", "C:", "\\", "/"]), max_size=5))
def test_a_name_that_is_inside_stays_inside(parts: list[str]) -> None:
    name = "/".join(parts)
    if is_inside(name):
        assert Path("/run", name).resolve().is_relative_to("/run")
    elif parts:
        assert {"..", "C:", "\\", "/", ""} & set(parts)


def test_an_error_of_ours_is_what_a_caller_catches() -> None:
    assert issubclass(UnreadableError, ValueError)
    assert not issubclass(UnreadableError, QuickstudyError)  # who reads adds the place and the way out


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each kind, whole."""
    place = tmp_path_factory.mktemp("folders")
    with quick_pages():
        make_folders(place)
    return place


@pytest.mark.parametrize("kind", fuzz_folders.KINDS)
def test_a_changed_folder_is_used_or_refused_by_its_name(kind: str, folders: Path) -> None:
    assert fuzz_folders.try_kind(kind, folders, Namespace(inputs=40, seed=1)) == []


def test_a_change_that_the_code_does_not_notice_would_be_seen(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise KeyError("a traceback")

    monkeypatch.setitem(fuzz_folders.KINDS, "model", lambda _: ("model", fuzz_folders.Use(fail)))
    assert len(fuzz_folders.try_kind("model", folders, Namespace(inputs=2, seed=1))) == 2
