"""Exact search: score every row of the scope, keep every pair that rounding leaves in doubt."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from threading import local

import numpy as np
import numpy.typing as npt
import torch

from retclip.shards.search.kernels import PAD, SHRINK, Kernel
from retclip.shards.search.keys import KeyBlock, KeyBudget, KeyCache, read_keys
from retclip.shards.search.pairs import Pairs, in_reach
from retclip.shards.search.request import Request
from retclip.shards.search.scope import Scope
from retclip.shards.search.selection import Wanted, select
from retclip.shards.transforms import KeyTransform

_TILE_SCORES = 1 << 22  # float32 scores held at a time: 16 MB, which many a cache can hold until they are searched


class Scan:
    """Scores with one kernel; the keys of the vocabularies asked last stay in memory."""

    exact = True

    def __init__(self, kernel: Kernel, budget: KeyBudget) -> None:
        self.name = kernel.name
        self._kernel = kernel
        self._cache = KeyCache(budget)
        self._kept = local()

    def candidates(
        self, asked: npt.NDArray[np.float64], request: Request, scope: Scope, transform: KeyTransform
    ) -> Pairs:
        """See `backend.Backend`."""
        queries, query_loss = self._kernel.rounded(asked * SHRINK)
        found, floor, error = Pairs.none(), np.full(len(asked), -np.inf, np.float32), 0.0
        for block in self._blocks(scope, asked.shape[1], request, transform):
            error = max(error, self._kernel.error(asked.shape[1], query_loss, block.loss))
            wanted = Wanted(request.k, request.cap, 2 * error)
            tiles = _tiles(len(block.keys), len(asked))
            room = self._room((max(end - begin for begin, end in tiles) + PAD) * len(asked))
            for begin, end in tiles:
                scores = self._kernel.scores(queries, block.keys[begin:end], room)
                query, row, score = select(scores, block.ordinal[begin:end], floor, wanted)
                position = row + block.begin + begin
                fresh = Pairs(query, position, scope.classes_at(position), score)
                found, floor = in_reach(Pairs.join((found, fresh)), len(asked), request.k, request.cap, wanted.window)
        return found

    def _room(self, size: int) -> torch.Tensor:
        """At least `size` float32 numbers, kept by each thread: memory fresh from the system is slow to touch."""
        room: torch.Tensor | None = getattr(self._kept, "room", None)
        if room is None or len(room) < size:
            room = self._kept.room = torch.empty(size, device=self._kernel.device)
        return room

    def _blocks(self, scope: Scope, width: int, request: Request, transform: KeyTransform) -> Iterable[KeyBlock]:
        size = len(scope) * width * self._kernel.dtype.itemsize
        return self._cache.blocks(
            (request.transform, request.classes),
            size,
            lambda passing: read_keys(scope, transform, self._kernel, passing),
        )


def _tiles(rows: int, queries: int) -> list[tuple[int, int]]:
    """Begin and end of parts of about equal size, of about `_TILE_SCORES` scores at most."""
    parts = min(max(-(-rows * queries // _TILE_SCORES), 1), rows)
    return list(pairwise(rows * part // parts for part in range(parts + 1)))
