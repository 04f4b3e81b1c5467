"""A database at one version: an immutable snapshot that many readers may share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from retclip.core.errors import DatabaseError
from retclip.core.identity import FeatureSpace
from retclip.core.segments import Neighbors, StoredSegment
from retclip.core.threads import cached_property
from retclip.shards.classes import ClassTable, StoredClass
from retclip.shards.creation import create_folder, timestamp
from retclip.shards.leases import Lease
from retclip.shards.manifest import Manifest, canonical_json, check_format, current_manifest, valid_manifests
from retclip.shards.publication import leased_manifest, republish, version_before
from retclip.shards.records import Records
from retclip.shards.search import Plan, Request, Searcher
from retclip.shards.shard_reader import ShardReader
from retclip.shards.snapshot import LiveShard, Snapshot, read_deletes, stored_classes
from retclip.shards.succession import passed_over

if TYPE_CHECKING:
    from retclip.shards.transaction import Transaction

SHARD_ROWS = 262_144


@dataclass(frozen=True)
class VersionSummary:
    """One line of the log: what made a version, and how many live segments and classes it has."""

    version: int
    created: str
    operation: str
    note: str
    segments: int
    classes: int


class Database:
    """An immutable snapshot of one version. Make one with `create` or `open`.

    Attributes:
        path: folder of the database.
        manifest: what the version consists of.
        snapshot: its rows.
    """

    def __init__(self, path: Path, manifest: Manifest, lease: Lease | None = None) -> None:
        self.path = path
        self.manifest = manifest
        self._lease = lease  # as long as it lives, nobody removes the files of this version
        readers = [(ShardReader(path / "shards" / e.id, e, manifest.space.dim), e) for e in manifest.shards]
        for reader, _ in readers:
            reader.check_sizes()
        shards = [LiveShard(reader, read_deletes(path, entry)) for reader, entry in readers]
        self.snapshot = Snapshot(shards, manifest.classes, manifest.space.dim)

    @classmethod
    def create(cls, path: Path, space: FeatureSpace, preset: Mapping[str, Any], transform: str = "none") -> Database:
        """Make a new database with version 1, which has no segments.

        Args:
            path: folder to make; its parent is made when missing.
            space: what makes the vectors.
            preset: settings of the build as plain JSON; kept, never interpreted.
            transform: key transform of searches, see `transforms.KINDS`.

        Raises:
            DatabaseError: E307 when `path` exists.
            ValueError: for an unknown transform or a preset that is not JSON.
        """
        canonical_json(dict(preset))
        manifest = Manifest(
            1, 0, timestamp(), "create", "", "retclip", space, dict(preset), transform, ClassTable((), 0), {}, ()
        )
        create_folder(Path(path).absolute(), manifest)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path, version: int | None = None) -> Database:
        """Open the current version, or an older one.

        Raises:
            DatabaseError: E306 no such database or version, E308 another format, E303 damaged, E302 no version.
        """
        path = Path(path).absolute()
        check_format(path)
        return cls(path, *leased_manifest(path, version))

    @property
    def name(self) -> str:
        """Folder name without `.retdb`."""
        return self.path.name.removesuffix(".retdb")

    @property
    def version(self) -> int:
        """Number of this version, counted from 1."""
        return self.manifest.version

    @property
    def passed_over(self) -> Sequence[int]:
        """Newer versions that are damaged; while there is one, only `restore` writes."""
        return passed_over(self.path, self.version)

    @property
    def databases(self) -> Sequence[Mapping[str, Any]]:
        """Name, version and feature space of what answers, for the record of a run."""
        return [{"name": self.name, "version": self.version, "feature_space": self.space.fingerprint}]

    def origin(self, shard: int) -> str:
        """`name@version` of the database that holds a shard of search results."""
        return f"{self.name}@{self.version}"

    @property
    def space(self) -> FeatureSpace:
        """What made the vectors."""
        return self.manifest.space

    @property
    def preset(self) -> Mapping[str, Any]:
        """Settings of the build."""
        return self.manifest.preset

    @property
    def transform(self) -> str:
        """Key transform of searches that do not name one."""
        return self.manifest.transform

    @property
    def models(self) -> Sequence[Mapping[str, str]]:
        """Networks that took part in the database: role, name, license, sha256."""
        return self.manifest.models

    @property
    def created(self) -> str:
        """ISO 8601 UTC time of this version."""
        return self.manifest.created

    def __len__(self) -> int:
        return self.manifest.rows

    @cached_property
    def classes(self) -> tuple[StoredClass, ...]:
        """Classes with live segments, by id."""
        return stored_classes(self.manifest.classes, self.manifest.counts)

    @cached_property
    def image_count(self) -> int:
        """Distinct images among live segments."""
        return len(self.snapshot.distinct("image_sha256"))

    @cached_property
    def sources(self) -> Mapping[str, int]:
        """Live segments per source."""
        return self.snapshot.distinct("source")

    @cached_property
    def licenses(self) -> Mapping[str, int]:
        """Live segments per licence."""
        return self.snapshot.distinct("license")

    @cached_property
    def _content_hash(self) -> str:
        return self.snapshot.content_hash()

    def content_hash(self) -> str:
        """Hash (hex) of what the version holds; equal for any sharding, order, time, path and after compaction."""
        return self._content_hash

    @cached_property
    def _searcher(self) -> Searcher:
        return Searcher(self.snapshot)

    def search(
        self,
        queries: npt.NDArray[np.floating],
        k: int,
        classes: Sequence[int] | None = None,
        per_class_k: int | None = None,
        transform: str | None = None,
    ) -> Neighbors:
        """Nearest live segments of (M, D) queries by cosine distance; exact unless `plan` says otherwise.

        Args:
            queries: (M, D) finite vectors of any length > 0 (they are normalised).
            k: places per query; missing ones hold distance +inf, -1 and segment id 0.
            classes: ids of the classes to search, None for all.
            per_class_k: at most so many hits of one class.
            transform: key transform in place of the version's own.

        Raises:
            DatabaseError: E309 for an unknown, merged or deleted class id; E302 for too few rows to fit a transform.
            ValueError: for queries of a wrong shape, with NaN or infinity, and for k < 1.
        """
        return self._searcher.search(queries, self._request(k, classes, per_class_k, transform))

    def plan(
        self,
        queries: int,
        k: int,
        classes: Sequence[int] | None = None,
        per_class_k: int | None = None,
        transform: str | None = None,
    ) -> Plan:
        """How `search` would answer so many queries: by which backend, why, and how many rows it scans."""
        return self._searcher.plan(queries, self._request(k, classes, per_class_k, transform))

    def measure_recall(self, queries: npt.NDArray[np.floating], k: int, classes: Sequence[int] | None = None) -> float:
        """Share of the `k` nearest of (M, D) queries that indexes find; `plan` tells it from then on.

        Raises:
            DatabaseError: E311 for a damaged index. See also `search`.
        """
        return self._searcher.recall_sample(queries, self._request(k, classes, None, None))

    def _request(self, k: int, classes: Sequence[int] | None, cap: int | None, transform: str | None) -> Request:
        asked = sorted(self.manifest.counts) if classes is None else sorted({self._class_id(c) for c in classes})
        return Request(k, tuple(asked), cap, transform or self.transform)

    def _class_id(self, class_id: int) -> int:
        if not self.manifest.classes.is_live(int(class_id)):
            raise DatabaseError(
                "E309",
                f"Database '{self.name}' version {self.version} has no class with id {class_id}.",
                why="Ids come from `classes` of the same version; merged and deleted classes lose theirs.",
                fix=f"List them with: retclip db info {self.name}@{self.version}",
            )
        return int(class_id)

    @cached_property
    def _records(self) -> Records:
        return Records(self.snapshot)

    def segment(self, shard: int, row: int) -> StoredSegment:
        """The live segment at a position of this version."""
        return self.segments([(shard, row)])[0]

    def segments(self, positions: Sequence[tuple[int, int]]) -> list[StoredSegment]:
        """The live segments at positions (shard, row), in the asked order; `label` is the name of the class today.

        Raises:
            ValueError: for a position outside the database.
            DatabaseError: E306 for a dead row.
        """
        return self._records.segments(positions)

    def vectors(self, positions: Sequence[tuple[int, int]]) -> npt.NDArray[np.float32]:
        """(n, D) stored vectors at positions (shard, row), unit length up to binary16 rounding."""
        return self._records.vectors(positions)

    def iter_segments(self, classes: Sequence[int] | None = None) -> Iterator[tuple[int, int, StoredSegment]]:
        """(shard, row, segment) of all live rows, or of some classes, in bounded memory."""
        wanted = self.manifest.counts if classes is None else {self._class_id(c) for c in classes}
        return self._records.iterate(wanted)

    def live_labels(self, segment_ids: Iterable[int]) -> dict[int, str]:
        """Those of the ids that are live in this version, with the name of their class."""
        ids = np.fromiter(segment_ids, np.uint64)
        shards, rows = self.snapshot.locate(ids)
        names: dict[int, str] = {}
        for shard in np.unique(shards[shards >= 0]).tolist():
            here = shards == shard
            classes = self.snapshot.effective_classes(shard, rows[here]).tolist()
            labels = (self.manifest.classes[class_id].name for class_id in classes)
            names.update(zip(ids[here].tolist(), labels, strict=True))
        return names

    def thumbnail(self, segment_id: int) -> bytes | None:
        """JPEG bytes of a cached thumbnail, None when there is none."""
        from retclip.shards.media import read_thumbnail

        return read_thumbnail(self.path, segment_id)

    def store_thumbnails(self, thumbnails: Mapping[int, bytes]) -> None:
        """Put JPEG bytes by segment id into the cache; never part of a commit."""
        from retclip.shards.media import write_thumbnails

        write_thumbnails(self.path, thumbnails)

    def history(self) -> list[VersionSummary]:
        """All valid versions, oldest first; `verify` reports the others."""
        return [
            VersionSummary(m.version, m.created, m.operation, m.note, m.rows, len(m.counts))
            for m in valid_manifests(self.path)
        ]

    def write(self, operation: str, program: str, shard_rows: int = SHARD_ROWS) -> Transaction:
        """A transaction on the newest version (which may be newer than this snapshot)."""
        from retclip.shards.transaction import Transaction

        return Transaction(self.path, operation, program, shard_rows)

    def restore(self, version: int, newest: int | None = None) -> Database:
        """Publish a new version with the content of an older one; nothing in between is lost.

        Args:
            version: whose content comes back.
            newest: refuse when there is a newer version than this one by then.

        Raises:
            DatabaseError: E306 no such version, E303 a damaged one, E304 and E305 as for any write.
        """
        Database.open(self.path, version)  # refuses one with missing files
        return Database.open(self.path, republish(self.path, version, "retclip", newest))

    def undo(self) -> Database:
        """Publish the content before the last change as a new version; E306 when there is none, or it was removed."""
        newest = current_manifest(self.path).version
        return self.restore(version_before(self.path), newest)
