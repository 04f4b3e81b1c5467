"""The rows a search may answer with: live, of the asked classes, as contiguous runs of shards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from retclip.shards.snapshot import Snapshot


@dataclass(frozen=True)
class Located:
    """Where n positions of a scope are: (n,) int32 effective class, int32 shard, int64 row, uint64 segment id."""

    class_id: npt.NDArray[np.int32]
    shard: npt.NDArray[np.int32]
    row: npt.NDArray[np.int64]
    segment_id: npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Scope:
    """Live rows of some classes, counted through by a position 0 .. len-1, ordered by (class, shard, row).

    Runs, not rows, are kept: a class of a million rows costs 24 bytes where nothing of it is dead.

    Attributes:
        snapshot: where the rows are.
        class_id, shard: (R,) int32 effective class and shard of each run.
        begin: (R,) int64 first row of each run.
        start: (R+1,) int64 position of the first row of each run; the last entry is the number of rows.
    """

    snapshot: Snapshot
    class_id: npt.NDArray[np.int32]
    shard: npt.NDArray[np.int32]
    begin: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]

    @classmethod
    def of(cls, snapshot: Snapshot, classes: Iterable[int]) -> Self:
        """The scope of effective classes, given ascending."""
        runs: list[npt.NDArray[np.int64]] = [np.zeros((0, 4), np.int64)]
        for class_id in classes:
            for shard, rows in snapshot.class_rows(class_id):
                first = np.concatenate([[0], np.flatnonzero(np.diff(rows) != 1) + 1])
                length = np.diff(np.append(first, len(rows)))
                same = np.broadcast_to([[class_id, shard]], (len(first), 2))
                runs.append(np.column_stack([same, rows[first], length]))
        table = np.concatenate(runs)
        start = np.concatenate([[0], np.cumsum(table[:, 3])])
        return cls(snapshot, table[:, 0].astype(np.int32), table[:, 1].astype(np.int32), table[:, 2], start)

    def __len__(self) -> int:
        return int(self.start[-1])

    def _runs(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.searchsorted(self.start, positions, side="right") - 1

    def classes_at(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """(n,) effective class of each position."""
        return self.class_id[self._runs(positions)]

    def vectors_at(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        """(n, D) stored vectors."""
        run = self._runs(positions)
        rows, shards = self.begin[run] + positions - self.start[run], self.shard[run]
        # numpy.memmap is slow to index
        stored = {shard: np.asarray(self.snapshot.shards[shard].reader.vectors) for shard in np.unique(shards).tolist()}
        if len(stored) == 1:
            [vectors] = stored.values()
            found: npt.NDArray[np.float16] = vectors[rows]
            return found
        gathered = np.empty((len(positions), self.snapshot.dim), np.float16)
        for shard, vectors in stored.items():
            here = shards == shard
            gathered[here] = vectors[rows[here]]
        return gathered

    def located(self, positions: npt.NDArray[np.int64]) -> Located:
        """Class, shard, row and segment id of each position."""
        run = self._runs(positions)
        rows, shards = self.begin[run] + positions - self.start[run], self.shard[run]
        ids = np.empty(len(positions), np.uint64)
        for shard in np.unique(shards).tolist():
            here = shards == shard
            ids[here] = self.snapshot.shards[shard].reader.row_ids[rows[here]]
        return Located(self.class_id[run], shards, rows, ids)

    def positions_of(self, shard: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(n,) position of each row of a shard, -1 for rows that are dead or of classes that were not asked."""
        mine = np.flatnonzero(self.shard == shard)
        mine = mine[np.argsort(self.begin[mine])]
        if not len(mine):
            return np.full(len(rows), -1, np.int64)
        run = mine[np.maximum(np.searchsorted(self.begin[mine], rows, side="right") - 1, 0)]
        offset = rows - self.begin[run]
        inside = (offset >= 0) & (offset < self.start[run + 1] - self.start[run])
        return np.where(inside, self.start[run] + offset, -1)
