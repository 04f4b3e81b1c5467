"""Masks are supervised at sampled points instead of all pixels (PointRend, section 4.2; Mask2Former, section 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Uniform = Callable[[tuple[int, ...]], Tensor]
"""Draws numbers of a shape from [0, 1); a recorded sequence can stand in its place."""


@dataclass(frozen=True)
class PointSettings:
    """Numbers of points.

    Attributes:
        loss: points per mask in the loss.
        matching: points shared by all masks of an image while matching.
        oversampling: candidates per chosen point.
        uncertain: share of the points that are the most uncertain candidates; the rest is uniform.
    """

    loss: int = 12_544
    matching: int = 12_544
    oversampling: float = 3.0
    uncertain: float = 0.75


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of maps (N, h, w) at points (N, P, 2) or (1, P, 2), (x, y) in [0, 1] -> (N, P); zero outside."""
    grid = 2 * points.expand(len(maps), -1, -1)[:, :, None] - 1
    return F.grid_sample(maps[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[:, 0, :, 0]


@torch.no_grad()
def uncertain_points(mask_logits: Tensor, settings: PointSettings, uniform: Uniform) -> Tensor:
    """Points for the loss of each mask: the candidates closest to the mask's border, and uniform ones.

    Args:
        mask_logits: (N, h, w).
        settings: numbers of points.
        uniform: source of random numbers; called twice.

    Returns:
        (N, settings.loss, 2) as (x, y) in [0, 1].
    """
    count = len(mask_logits)
    candidates = uniform((count, int(settings.loss * settings.oversampling), 2))
    certainty = sample_points(mask_logits, candidates).abs()
    nearest = int(settings.uncertain * settings.loss)
    chosen = certainty.topk(nearest, dim=1, largest=False).indices
    border = candidates.gather(1, chosen[:, :, None].expand(-1, -1, 2))
    return torch.cat([border, uniform((count, settings.loss - nearest, 2))], 1)
