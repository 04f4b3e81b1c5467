"""Asks a database about its own segments, as if their pictures were not in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retclip.core.segments import Neighbors
from retclip.shards.database import Database
from retclip.shards.snapshot import column_of

NEIGHBOURS = 8
_QUERY_BLOCK = 512


@dataclass(frozen=True)
class Answers:
    """n asked segments and their nearest segments in other pictures; a missing one has class -1 and distance +inf.

    Attributes:
        position: (n, 2) int64 shard and row; `class_id`: (n,) int32; `segment_id`: (n,) uint64.
        rivals: (n,) int64 segments of the same class in other pictures.
        own: (n,) float32 distance of the nearest of them.
        class_found, id_found, distance: (n, NEIGHBOURS) int32, uint64 and float32, nearest first.
        images: number of different pictures per class id.
    """

    position: npt.NDArray[np.int64]
    class_id: npt.NDArray[np.int32]
    segment_id: npt.NDArray[np.uint64]
    rivals: npt.NDArray[np.int64]
    own: npt.NDArray[np.float32]
    class_found: npt.NDArray[np.int32]
    id_found: npt.NDArray[np.uint64]
    distance: npt.NDArray[np.float32]
    images: dict[int, int]


def ask_itself(database: Database, per_class: int) -> Answers:
    """Ask about at most `per_class` segments of each class, evenly spaced over its rows.

    Distances are those of the version's key transform. The database must hold a segment.
    """
    rows = _Rows(database)
    asked = rows.sample(per_class)
    found = [rows.nearest(asked[n : n + _QUERY_BLOCK], NEIGHBOURS) for n in range(0, len(asked), _QUERY_BLOCK)]
    own = np.full(len(asked), np.inf, np.float32)
    for class_id in np.unique(rows.class_id[asked]).tolist():
        mine = np.flatnonzero(rows.class_id[asked] == class_id)
        for part in np.array_split(mine, -(-len(mine) // _QUERY_BLOCK)):
            own[part] = rows.nearest(asked[part], 1, class_id)[0][:, 0]
    return Answers(
        position=rows.position[asked],
        class_id=rows.class_id[asked],
        segment_id=rows.segment_id[asked],
        rivals=rows.rivals()[asked],
        own=own,
        class_found=np.concatenate([part[1] for part in found]),
        id_found=np.concatenate([part[2] for part in found]),
        distance=np.concatenate([part[0] for part in found]),
        images=rows.images_per_class(),
    )


class _Rows:
    """All live rows, ordered by class: (n, 2) position, and (n,) class, segment id and number of the picture."""

    def __init__(self, database: Database) -> None:
        self._database = database
        snapshot = database.snapshot
        parts = [(item.id, shard, rows) for item in database.classes for shard, rows in snapshot.class_rows(item.id)]
        lengths = [len(rows) for _, _, rows in parts]
        self.class_id = np.repeat(np.array([class_id for class_id, _, _ in parts], np.int32), lengths)
        shards = np.repeat([shard for _, shard, _ in parts], lengths)
        self.position = np.column_stack([shards, np.concatenate([rows for _, _, rows in parts])])
        readers = [part.reader for part in snapshot.shards]
        self.segment_id = np.concatenate([readers[shard].row_ids[rows] for _, shard, rows in parts])
        # Numbers of pictures by shard and row, for the rows that a search names.
        digests = [column_of(reader, "image_sha256").astype(np.str_) for reader in readers]
        numbers = np.unique(np.concatenate(digests), return_inverse=True)[1]
        self._first = np.cumsum([0, *map(len, digests)])
        self._picture = numbers
        self.picture = self._picture_at(self.position[:, 0], self.position[:, 1])
        self._crowd = int(np.bincount(self.picture).max())

    def _picture_at(self, shards: npt.NDArray[np.integer], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Number of the picture of each row, -1 where shard is -1."""
        places = self._first[np.maximum(shards, 0)] + np.maximum(rows, 0)
        return np.where(shards >= 0, self._picture[places], -1)

    def sample(self, per_class: int) -> npt.NDArray[np.int64]:
        """Indices of at most `per_class` rows of each class, evenly spaced."""
        edges = np.flatnonzero(np.diff(self.class_id, prepend=-1, append=-1))
        spans = zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        chosen = [np.linspace(a, b, min(per_class, b - a), endpoint=False).astype(np.int64) for a, b in spans]
        return np.concatenate(chosen)

    def nearest(
        self, asked: npt.NDArray[np.int64], count: int, class_id: int | None = None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], npt.NDArray[np.uint64]]:
        """(n, count) distance, class and segment id of the nearest rows in other pictures, of one class or of all."""
        # A picture can spoil as many hits as it has segments.
        k = min(count + self._crowd, len(self.class_id))
        classes = None if class_id is None else [class_id]
        vectors = self._database.vectors([(shard, row) for shard, row in self.position[asked].tolist()])
        found: Neighbors = self._database.search(vectors, k, classes)
        elsewhere = (found.row >= 0) & (self._picture_at(found.shard, found.row) != self.picture[asked][:, None])
        order = np.argsort(~elsewhere, axis=1, kind="stable")[:, :count]
        missing = ~np.take_along_axis(elsewhere, order, axis=1)
        result = [np.take_along_axis(a, order, axis=1) for a in (found.distance, found.class_id, found.segment_id)]
        for values, filler in zip(result, (np.inf, -1, 0), strict=True):
            values[missing] = filler
        short = ((0, 0), (0, count - order.shape[1]))
        distance, classes_found, ids = (
            np.pad(values, short, constant_values=filler)
            for values, filler in zip(result, (np.inf, -1, 0), strict=True)
        )
        return distance, classes_found, ids

    def rivals(self) -> npt.NDArray[np.int64]:
        """(n,) rows of the same class in other pictures."""
        pairs = np.column_stack([self.class_id, self.picture])
        same_class = np.unique(self.class_id, return_inverse=True, return_counts=True)
        same_both = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
        difference: npt.NDArray[np.int64] = same_class[2][same_class[1]] - same_both[2][same_both[1].reshape(-1)]
        return difference

    def images_per_class(self) -> dict[int, int]:
        """How many pictures the rows of each class come from."""
        pairs = np.unique(np.column_stack([self.class_id, self.picture]), axis=0)
        ids, counts = np.unique(pairs[:, 0], return_counts=True)
        return dict(zip(ids.tolist(), counts.tolist(), strict=True))
