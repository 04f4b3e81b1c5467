"""Keys for a scan: float32 in a few passes over memory, at a proven distance from those that `KeyTransform` defines."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from retclip.shards.transforms import NORM_FLOOR, KeyTransform

Keys = npt.NDArray[np.float32]

_COLUMNS = 1_024  # summed in float32, the sums in float64
_UNIT = 2.0**-24  # relative error of one float32 operation
_ALONE = 1 << 15  # numbers up to which torch wakes no other thread: one that waits for BLAS would be slow to come


def quick_keys(vectors: npt.NDArray[np.float16], transform: KeyTransform, out: Keys) -> float:
    """Write the keys of (n, D) stored vectors into `out` (n, r).

    Returns:
        A bound of the Euclidean distance between a row of `out` and the key that `KeyTransform.keys` gives. A
        difference and a product leave each component of a mapped vector within 2 units in the last place, which turns
        its direction by at most 4; `squared_lengths` makes its length wrong by half of `_COLUMNS` (Higham, Accuracy
        and Stability of Numerical Algorithms, 3.1); the rest is margin for the reciprocal and the last product.
    """
    if transform.matrix is not None:  # sums of products need float64 to be near what defines them
        out[:] = transform.keys(vectors)
        return 2 * _UNIT
    numpy_cast(vectors, out)
    if transform.kind != "none":
        np.subtract(out, transform.offset.astype(np.float32), out=out)
    if transform.scale is not None:
        np.multiply(out, transform.scale.astype(np.float32), out=out)
    lengths = np.sqrt(squared_lengths(out))
    short = np.flatnonzero(lengths < 2 * NORM_FLOOR)  # near where a key becomes zero
    lengths[short] = 1.0
    np.multiply(out, (1.0 / lengths).astype(np.float32)[:, None], out=out)
    out[short] = transform.keys(vectors[short])
    return (_COLUMNS / 2 + 16) * _UNIT


def squared_lengths(values: Keys) -> npt.NDArray[np.float64]:
    """(n,) sums of squares of the rows of (n, r), within `_COLUMNS` units of 2^-24 of themselves."""
    total = np.zeros(len(values))
    for start in range(0, values.shape[1], _COLUMNS):
        part = values[:, start : start + _COLUMNS]
        total += np.vecdot(part, part)
    return total


def numpy_cast(source: npt.NDArray[np.float16], target: Keys) -> Keys:
    """Copy (n, r) numbers into float32; returns `target`."""
    cast(torch.from_numpy(source), torch.from_numpy(target))
    return target


def cast(source: torch.Tensor, target: torch.Tensor) -> None:
    """Copy (n, r) numbers into another format of the same machine, without threads."""
    rows = max(_ALONE // max(source.shape[1], 1), 1)
    for start in range(0, len(source), rows):
        target[start : start + rows].copy_(source[start : start + rows])
