"""A database copy inside a vector engine, asked like the database itself.

Engines order hits by scores of their own arithmetic and break ties as they please. Here more hits are taken than asked,
their distances are measured again in float64 from the stored keys, and ties go by segment id, so that an engine that
finds the right rows gives the database's answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from retclip.adapters.vector_engines.hits import Hits, Measured, nothing_found, place
from retclip.adapters.vector_engines.places import Place
from retclip.core.errors import DatabaseError, require
from retclip.core.identity import FeatureSpace
from retclip.core.segments import Neighbors, StoredSegment
from retclip.shards import StoredClass
from retclip.shards.portable import Facts
from retclip.shards.search import Request

_SPARE = 8  # hits beyond k, so that a tie at the k-th place is seen
_BLOCK_BYTES = 256 << 20  # of keys that are taken at once


class VectorEngine(Protocol):
    """What is asked of an engine that holds one exported version."""

    place: Place
    facts: Facts

    def nearest(self, asked: npt.NDArray[np.float32], count: int, classes: Sequence[int] | None) -> list[Hits]:
        """Up to `count` rows for each of (M, r) unit keys by dot product, among some classes or all (None)."""
        ...

    def segments(self, rows: Sequence[int]) -> list[StoredSegment]:
        """Records of rows in the asked order. Raises KeyError for a row that is not there."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


