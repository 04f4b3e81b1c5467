"""Sets of mask proposals; run-length codes and boxes of single masks come from `core/rle.py`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from retclip.core.errors import require
from retclip.core.rle import decode_mask, encode_mask, mask_box

__all__ = ["MaskSet", "decode_mask", "encode_mask", "mask_box"]


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
        require(
            self.objectness.shape == self.masks.shape[:1],
            "MaskSet.objectness",
            f"({len(self.masks)},)",
            tuple(self.objectness.shape),
        )
        is_bool = self.masks.dtype == torch.bool
        require(is_bool or self.masks.is_floating_point(), "MaskSet.masks", "bool or float logits", self.masks.dtype)
        require(
            not is_bool or tuple(self.masks.shape[1:]) == self.image_size,
            "MaskSet.masks (bool)",
            f"image size {self.image_size}",
            tuple(self.masks.shape[1:]),
        )

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
