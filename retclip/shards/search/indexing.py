"""Builds the indexes of a database version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retclip.shards.lock import writer_lock
from retclip.shards.search import index_files
from retclip.shards.search.searcher import Searcher

if TYPE_CHECKING:
    from retclip.shards.database import Database


def write_indexes(database: Database, transform: str | None = None) -> int:
    """Give every shard that has none an index, for searches over more rows than a scan can bear.

    An index belongs to one key transform with the statistics of this version; `Database.plan` says whether one is used.

    Args:
        database: the version to index.
        transform: key transform of the searches to come, None for that of the version.

    Returns:
        How many shards got an index.

    Raises:
        ResourceError: E312 without FAISS, E401 without room.
        DatabaseError: E304 while somebody writes, E310 where writing is refused.
    """
    keys = Searcher(database.snapshot).transform(transform or database.transform)
    with writer_lock(database.path, "index"):
        lacking = [s.reader for s in database.snapshot.shards if not index_files.has_index(s.reader, keys)]
        for reader in lacking:
            index_files.write_index(reader, keys)
    return len(lacking)
