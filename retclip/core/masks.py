"""Sets of mask proposals; run-length codes and boxes of single masks are in `core/rle.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from retclip.core.errors import require


@dataclass(frozen=True)
class MaskSet:
    """Class-agnostic region proposals of one image.

    Attributes:
        masks: (N, h, w), either bool at the image's own size or float logits at any size.
        image_size: (height, width) of the image in pixels.
        origin: who proposed (`regions`, `given`, ...), kept in results.
    """

    masks: Tensor
    image_size: tuple[int, int]
    origin: str

    def __post_init__(self) -> None:
        require(self.masks.ndim == 3, "MaskSet.masks", "(N, h, w)", tuple(self.masks.shape))
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

    def select(self, rows: Tensor) -> MaskSet:
        """The proposals at `rows` (n,) int64, in that order."""
        return MaskSet(self.masks[rows.to(self.masks.device)], self.image_size, self.origin)

    def for_pooling(self) -> Tensor:
        """(N, h, w) bool regions whose features are pooled: probability above one half.

        A proposal whose logits are all negative keeps its single best cell, so that every proposal has features.
        """
        if self.masks.dtype == torch.bool:
            return self.masks
        flat = self.masks.flatten(1)
        best = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, flat.argmax(dim=1, keepdim=True), True)
        chosen = flat > 0
        return torch.where(chosen.any(dim=1, keepdim=True), chosen, best).view_as(self.masks)

    def region(self, row: int) -> Tensor:
        """(H, W) bool: pixels of proposal `row` with probability of at least one half."""
        if self.masks.dtype == torch.bool:
            return self.masks[row]
        one = MaskSet(self.masks[row : row + 1], self.image_size, self.origin)
        return one.band(0, self.image_size[0])[0] >= 0.5

    def band(self, top: int, bottom: int) -> Tensor:
        """Mask probabilities of the image rows [top, bottom): (N, bottom - top, W) float32 in [0, 1].

        Logits are resized bilinearly (align_corners False) before the sigmoid. Working in bands keeps memory bounded: a
        12-megapixel photo with 250 proposals would need 12 GB at once.
        """
        if self.masks.dtype == torch.bool:
            return self.masks[:, top:bottom].float()
        height, width = self.image_size
        source = self.masks.shape[1]
        centres = (torch.arange(top, bottom, device=self.masks.device) + 0.5) * (source / height) - 0.5
        position = centres.clamp(0, source - 1)
        low = position.floor().long()
        high = (low + 1).clamp_max(source - 1)
        weight = (position - low)[:, None]
        logits = self.masks.float()
        rows = logits[:, low] * (1 - weight) + logits[:, high] * weight
        return torch.nn.functional.interpolate(rows, size=width, mode="linear").sigmoid()

    def bands(self, most_values: int = 32_000_000, planes: int | None = None) -> Iterator[tuple[int, int]]:
        """(top, bottom) of row bands that hold at most `most_values` values in `planes` (default N) planes."""
        height, width = self.image_size
        step = max(1, most_values // max(1, (planes or len(self)) * width))
        for top in range(0, height, step):
            yield top, min(height, top + step)
