"""The last word on distance: float64, pair by pair, so it does not depend on blocks, shards, batches or backends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retclip.core.segments import Neighbors
from retclip.shards.search.pairs import Pairs, rank_in_run
from retclip.shards.search.request import Request
from retclip.shards.search.scope import Scope
from retclip.shards.transforms import KeyTransform

_PAIR_BLOCK = 128  # their float64 keys stay in the cache, and are small enough for malloc to give the same memory again


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
        # One thread: several spend what they gain on handing the interpreter to one another.
        for start in range(0, len(order), _PAIR_BLOCK):
            part = order[start : start + _PAIR_BLOCK]
            positions = pairs.position[part]
            first = rank_in_run(positions) == 0
            keys = self.transform.keys(self.scope.vectors_at(positions[first]))
            if len(keys) < len(part):
                keys = keys[np.cumsum(first) - 1]
            keys *= self.asked[pairs.query[part]]
            distance[part] = np.clip(1.0 - np.add.reduce(keys, axis=1), 0.0, 2.0)
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
