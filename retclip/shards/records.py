"""Reads segments and vectors back by their position in a version."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from retclip.core.errors import DatabaseError, require
from retclip.core.segments import StoredSegment
from retclip.shards.snapshot import Snapshot

_READ_ROWS = 4_096


class Records:
    """Rows of a snapshot as `StoredSegment`s; their label is the name of their class in that version."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def segments(self, positions: Sequence[tuple[int, int]]) -> list[StoredSegment]:
        """See `Database.segments`."""
        result: dict[int, StoredSegment] = {}
        for shard, places, rows in self._by_shard(positions):
            dead = rows[~self._snapshot.live_mask(shard)[rows]]
            if len(dead):
                raise DatabaseError(
                    "E306",
                    f"Row {dead[0]} of shard {shard} is deleted in this version.",
                    why="Positions hold for the version that was searched only.",
                    fix="Open that version, or search again.",
                )
            result.update(zip(places.tolist(), self._read(shard, rows), strict=True))
        return [result[place] for place in range(len(positions))]

    def vectors(self, positions: Sequence[tuple[int, int]]) -> npt.NDArray[np.float32]:
        """See `Database.vectors`."""
        result = np.empty((len(positions), self._snapshot.dim), np.float32)
        for shard, places, rows in self._by_shard(positions):
            result[places] = self._snapshot.shards[shard].reader.vectors[rows]
        return result

    def iterate(self, classes: Collection[int]) -> Iterator[tuple[int, int, StoredSegment]]:
        """(shard, row, segment) of the live rows of effective classes."""
        for shard, live in self._snapshot.class_rows(*classes):
            for start in range(0, len(live), _READ_ROWS):
                rows = live[start : start + _READ_ROWS]
                for row, segment in zip(rows.tolist(), self._read(shard, rows), strict=True):
                    yield shard, row, segment

    def _by_shard(
        self, positions: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """(shard, places in `positions`, rows) for each shard that occurs."""
        table = np.asarray(positions, np.int64).reshape(-1, 2)
        for shard in np.unique(table[:, 0]).tolist():
            require(0 <= shard < len(self._snapshot.shards), "shard", f"0 to {len(self._snapshot.shards) - 1}", shard)
            places = np.flatnonzero(table[:, 0] == shard)
            rows = table[places, 1]
            limit = self._snapshot.shards[shard].reader.rows
            require(bool(((rows >= 0) & (rows < limit)).all()), "row", f"0 to {limit - 1}", rows.tolist())
            yield shard, places, rows

    def _read(self, shard: int, rows: npt.NDArray[np.int64]) -> list[StoredSegment]:
        from retclip.shards import tables  # Arrow takes 0.3 s to load; `db info` does without

        effective = self._snapshot.effective_classes(shard, rows).tolist()
        names = [self._snapshot.classes[class_id].name for class_id in effective]
        return tables.to_segments(self._snapshot.shards[shard].reader.tables.rows(rows), names)
