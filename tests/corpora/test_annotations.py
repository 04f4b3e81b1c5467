from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retclip.core.errors import ImageError, InputError
from retclip.corpora import annotations
from retclip.corpora.annotations import file_names, missing_files, read_json, read_lines, rectangle

coordinates = st.floats(-50, 50)


@given(coordinates, coordinates, st.floats(0.01, 40), st.floats(0.01, 40))
def test_rectangle_holds_exactly_the_pixels_that_the_clipped_box_touches(
    x0: float, y0: float, width: float, height: float
) -> None:
    x1, y1 = x0 + width, y0 + height
    if min(x1, 30) <= max(x0, 0) or min(y1, 20) <= max(y0, 0):
        with pytest.raises(ImageError, match="no area"):
            rectangle("photo", (x0, y0, x1, y1), (20, 30))
        return
    box, mask = rectangle("photo", (x0, y0, x1, y1), (20, 30))
    assert box == (max(x0, 0), max(y0, 0), min(x1, 30), min(y1, 20))
    columns, rows = np.arange(30), np.arange(20)
    touched = ((rows + 1 > box[1]) & (rows < box[3]))[:, None] & ((columns + 1 > box[0]) & (columns < box[2]))
    np.testing.assert_array_equal(mask, touched)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_boxes_must_be_finite(value: float) -> None:
    with pytest.raises(ImageError, match="not finite"):
        rectangle("photo", (0.0, value, 3.0, 4.0), (5, 5))


def test_names_of_a_folder_never_hold_a_separator(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "b.txt").touch()
    (tmp_path / "a.txt").touch()
    assert file_names(tmp_path) == {"a.txt"}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 200_000], ids=["empty", "cut", "list", "bytes", "deep"]
)
def test_unreadable_json_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "panoptic.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"panoptic\.json") as caught:
        read_json(path)
    assert caught.value.code == "E103"


def test_oversized_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotations, "MAX_JSON_BYTES", 10)
    monkeypatch.setattr(annotations, "MAX_TEXT_BYTES", 10)
    path = tmp_path / "big"
    path.write_text(json.dumps({"key": "a long value"}))
    for read in (read_json, read_lines):
        with pytest.raises(InputError, match="too large"):
            read(path)


def test_missing_files_are_counted_and_the_first_ones_named() -> None:
    assert missing_files("are gone", []) == []
    assert missing_files("are gone", ["a", "b"]) == ["2 are gone: a, b"]
    assert missing_files("are gone", list("abcde")) == ["5 are gone: a, b, c, ..."]
