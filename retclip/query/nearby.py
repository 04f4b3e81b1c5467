"""Neighbours of kept proposals after a change of the database, from what was near them before: exact, without a search.

With the raw product q·x of a key and a stored vector, their cosine under any centre c is a sum of known numbers,
(q·x - q·c - x·c + c·c) / (|q - c| |x - c|). So the products of the nearest rows are kept with a picture. Later, rows
that were far are bounded from above, rows that are new are measured, and a key whose answer the bounds leave in doubt
is searched for as before. What comes out is what a search finds, bit for bit: a distance is taken only where all values
within its error round to the same float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from retclip.core.segments import Neighbors
from retclip.query.near_rows import KnownRows, Rows

Floats = npt.NDArray[np.float64]
_KEY_BLOCK = 1024  # keys that are widened to float64 at a time; they stay in the processor's cache
_MOST_NEW = 256  # rows that are measured for all keys; with more a search is quicker


@dataclass(frozen=True)
class Nearby:
    """What is near the N keys of a picture, M rows each.

    Attributes:
        row: (N, M) int32 of the known rows, -1 where there are fewer.
        product: (N, M) float64 of key (scaled to unit length) and stored vector.
        beyond: (N,) float64; no other known row x has (q - c)·(x - c) / |x - c| above it, c being the known centre.
            -inf where every row is listed.
    """

    row: npt.NDArray[np.int32]
    product: Floats
    beyond: Floats

    @classmethod
    def join(cls, parts: Sequence[Nearby]) -> Nearby:
        """Keys of several pictures below one another."""
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("row", "product", "beyond")))


def unit_keys(keys: npt.NDArray[np.float32]) -> Floats:
    """(N, D) float64 of unit length; rows of zeros stay."""
    wide = keys.astype(np.float64)
    length = np.sqrt(np.add.reduce(wide * wide, axis=1))
    scaled: Floats = wide / np.where(length > 0, length, 1.0)[:, None]
    return scaled


def observe_nearby(keys: npt.NDArray[np.float32], found: Neighbors, rows: Rows) -> Nearby:
    """Products of keys (N, D) with the M neighbours that an exact search found among `rows`."""
    unit = unit_keys(keys)
    row = rows.of_segments(found.segment_id, found.class_id >= 0)
    distinct, place = np.unique(row, return_inverse=True)
    products = unit @ rows.vectors(np.maximum(distinct, 0)).T
    product = np.take_along_axis(products, place.reshape(row.shape), axis=1)
    # Distances are rounded to float32: a few units of 2^-24 more are certain.
    nearest = 1.0 - found.distance[:, -1].astype(np.float64) + 2.0**-20
    length = np.linalg.norm(unit - rows.centre, axis=1)
    complete = row.shape[1] >= len(rows)
    return Nearby(row, product, np.full(len(row), -np.inf) if complete else nearest * length)


class Recollection:
    """Answers for keys whose surroundings were observed among `known` rows, now that there are `rows`."""

    def __init__(self, known: KnownRows, rows: Rows) -> None:
        self._rows = rows
        self._now = known.places(rows)
        self._old = np.zeros(len(rows), np.bool_)
        self._old[self._now[self._now >= 0]] = True
        self._known_centre = known.centre
        self._fresh = np.flatnonzero(~self._old)
        self._error = (len(rows.centre) + 64) * 2.0**-53  # of one sum of products of unit vectors (Higham, 3.1)

    @property
    def usable(self) -> bool:
        """Whether this is quicker than a search, and lengths are far from the floor of key transforms."""
        return len(self._fresh) <= _MOST_NEW and len(self._rows) > 0 and float(self._rows.length.min()) > 2.0**-6

    def neighbors(
        self, keys: npt.NDArray[np.float32], nearby: Nearby, k: int
    ) -> tuple[Neighbors, npt.NDArray[np.bool_]]:
        """The `k` nearest rows of keys (N, D), and which of them (N,) have to be searched for."""
        place, doubtful = self._places(keys, nearby, k)
        return self._rows.neighbors(place), doubtful

    def _places(
        self, keys: npt.NDArray[np.float32], nearby: Nearby, k: int
    ) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
        """(N, k) packed float32 distance and row, ascending, and which keys are in doubt."""
        old, now, fresh, length = self._products(keys)
        row = np.where(nearby.row >= 0, self._now[nearby.row], -1)
        row = np.concatenate([row, np.broadcast_to(self._fresh, fresh.shape)], axis=1)
        product = np.concatenate([nearby.product, fresh], axis=1)
        safe = np.maximum(length, 2.0**-6)[:, None]
        scale = 1.0 / (safe * self._rows.length[row])
        likeness = (product - now[:, None] - self._rows.along[row] + self._square) * scale
        error = self._error * (4.0 * scale + 2.0 / safe**2 + 4.0)
        near, far = _distance(likeness + error), _distance(likeness - error)
        packed = (far.view(np.uint32).astype(np.uint64) << np.uint64(32)) | row.astype(np.uint64) & np.uint64(
            0xFFFFFFFF
        )
        packed[row < 0] = _NOTHING
        order = np.sort(_widened(packed, k), axis=1)[:, :k]
        last = _unpacked(order[:, -1])
        unsure = ((near != far) & (near <= last[:, None]) & (row >= 0)).any(axis=1)
        bound = _distance((self._bound(nearby.beyond, old - now) / safe[:, 0]) + 2.0**-30)
        outside = ~np.isneginf(nearby.beyond) & ~(bound > last)
        return order, unsure | outside | (length <= 2.0**-6)

    @cached_property
    def _square(self) -> float:
        return float(self._rows.centre @ self._rows.centre)

    def _products(self, keys: npt.NDArray[np.float32]) -> tuple[Floats, Floats, Floats, Floats]:
        """Products of unit keys with the old and the new centre and with new rows, and the length |q - c|."""
        columns = np.vstack([self._known_centre, self._rows.centre, self._rows.vectors(self._fresh)]).T
        blocks = [unit_keys(keys[start : start + _KEY_BLOCK]) @ columns for start in range(0, len(keys), _KEY_BLOCK)]
        products = np.concatenate([np.zeros((0, columns.shape[1])), *blocks])
        old, now = products[:, 0], products[:, 1]
        # A key of zeros has no products; whatever length it gets here, it is in doubt.
        length = np.sqrt(np.maximum(np.where(keys.any(axis=1), 1.0, 0.0) - 2.0 * now + self._square, 0.0))
        length[~keys.any(axis=1)] = 0.0
        return old, now, products[:, 2:], length

    def _bound(self, beyond: Floats, shift: Floats) -> Floats:
        """(N,) `Nearby.beyond` under the new centre; `shift` is q·(old - new centre)."""
        stretch, inverse, offset = self._extremes
        moved = np.maximum(beyond * stretch[0], beyond * stretch[1])
        bound: Floats = moved + np.maximum(shift * inverse[0], shift * inverse[1]) + offset
        return bound

    @cached_property
    def _extremes(self) -> tuple[tuple[float, float], tuple[float, float], float]:
        """Over the known rows x: range of |x - old| / |x - new|, of 1 / |x - new|, and the largest constant term."""
        if not self._old.any():
            return (0.0, 0.0), (0.0, 0.0), -np.inf
        length, along = self._rows.length[self._old], self._rows.along[self._old]
        before, square = (
            self._rows.products(self._known_centre)[self._old],
            float(self._known_centre @ self._known_centre),
        )
        stretch = np.sqrt(np.maximum(self._rows.square[self._old] - 2.0 * before + square, 0.0)) / length
        offset = float(((before - along + self._square - square) / length).max())
        inverse = 1.0 / length
        return (float(stretch.min()), float(stretch.max())), (float(inverse.min()), float(inverse.max())), offset


_NOTHING = np.uint64(0x7F800000_FFFFFFFF)  # distance +inf, no row


def _distance(likeness: Floats) -> npt.NDArray[np.float32]:
    distance: npt.NDArray[np.float32] = np.clip(1.0 - likeness, 0.0, 2.0).astype(np.float32)
    return distance


def _unpacked(packed: npt.NDArray[np.uint64]) -> npt.NDArray[np.float32]:
    return (packed >> np.uint64(32)).astype(np.uint32).view(np.float32)


def _widened(packed: npt.NDArray[np.uint64], k: int) -> npt.NDArray[np.uint64]:
    missing = max(k - packed.shape[1], 0)
    return np.pad(packed, ((0, 0), (0, missing)), constant_values=_NOTHING) if missing else packed
