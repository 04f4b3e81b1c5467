"""Stored segments and neighbours."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from retclip.core.segments import Neighbors, StoredSegment, segment_identity

SEGMENT = StoredSegment(
    1, "cat", "cat", "human", 1.0, "coco", "train", "9", "9.jpg", "0" * 64, 4, 4, (0, 0, 4, 4), 3, b"x", "a", "a",
    float("nan"), float("nan"), "", False, True, "", "",
)  # fmt: skip


def test_identity_is_source_picture_mask_and_size() -> None:
    given = ("coco", "ab", b"runs", (4, 5))
    changed = [("voc", *given[1:]), ("coco", "ac", *given[2:]), (*given[:2], b"rums", (4, 5)), (*given[:3], (5, 4))]
    values = [segment_identity(*arguments) for arguments in (given, *changed)]
    assert all(a != b for a, b in combinations(values, 2))
    assert values[0] == segment_identity(*given)
    assert all(0 <= value < 1 << 64 for value in values)


def test_identity_never_changes_between_releases() -> None:
    # Databases keep this number: another rule would store every segment twice.
    assert segment_identity("coco", "00" * 32, b"0102", (2, 2)) == 0xABDFF47EEB2261D5


@pytest.mark.parametrize("change", [{"segment_id": -1}, {"segment_id": 1 << 64}, {"label": "  "}, {"area": 0}])
def test_impossible_segments_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="StoredSegment"):
        replace(SEGMENT, **change)  # type: ignore[arg-type]


def test_neighbours_have_one_shape() -> None:
    tables = {
        "distance": np.zeros((2, 3), np.float32),
        "class_id": np.zeros((2, 3), np.int32),
        "shard": np.zeros((2, 3), np.int32),
        "row": np.zeros((2, 3), np.int64),
        "segment_id": np.zeros((2, 3), np.uint64),
    }
    assert Neighbors(**tables).distance.shape == (2, 3)
    for name, table in tables.items():
        with pytest.raises(ValueError, match="Neighbors"):
            Neighbors(**{**tables, name: table[:, 0] if name == "distance" else table[:, :2]})
