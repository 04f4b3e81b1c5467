"""Mask pooling: one vector per region from one dense feature map; no crop is ever encoded (RetCLIP, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from retclip.core.errors import require

# Name of the rule below inside a FeatureSpace: change it whenever the numbers change.
COVERAGE_MEAN = "coverage-mean/1"
_CHUNK_PIXELS = 16_000_000


def overlap_matrix(cells: int, extent: float, pixels: int) -> Tensor:
    """(cells, pixels) float32: which fraction of each feature cell each image pixel covers, along one axis.

    Args:
        cells: feature cells along the axis.
        extent: how many of them the image covers, 0 < extent <= cells, may be fractional.
        pixels: image pixels along the axis.
    """
    require(0 < extent <= cells, "extent", f"in (0, {cells}]", extent)
    edges = torch.arange(cells + 1, dtype=torch.float64) * (pixels / extent)
    positions = torch.arange(pixels + 1, dtype=torch.float64)
    low = torch.maximum(edges[:-1, None], positions[None, :-1])
    high = torch.minimum(edges[1:, None], positions[None, 1:])
    return ((high - low).clamp_min(0) * (extent / pixels)).float()


def mask_coverage(masks: Tensor, grid: tuple[int, int], extent: tuple[float, float]) -> Tensor:
    """Exact share of every feature cell that a mask covers: (N, H, W) bool or [0, 1] -> (N, h, w) float32 in [0, 1].

    An area integral, separable in rows and columns, so two small matrix products do it on any device. No mask vanishes,
    however small: its cells just get little weight, and the mean below divides by the total.
    """
    require(masks.ndim == 3, "masks", "(N, H, W)", tuple(masks.shape))
    height, width = masks.shape[1:]
    rows = overlap_matrix(grid[0], extent[0], height).to(masks.device)
    columns = overlap_matrix(grid[1], extent[1], width).to(masks.device).T
    # Masks arrive as one byte a pixel; only a bounded number is widened to float at a time.
    chunk = max(1, _CHUNK_PIXELS // (height * width))
    parts = [rows @ (part.float() @ columns) for part in torch.split(masks, chunk)]
    return torch.cat(parts) if parts else masks.new_zeros((0, *grid), dtype=torch.float32)


def pool(features: Tensor, coverage: Tensor) -> Tensor:
    """Mean feature of every region, weighted by coverage: (C, h, w), (N, h, w) -> (N, C).

    Raises ValueError for a region that covers nothing: it has no features.
    """
    require(
        features.shape[1:] == coverage.shape[1:],
        "coverage",
        f"(N, {features.shape[1]}, {features.shape[2]})",
        tuple(coverage.shape),
    )
    weights = coverage.flatten(1)
    totals = weights.sum(dim=1, keepdim=True)
    require(bool((totals > 0).all()), "masks", "at least one pixel each", "an empty mask")
    return (weights / totals) @ features.flatten(1).T.to(weights.dtype)
