"""Which shards are worth rewriting, and the rows that a rewritten shard keeps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from retclip.shards.shard_writer import RowBatch
from retclip.shards.snapshot import Snapshot

DEAD_SHARE = 0.2  # a shard with a larger share of dead rows is rewritten
SMALL_SHARDS = 8  # more small shards than this are joined: every class of a search is looked up in each of them
SMALL_FRACTION = 8  # a shard is small below this fraction of a full one
_BLOCK_ROWS = 1 << 14


def worn(snapshot: Snapshot, shard_rows: int) -> list[str]:
    """Ids of the shards that a compaction would rewrite.

    Args:
        snapshot: rows of a version.
        shard_rows: rows of a full shard.
    """
    rows = [part.reader.rows for part in snapshot.shards]
    live = [int(np.count_nonzero(snapshot.live_mask(shard))) for shard in range(len(rows))]
    small = {shard for shard, count in enumerate(live) if count * SMALL_FRACTION <= shard_rows}
    chosen = {shard for shard, count in enumerate(live) if rows[shard] - count > DEAD_SHARE * rows[shard]}
    if len(small) > SMALL_SHARDS:
        chosen |= small
    return [snapshot.shards[shard].reader.entry.id for shard in sorted(chosen)]


def live_batches(snapshot: Snapshot, shard: int) -> Iterator[RowBatch]:
    """The live rows of a shard in bounded pieces, each with the effective class that it has today."""
    from retclip.shards import tables  # Arrow takes 0.3 s to load; `db info` does without

    reader = snapshot.shards[shard].reader
    live = np.flatnonzero(snapshot.live_mask(shard))
    for start in range(0, len(live), _BLOCK_ROWS):
        rows = live[start : start + _BLOCK_ROWS]
        table = tables.segment_columns(reader.tables.rows(rows))
        yield RowBatch(table, snapshot.effective_classes(shard, rows), reader.vectors[rows])


def told(rewritten: int) -> str:
    """The end of a version's note about shards that its writer compacted; empty for none."""
    return f"; worn shards rewritten: {rewritten}" if rewritten else ""
