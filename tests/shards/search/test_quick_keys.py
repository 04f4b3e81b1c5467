"""Quick keys stay as near to the defined ones as they say, in every format that a kernel holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retclip.shards.moments import Moments
from retclip.shards.search.kernels import CPU_KERNELS, Kernel, float16_kernel
from retclip.shards.search.keys import read_keys
from retclip.shards.search.quick_keys import cast, quick_keys, squared_lengths
from retclip.shards.search.scope import Scope
from retclip.shards.transforms import KINDS, NORM_FLOOR, fit, normalised

KERNELS = tuple({kernel.dtype: kernel for kernel in (*CPU_KERNELS, float16_kernel("cpu"))}.values())


def farthest(found: np.ndarray, keys: np.ndarray) -> float:
    return float(np.linalg.norm(found.astype(np.float64) - keys, axis=1).max(initial=0.0))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(KINDS),
    st.integers(2, 60),
    st.sampled_from((1, 3, 127, 129, 768)),
    st.sampled_from((1e-3, 0.1, 10.0)),
)
def test_quick_keys_are_within_their_bound(seed: int, kind: str, rows: int, dim: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = normalised(rng.standard_normal(dim) + spread * rng.standard_normal((rows, dim))).astype(np.float16)
    transform = fit(kind, Moments.of(vectors))
    out = np.full((rows, transform.width(dim)), np.nan, np.float32)
    bound = quick_keys(vectors, transform, out)
    assert farthest(out, transform.keys(vectors)) <= bound < 4e-5


@pytest.mark.parametrize("length", [0.0, NORM_FLOOR * (1 - 2**-10), NORM_FLOOR, NORM_FLOOR * 1.5, 1.0])
def test_keys_near_the_floor_are_zero_where_the_defined_ones_are(length: float) -> None:
    vectors = np.full((3, 4), length / 2, np.float16)
    out = np.empty((3, 4), np.float32)
    quick_keys(vectors, fit("none", Moments.zero(4)), out)
    assert out.tolist() == [[0.5 if length >= NORM_FLOOR else 0.0] * 4] * 3


@given(st.integers(0, 99), st.sampled_from((1, 127, 128, 129, 1000)))
def test_squared_lengths(seed: int, dim: int) -> None:
    values = np.random.default_rng(seed).standard_normal((5, dim)).astype(np.float32)
    np.testing.assert_allclose(squared_lengths(values), (values.astype(np.float64) ** 2).sum(axis=1), rtol=2.0**-17)


@pytest.mark.parametrize(("rows", "width"), [(0, 5), (3, 0), (1, 1), (7, 40_000), (100, 768)])
def test_a_cast_in_pieces_is_a_cast(rows: int, width: int) -> None:
    source = torch.from_numpy(np.random.default_rng(0).standard_normal((rows, width)))
    target = torch.empty((rows, width), dtype=torch.float16)
    cast(source, target)
    assert torch.equal(target, source.half())


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("passing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_tell_what_they_lost(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: Kernel, kind: str, passing: bool
) -> None:
    monkeypatch.setattr("retclip.shards.search.keys.BLOCK_ROWS", 70)
    monkeypatch.setattr("retclip.shards.search.keys._STEP_ROWS", 9)
    segments, _ = make.rows(200)
    vectors = np.random.default_rng(3).standard_normal((200, 96)).astype(np.float32) + 0.5
    database = make.build(tmp_path / "d.retdb", segments, vectors, shard_rows=50)
    transform = fit(kind, database.snapshot.moments())
    scope = Scope.of(database.snapshot, (0, 2, 4))
    begun, places = [], set()
    for block in read_keys(scope, transform, kernel, passing):
        positions = np.arange(block.begin, block.begin + len(block.keys))
        assert block.keys.dtype == kernel.dtype
        lost = farthest(block.keys.float().numpy(), transform.keys(scope.vectors_at(positions)))
        assert lost <= block.loss < 10 * lost + 4e-5
        begun.append(block)  # what is held on to keeps its memory
        places.add(block.keys.data_ptr())
    assert [block.begin for block in begun] == list(range(0, len(scope), 70))
    assert len(places) == (1 if passing else len(begun))
