"""Approximate search through the inverted files of the shards, for more rows than a scan can bear."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from retclip.shards.search.index_files import ShardIndex, read_index
from retclip.shards.search.pairs import Pairs
from retclip.shards.search.request import Request
from retclip.shards.search.scope import Scope
from retclip.shards.snapshot import Snapshot
from retclip.shards.transforms import KeyTransform

_LEAST_PROBES = 32
_PROBE_SHARE = 16  # one in so many of the asked lists is looked into
_OVERSAMPLING = 2  # scores of one byte a number are rough; float64 orders what they bring


class InvertedFiles:
    """Looks into the lists of the asked classes whose centres are nearest; lists of other classes are never opened."""

    name = "faiss inverted files"
    exact = False

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._read: dict[tuple[int, str], ShardIndex] = {}

    def candidates(
        self, asked: npt.NDArray[np.float64], request: Request, scope: Scope, transform: KeyTransform
    ) -> Pairs:
        """See `backend.Backend`; `request.cap` must be None."""
        assert request.cap is None
        parts = [Pairs.none()]
        for shard in np.unique(scope.shard).tolist():
            index = self._index(shard, transform)
            row, score = self._search_shard(index, shard, asked.astype(np.float32), request)
            query, place = np.nonzero(row >= 0)
            position = scope.positions_of(shard, row[query, place])
            assert bool((position >= 0).all()), "an index answered with a row that was not asked"
            parts.append(Pairs(query, position, scope.classes_at(position), score[query, place]))
        return Pairs.join(parts)

    def _index(self, shard: int, transform: KeyTransform) -> ShardIndex:
        key = (shard, transform.kind)
        if key not in self._read:
            self._read[key] = read_index(self._snapshot.shards[shard].reader, transform)
        return self._read[key]

    def _search_shard(
        self, index: ShardIndex, shard: int, asked: npt.NDArray[np.float32], request: Request
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """(M, m) rows, -1 where there are fewer, and their scores."""
        import faiss

        effective = np.array([self._snapshot.classes.effective(c) for c in index.classes.tolist()], np.int32)
        lists = np.flatnonzero(np.isin(effective, request.classes))
        probes = min(len(lists), max(_LEAST_PROBES, -(-len(lists) // _PROBE_SHARE)))
        likeness = asked @ index.centres[lists].T
        chosen = np.argpartition(-likeness, probes - 1, axis=1)[:, :probes]
        score = np.empty((len(asked), min(_OVERSAMPLING * request.k, index.faiss.ntotal)), np.float32)
        row = np.empty(score.shape, np.int64)
        nearest, likely = lists[chosen], np.take_along_axis(likeness, chosen, axis=1)
        pointer = faiss.swig_ptr
        # The Python wrapper takes no parameters, and without them the selector could not be passed.
        index.faiss.search_preassigned_c(
            len(asked), pointer(asked), score.shape[1], pointer(nearest), pointer(likely), pointer(score), pointer(row),
            False, self._parameters(faiss, shard, probes),
        )  # fmt: skip
        return row, score

    def _parameters(self, faiss: Any, shard: int, probes: int) -> Any:
        """Search parameters with a selector of the live rows of a shard; on a processor FAISS heeds it."""
        dead = np.flatnonzero(~self._snapshot.live_mask(shard))
        if not len(dead):
            return faiss.IVFSearchParameters(nprobe=probes)
        return faiss.IVFSearchParameters(nprobe=probes, sel=faiss.IDSelectorNot(faiss.IDSelectorBatch(dead)))
