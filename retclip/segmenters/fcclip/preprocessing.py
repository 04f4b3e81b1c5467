"""From pictures to a padded, normalised batch, and the way back to the pictures' own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from retclip.core.masks import Frame, Size

# CLIP's mean and standard deviation on the 0..255 scale, RGB; the same for every released backbone.
PIXEL_MEAN = (122.7709383, 116.7460125, 104.09373615)
PIXEL_STD = (68.5005327, 66.6321579, 70.32316305)
DIVISOR = 32


@dataclass(frozen=True)
class Resolution:
    """Short side that a picture is scaled to unless its long side would exceed `long_side`; pixels."""

    short_side: int = 800
    long_side: int = 1333


def resized_size(height: int, width: int, resolution: Resolution) -> Size:
    """Size after scaling the short side, or the long one where that is the tighter limit."""
    scale = resolution.short_side / min(height, width)
    new_height, new_width = scale * height, scale * width
    longest = max(new_height, new_width)
    if longest > resolution.long_side:
        new_height, new_width = (side * (resolution.long_side / longest) for side in (new_height, new_width))
    return int(new_height + 0.5), int(new_width + 0.5)


def resize_picture(pixels: npt.NDArray[np.uint8], size: Size) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 -> (h, w, 3) uint8 by Pillow's antialiased bilinear filter, which training used."""
    if pixels.shape[:2] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def padded_size(sizes: Sequence[Size]) -> Size:
    """Smallest multiple of 32 per axis that holds every (height, width)."""
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    return -(-height // DIVISOR) * DIVISOR, -(-width // DIVISOR) * DIVISOR


def normalised_batch(images: Sequence[Tensor], device: torch.device) -> Tensor:
    """Images (3, h_i, w_i) uint8 RGB -> (B, 3, H, W) float32, normalised, then padded with zeros right and below."""
    mean = torch.tensor(PIXEL_MEAN, device=device).view(3, 1, 1)
    std = torch.tensor(PIXEL_STD, device=device).view(3, 1, 1)
    height, width = padded_size([(image.shape[1], image.shape[2]) for image in images])
    return torch.stack(
        [
            F.pad((image.to(device).float() - mean) / std, (0, width - image.shape[2], 0, height - image.shape[1]))
            for image in images
        ]
    )


def full_size(mask_logits: Tensor, frame: Frame) -> Tensor:
    """Mask logits (n, h, w) of the padded image -> (n, H, W) at the user's resolution.

    Two bilinear steps with the crop between them, as in training and release; one step would shift the edges.
    """
    masks = F.interpolate(mask_logits[None], frame.padded, mode="bilinear", align_corners=False)
    masks = masks[..., : frame.content[0], : frame.content[1]]
    if frame.content != frame.output:
        masks = F.interpolate(masks, frame.output, mode="bilinear", align_corners=False)
    return masks[0]
