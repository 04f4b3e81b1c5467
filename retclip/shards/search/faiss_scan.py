"""Exact search with FAISS's flat scan of gathered keys, for a GPU that faiss can use and torch cannot.

No ID selector is passed: faiss on a GPU ignores it without a word. What is not asked is not among the keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from retclip.shards.search.kernels import NUMPY_FLOAT32, SHRINK
from retclip.shards.search.keys import KeyBlock, KeyBudget, KeyCache, read_keys
from retclip.shards.search.pairs import Pairs, in_reach
from retclip.shards.search.request import Request
from retclip.shards.search.scope import Scope
from retclip.shards.search.selection import Wanted, select
from retclip.shards.transforms import KeyTransform

Array = npt.NDArray[Any]
Knn = Callable[[Array, Array, int], tuple[Array, Array]]
_LARGEST_K = 2_048  # of faiss on a GPU


def gpu_knn() -> Knn:
    """(M, r) queries, (n, r) keys, k -> (M, k) inner products, falling, and their rows, on the first GPU."""
    import faiss

    resources = faiss.StandardGpuResources()
    return lambda queries, keys, k: faiss.knn_gpu(resources, queries, keys, k, metric=faiss.METRIC_INNER_PRODUCT)


class FaissScan:
    """Asks for twice the wanted hits; a query whose last hit rounding leaves in doubt is scored in full instead."""

    name = "faiss float32"
    exact = True

    def __init__(self, knn: Knn, budget: KeyBudget) -> None:
        self._knn = knn
        self._cache = KeyCache(budget)

    def candidates(
        self, asked: npt.NDArray[np.float64], request: Request, scope: Scope, transform: KeyTransform
    ) -> Pairs:
        """See `backend.Backend`."""
        blocks = self._cache.blocks(
            (request.transform, request.classes),
            len(scope) * asked.shape[1] * 4,
            lambda passing: read_keys(scope, transform, NUMPY_FLOAT32, passing),
        )
        queries, query_loss = NUMPY_FLOAT32.rounded(asked * SHRINK)
        found, error = Pairs.none(), 0.0
        for block in blocks:
            error = max(error, NUMPY_FLOAT32.error(asked.shape[1], query_loss, block.loss))
            wanted = Wanted(request.cap or request.k, None, 2 * error)
            parts = [self._range(queries, block, rows, wanted, scope) for rows in _ranges(block, request)]
            found, _ = in_reach(Pairs.join((found, *parts)), len(asked), request.k, request.cap, wanted.window)
        return found

    def _range(self, queries: torch.Tensor, block: KeyBlock, rows: slice, wanted: Wanted, scope: Scope) -> Pairs:
        keys = block.keys[rows]
        many = min(2 * wanted.k, len(keys), _LARGEST_K)
        score, column = self._knn(queries.numpy(), keys.numpy(), many)
        doubtful = np.zeros(len(score), np.bool_)
        if many < len(keys):
            reach = score[:, wanted.k - 1] - wanted.window if wanted.k <= many else np.full(len(score), -np.inf)
            doubtful = score[:, -1] >= reach
        query = np.repeat(np.flatnonzero(~doubtful), many)
        pairs = [(query, column[~doubtful].ravel(), score[~doubtful].ravel())]
        if doubtful.any():
            again = np.flatnonzero(doubtful)
            scores = NUMPY_FLOAT32.scores(queries[again], keys)
            unknown = np.full(len(again), -np.inf, np.float32)
            at, place, value = select(scores, block.ordinal[rows], unknown, wanted)
            pairs.append((again[at], place, value))
        query, column, score = (np.concatenate(columns) for columns in zip(*pairs, strict=True))
        position = column + block.begin + rows.start
        return Pairs(query, position, scope.classes_at(position), score)


def _ranges(block: KeyBlock, request: Request) -> Iterator[slice]:
    """Rows of a block that compete with one another: all, or those of one class."""
    cuts = [] if request.cap is None else (np.flatnonzero(np.diff(block.ordinal)) + 1).tolist()
    for begin, end in pairwise([0, *cuts, len(block.keys)]):
        yield slice(begin, end)
