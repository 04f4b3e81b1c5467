"""Tensor files say when a byte of them changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save

from retclip.core.sealed import read_notes, read_sealed, seal, unseal

ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "keys": np.arange(6, dtype=np.float32).reshape(2, 3),
    "none": np.zeros((0, 4), np.float16),
    "valid": np.array([True, False]),
}
NOTES = {"sha256": "ab", "height": "6"}


def test_what_is_sealed_comes_back_in_whole_or_in_part(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(seal(ARRAYS, NOTES))
    arrays, notes = read_sealed(tmp_path / "x")
    assert notes == NOTES
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    assert set(read_sealed(tmp_path / "x", without=("keys",))[0]) == {"none", "valid"}


def test_no_changed_byte_gives_other_tensors_or_notes(tmp_path: Path) -> None:
    data = seal(ARRAYS, NOTES)
    for place in range(len(data)):
        (tmp_path / "x").write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        with pytest.raises((SafetensorError, ValueError)):
            read_sealed(tmp_path / "x", unsealed=True)
        with pytest.raises((SafetensorError, ValueError)):
            unseal((tmp_path / "x").read_bytes())


def test_what_is_read_at_once_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(seal(ARRAYS, NOTES))
    arrays, notes = unseal((tmp_path / "x").read_bytes())
    assert notes == read_notes(tmp_path / "x") == NOTES
    assert {name: array.tobytes() for name, array in arrays.items()} == {n: a.tobytes() for n, a in ARRAYS.items()}


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"__metadata__": 3}', b"[" * 200_000, b"\xff\xfe"])
def test_heads_that_are_none_have_no_notes(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "x").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(ValueError, match=r"sealed|codec|JSON|Expecting"):
        read_notes(tmp_path / "x")


def test_a_head_that_claims_to_be_giant_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes((1 << 40).to_bytes(8, "little"))
    with pytest.raises(ValueError, match="a head of at most"):
        read_notes(tmp_path / "x")


def test_files_without_seals_are_read_only_where_that_is_asked(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(save(ARRAYS, NOTES))
    assert read_sealed(tmp_path / "x", unsealed=True)[1] == NOTES
    with pytest.raises(ValueError, match="as it was written"):
        read_sealed(tmp_path / "x")
