"""Collects the rows that may be among the k nearest, from approximate scores with a proven error bound."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Slab:
    """Keys of consecutive live rows of the asked classes, ordered by class.

    Attributes:
        keys: (n, r) float32 unit keys.
        class_id: (n,) int32 effective class; shard: (n,) int32; row: (n,) int64; segment_id: (n,) uint64.
    """

    keys: npt.NDArray[np.float32]
    class_id: npt.NDArray[np.int32]
    shard: npt.NDArray[np.int32]
    row: npt.NDArray[np.int64]
    segment_id: npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Found:
    """Pairs of a query and a stored row.

    Attributes:
        query: (n,) int64 index of the query; the others as in `Slab`.
    """

    query: npt.NDArray[np.int64]
    class_id: npt.NDArray[np.int32]
    shard: npt.NDArray[np.int32]
    row: npt.NDArray[np.int64]
    segment_id: npt.NDArray[np.uint64]

    def take(self, index: npt.NDArray[Any]) -> Found:
        """The pairs at `index` (positions or a mask)."""
        return Found(*(getattr(self, field.name)[index] for field in fields(self)))

    @classmethod
    def join(cls, parts: Iterable[Found]) -> Self:
        """All pairs of several parts."""
        every = list(parts)
        if not every:
            none, small = np.zeros(0, np.int64), np.zeros(0, np.int32)
            return cls(none, small, small, none, np.zeros(0, np.uint64))
        columns: list[Any] = [np.concatenate([getattr(part, field.name) for part in every]) for field in fields(cls)]
        return cls(*columns)


def rank_in_run(*sorted_keys: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """(n,) place of each element inside its run of equal keys, counted from 0; the keys are already sorted."""
    n = len(sorted_keys[0])
    starts = np.zeros(n, np.bool_)
    starts[:1] = True
    for key in sorted_keys:
        starts[1:] |= key[1:] != key[:-1]
    index = np.arange(n)
    return index - np.maximum.accumulate(np.where(starts, index, 0))


def score_bound(dim: int) -> float:
    """Twice the largest error of a float32 product of two unit keys of length `dim`, in any order of additions.

    Rounding both keys costs 2 units of 2^-24, the sum at most `dim` of them (Higham, Accuracy and Stability of
    Numerical Algorithms, 3.1: gamma_n |x|.|y| with |x|.|y| <= 1), rounding the distance 2; the rest is margin.
    """
    return 2.0 * (dim + 16) * 2.0**-24


class Candidates:
    """Pairs that can still be among the `k` best of their query, for `queries` queries and keys of length `dim`."""

    def __init__(self, queries: int, k: int, dim: int) -> None:
        self._best = np.full((queries, k), -np.inf, np.float32)
        self._bound = np.float32(score_bound(dim))
        self._parts: list[tuple[Found, npt.NDArray[np.float32]]] = []

    def add(self, scores: npt.NDArray[np.float32], slab: Slab, begin: int) -> None:
        """Add (queries, n) approximate cosines of the rows begin .. begin+n of a slab."""
        k, n = self._best.shape[1], scores.shape[1]
        floor = self._best.min(axis=1)
        if n > k and bool(np.isneginf(floor).any()):
            floor = np.maximum(floor, np.partition(scores, n - k, axis=1)[:, n - k])
        query, column = np.nonzero(scores >= (floor - self._bound)[:, None])
        if not len(query):
            return
        values, row = scores[query, column], begin + column
        found = Found(query, slab.class_id[row], slab.shard[row], slab.row[row], slab.segment_id[row])
        self._parts.append((found, values))
        self._raise_best(query, values)

    def _raise_best(self, query: npt.NDArray[np.int64], values: npt.NDArray[np.float32]) -> None:
        order = np.lexsort((-values, query))
        query, values = query[order], values[order]
        place = rank_in_run(query)
        kept = place < self._best.shape[1]
        fresh = np.full_like(self._best, -np.inf)
        fresh[query[kept], place[kept]] = values[kept]
        both = np.concatenate([self._best, fresh], axis=1)
        self._best = -np.partition(-both, self._best.shape[1] - 1, axis=1)[:, : self._best.shape[1]]

    def found(self) -> Found:
        """The pairs that are within the bound of the k-th best of their query."""
        floor = self._best.min(axis=1) - self._bound
        return Found.join(part.take(values >= floor[part.query]) for part, values in self._parts)
