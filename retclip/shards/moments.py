"""First and second moments of stored vectors, in whole numbers.

Whole numbers add without rounding: the moments of a version are the same bits for any split into shards, and dead
rows are subtracted exactly (docs/database-format.md, "Why integer moments").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

GRID = 1 << 16
# |z_i z_j| <= 2^32, so a float64 product of this many rows stays below 2^53 and is exact.
_EXACT_ROWS = 1 << 20
_BLOCK_ROWS = 1 << 11  # larger blocks take longer: they leave the processor's cache


@dataclass(frozen=True)
class Moments:
    """Sums over z = round(65536 x).

    Attributes:
        rows: how many rows were added.
        first: (D,) int64 sum of z.
        second: (D, D) int64 sum of z zᵀ.
    """

    rows: int
    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]

    @classmethod
    def zero(cls, dim: int) -> Self:
        """Moments of no rows."""
        return cls(0, np.zeros(dim, np.int64), np.zeros((dim, dim), np.int64))

    @classmethod
    def of(cls, vectors: npt.NDArray[np.float16]) -> Self:
        """Moments of (n, D) stored rows, in bounded memory."""
        rows, dim = vectors.shape
        first, second = np.zeros(dim, np.int64), np.zeros((dim, dim), np.int64)
        for start in range(0, rows, _EXACT_ROWS):
            product = np.zeros((dim, dim))
            for begin in range(start, min(start + _EXACT_ROWS, rows), _BLOCK_ROWS):
                block = vectors[begin : min(begin + _BLOCK_ROWS, start + _EXACT_ROWS)].astype(np.float64)
                grid = np.rint(block * GRID)
                first += grid.sum(axis=0).astype(np.int64)
                product += grid.T @ grid
            second += product.astype(np.int64)
        return cls(rows, first, second)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.rows + other.rows, self.first + other.first, self.second + other.second)

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.rows - other.rows, self.first - other.first, self.second - other.second)

    def mean(self) -> npt.NDArray[np.float64]:
        """(D,) mean of x; zero for no rows."""
        return self.first / (max(self.rows, 1) * GRID)

    def covariance(self) -> npt.NDArray[np.float64]:
        """(D, D) covariance of x, divided by the number of rows."""
        mean = self.mean()
        covariance: npt.NDArray[np.float64] = self.second / (self.rows * float(GRID) ** 2) - np.outer(mean, mean)
        return covariance

    def to_bytes(self) -> memoryview:
        """moments.i64: `first`, then `second`."""
        return np.vstack([self.first[None], self.second]).astype("<i8").view(np.uint8).reshape(-1).data

    @classmethod
    def from_bytes(cls, data: bytes, rows: int, dim: int) -> Self:
        """Inverse of `to_bytes`. Raises ValueError for a wrong length."""
        both = np.frombuffer(data, "<i8").reshape(dim + 1, dim)
        return cls(rows, both[0].copy(), both[1:].copy())
