"""Fixed position encodings of feature maps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TEMPERATURE = 10_000.0


def sine_positions(height: int, width: int, channels: int, device: torch.device | None = None) -> Tensor:
    """Normalised sine encoding of a full feature map (DETR, appendix A.4).

    Cells are counted from 1 and divided by the count, so that the last one lies at 2 pi.

    Args:
        height: cells.
        width: cells.
        channels: of the result, a multiple of 4; the first half encodes y, the second x, sine and cosine alternating.
        device: of the result.

    Returns:
        (channels, height, width) float32.
    """
    half = channels // 2
    frequency = TEMPERATURE ** (2 * torch.arange(half, device=device).div(2, rounding_mode="floor") / half)
    encoded = []
    for size in (height, width):
        place = torch.arange(1, size + 1, dtype=torch.float32, device=device)
        angle = (place / (size + 1e-6) * (2 * math.pi))[:, None] / frequency
        encoded.append(torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=2).flatten(1))
    y, x = encoded
    rows = y.T[:, :, None].expand(half, height, width)
    columns = x.T[:, None, :].expand(half, height, width)
    return torch.cat([rows, columns])
