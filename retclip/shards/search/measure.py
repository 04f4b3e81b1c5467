"""The last word on distance: float64, pair by pair, so it does not depend on blocks, shards, batches or backends."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from retclip.core.segments import Neighbors
from retclip.shards.search.pairs import Pairs, rank_in_run
from retclip.shards.search.request import Request
from retclip.shards.search.scope import Scope
from retclip.shards.transforms import KeyTransform

_PAIR_BLOCK = 512  # their float64 keys stay in the processor's cache


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
        parts = [order[start : start + _PAIR_BLOCK] for start in range(0, len(order), _PAIR_BLOCK)]

        def measure(part: npt.NDArray[np.int64]) -> None:
            positions, index = np.unique(pairs.position[part], return_inverse=True)
            keys = self.transform.keys(self.scope.vectors_at(positions))
            likeness = np.add.reduce(self.asked[pairs.query[part]] * keys[index], axis=1)
            distance[part] = np.clip(1.0 - likeness, 0.0, 2.0)

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # numpy lets go of the interpreter in all four lines
            deque(pool.map(measure, parts), maxlen=0)
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
