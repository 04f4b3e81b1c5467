"""Key transforms: the linear map that a search applies to stored and asked vectors.

CLIP vectors share a large common component; retrieval that ignores it loses much of what it could know. Raw unit
vectors stay on disk, so the transform of a database can be changed without rewriting a shard.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retclip.core.errors import DatabaseError, require
from retclip.shards.moments import Moments

KINDS = ("none", "centre", "standardise", "whiten")
WHITEN_DIMENSIONS = 256
WHITEN_RIDGE = 1e-3  # times the mean eigenvalue
STD_FLOOR = 1e-6  # below it a component is constant and tells nothing
NORM_FLOOR = 2.0**-10  # a key shorter than this is what binary16 rounding leaves of a vector at the mean
_GRID_BITS = 24  # binary16 values below 2 are multiples of 2^-24
_MATRIX_BITS = 28  # 24 + 28 + 1 bit of headroom = the 53 bits of float64


@dataclass(frozen=True)
class KeyTransform:
    """One transform with its statistics; keys have unit length, or are zero where nothing is left.

    Attributes:
        kind: one of `KINDS`.
        offset: (r,) float64 subtracted after the map.
        scale: (D,) float64 factors, or None.
        matrix: (D, r) float64 of whole numbers, or None; column j carries the factor `unit[j]`.
        unit: (r,) float64 powers of two.
    """

    kind: str
    offset: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64] | None = None
    matrix: npt.NDArray[np.float64] | None = None
    unit: npt.NDArray[np.float64] | None = None

    def keys(self, vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """(n, D) unit vectors -> (n, r) keys; a key is the same bits in whatever batch it is computed."""
        return normalised(self.mapped(vectors))

    def width(self, dim: int) -> int:
        """Numbers of a key of vectors with `dim` numbers."""
        return dim if self.matrix is None else self.matrix.shape[1]

    def mapped(self, vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """(n, D) unit vectors -> (n, r) keys before they get unit length."""
        values = vectors.astype(np.float64)
        if self.matrix is not None and self.unit is not None:
            # Whole numbers below 2^53 add exactly in any order, so BLAS may block and thread as it likes.
            values = (np.rint(values * 2.0**_GRID_BITS) @ self.matrix) * self.unit
        if self.kind != "none":
            values -= self.offset
        if self.scale is not None:
            values *= self.scale
        return values


def normalised(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n, D) rows scaled to unit length; rows shorter than NORM_FLOOR become zero."""
    norms = np.sqrt(np.add.reduce(values * values, axis=1))
    factors = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms >= NORM_FLOOR)
    scaled: npt.NDArray[np.float64] = values * factors[:, None]
    return scaled


def check_kind(kind: str) -> None:
    """Raise ValueError for an unknown transform."""
    require(kind in KINDS, "transform", f"one of {', '.join(KINDS)}", repr(kind))


def fit(kind: str, moments: Moments) -> KeyTransform:
    """The transform of a version from the moments of its live rows.

    Raises:
        DatabaseError: E302 when `standardise` or `whiten` meets fewer than two rows.
    """
    check_kind(kind)
    if kind == "none":
        return KeyTransform(kind, np.zeros(0))
    if moments.rows < 2 and kind != "centre":
        raise DatabaseError(
            "E302",
            f"The key transform '{kind}' needs at least two live segments; the database has {moments.rows}.",
            why="One vector has no spread to measure.",
            fix="Add segments, or search with transform 'none' or 'centre'.",
        )
    mean = moments.mean().astype(np.float32).astype(np.float64)
    if kind == "centre":
        return KeyTransform(kind, mean)
    covariance = moments.covariance()
    if kind == "standardise":
        std = np.sqrt(np.maximum(np.diag(covariance), 0.0)).astype(np.float32).astype(np.float64)
        return KeyTransform(kind, mean, scale=np.divide(1.0, std, out=np.zeros_like(std), where=std > STD_FLOOR))
    return _whitening(mean, covariance)


def _whitening(mean: npt.NDArray[np.float64], covariance: npt.NDArray[np.float64]) -> KeyTransform:
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    noise = max(len(mean) * np.finfo(np.float64).eps * values[0], STD_FLOOR**2)
    keep = min(WHITEN_DIMENSIONS, int(np.count_nonzero(values > noise)))
    columns = vectors[:, :keep] / np.sqrt(values[:keep] + WHITEN_RIDGE * np.mean(values))
    _, exponent = np.frexp(np.sqrt((columns * columns).sum(axis=0)))
    matrix = np.rint(np.ldexp(columns, _MATRIX_BITS - exponent))
    unit = np.ldexp(1.0, exponent - _MATRIX_BITS - _GRID_BITS)
    offset = (np.rint(mean * 2.0**_GRID_BITS) @ matrix) * unit
    return KeyTransform("whiten", offset, matrix=matrix, unit=unit)
