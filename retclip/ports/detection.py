"""Who finds things by their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from retclip.core.errors import require


@dataclass(frozen=True)
class Detections:
    """Boxes found in one picture, best first.

    Attributes:
        boxes: (N, 4) float32 x0, y0, x1, y1 in pixels of the picture, inside it, x0 < x1 and y0 < y1.
        phrases: (N,) int64 index into the phrases that were asked of this picture.
        scores: (N,) float32 in [0, 1], descending.
        chunks: per box the hash of the prompt that found it: a box is repeatable only with its prompt.
    """

    boxes: Tensor
    phrases: Tensor
    scores: Tensor
    chunks: tuple[str, ...]

    def __post_init__(self) -> None:
        count = len(self.chunks)
        require(tuple(self.boxes.shape) == (count, 4), "Detections.boxes", f"({count}, 4)", tuple(self.boxes.shape))
        for name in ("phrases", "scores"):
            shape = tuple(getattr(self, name).shape)
            require(shape == (count,), f"Detections.{name}", f"({count},)", shape)

    def __len__(self) -> int:
        return len(self.chunks)

    def select(self, rows: Tensor) -> Detections:
        """The boxes at `rows` (n,) int64, in that order."""
        chosen = rows.tolist()
        return Detections(
            self.boxes[rows], self.phrases[rows], self.scores[rows], tuple(self.chunks[row] for row in chosen)
        )


class Detector(Protocol):
    """An open-vocabulary detector."""

    @property
    def name(self) -> str:
        """Architecture and first digits of the weights' digest; kept as `box_source`."""
        ...

    def detect(
        self, pictures: Sequence[npt.NDArray[np.uint8]], phrases: Sequence[Sequence[str]], threshold: float
    ) -> list[Detections]:
        """Boxes of every picture with a score of at least `threshold`.

        Args:
            pictures: RGB (H, W, 3) of any sizes.
            phrases: per picture what to look for, any number, in any spelling; repeats and empty ones find nothing.
            threshold: in (0, 1).
        """
        ...
