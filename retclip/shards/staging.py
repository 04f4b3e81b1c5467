"""Shards on their way into a version: written under staging names, and named when the transaction commits."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from pyroaring import BitMap

from retclip.core.identity import FeatureSpace
from retclip.shards import durable, tables
from retclip.shards.manifest import Deletes, ShardEntry
from retclip.shards.shard_reader import ShardReader
from retclip.shards.shard_writer import RowBatch, staged_folder, write_shard
from retclip.shards.snapshot import LiveShard


class Staging:
    """Buffers rows and writes a shard whenever `shard_rows` are there.

    Attributes:
        buffered_ids: segment ids of the rows that are in no shard yet, as far as `put` was told.
        named: shards and bitmaps that were given their final names.
    """

    def __init__(self, database: Path, space: FeatureSpace, shard_rows: int) -> None:
        self._folder, self._deletes = database / "shards", database / "deletes"
        self._space = space
        self._shard_rows = shard_rows
        self._buffer: list[RowBatch] = []
        self._entries: list[ShardEntry] = []
        self.buffered_ids: set[int] = set()
        self.named: list[Path] = []

    def put(self, batch: RowBatch) -> Iterator[LiveShard]:
        """Buffer rows; yields every shard that became full. The rows are taken as the result is consumed."""
        while len(batch.class_ids):
            room = self._shard_rows - self._rows()
            self._buffer.append(batch.part(0, room))
            batch = batch.part(room, None)
            if self._rows() == self._shard_rows:
                yield from self.flush()

    def flush(self) -> Iterator[LiveShard]:
        """Write what is buffered; yields the shard, if there were any rows."""
        if not self._buffer:
            return
        self._buffer.append(RowBatch.join(self._buffer))  # it stays there until it is written
        batch = self._buffer[0]
        entry = write_shard(self._folder, batch, self._space)
        self._entries.append(entry)
        self._buffer.clear()
        self.buffered_ids.difference_update(tables.numbers(batch.table, "segment_id").tolist())
        yield LiveShard(ShardReader(staged_folder(self._folder, entry.id), entry, self._space.dim), BitMap())

    def publish(self, wanted: Collection[str]) -> None:
        """Give the shards with these ids their names, durably; the others stay staged."""
        for entry in self._entries:
            if entry.id in wanted:
                self.named.append(self._folder / entry.id)
                durable.publish_folder(staged_folder(self._folder, entry.id), self._folder / entry.id)

    def entry(self, part: LiveShard) -> ShardEntry:
        """Manifest entry of a shard, with its bitmap written when it changed."""
        entry = part.reader.entry
        if len(part.dead) == (entry.deletes.rows if entry.deletes else 0):
            return entry
        part.dead.run_optimize()
        final = self._deletes / f"{durable.new_id()}.roaring"
        self.named.append(final)
        file = durable.publish_file(final, [part.dead.serialize()])
        return replace(entry, deletes=Deletes(final.stem, len(part.dead), file))

    def forget(self) -> None:
        """Remove what was named for a version that never came to be."""
        for path in self.named:
            durable.remove(path)

    def discard(self) -> None:
        """Remove what is still staged."""
        for entry in self._entries:
            durable.remove(staged_folder(self._folder, entry.id))

    def _rows(self) -> int:
        return sum(len(part.class_ids) for part in self._buffer)
