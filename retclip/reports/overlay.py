"""The picture of a result: colours, outlines, labels and a legend, in the manner of detectron2's visualiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt
from PIL import Image

from retclip.core.errors import require
from retclip.core.results import Explanation, SegmentationResult
from retclip.reports.captions import BADGES, caption, is_uncertain
from retclip.reports.legend import draw_legend
from retclip.reports.lettering import Lettering
from retclip.reports.palette import OFF_WHITE, segment_colors
from retclip.reports.placement import Placement, Wish, place_labels

STUFF_OPACITY = 0.5
THING_OPACITY = 0.55
EDGE_OPACITY = 0.9
SMALLEST_FONT = 11

# Rows painted at once: bounds the memory of the float copy, whatever the picture's height.
BAND = 128


@dataclass(frozen=True)
class _Brush:
    """How the segments are painted; row 0 of every table is the unlabelled background, row i + 1 segment i of `ids`.

    Attributes:
        ids: (N,) segment ids, ascending.
        color: (N + 1, 3) float32 in 0..255.
        opacity: (N + 1,) float32 in 0..1.
        rank: (N + 1,) int32, later drawn segments have the higher rank and own the common edge.
        dashed: (N + 1,) bool.
        edge: width of an outline in pixels; dash: length of a dash.
    """

    ids: npt.NDArray[np.int32]
    color: npt.NDArray[np.float32]
    opacity: npt.NDArray[np.float32]
    rank: npt.NDArray[np.int32]
    dashed: npt.NDArray[np.bool_]
    edge: int
    dash: int


def draw_overlay(pixels: npt.NDArray[np.uint8], result: SegmentationResult, *, legend: bool = True) -> Image.Image:
    """Draw the panoptic map over its picture.

    Stuff is drawn first, things over it, the largest first; segments below `LOW_CONFIDENCE` come last, with a dashed
    outline. Labels say class, score and the deciding expert (R, C or V); segments too small for one have none.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        result: what was found in it.
        legend: add a strip of class colours, area shares and instance counts below.

    Returns:
        RGB picture: (H, W) without a legend; with one, at least `LEGEND_WIDTH` pixels wide and higher.
    """
    require(
        pixels.dtype == np.uint8 and pixels.shape == (*result.panoptic.ids.shape, 3),
        "pixels",
        f"{(*result.panoptic.ids.shape, 3)} uint8",
        (pixels.shape, pixels.dtype),
    )
    canvas = Image.fromarray(paint_segments(pixels, result))
    lettering = Lettering(font_size(pixels.shape[0], pixels.shape[1]))
    by_id = {explanation.segment.id: explanation for explanation in result.explanations}
    for placement in label_placements(result, lettering):
        explanation = by_id[placement.segment_id]
        tile = lettering.tile(caption(explanation), BADGES[explanation.decided_by])
        canvas.paste(tile, placement.box[:2], tile)
    return draw_legend(canvas, result, lettering) if legend else canvas


def font_size(height: int, width: int) -> int:
    """Pixels; grows with the picture's side as detectron2's does, never unreadably small."""
    return max(SMALLEST_FONT, round(sqrt(height * width) / 90))


def label_placements(result: SegmentationResult, lettering: Lettering) -> list[Placement]:
    """Where the labels go, largest segment first; tiny segments get none."""
    smallest = 1.5 * lettering.size**2
    wishes = []
    for explanation in sorted(result.explanations, key=lambda e: (-e.segment.area, e.segment.id)):
        if explanation.segment.area >= smallest:
            width, height = lettering.tile_size(caption(explanation), BADGES[explanation.decided_by])
            wishes.append(Wish(explanation.segment.id, width, height))
    return place_labels(result.panoptic.ids, wishes)


def paint_segments(pixels: npt.NDArray[np.uint8], result: SegmentationResult) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8: the picture under translucent segments with outlines, without labels."""
    ids = result.panoptic.ids
    brush = _brush(result.explanations, ids.shape)
    painted = np.empty_like(pixels)
    for top in range(0, len(ids), BAND):
        rows = slice(top, min(top + BAND, len(ids)))
        # A band sees as many rows of its neighbours as an outline is wide.
        above, below = min(brush.edge, top), min(brush.edge, len(ids) - rows.stop)
        index = _rows_of(brush, ids[top - above : rows.stop + below])
        edges = _outlines(brush, index, top - above)[above : len(index) - below]
        index = index[above : len(index) - below]
        alpha = brush.opacity[index][..., None]
        mixed = pixels[rows] * (1 - alpha) + brush.color[index] * alpha
        mixed[edges] = mixed[edges] * (1 - EDGE_OPACITY) + np.array(OFF_WHITE) * EDGE_OPACITY
        painted[rows] = np.round(mixed).astype(np.uint8)
    return painted


def _brush(explanations: Sequence[Explanation], shape: tuple[int, ...]) -> _Brush:
    segments = [explanation.segment for explanation in explanations]
    ids = np.array([segment.id for segment in segments], dtype=np.int32)
    order = np.argsort(ids)
    uncertain = np.array([is_uncertain(explanation) for explanation in explanations], dtype=bool)
    things = np.array([segment.is_thing for segment in segments], dtype=bool)
    areas = np.array([segment.area for segment in segments], dtype=np.int64)
    rank = np.empty(len(ids), dtype=np.int32)
    rank[np.lexsort((ids, -areas, things, uncertain))] = np.arange(1, len(ids) + 1)
    side = sqrt(shape[0] * shape[1])
    return _Brush(
        ids=ids[order],
        color=np.concatenate([np.zeros((1, 3)), segment_colors(segments)[order]]).astype(np.float32),
        opacity=np.concatenate([[0], np.where(things, THING_OPACITY, STUFF_OPACITY)[order]]).astype(np.float32),
        rank=np.concatenate([[0], rank[order]]).astype(np.int32),
        dashed=np.concatenate([[False], uncertain[order]]),
        edge=max(1, round(side / 600)),
        dash=max(3, round(side / 100)),
    )


def _rows_of(brush: _Brush, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.intp]:
    """Segment ids -> rows of the brush's tables."""
    return np.where(ids == 0, 0, np.searchsorted(brush.ids, ids) + 1)


def _outlines(brush: _Brush, index: npt.NDArray[np.intp], top: int) -> npt.NDArray[np.bool_]:
    """(h, W) bool: pixels on the outline of the higher-ranked of two neighbours, with gaps where it is dashed."""
    rank = brush.rank[index]
    lying = np.zeros(rank.shape, dtype=bool)
    standing = np.zeros(rank.shape, dtype=bool)
    for step in range(1, brush.edge + 1):
        lying[step:] |= rank[step:] > rank[:-step]
        lying[:-step] |= rank[:-step] > rank[step:]
        standing[:, step:] |= rank[:, step:] > rank[:, :-step]
        standing[:, :-step] |= rank[:, :-step] > rank[:, step:]
    rows, columns = np.ogrid[top : top + rank.shape[0], : rank.shape[1]]
    # Dashes are counted along the way an outline runs: across the columns where it lies, down the rows where it stands.
    way = np.where(lying, columns, rows)
    drawn: npt.NDArray[np.bool_] = (lying | standing) & (~brush.dashed[index] | (way // brush.dash % 2 == 0))
    return drawn
