"""Who turns boxes into masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from retclip.core.errors import require
from retclip.core.masks import MaskSet


@dataclass(frozen=True)
class BoxMasks:
    """One mask for every asked box of one picture.

    Attributes:
        masks: N logits at the network's own resolution with the frame they cover; `MaskSet.region` gives pixels.
        quality: (N,) float32, the IoU that the network predicts for its mask.
    """

    masks: MaskSet
    quality: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.quality.shape)
        require(shape == (len(self.masks),), "BoxMasks.quality", f"({len(self.masks)},)", shape)


class BoxMasker(Protocol):
    """A promptable segmenter."""

    @property
    def name(self) -> str:
        """Architecture and first digits of the weights' digest; kept as `mask_source`."""
        ...

    def masks(self, pictures: Sequence[npt.NDArray[np.uint8]], boxes: Sequence[Tensor]) -> list[BoxMasks]:
        """RGB pictures (H, W, 3) with their boxes (N, 4) xyxy in pixels, possibly none -> masks in the same order."""
        ...


class PointMasker(Protocol):
    """A promptable segmenter asked with single points, which say where but not how much is meant."""

    def point_masks(self, picture: npt.NDArray[np.uint8], points: Tensor) -> Iterator[BoxMasks]:
        """Several masks for each point (SAM: three, from part to whole), a bounded number of points at a time.

        Args:
            picture: RGB (H, W, 3).
            points: (P, 2) x, y in pixels.

        Yields:
            Masks of the next points, those of one point side by side.
        """
        ...
