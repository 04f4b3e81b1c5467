"""The result of a segmentation: every pixel belongs to at most one segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retclip.core.errors import require


@dataclass(frozen=True)
class Segment:
    """One region of a panoptic map.

    Attributes:
        id: value of its pixels in the map, > 0.
        category_id: `Category.id` of the vocabulary the map was made with.
        is_thing: countable object (True) or stuff.
        score: confidence in [0, 1].
        area: pixels.
        box: x, y, width, height in pixels (COCO order).
    """

    id: int
    category_id: int
    is_thing: bool
    score: float
    area: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class PanopticMap:
    """ids (H, W) int32, 0 = unlabelled; `segments` lists exactly the ids that occur."""

    ids: npt.NDArray[np.int32]
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        require(self.ids.ndim == 2, "PanopticMap.ids", "(H, W)", self.ids.shape)
        require(self.ids.dtype == np.int32, "PanopticMap.ids", "int32", self.ids.dtype)
        present = set(values_of(self.ids).tolist()) - {0}
        listed = [segment.id for segment in self.segments]
        require(
            present == set(listed) and len(set(listed)) == len(listed),
            "PanopticMap.segments",
            f"the ids of the map {sorted(present)}",
            listed,
        )


def values_of(ids: npt.NDArray[np.int32]) -> npt.NDArray[np.integer[Any]]:
    """The values that occur, ascending; counted where they are few and small, as ids of a map are, else sorted."""
    if ids.min(initial=0) < 0 or ids.max(initial=0) > ids.size:
        return np.unique(ids)
    return np.flatnonzero(np.bincount(ids.ravel()))


def ids_to_rgb(ids: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """COCO panoptic colours, (H, W) ids -> (H, W, 3) uint8 with id = R + 256 G + 65536 B."""
    require(
        int(ids.min(initial=0)) >= 0 and int(ids.max(initial=0)) < 1 << 24,
        "ids",
        "0 <= id < 2**24",
        int(ids.max(initial=0)),
    )
    octets = ids.astype("<i4", order="C", copy=False).view(np.uint8).reshape(*ids.shape, 4)
    rgb = np.empty((*ids.shape, 3), np.uint8)
    for channel in range(3):
        rgb[..., channel] = octets[..., channel]
    return rgb


def rgb_to_ids(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Inverse of `ids_to_rgb`."""
    require(rgb.ndim == 3 and rgb.shape[2] == 3, "rgb", "(H, W, 3)", rgb.shape)
    octets = np.zeros((*rgb.shape[:2], 4), np.uint8)
    for channel in range(3):
        octets[..., channel] = rgb[..., channel]
    return octets.view("<i4")[..., 0].astype(np.int32, copy=False)
