"""Photo, truth and prediction side by side, small enough for a report."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from retclip.core.vocabulary import Vocabulary
from retclip.evaluation.panoptic_quality import MapSegment
from retclip.reports.palette import OFF_WHITE, UNLABELLED, category_color

SIDE = 320
_OPACITY = 0.65


def side_by_side(
    pixels: npt.NDArray[np.uint8],
    maps: tuple[tuple[npt.NDArray[np.int32], tuple[MapSegment, ...]], ...],
    vocabulary: Vocabulary,
) -> bytes:
    """JPEG of a photo (H, W, 3) uint8 and of (ids, segments) maps painted over it in class colours, left to right."""
    scale = SIDE / max(pixels.shape[:2])
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    photo = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX), dtype=np.float32)
    panels = [photo]
    for ids, segments in maps:
        small = np.asarray(Image.fromarray(ids).resize(size, Image.Resampling.NEAREST))
        panels.append(_painted(photo, small, segments, vocabulary))
    gap = np.full((size[1], 4, 3), 255.0, np.float32)
    row = np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)
    buffer = io.BytesIO()
    Image.fromarray(row.round().astype(np.uint8)).save(buffer, "JPEG", quality=82)
    return buffer.getvalue()


def data_address(jpeg: bytes) -> str:
    """The picture as an address that a page can carry."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def _painted(
    photo: npt.NDArray[np.float32], ids: npt.NDArray[np.int32], segments: tuple[MapSegment, ...], vocabulary: Vocabulary
) -> npt.NDArray[np.float32]:
    known = {category.id for category in vocabulary}
    colors = {s.id: category_color(s.category_id) for s in segments if s.category_id in known}
    present, places = np.unique(ids, return_inverse=True)
    table = np.array([colors.get(value, UNLABELLED) for value in present.tolist()], np.float32)
    painted = photo * (1 - _OPACITY) + table[places].reshape(photo.shape) * _OPACITY
    edges = np.zeros(ids.shape, np.bool_)
    edges[1:] |= ids[1:] != ids[:-1]
    edges[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    painted[edges] = OFF_WHITE
    return painted