class EngineIndex:
    """A `NeighborIndex` over an engine. Thumbnails stay with the database; here there are none."""

    def __init__(self, engine: VectorEngine) -> None:
        assert engine.facts.keys is not None
        self._engine, self._facts, self._transform = engine, engine.facts, engine.facts.keys

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of files and connections."""
        self._engine.close()

    def __len__(self) -> int:
        return len(self._facts)

    @property
    def name(self) -> str:
        """Name of the exported database."""
        return self._facts.name

    @property
    def version(self) -> int:
        """The exported version."""
        return self._facts.version

    @property
    def space(self) -> FeatureSpace:
        """What made the vectors."""
        return self._facts.space

    @property
    def preset(self) -> Mapping[str, Any]:
        """Settings of the database's build."""
        return self._facts.preset

    @property
    def transform(self) -> str:
        """The key transform that the stored vectors went through."""
        return self._transform.kind

    @property
    def models(self) -> Sequence[Mapping[str, str]]:
        """Networks that took part in the database."""
        return self._facts.models

    @property
    def classes(self) -> tuple[StoredClass, ...]:
        """Classes with live segments in the exported version."""
        return self._facts.classes

    @property
    def databases(self) -> Sequence[Mapping[str, Any]]:
        """Name, version and feature space of what answers, and the engine, for the record of a run."""
        fingerprint = self.space.fingerprint
        return [
            {
                "name": self.name,
                "version": self.version,
                "feature_space": fingerprint,
                "engine": self._engine.place.engine,
            }
        ]

    def origin(self, shard: int) -> str:
        """`name@version` of the exported database."""
        return f"{self.name}@{self.version}"

    def thumbnail(self, segment_id: int) -> bytes | None:
        """None: thumbnails are not exported."""
        return None

    def segments(self, positions: Sequence[tuple[int, int]]) -> list[StoredSegment]:
        """Records at (0, row) positions of search results. Raises ValueError for another position."""
        try:
            return self._engine.segments([row for _, row in positions])
        except KeyError as error:
            raise ValueError(f"position: expected a row of {self.name}, got {error}") from error

    def search(
        self,
        queries: npt.NDArray[np.floating],
        k: int,
        classes: Sequence[int] | None = None,
        per_class_k: int | None = None,
        transform: str | None = None,
    ) -> Neighbors:
        """Nearest segments of (M, D) queries by cosine distance, see `Database.search`; `shard` is 0.

        Raises:
            DatabaseError: E309 for an unknown class id; E333 for another transform than the exported one.
        """
        known = {item.id: item.count for item in self.classes}
        asked = sorted(known) if classes is None else sorted(set(map(int, classes)))
        if unknown := sorted(set(asked) - set(known)):
            raise self._unknown_class(unknown[0])
        if transform not in (None, self.transform):
            raise self._other_transform(str(transform))
        request = Request(k, tuple(asked), per_class_k, self.transform)
        request.check()
        keys = self._keys(queries)
        rows = sum(known[class_id] for class_id in asked)
        scope = _Scope(None if len(asked) == len(known) else tuple(asked), rows)
        result = nothing_found(len(keys), k)
        for query, hits in self._found(keys, np.arange(len(keys)), request, scope):
            place(result, query, hits)
        return result

    def _keys(self, queries: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        dim = self.space.dim
        require(queries.ndim == 2 and queries.shape[1] == dim, "queries", f"(M, {dim})", queries.shape)
        values = queries.astype(np.float64)
        lengths = np.sqrt(np.add.reduce(values * values, axis=1))
        good = bool((np.isfinite(lengths) & (lengths > 0)).all())
        require(good, "queries", "finite numbers and lengths > 0", "others")
        return self._transform.keys(values / lengths[:, None])

    def _found(
        self, keys: npt.NDArray[np.float64], queries: npt.NDArray[np.int64], request: Request, scope: _Scope
    ) -> Iterator[tuple[int, Measured]]:
        """The hits of each query; those that more hits could change are asked again for more."""
        count = (request.k if request.cap is None else 4 * request.k) + _SPARE
        while len(queries) and scope.rows:
            unsure = []
            for query, measured, is_all in self._asked(keys, queries, count, scope):
                best = measured.best(request)
                if is_all or measured.settles(best, request.k):
                    yield query, best
                else:
                    unsure.append(query)
            queries = np.array(unsure, np.int64)
            if len(queries) and request.cap is not None:
                yield from self._by_class(keys, queries, request)
                return
            count *= 4

    def _asked(
        self, keys: npt.NDArray[np.float64], queries: npt.NDArray[np.int64], count: int, scope: _Scope
    ) -> Iterator[tuple[int, Measured, bool]]:
        """Up to `count` hits of each query, and whether there are no more; in blocks of bounded memory."""
        block = max(1, _BLOCK_BYTES // (min(count, scope.rows) * keys.shape[1] * 4))
        for start in range(0, len(queries), block):
            part = queries[start : start + block]
            found = self._engine.nearest(keys[part].astype(np.float32), count, scope.classes)
            for query, hits in zip(part.tolist(), found, strict=True):
                yield query, Measured.of(keys[query], hits), len(hits.row) < count

    def _by_class(
        self, keys: npt.NDArray[np.float64], queries: npt.NDArray[np.int64], request: Request
    ) -> Iterator[tuple[int, Measured]]:
        """The hits of each query under a limit per class, class by class: one class may crowd out all others."""
        assert request.cap is not None
        counts = {item.id: item.count for item in self.classes}
        parts: dict[int, list[Measured]] = {query: [] for query in queries.tolist()}
        for class_id in request.classes:
            single = Request(min(request.k, request.cap), (class_id,), None, request.transform)
            for query, hits in self._found(keys, queries, single, _Scope((class_id,), counts[class_id])):
                parts[query].append(hits)
        for query, found in parts.items():
            yield query, Measured.joined(found).best(request)

    def _unknown_class(self, class_id: int) -> DatabaseError:
        return DatabaseError(
            "E309",
            f"'{self.name}' in {self._engine.place.engine} has no class with id {class_id}.",
            why="Ids come from `classes` of the same object.",
        )

    def _other_transform(self, kind: str) -> DatabaseError:
        return DatabaseError(
            "E333",
            f"'{self.name}' in {self._engine.place.engine} cannot be searched with key transform '{kind}'.",
            why=f"Its vectors were exported with '{self.transform}' applied, which cannot be undone.",
            fix=f"Export it again with --transform {kind}, or set retrieval.transform to 'database'.",
        )


@dataclass(frozen=True)
class _Scope:
    """Classes that are searched, None for all, and their live rows."""

    classes: tuple[int, ...] | None
    rows: int
