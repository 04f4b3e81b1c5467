"""The rows that a question may be answered with, by name, so that they are recognised in another version."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from retclip.core.segments import Neighbors

if TYPE_CHECKING:
    from retclip.shards import Database

Floats = npt.NDArray[np.float64]
KINDS = ("none", "centre")  # key transforms under which cosines follow from raw products
_BLOCK = 4_096
_SEED = 20_260_413


@dataclass(frozen=True)
class KnownRows:
    """The rows among which surroundings were observed.

    Attributes:
        name: (R,) uint64 of segment id and vector; rows of the same name are the same.
        centre: (D,) float64 that was subtracted from keys, zeros without one.
    """

    name: npt.NDArray[np.uint64]
    centre: Floats

    def places(self, rows: Rows) -> npt.NDArray[np.int64]:
        """(R,) where each known row is among `rows`, -1 where it is gone."""
        order = np.argsort(rows.name)
        found = np.minimum(np.searchsorted(rows.name[order], self.name), max(len(rows) - 1, 0))
        place = order[found] if len(rows) else np.zeros(len(self.name), np.int64)
        return np.where(rows.name[place] == self.name, place, -1) if len(rows) else place - 1


class Rows:
    """Live rows of some classes of a database version, in the order of their segment ids.

    Args:
        database: a version.
        classes: ids of the asked classes, ascending.
        transform: one of `KINDS`.
    """

    def __init__(self, database: Database, classes: tuple[int, ...], transform: str) -> None:
        from retclip.shards.search.scope import Scope
        from retclip.shards.transforms import fit

        self.transform = transform
        self._scope = Scope.of(database.snapshot, classes)
        at = self._scope.located(np.arange(len(self._scope)))
        self._position = np.argsort(at.segment_id)
        self._at = [part[self._position] for part in (at.class_id, at.shard, at.row, at.segment_id)]
        self.centre: Floats = np.zeros(database.space.dim)
        if transform == "centre":
            self.centre = fit(transform, database.snapshot.moments()).offset

    def __len__(self) -> int:
        return len(self._position)

    @property
    def known(self) -> KnownRows:
        """The rows as another version recognises them."""
        return KnownRows(self.name, self.centre)

    def vectors(self, rows: npt.NDArray[np.integer]) -> Floats:
        """(n, D) stored vectors."""
        return self._scope.vectors_at(self._position[rows]).astype(np.float64)

    def products(self, vector: Floats) -> Floats:
        """(R,) products with a vector (D,)."""
        return np.concatenate([np.zeros(0), *(self.vectors(part) @ vector for part in self._parts)])

    @cached_property
    def name(self) -> npt.NDArray[np.uint64]:
        """(R,) a random sum over segment id and vector: an id alone does not say which machine observed the vector."""
        words = np.random.default_rng(_SEED).integers(0, 1 << 64, len(self.centre) + 1, np.uint64, endpoint=False) | 1
        bits = (self._scope.vectors_at(self._position[part]).view(np.uint16) for part in self._parts)
        sums = [np.add.reduce(part.astype(np.uint64) * words[:-1], axis=1) for part in bits]
        names: npt.NDArray[np.uint64] = self._at[3] * words[-1] + np.concatenate([np.zeros(0, np.uint64), *sums])
        return names

    @cached_property
    def along(self) -> Floats:
        """(R,) products with the centre."""
        return self.products(self.centre)

    @cached_property
    def length(self) -> Floats:
        """(R,) distances from the centre."""
        parts = (np.linalg.norm(self.vectors(part) - self.centre, axis=1) for part in self._parts)
        return np.concatenate([np.zeros(0), *parts])

    @cached_property
    def square(self) -> Floats:
        """(R,) squared lengths of the vectors, near 1."""
        parts = (np.square(self.vectors(part)).sum(axis=1) for part in self._parts)
        return np.concatenate([np.zeros(0), *parts])

    def of_segments(self, segment_id: npt.NDArray[np.uint64], present: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
        """Rows of segment ids, -1 where none is present."""
        return np.where(present, np.searchsorted(self._at[3], segment_id), -1).astype(np.int32)

    def neighbors(self, packed: npt.NDArray[np.uint64]) -> Neighbors:
        """Neighbours of float32 distances and rows that are packed into the halves of (N, K) numbers."""
        row = (packed & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.int32)
        distance = (packed >> np.uint64(32)).astype(np.uint32).view(np.float32)
        class_id, shard, place, segment_id = (part[row] for part in self._at)
        gone = row < 0
        return Neighbors(
            distance,
            np.where(gone, np.int32(-1), class_id),
            np.where(gone, np.int32(-1), shard),
            np.where(gone, np.int64(-1), place),
            np.where(gone, np.uint64(0), segment_id),
        )

    @property
    def _parts(self) -> list[npt.NDArray[np.int64]]:
        return [np.arange(start, min(start + _BLOCK, len(self))) for start in range(0, len(self), _BLOCK)]
