"""The documentation is true: the method that it adds works as written, and every method has its row and its recipe."""

import json
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

import quickstudy
from conftest import tiny_encoder, word_task
from quickstudy.config import EncoderConfig, EpisodesConfig, NamesConfig
from quickstudy.data.columns import LABEL_NAMES, PAIR_NAMES, SCORE_NAMES, TEXT_NAMES
from quickstudy.data.source import SUFFIXES
from quickstudy.methods.catalog import METHODS, make, table
from quickstudy.models.batch import encode_set
from quickstudy.models.target import Classes

ROOT = Path(__file__).parents[1]


def test_the_method_that_the_guide_adds_works_from_the_check_to_a_classifier(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "adding-a-method.md").read_text(encoding="utf-8")
    known: dict[str, Any] = {"__name__": "guide"}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "adding-a-method.md", "exec"), known)
    monkeypatch.setattr(table, "METHODS", {**METHODS, "shrunken": known["shrunken"]})
    recipe = tomllib.loads(re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0])
    recipe["encoder"]["name"] = str(tiny_folder)
    recipe["outer"]["outer_steps"] = 2
    run = quickstudy.pretrain(recipe, tmp_path / "run")
    model = quickstudy.adapt(run, texts=["good film", "bad film"], labels=["y", "n"])
    assert model.method == "shrunken"
    assert model.predict(["good film", "bad film"]) == ["y", "n"]

    task, encoder = word_task(), tiny_encoder()
    support = encode_set(encoder, [task.train_split[i] for i in range(8)])
    tests = [task.test_split[i] for i in range(8)]
    probabilities = [
        learner.adapt(support, Classes(task.label_names)).predict_proba(tests)
        for learner in (known["shrunken"](encoder, fraction=0.0), make("protonet", encoder))
    ]
    torch.testing.assert_close(probabilities[0], probabilities[1])


def test_every_method_has_a_row_that_names_its_recipe() -> None:
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w+-]+)` \|.*\| (?:`(\w+)`|-) \|$", text, re.MULTILINE))
    assert rows.keys() == METHODS.keys()
    for method, recipe in rows.items():
        if recipe:
            values = tomllib.loads((ROOT / "recipes" / f"{recipe}.toml").read_text(encoding="utf-8"))
            assert values["method"]["name"] == method
    assert [m for m, recipe in rows.items() if not recipe] == [
        "majority",
        "nearest-neighbour",
        "linear-probe",
        "finetune",
    ]


def test_the_settings_page_is_what_the_catalog_says() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "make_settings.py"))
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == script["write_page"](), "run: python docs/make_settings.py"


def test_the_tests_that_hold_the_guarantees_of_scaling_are_there() -> None:
    named = set(re.findall(r"`(test_\w+)` \|", (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")))
    there = re.findall(
        r"^def (test_\w+)", (ROOT / "tests" / "test_processes.py").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert named == set(there)


def test_the_page_of_files_names_the_columns_and_files_that_are_looked_for() -> None:
    text = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    cells = {
        row.split("|")[1].strip(): row.split("|")[2].strip() for row in re.findall(r"^\|.*\|$", text, re.MULTILINE)
    }
    for row, names in (("text", TEXT_NAMES), ("label", LABEL_NAMES), ("number (`--regression`)", SCORE_NAMES)):
        assert tuple(cells[row].split(", ")) == names
    pairs = re.findall(r"(\w+) \+ (\w+)", cells["two texts"])
    assert set(pairs) <= set(PAIR_NAMES)
    assert {tuple(re.sub("_?[12ab]$", "", name) for name in pair) for pair in set(PAIR_NAMES) - set(pairs)} <= {
        tuple(re.sub("[12]$", "", name) for name in pair) for pair in pairs
    }
    first_table = text.partition("## Which columns")[0]
    assert set(re.findall(r"^\| (`.*`) \|", first_table, re.MULTILINE)) == {
        "`.csv`, `.tsv`",
        *(f"`{suffix}`" for suffix in SUFFIXES if suffix not in (".csv", ".tsv")),
    }


def test_the_settings_page_has_every_setting_of_the_encoder_with_its_default() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8").partition("## The outer loop")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| `?([^|`]*)`? \|", page, re.MULTILINE))
    assert rows.keys() == EncoderConfig.model_fields.keys()
    assert (rows["name"], rows["max_length"]) == ('"minilm"', str(EncoderConfig().max_length))
    others = dict(re.findall(r"^\| (\w+) \| (.*?) \|", page, re.MULTILINE))
    defaults = {**EpisodesConfig().model_dump(mode="json"), **NamesConfig().model_dump()}
    written = {name: json.dumps(value) for name, value in defaults.items() if name != "names"}
    assert written.items() <= others.items()


def test_the_tests_that_hold_the_guarantees_are_there() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))
    files = (file.read_text(encoding="utf-8") for file in (ROOT / "tests").glob("test_*.py"))
    there = {name for source in files for name in re.findall(r"^def (test_\w+)", source, re.MULTILINE)}
    assert len(named) > 20
    assert named <= there, named - there
    assert all((ROOT / script).is_file() for script in re.findall(r"`(dev/\w+\.py)`", text))
