"""Hits of one query: as an engine gives them, and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from retclip.core.segments import Neighbors
from retclip.shards.search import Request

SCORE_ERROR = 1e-5  # of an engine's float32 score, generously


@dataclass(frozen=True)
class Hits:
    """Nearest rows of one query by an engine's own score.

    Attributes:
        row: (n,) int64; class_id: (n,) int32; segment_id: (n,) uint64.
        keys: (n, r) float32 stored keys.
    """

    row: npt.NDArray[np.int64]
    class_id: npt.NDArray[np.int32]
    segment_id: npt.NDArray[np.uint64]
    keys: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Measured:
    """Hits with their (n,) float32 cosine distances."""

    distance: npt.NDArray[np.float32]
    class_id: npt.NDArray[np.int32]
    row: npt.NDArray[np.int64]
    segment_id: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, key: npt.NDArray[np.float64], hits: Hits) -> Self:
        """Distances of hits from a (r,) unit key; pair by pair, so they do not depend on what else was found."""
        likeness = np.add.reduce(hits.keys.astype(np.float64) * key, axis=1)
        distance = np.clip(1.0 - likeness, 0.0, 2.0).astype(np.float32)
        return cls(distance, hits.class_id, hits.row, hits.segment_id)

    @classmethod
    def joined(cls, parts: Sequence[Measured]) -> Self:
        """All hits of some parts."""
        names = ("distance", "class_id", "row", "segment_id")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def best(self, request: Request) -> Measured:
        """The `k` nearest, at most `per_class_k` of a class, ties by segment id."""
        order = np.lexsort((self.segment_id, self.distance))
        if request.cap is not None:
            seen: dict[int, int] = {}
            kept = []
            for index in order.tolist():
                class_id = int(self.class_id[index])
                seen[class_id] = seen.get(class_id, 0) + 1
                if seen[class_id] <= request.cap:
                    kept.append(index)
            order = np.array(kept, np.int64)
        chosen = order[: request.k]
        return Measured(self.distance[chosen], self.class_id[chosen], self.row[chosen], self.segment_id[chosen])

    def settles(self, best: Measured, k: int) -> bool:
        """Whether rows that the engine left out are farther than the k-th of `best`, whatever its rounding."""
        return len(best.row) == k and bool(self.distance.max() > best.distance[-1] + 2 * SCORE_ERROR)


def nothing_found(queries: int, k: int) -> Neighbors:
    """Places for `k` hits of each query, all of them missing."""
    shape = (queries, k)
    return Neighbors(
        np.full(shape, np.inf, np.float32),
        np.full(shape, -1, np.int32),
        np.full(shape, -1, np.int32),
        np.full(shape, -1, np.int64),
        np.zeros(shape, np.uint64),
    )


def place(result: Neighbors, query: int, hits: Measured) -> None:
    """Write the hits of a query, nearest first, into its places."""
    cell = (query, slice(len(hits.row)))
    result.distance[cell], result.class_id[cell] = hits.distance, hits.class_id
    result.shard[cell], result.row[cell], result.segment_id[cell] = 0, hits.row, hits.segment_id
