"""Pairs of a query and a row that can still be among the nearest, and the rule that drops the others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Pairs:
    """Pairs of a query and a row of a scope.

    Attributes:
        query, position: (n,) int64 index of the query and position in the scope.
        class_id: (n,) int32 effective class of the row.
        score: (n,) float32, larger is nearer, right up to the error of whoever scored.
    """

    query: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]
    class_id: npt.NDArray[np.int32]
    score: npt.NDArray[np.float32]

    @classmethod
    def none(cls) -> Self:
        """No pairs."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))

    @classmethod
    def join(cls, parts: Iterable[Pairs]) -> Self:
        """All pairs of one or more parts."""
        every = list(parts)
        columns: list[Any] = [np.concatenate([getattr(part, field.name) for part in every]) for field in fields(cls)]
        return cls(*columns)

    def take(self, index: npt.NDArray[Any]) -> Pairs:
        """The pairs at `index` (positions or a mask)."""
        return Pairs(*(getattr(self, field.name)[index] for field in fields(self)))


def rank_in_run(*sorted_keys: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """(n,) place of each element inside its run of equal keys, counted from 0; the keys are already sorted."""
    n = len(sorted_keys[0])
    starts = np.zeros(n, np.bool_)
    starts[:1] = True
    for key in sorted_keys:
        starts[1:] |= key[1:] != key[:-1]
    index = np.arange(n)
    return index - np.maximum.accumulate(np.where(starts, index, 0))


def in_reach(pairs: Pairs, queries: int, k: int, cap: int | None, window: float) -> tuple[Pairs, npt.NDArray[Any]]:
    """Pairs within `window` of the k-th best of their query, counting at most `cap` of a class.

    Returns:
        The pairs that stay, and (queries,) float32 the k-th best score of each query, -inf where there are fewer.
    """
    counted = np.ones(len(pairs.query), np.bool_)
    if cap is not None:
        pairs = pairs.take(np.lexsort((-pairs.score, pairs.query * 2**32 + pairs.class_id)))
        rank = rank_in_run(pairs.query, pairs.class_id)
        beyond = np.flatnonzero(rank >= cap)
        stays = np.ones(len(rank), np.bool_)
        # Scores fall inside a run, so the cap-th of a run stands `rank - (cap - 1)` before.
        stays[beyond] = pairs.score[beyond] >= pairs.score[beyond - rank[beyond] + cap - 1] - window
        pairs, counted = pairs.take(stays), (rank < cap)[stays]
    floor = kth_best(pairs.query[counted], pairs.score[counted], queries, k)
    return pairs.take(pairs.score >= floor[pairs.query] - window), floor


def kth_best(
    query: npt.NDArray[np.int64], score: npt.NDArray[np.float32], queries: int, k: int
) -> npt.NDArray[np.float32]:
    """(queries,) k-th largest score of each query, -inf where there are fewer."""
    order = np.argsort(query * 4.0 - score)  # scores lie within 2 of one another; one sort is faster than two
    query, score = query[order], score[order]
    kth = rank_in_run(query) == k - 1
    floor = np.full(queries, -np.inf, np.float32)
    floor[query[kth]] = score[kth]
    return floor
