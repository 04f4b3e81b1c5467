from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retclip.core.errors import InputError
from retclip.core.vocabulary import normalise_name
from retclip.vocabularies import available_vocabularies, load_vocabulary

# (classes, things, ids of the first and last class)
SIZES = {
    "ade150": (150, 100, 0, 149),
    "cityscapes19": (19, 8, 0, 18),
    "coco133": (133, 80, 1, 200),
    "lvis1203": (1203, 1203, 1, 1203),
    "playground": (46, 31, 1, 46),
    "playground-seen": (30, 20, 1, 41),
    "voc20": (20, 20, 1, 20),
}
words = st.text("abcdefgh ", min_size=1, max_size=12).map(str.strip).filter(bool)


def problem(text: str) -> InputError:
    with pytest.raises(InputError) as caught:
        load_vocabulary(text)
    assert caught.value.code == "E121"
    return caught.value


def test_lists_of_the_package() -> None:
    assert available_vocabularies() == tuple(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_kinds_and_ids(name: str) -> None:
    vocabulary = load_vocabulary(f"@{name}")
    things = sum(category.is_thing for category in vocabulary)
    assert (len(vocabulary), things, vocabulary[0].id, vocabulary[-1].id) == SIZES[name]
    assert vocabulary.name == name


def test_coco_names_have_no_suffix_and_keep_the_official_one() -> None:
    by_id = {category.id: category for category in load_vocabulary("@coco133")}
    assert by_id[187].names == ("sky", "sky-other-merged", "clouds")
    assert by_id[193].names[:2] == ("grass", "grass-merged")
    assert not by_id[193].is_thing


def test_ade_names_start_with_the_official_one() -> None:
    by_id = {category.id: category for category in load_vocabulary("@ade150")}
    assert by_id[0].name == "wall"
    assert by_id[1].names == ("building", "buildings", "edifice", "edifices")
    assert by_id[12].name == "person"
    assert by_id[12].is_thing
    assert len(load_vocabulary("@ade150").shared_names()["screen"]) == 3


@given(st.lists(words, min_size=1, max_size=8, unique_by=normalise_name))
def test_inline_names_become_things_in_order(names: list[str]) -> None:
    vocabulary = load_vocabulary(" , ".join(names))
    assert vocabulary.names == tuple(names)
    assert [category.id for category in vocabulary] == list(range(len(names)))
    assert all(category.is_thing for category in vocabulary)


def test_inline_names_may_be_stuff_and_end_with_a_comma() -> None:
    assert [(c.name, c.is_thing) for c in load_vocabulary("pier, Stuff: sky, thing:kayak,")] == [
        ("pier", True),
        ("sky", False),
        ("kayak", True),
    ]


def test_text_files_have_one_class_a_line(tmp_path: Path) -> None:
    path = tmp_path / "harbour.txt"
    path.write_text("# harbour\n\npier, wharf, pier\r\nstuff: sea , ocean\n", encoding="utf-8-sig")
    vocabulary = load_vocabulary(str(path))
    assert vocabulary.name == "harbour"
    assert [(c.id, c.names, c.is_thing) for c in vocabulary] == [
        (0, ("pier", "wharf"), True),
        (1, ("sea", "ocean"), False),
    ]


def test_own_format_keeps_its_ids(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("7\tstuff\tsea, ocean\n3\tthing\tpier\n")
    assert [(c.id, c.name, c.is_thing) for c in load_vocabulary(str(path))] == [(7, "sea", False), (3, "pier", True)]


def test_json_names_may_hold_commas(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps(["Lemon, lime", {"name": "sea", "synonyms": ["ocean"], "is_thing": False}]))
    assert [(c.names, c.is_thing) for c in load_vocabulary(str(path))] == [
        (("Lemon, lime",), True),
        (("sea", "ocean"), False),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sofa\nbed\nSofa\n", "'sofa' in line 1, line 3"),
        ("1\tthing\ta\n1\tthing\tb\n", "'id 1' in line 1, line 2"),
        ("1\tthing\ta\nb\n", "Some classes have ids and some have none, see line 2"),
        ("# only a comment\n", "no classes"),
        ("", "no classes"),
        ("a\n , \n", "In line 2: there is no name"),
        ("stuff:\n", "In line 1: there is no name"),
        ("a\n" + "b" * 201, "In line 2: 'b.*more than 200 characters"),
        ("a\n\x1b[31mred\n", "In line 2: .*control characters"),
        ("\n".join(f"class {n}" for n in range(10_001)), "10,001 classes; the limit is 10,000"),
        ("\n".join(["a", "b", "c", "d", "e", "f"] * 2), "and 1 more"),
    ],
)
def test_problems_of_text_name_the_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "own.txt"
    path.write_text(content)
    error = problem(str(path))
    assert "own.txt" in error.what
    with pytest.raises(InputError, match=message):
        load_vocabulary(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("{}", "no list"),
        ("[]", "no classes"),
        ("[1]", "In entry 1"),
        ('["a", {"synonyms": []}]', "In entry 2"),
        ('[{"name": "a", "kind": "thing"}]', "In entry 1"),
        ('[{"name": "a", "is_thing": 1}]', "is_thing is no bool"),
        ('[{"name": "a", "synonyms": [1]}]', "synonyms are not all names"),
        ('["a", "A"]', "'a' in entry 1, entry 2"),
    ],
)
def test_problems_of_json_name_the_entry(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "own.json"
    path.write_text(content)
    assert message in problem(str(path)).why


def test_undecodable_and_oversized_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.txt"
    path.write_bytes(b"caf\xe9\n")
    assert "cannot be read" in problem(str(path)).why
    monkeypatch.setattr("retclip.vocabularies.loading.MAX_FILE_BYTES", 3)
    assert "larger than 3 bytes" in problem(str(path)).why


@pytest.mark.parametrize("text", ["lists/mine", "mine.txt", "mine.JSON", "a, b.csv", "c:\\lists"])
def test_what_looks_like_a_path_must_exist(text: str) -> None:
    assert problem(text).why == "There is no such file."


def test_a_folder_is_no_list(tmp_path: Path) -> None:
    assert problem(str(tmp_path)).why == "There is no such file."


@pytest.mark.parametrize("text", ["", " , ,"])
def test_nothing_is_no_vocabulary(text: str) -> None:
    assert "no classes" in problem(text).why


def test_doubled_inline_names_are_counted_from_one() -> None:
    assert "'sky' in name 1, name 3" in problem("sky, sea, Sky").why


def test_long_inline_lists_are_no_paths() -> None:
    assert len(load_vocabulary(", ".join(f"class number {n}" for n in range(2_000)))) == 2_000


@pytest.mark.parametrize(("text", "near"), [("@coco", "@coco133"), ("@ADE150", "@ade150"), ("@lvis", "@lvis1203")])
def test_unknown_lists_get_a_suggestion(text: str, near: str) -> None:
    assert f"Did you mean '{near}'?" in problem(text).why
    assert "Did you mean" not in problem("@zzzz").why


@pytest.mark.parametrize("text", ["@../loading", "@", "@coco133.txt"])
def test_names_of_lists_are_no_paths(text: str) -> None:
    assert problem(text).why.startswith("There is no such list.")
