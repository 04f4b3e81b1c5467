"""Builds the indexes of a database version, and tells what they find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retclip.shards.lock import writer_lock
from retclip.shards.search import index_files
from retclip.shards.search.planner import MINIMUM_RECALL
from retclip.shards.search.request import Request
from retclip.shards.search.scope import Scope
from retclip.shards.search.searcher import Searcher

if TYPE_CHECKING:
    from retclip.shards.database import Database

_QUERIES, _HITS = 32, 32


@dataclass(frozen=True)
class Indexed:
    """What `write_indexes` did.

    Attributes:
        shards: how many got an index.
        recall: share of the 32 nearest of every second class that searches find through the indexes: for stored
            segments of these classes, and for segments of the others; None where there are no others.
        kept: whether that was enough; if not, the indexes were removed again.
    """

    shards: int
    recall: tuple[float, float | None]
    kept: bool


def write_indexes(database: Database, transform: str | None = None) -> Indexed:
    """Give every shard that has none an index, with which searches look at the keys of few rows.

    An index belongs to one key transform with the statistics of this version. Objects that were opened before go on
    without; `Database.plan` says whether one is used.

    Args:
        database: the version to index.
        transform: key transform of the searches to come, None for that of the version.

    Raises:
        ResourceError: E312 without FAISS, E401 without room.
        DatabaseError: E304 while somebody writes, E310 where writing is refused.
    """
    index_files.require_faiss()
    from retclip.shards.search.coding import Coding  # needs torch, `db info` does without

    kind = transform or database.transform
    keys = Searcher(database.snapshot).transform(kind)
    readers = [shard.reader for shard in database.snapshot.shards]
    with writer_lock(database.path, "index"):
        lacking = [reader for reader in readers if not index_files.has_index(reader, keys)]
        if not keys.width(database.space.dim):  # a whitening that no direction is left of
            lacking = []
        if lacking:
            coding = Coding.fit(lacking, keys)
            for reader in lacking:
                index_files.write_index(reader, keys, coding)
        recall = _recall(database, kind)
        kept = min(share for share in recall if share is not None) >= MINIMUM_RECALL
        for reader in readers if not kept else ():
            index_files.remove_index(reader.folder)
    return Indexed(len(lacking), recall, kept)


def _recall(database: Database, transform: str) -> tuple[float, float | None]:
    """See `Indexed.recall`."""
    searcher, classes = Searcher(database.snapshot), sorted(database.manifest.counts)
    request = Request(_HITS, tuple(classes[::2]), None, transform)
    shares = []
    for group in (classes[::2], classes[1::2]):
        scope = Scope.of(database.snapshot, group)
        some = np.unique(np.linspace(0, len(scope) - 1, _QUERIES).astype(np.int64)) if len(scope) else None
        shares.append(None if some is None else searcher.recall_sample(scope.vectors_at(some), request))
    return 1.0 if shares[0] is None else shares[0], shares[1]
