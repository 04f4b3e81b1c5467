"""Sets of mask proposals; run-length codes and boxes of single masks are in `core/rle.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from retclip.core.errors import require

Size = tuple[int, int]


@dataclass(frozen=True)
class Frame:
    """How a picture went through a network: scaled to `content`, then padded on the right and below.

    Attributes:
        padded: (height, width) in pixels of the network's input, which its masks cover.
        content: of the scaled picture in the upper left corner.
        output: of the picture itself.
    """

    padded: Size
    content: Size
    output: Size

    def __post_init__(self) -> None:
        fits = all(0 < inner <= outer for inner, outer in zip(self.content, self.padded, strict=True))
        require(fits, "Frame.content", f"within {self.padded}", self.content)


@dataclass(frozen=True)
class MaskSet:
    """Class-agnostic region proposals of one image.

    Attributes:
        masks: (N, h, w), either bool at the image's own size or float logits at any size.
        image_size: (height, width) of the image in pixels.
        origin: who proposed (`regions`, `given`, ...), kept in results.
        frame: what logits cover; None = exactly the image.
    """

    masks: Tensor
    image_size: Size
    origin: str
    frame: Frame | None = None

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
        framed = self.frame is None or (not is_bool and self.frame.output == self.image_size)
        require(framed, "MaskSet.frame", f"logits with output {self.image_size}", self.frame)

    def __len__(self) -> int:
        return len(self.masks)

    def select(self, rows: Tensor) -> MaskSet:
        """The proposals at `rows` (n,) int64, in that order."""
        return replace(self, masks=self.masks[rows.to(self.masks.device)])

    def for_pooling(self) -> Tensor:
        """(N, h, w) bool regions whose features are pooled: probability above one half.

        A proposal whose logits are all negative keeps its single best cell, so that every proposal has features.
        """
        masks = self.over_picture()
        if masks.dtype == torch.bool:
            return masks
        flat = masks.flatten(1)
        best = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, flat.argmax(dim=1, keepdim=True), True)
        chosen = flat > 0
        return torch.where(chosen.any(dim=1, keepdim=True), chosen, best).view_as(masks)

    def over_picture(self) -> Tensor:
        """(N, h, w) bool masks or logits as they are, but without the cells that cover padding."""
        if self.frame is None:
            return self.masks
        height, width = (
            max(1, round(cells * content / padded))
            for cells, content, padded in zip(self.masks.shape[1:], self.frame.content, self.frame.padded, strict=True)
        )
        small = replace(self, image_size=(height, width), frame=replace(self.frame, output=(height, width)))
        return small._logits(0, height)

    def region(self, row: int) -> Tensor:
        """(H, W) bool: pixels of proposal `row` with probability of at least one half."""
        if self.masks.dtype == torch.bool:
            return self.masks[row]
        one = replace(self, masks=self.masks[row : row + 1])
        return one.band(0, self.image_size[0])[0] >= 0.5

    def band(self, top: int, bottom: int) -> Tensor:
        """Mask probabilities of the image rows [top, bottom): (N, bottom - top, W) float32 in [0, 1].

        Logits are resized bilinearly (align_corners False) before the sigmoid; with a frame in two steps, to the padded
        input and from its content to the picture, as FC-CLIP does: one step would shift the edges. Working in bands
        keeps memory bounded: a 12-megapixel photo with 250 proposals would need 12 GB at once.
        """
        if self.masks.dtype == torch.bool:
            return self.masks[:, top:bottom].float()
        return self._logits(top, bottom).sigmoid_()

    def _logits(self, top: int, bottom: int) -> Tensor:
        frame = self.frame or Frame(self.image_size, self.image_size, self.image_size)
        low, high, weight = _neighbours(torch.arange(top, bottom), frame.content[0], frame.output[0])
        logits = self.masks.float()
        rows = torch.lerp(
            _rows(logits, low, frame.padded[0]), _rows(logits, high, frame.padded[0]), weight.to(logits.device)
        )
        # Bilinear resizing is separable: whole rows first, so that no plane is wider than the band is high.
        columns = torch.nn.functional.interpolate(rows, size=frame.padded[1], mode="linear")[..., : frame.content[1]]
        if frame.content[1] == frame.output[1]:
            return columns
        return torch.nn.functional.interpolate(columns, size=frame.output[1], mode="linear")

    def bands(self, most_values: int = 32_000_000, planes: int | None = None) -> Iterator[tuple[int, int]]:
        """(top, bottom) of row bands that hold at most `most_values` values in `planes` (default N) planes."""
        height, width = self.image_size
        if self.frame is not None:
            width = max(width, self.frame.padded[1])
        step = max(1, most_values // max(1, (planes or len(self)) * width))
        for top in range(0, height, step):
            yield top, min(height, top + step)


def _neighbours(index: Tensor, source: int, target: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows below and above, and the weight (n, 1) of the one above, when `source` rows are resized to `target` rows."""
    position = ((index + 0.5) * (source / target) - 0.5).clamp(0, source - 1)
    low = position.floor().long()
    return low, (low + 1).clamp_max(source - 1), (position - low)[:, None]


def _rows(logits: Tensor, index: Tensor, height: int) -> Tensor:
    """Rows `index` (n,) of logits (N, h, w) resized to `height` rows: (N, n, w)."""
    low, high, weight = (part.to(logits.device) for part in _neighbours(index, logits.shape[1], height))
    return torch.lerp(logits[:, low], logits[:, high], weight)
