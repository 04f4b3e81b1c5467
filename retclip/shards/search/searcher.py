"""Searches one snapshot: queries to keys, a plan, candidates of its backend, and their measured distances."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import numpy.typing as npt

from retclip.core.errors import require
from retclip.core.segments import Neighbors
from retclip.shards.moments import Moments
from retclip.shards.search.backend import Backend
from retclip.shards.search.index_files import IndexGone
from retclip.shards.search.machine import machine
from retclip.shards.search.measure import Measure
from retclip.shards.search.planner import BackendName, Plan, Work, choose
from retclip.shards.search.request import Request
from retclip.shards.search.scope import Scope
from retclip.shards.snapshot import Snapshot
from retclip.shards.transforms import KeyTransform, fit

QUERY_BLOCK = 1_024


class Searcher:
    """Searches one snapshot; keeps statistics, scopes and the keys of the class sets asked last."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._transforms: dict[str, KeyTransform] = {}
        self._scope: tuple[tuple[int, ...], Scope] | None = None
        self._backends: dict[BackendName, Backend] = {}
        self._indexed: dict[tuple[frozenset[int], str], bool] = {}
        self._recall: dict[Request, float] = {}

    def transform(self, kind: str) -> KeyTransform:
        """The key transform with the statistics of this snapshot."""
        if kind not in self._transforms:
            moments = Moments.zero(self._snapshot.dim) if kind == "none" else self._snapshot.moments()
            self._transforms[kind] = fit(kind, moments)
        return self._transforms[kind]

    def plan(self, queries: int, request: Request) -> Plan:
        """Who would answer a request of so many queries, and why."""
        scope = self._scope_of(request.classes)
        total = sum(shard.reader.rows for shard in self._snapshot.shards)
        indexed = request.cap is None and self._is_indexed(scope, request.transform)
        work = Work(len(scope), total, queries, request.k, self._snapshot.dim, indexed, self._recall.get(request))
        return choose(work, machine())

    def recall_sample(self, queries: npt.NDArray[np.floating], request: Request) -> float:
        """Share of the true answer that the indexes find; remembered for the plans to come."""
        true, found = self.search(queries, request, "cpu"), self.search(queries, request, "ivf")
        real = np.isfinite(true.distance)
        last = np.where(real, true.distance, 0).max(axis=1)  # what is as near as the last true hit is as good
        hits, wanted = int(np.sum(found.distance <= last[:, None])), int(np.sum(real))
        self._recall[request] = min(hits / max(wanted, 1), 1.0)
        return self._recall[request]

    def _is_indexed(self, scope: Scope, transform: str) -> bool:
        shards = frozenset(scope.shard.tolist())
        known = self._indexed.get((shards, transform))  # another thread may take all away at any time
        if known is None:
            from retclip.shards.search import index_files

            key = self.transform(transform)
            readers = (self._snapshot.shards[shard].reader for shard in shards)
            known = self._indexed[shards, transform] = all(index_files.has_index(reader, key) for reader in readers)
        return known

    def search(
        self, queries: npt.NDArray[np.floating], request: Request, backend: BackendName | None = None
    ) -> Neighbors:
        """Nearest live rows of (M, D) queries; see `Database.search`.

        `backend` overrules the plan; where another program removed the indexes meanwhile, the search goes on without.
        """
        request.check()
        asked = self._keys_of_queries(queries, request)
        if backend is None:
            backend = self.plan(len(asked), request).backend
        finder = self._backend(backend)
        blocks = [asked[start : start + QUERY_BLOCK] for start in range(0, max(len(asked), 1), QUERY_BLOCK)]
        try:
            parts = [self._search_block(block, request, finder) for block in blocks]
        except IndexGone:
            self._indexed = dict.fromkeys(self._indexed, False)
            return self.search(queries, request)
        return Neighbors(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Neighbors)))

    def _search_block(self, asked: npt.NDArray[np.float64], request: Request, finder: Backend) -> Neighbors:
        scope, transform = self._scope_of(request.classes), self.transform(request.transform)
        pairs = finder.candidates(asked, request, scope, transform)
        return Measure(asked, scope, transform).neighbors(pairs, request)

    def _keys_of_queries(self, queries: npt.NDArray[np.floating], request: Request) -> npt.NDArray[np.float64]:
        dim = self._snapshot.dim
        require(queries.ndim == 2 and queries.shape[1] == dim, "queries", f"(M, {dim})", queries.shape)
        values = queries.astype(np.float64)
        lengths = np.sqrt(np.add.reduce(values * values, axis=1))
        bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
        require(
            not len(bad), "queries", "finite numbers and lengths > 0", f"length {lengths[bad[:1]]} in row {bad[:1]}"
        )
        return self.transform(request.transform).keys(values / lengths[:, None])

    def _scope_of(self, classes: tuple[int, ...]) -> Scope:
        kept = self._scope  # another thread may put the scope of its own classes there at any time
        if kept is None or kept[0] != classes:
            kept = self._scope = (classes, Scope.of(self._snapshot, classes))
        return kept[1]

    def _backend(self, name: BackendName) -> Backend:
        if name not in self._backends:
            self._backends[name] = self._make(name)
        return self._backends[name]

    def _make(self, name: BackendName) -> Backend:
        from retclip.shards.search import faiss_scan, ivf, kernels, keys, scan  # need torch, `db info` does without

        if name == "ivf":
            return ivf.InvertedFiles(self._snapshot, self._backend("cpu"))
        if name == "faiss-gpu":
            return faiss_scan.FaissScan(faiss_scan.gpu_knn(), keys.shared_budget("cpu"))
        if name == "cuda":
            return scan.Scan(kernels.float16_kernel("cuda"), keys.shared_budget("cuda"))
        return scan.Scan(kernels.fastest_cpu_kernel(), keys.shared_budget("cpu"))
