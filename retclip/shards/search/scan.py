"""Exact search: score every row of the scope, keep every pair that rounding leaves in doubt."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch

from retclip.shards.search.kernels import SHRINK, Kernel
from retclip.shards.search.keys import KeyBlock, KeyCache, read_keys
from retclip.shards.search.pairs import Pairs, in_reach
from retclip.shards.search.request import Request
from retclip.shards.search.scope import Scope
from retclip.shards.search.selection import Wanted, select
from retclip.shards.transforms import KeyTransform

_TILE_SCORES = 1 << 23  # float32 scores held at a time: 32 MB


class Scan:
    """Scores with one kernel; the keys of the vocabularies asked last stay in memory."""

    exact = True

    def __init__(self, kernel: Kernel, cache_bytes: int) -> None:
        self.name = kernel.name
        self._kernel = kernel
        self._cache = KeyCache(cache_bytes)

    def candidates(
        self, asked: npt.NDArray[np.float64], request: Request, scope: Scope, transform: KeyTransform
    ) -> Pairs:
        """See `backend.Backend`."""
        queries, query_loss = self._kernel.rounded(asked * SHRINK)
        found, floor, error = Pairs.none(), np.full(len(asked), -np.inf, np.float32), 0.0
        for block in self._blocks(scope, asked.shape[1], request, transform):
            error = max(error, self._kernel.error(asked.shape[1], query_loss, block.loss))
            wanted = Wanted(request.k, request.cap, 2 * error)
            rows = max(_TILE_SCORES // max(len(asked), 1), 1)
            for begin in range(0, len(block.keys), rows):
                fresh = self._tile(queries, block, slice(begin, begin + rows), floor, wanted, scope)
                found, floor = in_reach(Pairs.join((found, fresh)), len(asked), request.k, request.cap, wanted.window)
        return found

    def _tile(
        self,
        queries: torch.Tensor,
        block: KeyBlock,
        rows: slice,
        floor: npt.NDArray[np.float32],
        wanted: Wanted,
        scope: Scope,
    ) -> Pairs:
        scores = self._kernel.scores(queries, block.keys[rows])
        query, column, score = select(scores, block.ordinal[rows], torch.from_numpy(floor).to(scores.device), wanted)
        position = column.cpu().numpy() + block.begin + rows.start
        return Pairs(query.cpu().numpy(), position, scope.classes_at(position), score.cpu().numpy())

    def _blocks(self, scope: Scope, width: int, request: Request, transform: KeyTransform) -> Iterable[KeyBlock]:
        size = len(scope) * width * self._kernel.dtype.itemsize
        return self._cache.blocks(
            (request.transform, request.classes), size, lambda: read_keys(scope, transform, self._kernel)
        )
