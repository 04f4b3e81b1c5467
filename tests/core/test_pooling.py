"""Mask pooling against a brute-force area integral."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retclip.core.pooling import mask_coverage, overlap_matrix, pool


@st.composite
def axes(draw: st.DrawFn) -> tuple[int, float, int]:
    """Cells, extent and pixels of one axis."""
    cells = draw(st.integers(1, 5))
    extent = draw(st.one_of(st.just(float(cells)), st.floats(cells * 0.05, cells, allow_nan=False)))
    return cells, extent, draw(st.integers(1, 13))


def brute_force(cells: int, extent: float, pixels: int, fine: int = 400) -> np.ndarray:
    """Share of each cell that lies on each pixel, by counting sample points of the cell."""
    table = np.zeros((cells, pixels))
    for cell in range(cells):
        samples = cell + (np.arange(fine) + 0.5) / fine
        pixel = np.floor(samples * pixels / extent).astype(int)
        inside = pixel[samples < extent]
        for index in inside[inside < pixels]:
            table[cell, index] += 1 / fine
    return table


@given(axes())
def test_overlap_is_the_area_integral_along_an_axis(axis: tuple[int, float, int]) -> None:
    cells, extent, pixels = axis
    matrix = overlap_matrix(*axis).numpy()
    np.testing.assert_allclose(matrix, brute_force(*axis), atol=2 / 400 + 1e-6)
    # Every pixel gives all it has: extent / pixels of a cell; a cell inside the image is covered once.
    np.testing.assert_allclose(matrix.sum(axis=0), extent / pixels, atol=1e-5)
    covered = np.clip(extent - np.arange(cells), 0, 1)
    np.testing.assert_allclose(matrix.sum(axis=1), covered, atol=1e-5)


@given(axes(), axes(), st.integers(0, 1000))
def test_coverage_is_the_product_of_the_axes(
    rows: tuple[int, float, int], columns: tuple[int, float, int], seed: int
) -> None:
    masks = torch.rand(3, rows[2], columns[2], generator=torch.Generator().manual_seed(seed)) < 0.5
    coverage = mask_coverage(masks, (rows[0], columns[0]), (rows[1], columns[1]))
    expected = np.einsum("ya,nab,xb->nyx", brute_force(*rows), masks.numpy(), brute_force(*columns))
    np.testing.assert_allclose(coverage.numpy(), expected, atol=0.011)
    assert coverage.min() >= 0
    assert coverage.max() <= 1 + 1e-5


@given(axes(), axes(), st.integers(0, 1000))
def test_no_mask_vanishes_and_pooling_is_a_weighted_mean(
    rows: tuple[int, float, int], columns: tuple[int, float, int], seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    single = torch.zeros(1, rows[2], columns[2], dtype=torch.bool)
    single[0, seed % rows[2], seed % columns[2]] = True
    coverage = mask_coverage(single, (rows[0], columns[0]), (rows[1], columns[1]))
    assert coverage.sum() > 0
    features = torch.randn(4, rows[0], columns[0], generator=random)
    pooled = pool(features, coverage)[0]
    weight = coverage[0] / coverage.sum()
    torch.testing.assert_close(pooled, (features * weight).sum(dim=(1, 2)), atol=1e-5, rtol=1e-4)


def test_whole_image_pools_to_the_mean_of_what_the_image_covers() -> None:
    features = torch.arange(6.0).view(1, 2, 3)
    whole = torch.ones(1, 8, 8, dtype=torch.bool)
    assert pool(features, mask_coverage(whole, (2, 3), (2.0, 3.0))).item() == pytest.approx(2.5)
    # Of the second row half is padding, of the third column all.
    cut = pool(features, mask_coverage(whole, (2, 3), (1.5, 2.0))).item()
    assert cut == pytest.approx((0 + 1 + 0.5 * (3 + 4)) / 3)


@pytest.mark.parametrize("chunk", [1, 70, 10_000])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    masks = torch.rand(7, 6, 10, generator=torch.Generator().manual_seed(0)) < 0.5
    expected = mask_coverage(masks, (2, 3), (2.0, 2.5))
    monkeypatch.setattr("retclip.core.pooling._CHUNK_PIXELS", chunk)
    torch.testing.assert_close(mask_coverage(masks, (2, 3), (2.0, 2.5)), expected)


def test_no_masks_give_no_rows() -> None:
    coverage = mask_coverage(torch.zeros(0, 5, 5, dtype=torch.bool), (2, 2), (2.0, 2.0))
    assert coverage.shape == (0, 2, 2)
    assert pool(torch.zeros(3, 2, 2), coverage).shape == (0, 3)


def test_empty_masks_and_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="empty mask"):
        pool(torch.zeros(3, 2, 2), torch.zeros(1, 2, 2))
    with pytest.raises(ValueError, match="coverage"):
        pool(torch.zeros(3, 2, 2), torch.ones(1, 2, 3))
    with pytest.raises(ValueError, match="extent"):
        overlap_matrix(3, 3.5, 10)
    with pytest.raises(ValueError, match="masks"):
        mask_coverage(torch.ones(4, 4), (2, 2), (2.0, 2.0))
