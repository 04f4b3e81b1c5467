"""Large-scale jittering: flip, scale by 0.1 to 2, crop or pad to a fixed square (Ghiasi et al., section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.int32]

PADDING_COLOUR = 128
PADDING_ID = (1 << 24) - 1  # 255 in all three channels of an id picture: no segment has it


@dataclass(frozen=True)
class JitterSettings:
    """size: side of the square, pixels; scale limits relative to fitting the square; probability of a mirror image."""

    size: int = 1024
    smallest: float = 0.1
    largest: float = 2.0
    flip: float = 0.5


def jittered_size(height: int, width: int, scale: float, target: int) -> tuple[int, int]:
    """Size after fitting an image into a square of `target * scale` pixels; aspect kept, halves to even."""
    factor = min(target * scale / height, target * scale / width)
    return round(height * factor), round(width * factor)


def jitter(pixels: Pixels, ids: Ids, settings: JitterSettings, random: np.random.Generator) -> tuple[Pixels, Ids]:
    """Augment one picture and its segment ids together.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        ids: (H, W) int32.
        settings: limits.
        random: source of the choices.

    Returns:
        (size, size, 3) uint8, padded with grey, and (size, size) int32, padded with `PADDING_ID`.
    """
    if random.random() < settings.flip:
        pixels, ids = pixels[:, ::-1], ids[:, ::-1]
    scale = random.uniform(settings.smallest, settings.largest)
    height, width = (max(1, side) for side in jittered_size(ids.shape[0], ids.shape[1], scale, settings.size))
    scaled = np.asarray(
        Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), Image.Resampling.BILINEAR)
    )
    places = np.asarray(Image.fromarray(np.ascontiguousarray(ids)).resize((width, height), Image.Resampling.NEAREST))
    top, left = (round(max(0, side - settings.size) * random.random()) for side in (height, width))
    window = np.s_[top : top + settings.size, left : left + settings.size]
    square_pixels = np.full((settings.size, settings.size, 3), PADDING_COLOUR, np.uint8)
    square_ids = np.full((settings.size, settings.size), PADDING_ID, np.int32)
    part = places[window]
    square_pixels[: part.shape[0], : part.shape[1]] = scaled[window]
    square_ids[: part.shape[0], : part.shape[1]] = part
    return square_pixels, square_ids
