"""Run-length codes and boxes of single masks, without torch: readers and the database need no model library."""

from __future__ import annotations

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


def decode_mask(counts: bytes, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Inverse of `encode_mask`; size is (height, width). Raises ValueError for a code of another size or no code."""
    height, width = size
    require(height > 0 and width > 0 and height * width <= MAX_PIXELS, "mask size", f"1..{MAX_PIXELS} pixels", size)
    mask = cast(npt.NDArray[np.bool_], coco_mask.decode({"size": [height, width], "counts": counts}).astype(np.bool_))
    # pycocotools leaves pixels that no run covers uninitialised; only a complete code is its own re-encoding.
    require(
        encode_mask(mask) == counts, "mask code", f"runs that cover {height} x {width} pixels", f"{len(counts)} bytes"
    )
    return mask


def mask_box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Tight box x0, y0, x1, y1 (half-open, pixels) of a mask with at least one pixel."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    require(rows.size > 0, "mask", "at least one pixel", 0)
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
