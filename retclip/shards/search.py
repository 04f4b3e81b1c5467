"""Exact search over the ranges of the asked classes.

A float32 matrix product finds candidates; every row that rounding could still put among the nearest is measured again
in float64, row by row, so a distance does not depend on which rows share a block, a shard or a query batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from retclip.core.errors import require
from retclip.core.segments import Neighbors
from retclip.shards.candidates import Candidates, Found, Slab, rank_in_run
from retclip.shards.snapshot import Snapshot
from retclip.shards.transforms import KeyTransform, fit

BLOCK_ROWS = 8_192
CACHE_BYTES = 1 << 30  # keys of the last class set are kept when they fit; a vocabulary repeats from image to image
QUERY_BLOCK = 1_024
_PAIR_BLOCK = 4_096


@dataclass(frozen=True)
class Request:
    """What is asked of a search: `k` nearest, of these classes, at most `per_class_k` of each (None = no limit)."""

    k: int
    classes: tuple[int, ...]
    per_class_k: int | None
    transform: str


class Searcher:
    """Searches one snapshot; keeps statistics and the keys of the last class set."""

    def __init__(self, snapshot: Snapshot, cache_bytes: int = CACHE_BYTES) -> None:
        self._snapshot = snapshot
        self._cache_bytes = cache_bytes
        self._transforms: dict[str, KeyTransform] = {}
        self._cached: tuple[tuple[str, tuple[int, ...]], list[Slab]] | None = None

    def transform(self, kind: str) -> KeyTransform:
        """The key transform with the statistics of this snapshot."""
        if kind not in self._transforms:
            self._transforms[kind] = fit(kind, self._snapshot.moments())
        return self._transforms[kind]

    def search(self, queries: npt.NDArray[np.floating], request: Request) -> Neighbors:
        """Nearest live rows of (M, D) queries; see `Database.search`."""
        asked = self._keys_of_queries(queries, request)
        blocks = [asked[start : start + QUERY_BLOCK] for start in range(0, max(len(asked), 1), QUERY_BLOCK)]
        parts = [self._search_block(block, request) for block in blocks]
        return Neighbors(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Neighbors)))

    def _search_block(self, asked: npt.NDArray[np.float64], request: Request) -> Neighbors:
        groups: dict[int, Candidates] = {}
        k = request.k if request.per_class_k is None else min(request.k, request.per_class_k)
        asked32 = asked.astype(np.float32)
        for slab in self._slabs(request):
            for group, begin, end in _parts(slab, by_class=request.per_class_k is not None):
                candidates = groups.setdefault(group, Candidates(len(asked), k, asked.shape[1]))
                candidates.add(asked32 @ slab.keys[begin:end].T, slab, begin)
        return self._measured(asked, request, Found.join(group.found() for group in groups.values()))

    def _keys_of_queries(self, queries: npt.NDArray[np.floating], request: Request) -> npt.NDArray[np.float64]:
        dim = self._snapshot.dim
        require(queries.ndim == 2 and queries.shape[1] == dim, "queries", f"(M, {dim})", queries.shape)
        values = queries.astype(np.float64)
        lengths = np.sqrt(np.add.reduce(values * values, axis=1))
        bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
        require(
            not len(bad), "queries", "finite numbers and lengths > 0", f"length {lengths[bad[:1]]} in row {bad[:1]}"
        )
        require(request.k > 0, "k", "> 0", request.k)
        require(request.per_class_k is None or request.per_class_k > 0, "per_class_k", "> 0", request.per_class_k)
        return self.transform(request.transform).keys(values / lengths[:, None])

    def _slabs(self, request: Request) -> Iterable[Slab]:
        """Slabs of the asked classes, from the cache or read from the disk block by block."""
        key = (request.transform, request.classes)
        cached = self._cached
        if cached is not None and cached[0] == key:
            return cached[1]
        rows = sum(len(rows) for class_id in request.classes for _, rows in self._snapshot.class_rows(class_id))
        slabs = self._read_slabs(request)
        if rows * 4 * self._snapshot.dim > self._cache_bytes:
            return slabs
        kept = list(slabs)
        self._cached = (key, kept)
        return kept

    def _read_slabs(self, request: Request) -> Iterator[Slab]:
        transform = self.transform(request.transform)
        pieces: list[tuple[int, int, npt.NDArray[np.int64]]] = []
        size = 0
        for class_id in request.classes:
            for shard, rows in self._snapshot.class_rows(class_id):
                while len(rows):
                    taken, rows = rows[: BLOCK_ROWS - size], rows[BLOCK_ROWS - size :]
                    pieces.append((class_id, shard, taken))
                    size += len(taken)
                    if size == BLOCK_ROWS:
                        yield self._slab(pieces, transform)
                        pieces, size = [], 0
        if pieces:
            yield self._slab(pieces, transform)

    def _slab(self, pieces: Sequence[tuple[int, int, npt.NDArray[np.int64]]], transform: KeyTransform) -> Slab:
        readers = [self._snapshot.shards[shard].reader for _, shard, _ in pieces]
        lengths = [len(rows) for _, _, rows in pieces]
        vectors = np.concatenate([r.vectors[rows] for r, (_, _, rows) in zip(readers, pieces, strict=True)])
        ids = np.concatenate([r.row_ids[rows] for r, (_, _, rows) in zip(readers, pieces, strict=True)])
        return Slab(
            transform.keys(vectors).astype(np.float32),
            np.repeat(np.array([p[0] for p in pieces], np.int32), lengths),
            np.repeat(np.array([p[1] for p in pieces], np.int32), lengths),
            np.concatenate([p[2] for p in pieces]),
            ids,
        )

    def _measured(self, asked: npt.NDArray[np.float64], request: Request, found: Found) -> Neighbors:
        """Measure the candidates in float64, order them and cut to k."""
        distance = self._distances(asked, found, self.transform(request.transform))
        if request.per_class_k is not None:
            order = np.lexsort((found.segment_id, distance, found.class_id, found.query))
            keep = order[rank_in_run(found.query[order], found.class_id[order]) < request.per_class_k]
            found, distance = found.take(keep), distance[keep]
        order = np.lexsort((found.segment_id, distance, found.query))
        place = rank_in_run(found.query[order])
        order, place = order[place < request.k], place[place < request.k]
        found, distance = found.take(order), distance[order]
        shape = (len(asked), request.k)
        result = Neighbors(
            np.full(shape, np.inf, np.float32),
            np.full(shape, -1, np.int32),
            np.full(shape, -1, np.int32),
            np.full(shape, -1, np.int64),
            np.zeros(shape, np.uint64),
        )
        at = (found.query, place)
        result.distance[at], result.class_id[at] = distance, found.class_id
        result.shard[at], result.row[at], result.segment_id[at] = found.shard, found.row, found.segment_id
        return result

    def _distances(
        self, asked: npt.NDArray[np.float64], found: Found, transform: KeyTransform
    ) -> npt.NDArray[np.float32]:
        """(n,) cosine distance of each candidate pair, computed per pair."""
        distance = np.empty(len(found.query), np.float32)
        for start in range(0, len(distance), _PAIR_BLOCK):
            part = slice(start, start + _PAIR_BLOCK)
            vectors = np.empty((len(found.row[part]), self._snapshot.dim), np.float16)
            for shard in np.unique(found.shard[part]).tolist():
                here = found.shard[part] == shard
                vectors[here] = self._snapshot.shards[shard].reader.vectors[found.row[part][here]]
            likeness = np.add.reduce(asked[found.query[part]] * transform.keys(vectors), axis=1)
            distance[part] = np.clip(1.0 - likeness, 0.0, 2.0)
        return distance


def _parts(slab: Slab, *, by_class: bool) -> Iterator[tuple[int, int, int]]:
    """(group, begin, end) of the parts of a slab that compete with one another: all rows, or those of one class."""
    n = len(slab.class_id)
    if not by_class:
        yield -1, 0, n
        return
    edges = [0, *(np.flatnonzero(np.diff(slab.class_id)) + 1).tolist(), n]
    for begin, end in pairwise(edges):
        yield int(slab.class_id[begin]), begin, end
