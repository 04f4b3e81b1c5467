from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retclip.corpora.cells import parse_boxes, parse_captions, parse_labels, parse_text

names = st.text("abc xyz-,", min_size=1, max_size=8).map(str.strip).filter(bool)


@given(st.lists(names, unique=True))
def test_all_spellings_of_a_label_list_mean_the_same(labels: list[str]) -> None:
    for cell in (labels, json.dumps(labels), "|".join(labels), ";".join(labels), " | ".join(labels)):
        assert parse_labels(cell) == tuple(labels)


@pytest.mark.parametrize(
    ("cell", "labels"), [(None, ()), ("", ()), ("a||b|a", ("a", "b")), (7, ("7",)), ("a;b|c", ("a;b", "c"))]
)
def test_labels_of_odd_cells(cell: object, labels: tuple[str, ...]) -> None:
    assert parse_labels(cell) == labels


@pytest.mark.parametrize("cell", [{"a": 1}, [["a"]], "[1", True, "[" * 100_000])
def test_other_label_cells_are_refused(cell: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_labels(cell)


@given(st.tuples(st.floats(0, 50), st.floats(0, 50), st.floats(51, 99), st.floats(51, 99)), names)
def test_boxes_come_from_lists_and_their_text(box: tuple[float, float, float, float], label: str) -> None:
    cell = [[*box, label]]
    assert parse_boxes(cell) == parse_boxes(json.dumps(cell)) == ((box, label),)


@pytest.mark.parametrize("cell", [None, "", "[]", []])
def test_no_boxes(cell: object) -> None:
    assert parse_boxes(cell) == ()


@pytest.mark.parametrize(
    "cell",
    [
        "{}",
        "x",
        '[[0, 0, 1, Infinity, "a"]]',
        5,
        [7],
        [[0, 0, 1, 1]],
        [[0, 0, 1, 1, ""]],
        [[1, 0, 1, 1, "a"]],
        [[0, 0, 1, math.nan, "a"]],
        [["x", 0, 1, 1, "a"]],
    ],
)
def test_wrong_boxes_are_refused(cell: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_boxes(cell)


def test_captions_and_texts() -> None:
    assert parse_captions(" A cat. ") == ("A cat.",)
    assert parse_captions(["a", "", None]) == ("a",)
    assert parse_captions(None) == ()
    assert parse_text(3) == "3"
