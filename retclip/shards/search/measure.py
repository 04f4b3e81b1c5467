"""The last word on distance: float64, pair by pair, so it does not depend on blocks, shards, batches or backends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retclip.core.segments import Neighbors
from retclip.shards.search.pairs import Pairs, rank_in_run
from retclip.shards.search.request import Request
from retclip.shards.search.scope import Scope
from retclip.shards.transforms import NORM_FLOOR, KeyTransform, normalised

_PAIR_BLOCK = 256  # few calls, and float64 copies that a processor's cache can hold


@dataclass(frozen=True)
class Measure:
    """Measures pairs of asked keys (M, r) and rows of a scope."""

    asked: npt.NDArray[np.float64]
    scope: Scope
    transform: KeyTransform

    def distances(self, pairs: Pairs) -> npt.NDArray[np.float32]:
        """(n,) cosine distance of each pair, in [0, 2]."""
        distance = np.empty(len(pairs.query), np.float32)
        order = np.argsort(pairs.position)  # neighbours of several queries are read and transformed once
        # Copies go where the last block's went: what malloc gives back is paid for page by page.
        room = np.empty((2, min(len(order), _PAIR_BLOCK), self.asked.shape[1]))
        # One thread: several spend what they gain on handing the interpreter to one another.
        for start in range(0, len(order), _PAIR_BLOCK):
            part = order[start : start + _PAIR_BLOCK]
            positions = pairs.position[part]
            first = rank_in_run(positions) == 0
            values = self.transform.mapped(_widened(self.scope.vectors_at(positions[first])))
            keys = np.take(self.asked, pairs.query[part], axis=0, out=room[0, : len(part)], mode="clip")
            distance[part] = distances(values, np.cumsum(first) - 1, keys, room[1, : len(part)])
        return distance

    def neighbors(self, pairs: Pairs, request: Request) -> Neighbors:
        """The `request.k` nearest of the pairs of each query, at most `per_class_k` of a class, ties by segment id."""
        distance = self.distances(pairs)
        at = self.scope.located(pairs.position)
        query = pairs.query
        index = np.lexsort((at.segment_id, distance, query))
        if request.cap is not None:
            by_class = np.lexsort((at.segment_id, distance, at.class_id, query))
            kept = np.zeros(len(query), np.bool_)
            kept[by_class] = rank_in_run(query[by_class], at.class_id[by_class]) < request.cap
            index = index[kept[index]]
        place = rank_in_run(query[index])
        index, place = index[place < request.k], place[place < request.k]
        shape = (len(self.asked), request.k)
        result = Neighbors(
            np.full(shape, np.inf, np.float32),
            np.full(shape, -1, np.int32),
            np.full(shape, -1, np.int32),
            np.full(shape, -1, np.int64),
            np.zeros(shape, np.uint64),
        )
        cell = (query[index], place)
        result.distance[cell], result.class_id[cell] = distance[index], at.class_id[index]
        result.shard[cell], result.row[cell] = at.shard[index], at.row[index]
        result.segment_id[cell] = at.segment_id[index]
        return result


def _widened(vectors: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
    """The same numbers; numpy alone takes three times as long."""
    from retclip.shards.search.quick_keys import numpy_cast  # needs torch, `db info` does without

    return numpy_cast(vectors, np.empty(vectors.shape, np.float32))


def distances(
    values: npt.NDArray[np.float64],
    row: npt.NDArray[np.int64],
    asked: npt.NDArray[np.float64],
    room: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float32]:
    """(n,) cosine distance, in [0, 2], of unit keys (n, r) to the rows of mapped vectors (m, r) that `row` (n,) names.

    The answer is `exact_distances`, bit by bit. It is found by sums in whatever order is quick: where all float64
    numbers that the exact sum can be round to one float32, the order does not matter, and elsewhere it is done again.

    Args:
        row: ascending; every row is named at least once.
        room: (n, r) to work in.
    """
    norms = np.sqrt(np.vecdot(values, values))
    # mode="clip" is what lets numpy write to `out` at once; no row is outside.
    keys = values if len(values) == len(row) else np.take(values, row, axis=0, out=room, mode="clip")
    quick = 1.0 - np.vecdot(keys, asked) / np.maximum(norms, NORM_FLOOR)[row]
    # Each of four sums of r products of unit vectors is wrong by at most (r + 8) / 2^53, in either order.
    doubt = 4.0 * (values.shape[1] + 8) * 2.0**-53
    found = (quick - doubt).astype(np.float32)
    unsure = np.flatnonzero((found != (quick + doubt).astype(np.float32)) | (norms[row] < 2 * NORM_FLOOR))
    found[unsure] = exact_distances(values[row[unsure]], asked[unsure])
    clipped: npt.NDArray[np.float32] = np.clip(found, 0.0, 2.0)
    return clipped


def exact_distances(values: npt.NDArray[np.float64], asked: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """(n,) what distance is by definition: from keys of unit length, summed as numpy sums a row."""
    products = normalised(values) * asked
    distance: npt.NDArray[np.float64] = np.clip(1.0 - np.add.reduce(products, axis=1), 0.0, 2.0)
    return distance.astype(np.float32)
