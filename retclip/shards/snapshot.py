"""The rows of one version: which are live, where a segment is, and what a class holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from retclip.core.threads import cached_property
from retclip.core.vocabulary import normalise_name
from retclip.shards.classes import ClassTable, StoredClass
from retclip.shards.manifest import ShardEntry
from retclip.shards.moments import Moments
from retclip.shards.shard_reader import ShardReader, damaged, unusable

_BLOCK_ROWS = 1 << 14


def read_deletes(database: Path, entry: ShardEntry) -> BitMap:
    """Dead rows of a shard.

    Raises:
        DatabaseError: E303 when the bitmap is missing, damaged or names rows that do not exist, E320 when it cannot
            be read.
    """
    if entry.deletes is None:
        return BitMap()
    name = f"deletes/{entry.deletes.id}.roaring"
    try:
        data = (database / name).read_bytes()
    except OSError as error:
        raise unusable(database, name, error) from error
    if hashlib.sha256(data).hexdigest() != entry.deletes.file.sha256:
        raise damaged(database, name, "Its SHA-256 is not the manifest's.")
    bitmap = BitMap.deserialize(data)
    if len(bitmap) != entry.deletes.rows or (bitmap and bitmap.max() >= entry.rows):
        raise damaged(database, name, "Its rows are not those of the shard.")
    return bitmap


@dataclass(frozen=True)
class LiveShard:
    """A shard and the rows of it that are dead in this version."""

    reader: ShardReader
    dead: BitMap


class Snapshot:
    """Rows of a list of shards under a class table. Nothing is read before it is asked for."""

    def __init__(self, shards: Iterable[LiveShard], classes: ClassTable, dim: int) -> None:
        self.shards = tuple(shards)
        self.classes = classes
        self.dim = dim

    @cached_property
    def _masks(self) -> dict[int, npt.NDArray[np.bool_]]:
        return {}

    @cached_property
    def _members(self) -> dict[int, list[int]]:
        """Stored classes of each effective class."""
        members: dict[int, list[int]] = {}
        for entry in self.classes:
            members.setdefault(self.classes.effective(entry.id), []).append(entry.id)
        return members

    def live_mask(self, shard: int) -> npt.NDArray[np.bool_]:
        """(rows,) True for the live rows of a shard."""
        if shard not in self._masks:
            part = self.shards[shard]
            mask = np.ones(part.reader.rows, np.bool_)
            mask[np.fromiter(part.dead, np.int64, len(part.dead))] = False
            for class_id, (begin, end) in part.reader.ranges.items():
                if self.classes.effective(class_id) < 0:
                    mask[begin:end] = False
            self._masks[shard] = mask
        return self._masks[shard]

    def class_rows(self, *class_ids: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """(shard, live rows ascending) of effective classes; shards without such rows are left out."""
        members = [member for class_id in class_ids for member in self._members.get(class_id, [])]
        for shard, part in enumerate(self.shards):
            ranges = sorted(part.reader.ranges[m] for m in members if m in part.reader.ranges)
            if not ranges:
                continue
            rows = np.concatenate([np.arange(begin, end) for begin, end in ranges])
            rows = rows[self.live_mask(shard)[rows]]
            if len(rows):
                yield shard, rows

    def effective_classes(self, shard: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """(n,) effective class of rows of a shard, -1 for rows of deleted classes."""
        columns = self.shards[shard].reader.classes
        # Few rows have few classes, and a shard may have thousands.
        places, inverse = np.unique(np.searchsorted(columns["begin"], rows, side="right") - 1, return_inverse=True)
        lookup = [self.classes.effective(c) for c in columns["class_id"][places].tolist()]
        return np.array(lookup, np.int32)[inverse]

    def counts(self) -> dict[int, tuple[int, int]]:
        """Live rows and live things of each effective class that has any."""
        counts: dict[int, tuple[int, int]] = {}
        for shard, part in enumerate(self.shards):
            mask, columns = self.live_mask(shard), part.reader.classes
            live = np.add.reduceat(mask.astype(np.int64), columns["begin"])
            things = columns["things"]
            if not mask.all():
                is_thing = column_of(part.reader, "is_thing")
                things = np.add.reduceat((mask & is_thing).astype(np.int64), columns["begin"])
            for class_id, n, t in zip(columns["class_id"].tolist(), live.tolist(), things.tolist(), strict=True):
                if n:
                    effective = self.classes.effective(class_id)
                    before = counts.get(effective, (0, 0))
                    counts[effective] = (before[0] + n, before[1] + t)
        return counts

    def live_rows(self) -> int:
        """How many rows are live."""
        return sum(count for count, _ in self.counts().values())

    def locate(self, segment_ids: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """(n,) shard and row of the live copy of each id, -1 where there is none."""
        where = np.full(len(segment_ids), -1, np.int32)
        rows = np.full(len(segment_ids), -1, np.int64)
        for shard, part in enumerate(self.shards):
            found = part.reader.locate(segment_ids)
            if not (found >= 0).any():
                continue
            live = (found >= 0) & self.live_mask(shard)[found]
            where[live], rows[live] = shard, found[live]
        return where, rows

    def rows_where(self, column: str, value: str) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """(shard, live rows) whose text column equals `value`."""
        for shard, part in enumerate(self.shards):
            equal = np.asarray(column_of(part.reader, column) == value, np.bool_)
            yield shard, np.flatnonzero(equal & self.live_mask(shard))

    def distinct(self, column: str) -> dict[str, int]:
        """Live rows per value of a text column."""
        totals: dict[str, int] = {}
        for shard, part in enumerate(self.shards):
            values, counts = np.unique(column_of(part.reader, column)[self.live_mask(shard)], return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                totals[value] = totals.get(value, 0) + count
        return dict(sorted(totals.items()))

    def moments(self) -> Moments:
        """Moments of the live rows: those of the shards less those of the dead rows."""
        total = Moments.zero(self.dim)
        for shard, part in enumerate(self.shards):
            dead = np.flatnonzero(~self.live_mask(shard))
            total = total + part.reader.moments()
            for start in range(0, len(dead), _BLOCK_ROWS):
                total = total - Moments.of(part.reader.vectors[dead[start : start + _BLOCK_ROWS]])
        return total

    def content_hash(self) -> str:
        """See docs/database-format.md, "Content hash"."""
        from retclip.shards import digests  # needs Arrow

        sums: dict[int, int] = {}
        for shard, part in enumerate(self.shards):
            for class_id, total in part.reader.digests().items():
                effective = self.classes.effective(class_id)
                sums[effective] = sums.get(effective, 0) + total
            dead = np.flatnonzero(~self.live_mask(shard))
            for start in range(0, len(dead), _BLOCK_ROWS):
                rows = dead[start : start + _BLOCK_ROWS]
                values = digests.row_digests(part.reader.tables.rows(rows), part.reader.vectors[rows])
                for effective, value in zip(self.effective_classes(shard, rows).tolist(), values, strict=True):
                    sums[effective] -= value
        return digests.content_hash(
            (normalise_name(self.classes[c].name), is_thing(n, things), n, sums[c])
            for c, (n, things) in self.counts().items()
        )


def is_thing(count: int, things: int) -> bool:
    """A class is a thing when at least half of its live rows are."""
    return 2 * things >= count


def stored_classes(table: ClassTable, counts: Mapping[int, tuple[int, int]]) -> tuple[StoredClass, ...]:
    """Classes with live segments, by id, from live rows and live things of each."""
    return tuple(
        StoredClass(c, table[c].name, table[c].aliases, is_thing(n, things), n)
        for c, (n, things) in sorted(counts.items())
    )


def column_of(reader: ShardReader, name: str) -> npt.NDArray[Any]:
    """One column of meta.parquet of all rows of a shard, dead ones too."""
    from retclip.shards import tables  # needs Arrow

    return tables.numbers(reader.tables.columns(name), name)
