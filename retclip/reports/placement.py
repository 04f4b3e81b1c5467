"""Where labels go: deep inside their segment, inside the picture, never over one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Depths are measured on a grid of at most this many points a side; labels need no finer position.
GRID = 256

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Wish:
    """A label that wants a place: the segment's id and the label's size in pixels."""

    segment_id: int
    width: int
    height: int


@dataclass(frozen=True)
class Placement:
    """A label that got a place. anchor: x, y of a pixel of the segment; box: x0, y0, x1, y1 pixels, half-open."""

    segment_id: int
    anchor: tuple[int, int]
    box: tuple[int, int, int, int]


def place_labels(ids: npt.NDArray[np.int32], wishes: Sequence[Wish], margin: int = 2) -> list[Placement]:
    """Place labels one after another; a label that finds no free place inside its segment is left out.

    Args:
        ids: (H, W) segment ids.
        wishes: in order of importance, the first has the free choice.
        margin: empty pixels between two labels.

    Returns:
        Placements in the order of the wishes that were granted. Each box lies inside the picture, covers its anchor,
        and overlaps no other box.
    """
    height, width = ids.shape
    points = interior_points(ids)
    taken = np.empty((0, 4), dtype=np.int64)
    placed: list[Placement] = []
    for wish in wishes:
        candidates = points.get(wish.segment_id)
        if candidates is None or wish.width > width or wish.height > height:
            continue
        corner = candidates - np.array([wish.width // 2, wish.height // 2])
        corner = corner.clip(0, np.array([width - wish.width, height - wish.height]))
        boxes = np.concatenate([corner, corner + np.array([wish.width, wish.height])], axis=1)
        free = np.flatnonzero(~_overlaps(boxes, taken, margin))
        if free.size == 0:
            continue
        x, y = candidates[free[0]].tolist()
        x0, y0, x1, y1 = boxes[free[0]].tolist()
        taken = np.concatenate([taken, boxes[free[0]][None]])
        placed.append(Placement(wish.segment_id, (x, y), (x0, y0, x1, y1)))
    return placed


def interior_points(ids: npt.NDArray[np.int32]) -> dict[int, Ints]:
    """For every segment that the grid meets: (n, 2) x, y of its inner pixels, the best place for a label first.

    The best place is the one nearest to the segment's median among its deepest fifth; then follow all others that
    are at least half as deep as the deepest.
    """
    height, width = ids.shape
    step = max(1, -(-max(height, width) // GRID))
    rows = np.minimum(np.arange(0, height, step) + step // 2, height - 1)
    columns = np.minimum(np.arange(0, width, step) + step // 2, width - 1)
    grid = ids[np.ix_(rows, columns)]
    depth = interior_depth(grid).ravel()
    order = np.argsort(grid.ravel(), kind="stable")
    names, starts = np.unique(grid.ravel()[order], return_index=True)
    found: dict[int, Ints] = {}
    for name, members in zip(names.tolist(), np.split(order, starts[1:]), strict=True):
        if name == 0:
            continue
        points = np.stack([columns[members % len(columns)], rows[members // len(columns)]], axis=1)
        own = depth[members]
        offset = np.abs(points - np.median(points, axis=0)).sum(axis=1)
        ranked = np.lexsort((offset, own < 0.8 * own.max()))
        found[name] = points[ranked[own[ranked] >= 0.5 * own.max()]]
    return found


def interior_depth(ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """(H, W) steps from each pixel to the border of its segment, 1 at the border; the picture's edge is a border.

    All segments are peeled at once, by turns with the 4- and the 8-neighbourhood: the octagons this grows are closer
    to circles than squares or diamonds.
    """
    padded = np.pad(ids, 1, constant_values=-1)
    alive = np.ones(ids.shape, dtype=bool)
    for neighbour in _neighbours(padded):
        alive &= neighbour == ids
    depth = np.ones(ids.shape, dtype=np.int32)
    layer = 0
    while alive.any():
        depth += alive
        layer += 1
        around = _neighbours(np.pad(alive, 1))[: 8 if layer % 2 else 4]
        alive = alive & np.logical_and.reduce(around)
    return depth


def _neighbours(padded: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Views of the eight neighbours of every inner cell, the four nearest first."""
    height, width = padded.shape[0] - 2, padded.shape[1] - 2
    steps = ((0, 1), (1, 0), (1, 2), (2, 1), (0, 0), (0, 2), (2, 0), (2, 2))
    return [padded[y : y + height, x : x + width] for y, x in steps]


def _overlaps(boxes: Ints, taken: Ints, margin: int) -> npt.NDArray[np.bool_]:
    """(n,) whether each of (n, 4) boxes comes closer than `margin` to any of the (m, 4) taken ones."""
    near = boxes[:, None, :2] < taken[None, :, 2:] + margin
    far = boxes[:, None, 2:] + margin > taken[None, :, :2]
    clashes: npt.NDArray[np.bool_] = np.logical_and.reduce(near & far, axis=2).any(axis=1)
    return clashes
