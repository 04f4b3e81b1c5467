"""Run-length codes and boxes of single masks, without torch: readers and the database need no model library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from retclip.core.errors import require
from retclip.core.images import MAX_PIXELS


def encode_mask(mask: npt.NDArray[np.bool_]) -> bytes:
    """Compressed COCO run-length counts of a (H, W) bool mask."""
    require(mask.ndim == 2 and mask.dtype == np.bool_, "mask", "(H, W) bool", (mask.shape, mask.dtype))
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return cast(bytes, code["counts"])


def encode_regions(ids: npt.NDArray[np.int32], values: Sequence[int]) -> list[bytes]:
    """`encode_mask(ids == value)` for every value, in two passes over the (H, W) map rather than several for each."""
    height, width = ids.shape
    down = ids.ravel(order="F")  # COCO counts down the columns
    start = np.concatenate([[0], np.flatnonzero(down[1:] != down[:-1]) + 1])
    end = np.append(start[1:], len(down))
    found = down[start]
    order = np.argsort(found, kind="stable")  # runs of a value, from left to right
    first = np.searchsorted(found[order], [*values, *(value + 1 for value in values)]).reshape(2, -1)
    codes = []
    for low, high in first.T.tolist():
        mine = order[low:high]
        edges = np.column_stack([start[mine], end[mine]]).ravel()
        runs = np.diff(edges, prepend=0)
        if not len(edges) or edges[-1] < len(down):
            runs = np.append(runs, len(down) - edges[-1:].sum())
        codes.append({"size": [height, width], "counts": runs})
    return [cast(bytes, code["counts"]) for code in coco_mask.frPyObjects(codes, height, width)] if codes else []


def decode_mask(counts: bytes, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Inverse of `encode_mask`; size is (height, width).

    Databases come from strangers, and pycocotools reads and writes outside its buffers for codes that are cut off,
    negative or too short, so decoding is done here.

    Raises:
        ValueError: no run-length code, or not one of exactly height x width pixels.
    """
    return paint_runs(_read_runs(counts), size)


def paint_runs(runs: npt.NDArray[np.int64], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The (H, W) mask of uncompressed run lengths, of 0 and 1 in turn, down the columns; size is (height, width).

    Raises:
        ValueError: the runs do not cover exactly height x width pixels.
    """
    height, width = size
    require(height > 0 and width > 0 and height * width <= MAX_PIXELS, "mask size", f"1..{MAX_PIXELS} pixels", size)
    is_complete = bool(((runs >= 0) & (runs <= MAX_PIXELS)).all()) and int(runs.sum()) == height * width
    require(is_complete, "mask code", f"runs that cover {height} x {width} pixels", f"{len(runs)} runs")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    # COCO counts down the columns.
    return np.ascontiguousarray(values.reshape(width, height).T)


def _read_runs(counts: bytes) -> npt.NDArray[np.int64]:
    """Lengths of the runs of 0, 1, 0, ...: 6-bit characters from 48 on, 5 bits of a number each, low bits first.

    Bit 5 says that the number goes on, bit 4 of its last character is the sign; from the fourth number on, each is the
    difference to the last but one (pycocotools, maskApi.c, rleToString).
    """
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    is_last = digits & 32 == 0
    is_code = bool(digits.size) and int(digits.min()) >= 0 and int(digits.max()) < 64 and bool(is_last[-1])
    require(is_code, "mask code", "complete run-length numbers", f"{len(counts)} bytes")
    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    # Seven characters hold 35 bits, more than any picture needs; more would overflow.
    require(int(lengths.max()) <= 7, "mask code", "numbers of at most 7 characters", int(lengths.max()))
    places = 5 * (np.arange(len(digits)) - np.repeat(starts, lengths))
    numbers = np.add.reduceat((digits & 31) << places, starts)
    numbers -= np.where(digits[ends] & 16, np.int64(1) << 5 * lengths, 0)
    runs = numbers.copy()
    runs[1::2] = np.cumsum(numbers[1::2])
    runs[2::2] = np.cumsum(numbers[2::2])
    return runs


def mask_box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Tight box x0, y0, x1, y1 (half-open, pixels) of a mask with at least one pixel."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    require(rows.size > 0, "mask", "at least one pixel", 0)
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
