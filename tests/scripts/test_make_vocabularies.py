from __future__ import annotations

import runpy
from pathlib import Path

import pytest

import retclip.vocabularies
from retclip.core.vocabulary import Category

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "make_vocabularies.py"


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(str(SCRIPT))


def test_lists_in_the_package_are_what_the_script_writes(script: dict, test_data: Path) -> None:
    lists = script["build_lists"](test_data)
    drawn = {"playground", "playground-seen"}  # scripts/make_playground_lists.py
    assert set(lists) | drawn == set(retclip.vocabularies.available_vocabularies())
    for name, (title, categories) in lists.items():
        stored = (Path(retclip.vocabularies.__file__).parent / f"{name}.txt").read_text(encoding="utf-8")
        assert stored == script["format_list"](title, categories)


def test_names_are_unique_in_order_of_first_appearance(script: dict) -> None:
    assert script["unique"]([" b", "a", "B ", "", "a"]) == ("b", "a")


def test_class_names_skip_ids_without_class(script: dict, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("0:invalid_class_id\n1:door,doors,\n3:bed")
    assert script["read_names"](tmp_path / "names.txt") == {1: ("door", "doors"), 3: ("bed",)}


def test_format_states_licences_and_kinds(script: dict) -> None:
    text = script["format_list"](["Title."], [Category(4, ("sea", "ocean"), False)])
    assert text.splitlines()[0] == "# Title."
    assert text.splitlines()[-1] == "4\tstuff\tsea, ocean"
