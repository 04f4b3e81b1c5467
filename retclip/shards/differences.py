"""What one version, or one database, has that another has not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retclip.core.errors import FeatureSpaceMismatch
from retclip.core.vocabulary import normalise_name
from retclip.shards import digests
from retclip.shards.database import Database

_BLOCK_ROWS = 1 << 14


@dataclass(frozen=True)
class Difference:
    """What `new` has that `old` has not, by segment id.

    Attributes:
        added, removed: segments per class.
        relabelled: segments per (class in old, class in new).
        changed: segments of the same id and class whose vector, mask, box or original label differs.
        classes_added, classes_removed: names of classes that only one of them has.
        same_content: whether the content hashes are equal.
    """

    added: Mapping[str, int]
    removed: Mapping[str, int]
    relabelled: Mapping[tuple[str, str], int]
    changed: int
    classes_added: tuple[str, ...]
    classes_removed: tuple[str, ...]
    same_content: bool


def compare(old: Database, new: Database) -> Difference:
    """Compare two versions of a database, or two databases of one feature space.

    Raises:
        FeatureSpaceMismatch: E301, their vectors are not comparable.
    """
    if old.space != new.space:
        raise FeatureSpaceMismatch(old.name, old.space.encoder, new.space.encoder, old.space.differences(new.space))
    before, after = _LiveRows(old), _LiveRows(new)
    _, mine, theirs = np.intersect1d(before.ids, after.ids, assume_unique=True, return_indices=True)
    labels = zip(before.labels(mine), after.labels(theirs), strict=True)
    classes = [{normalise_name(c.name): c.name for c in database.classes} for database in (old, new)]
    return Difference(
        added=after.count(_others(len(after.ids), theirs)),
        removed=before.count(_others(len(before.ids), mine)),
        relabelled=Counter((a, b) for a, b in labels if normalise_name(a) != normalise_name(b)),
        changed=sum(_changed(before, mine, after, theirs)),
        classes_added=_missing(classes[1], classes[0]),
        classes_removed=_missing(classes[0], classes[1]),
        same_content=old.content_hash() == new.content_hash(),
    )


class _LiveRows:
    """All live rows of a version: segment id, shard, row and class, (n,) each."""

    def __init__(self, database: Database) -> None:
        self._snapshot = snapshot = database.snapshot
        self._names = {entry.id: entry.name for entry in snapshot.classes}
        rows = [np.flatnonzero(snapshot.live_mask(shard)) for shard in range(len(snapshot.shards))]
        self.shard = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
        self.row = np.concatenate([np.zeros(0, np.int64), *rows])
        self.ids = np.concatenate(
            [np.zeros(0, np.uint64), *(s.reader.row_ids[r] for s, r in zip(snapshot.shards, rows, strict=True))]
        )
        self._class = np.concatenate(
            [np.zeros(0, np.int32), *(snapshot.effective_classes(n, r) for n, r in enumerate(rows))]
        )

    def labels(self, places: npt.NDArray[np.int64]) -> list[str]:
        return [self._names[class_id] for class_id in self._class[places].tolist()]

    def count(self, places: npt.NDArray[np.int64]) -> dict[str, int]:
        """Rows per class name, sorted by name."""
        return dict(sorted(Counter(self.labels(places)).items()))

    def folders(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.str_]:
        """(n,) shard id of rows: two versions share shards, and shards never change."""
        names = np.array([part.reader.entry.id for part in self._snapshot.shards], dtype="U32")
        return names[self.shard[places]]

    def digests(self, places: npt.NDArray[np.int64]) -> list[int]:
        """Row digests (docs/database-format.md, "Content hash")."""
        result = [0] * len(places)
        for shard in np.unique(self.shard[places]).tolist():
            here = np.flatnonzero(self.shard[places] == shard)
            reader, rows = self._snapshot.shards[shard].reader, self.row[places[here]]
            values = digests.row_digests(reader.tables.rows(rows), reader.vectors[rows])
            for place, value in zip(here.tolist(), values, strict=True):
                result[place] = value
        return result


def _missing(names: Mapping[str, str], known: Mapping[str, str]) -> tuple[str, ...]:
    """Class names by normalised name that are not among the known ones, sorted."""
    return tuple(sorted(name for key, name in names.items() if key not in known))


def _others(count: int, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The places 0 .. count that are not among `places`."""
    rest = np.ones(count, np.bool_)
    rest[places] = False
    return np.flatnonzero(rest)


def _changed(
    before: _LiveRows, mine: npt.NDArray[np.int64], after: _LiveRows, theirs: npt.NDArray[np.int64]
) -> Iterator[int]:
    """How many of the shared segments differ, block by block; rows of one shard are never read, they are the same."""
    if not len(mine):
        return
    moved = (before.folders(mine) != after.folders(theirs)) | (before.row[mine] != after.row[theirs])
    mine, theirs = mine[moved], theirs[moved]
    for start in range(0, len(mine), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        yield sum(a != b for a, b in zip(before.digests(mine[part]), after.digests(theirs[part]), strict=True))
