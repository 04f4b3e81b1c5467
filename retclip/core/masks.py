"""Masks of image regions: validated sets, run-length codes, boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from retclip.core.errors import require


@dataclass(frozen=True)
class MaskSet:
    """Class-agnostic region proposals of one image.

    Attributes:
        masks: (N, h, w), either bool at the image's own size or float logits at that size or any stride.
        objectness: (N,) float32 in [0, 1], how sure the proposer is that the region is one.
        image_size: (height, width) of the image in pixels.
        origin: who proposed (`regions`, `given`, `fcclip`, ...), kept in results.
    """

    masks: Tensor
    objectness: Tensor
    image_size: tuple[int, int]
    origin: str

    def __post_init__(self) -> None:
        require(self.masks.ndim == 3, "MaskSet.masks", "(N, h, w)", tuple(self.masks.shape))
        require(self.objectness.shape == self.masks.shape[:1], "MaskSet.objectness", f"({len(self.masks)},)",
                tuple(self.objectness.shape))
        is_bool = self.masks.dtype == torch.bool
        require(is_bool or self.masks.is_floating_point(), "MaskSet.masks", "bool or float logits", self.masks.dtype)
        require(not is_bool or tuple(self.masks.shape[1:]) == self.image_size, "MaskSet.masks (bool)",
                f"image size {self.image_size}", tuple(self.masks.shape[1:]))

    def __len__(self) -> int:
        return len(self.masks)

    def probabilities(self, rows: slice = slice(None)) -> Tensor:
        """(n, H, W) float32 in [0, 1] at image size; logits are resized bilinearly before the sigmoid."""
        chosen = self.masks[rows]
        if chosen.dtype == torch.bool:
            return chosen.float()
        if tuple(chosen.shape[1:]) != self.image_size:
            chosen = torch.nn.functional.interpolate(chosen[None].float(), self.image_size, mode="bilinear")[0]
        return chosen.float().sigmoid()


def encode_mask(mask: npt.NDArray[np.bool_]) -> bytes:
    """Compressed COCO run-length counts of a (H, W) bool mask."""
    require(mask.ndim == 2 and mask.dtype == np.bool_, "mask", "(H, W) bool", (mask.shape, mask.dtype))
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return cast(bytes, code["counts"])


def decode_mask(counts: bytes, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Inverse of `encode_mask`; size is (height, width)."""
    return coco_mask.decode({"size": list(size), "counts": counts}).astype(bool)


def mask_box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Tight box x0, y0, x1, y1 (half-open, pixels) of a mask with at least one pixel."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    require(rows.size > 0, "mask", "at least one pixel", 0)
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
