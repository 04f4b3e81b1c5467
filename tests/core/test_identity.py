"""Feature spaces: equal exactly when their vectors may be compared."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from retclip.core.identity import FeatureSpace

SPACE = FeatureSpace(
    "timm/x", "ab" * 32, 7, ("blocks.1", "head"), 16, 480, 1333, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), "", "mean/1"
)
CHANGES: dict[str, Any] = {
    "encoder": "timm/y", "weights_sha256": "cd" * 32, "dim": 8, "layers": ("head", "blocks.1"), "stride": 32,
    "short_side": 481, "long_side": 1334, "mean": (0.5, 0.4, 0.31), "std": (0.2, 0.2, 0.21),
    "activation": "quick_gelu", "pooling": "mean/2",
}  # fmt: skip


def test_every_field_counts() -> None:
    assert set(CHANGES) == {field.name for field in fields(FeatureSpace)}
    others = [replace(SPACE, **{name: value}) for name, value in CHANGES.items()]
    assert len({SPACE.fingerprint, *(other.fingerprint for other in others)}) == len(CHANGES) + 1
    for name, other in zip(CHANGES, others, strict=True):
        assert other != SPACE
        differences = SPACE.differences(other)
        assert len(differences) == 1
        assert differences[0].startswith(f"{name}: ")
    assert SPACE.differences(replace(SPACE)) == []


def test_json_and_back_is_the_same_space() -> None:
    again = FeatureSpace.from_json(json.loads(json.dumps(SPACE.to_json())))
    assert again == SPACE
    assert again.fingerprint == SPACE.fingerprint


def test_missing_and_unknown_fields_are_refused() -> None:
    table = SPACE.to_json()
    with pytest.raises(ValueError, match="FeatureSpace fields"):
        FeatureSpace.from_json({**table, "colour": 1})
    del table["dim"]
    with pytest.raises(ValueError, match="FeatureSpace fields"):
        FeatureSpace.from_json(table)


@pytest.mark.parametrize("change", [{"dim": 0}, {"stride": 0}, {"short_side": 0}, {"short_side": 2000}])
def test_impossible_numbers_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        replace(SPACE, **change)
