"""One write: rows are staged in shards, changes of classes and deletions in memory, and all appears at commit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from retclip.core.errors import DatabaseError, require
from retclip.core.segments import StoredSegment
from retclip.shards import tables
from retclip.shards.compaction import live_batches, worn
from retclip.shards.creation import timestamp
from retclip.shards.database import Database
from retclip.shards.lock import writer_lock
from retclip.shards.manifest import Manifest, manifest_path
from retclip.shards.publication import next_version, publish
from retclip.shards.shard_writer import RowBatch, unit_rows
from retclip.shards.snapshot import LiveShard, Snapshot
from retclip.shards.staging import Staging
from retclip.shards.succession import refuse_passed_over
from retclip.shards.sweep import sweep
from retclip.shards.transforms import check_kind


class Transaction:
    """Collects changes and publishes them as one version; leaving without `commit` changes nothing.

    Use as a context manager; the lock is held inside. It starts from the newest version at that moment.
    """

    def __init__(self, path: Path, operation: str, program: str, shard_rows: int) -> None:
        require(shard_rows > 0, "shard_rows", "> 0", shard_rows)
        self._path = path
        self._operation, self._program, self._shard_rows = operation, program, shard_rows
        self._open = self._broken = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._refuse_another = stack.enter_context(writer_lock(self._path, self._operation))
            sweep(self._path)
            self._next = next_version(self._path)
            self._base = Database.open(self._path)
            refuse_passed_over(self._path, self._base.version)
            self._stack = stack.pop_all()
        manifest = self._base.manifest
        self._classes = manifest.classes.copy()
        self._transform, self._models = manifest.transform, manifest.models
        self._shards = list(self._base.snapshot.shards)
        self._staging = Staging(self._path, manifest.space, self._shard_rows)
        self._changed = False
        self._snapshot = self._rows()
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        with self._stack:
            self._staging.discard()
            # When the number is taken, whether by us or another, a later collection decides what is unnamed.
            if not manifest_path(self._path, self._next).exists():
                self._staging.forget()
        del self._base  # with its lease, which would keep the version from being removed

    def _rows(self) -> Snapshot:
        return Snapshot(self._shards, self._classes, self._base.space.dim)

    def _check_open(self) -> None:
        require(self._open, "Transaction", "open (inside `with`, before commit)", "closed")
        if self._broken:
            raise DatabaseError(
                "E310",
                f"Nothing more is written to database '{self._path.stem}': a change failed in the middle.",
                why="Some of its rows may be missing or twice; the last committed version is untouched.",
                fix="Make all changes again in a new write.",
            )

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Steps that belong together: when one fails, whoever catches the error must not commit those before it."""
        self._broken = True
        yield
        self._broken = False

    def add(self, segments: Sequence[StoredSegment], vectors: npt.NDArray[np.floating]) -> int:
        """Add segments whose id is not live yet; the others are left as they are.

        Args:
            segments: N segments; a new label makes a new class.
            vectors: (N, D) of any length > 0, normalised here; row i belongs to segment i.

        Returns:
            How many were added.

        Raises:
            ValueError: for a wrong shape, NaN, infinity, a zero vector or lone surrogates; nothing is added then.
        """
        self._check_open()
        unit = unit_rows(vectors, len(segments), self._base.space.dim)
        ids = np.fromiter((s.segment_id for s in segments), np.uint64, len(segments))
        known = self._snapshot.locate(ids)[0] >= 0
        first: dict[int, int] = {}
        for index, segment_id in enumerate(ids.tolist()):
            if not known[index] and segment_id not in self._staging.buffered_ids:
                first.setdefault(segment_id, index)
        fresh = list(first.values())
        chosen = [segments[index] for index in fresh]
        table = tables.from_segments(chosen)
        with self._change():
            class_ids = np.array(self._classes.find_or_add_all([s.label for s in chosen]), np.int32)
            self._staging.buffered_ids.update(first)
            self._put(RowBatch(table, class_ids, unit[fresh]))
        return len(fresh)

    def _put(self, batch: RowBatch) -> None:
        """Buffer rows; shards that became full join the others."""
        self._changed |= len(batch.class_ids) > 0
        self._join(self._staging.put(batch))

    def _flush(self) -> None:
        self._join(self._staging.flush())

    def _join(self, fresh: Iterable[LiveShard]) -> None:
        before = len(self._shards)
        self._shards.extend(fresh)
        if len(self._shards) > before:
            self._snapshot = self._rows()

    def delete(
        self,
        labels: Sequence[str] = (),
        segment_ids: Iterable[int] = (),
        source: str | None = None,
        image_sha256: str | None = None,
    ) -> int:
        """Make segments dead: whole classes, single segments, a whole source or all segments of an image.

        Several selectors add up: a segment that any of them names is dead.

        Returns:
            How many live segments died. Unknown segment ids count nothing.

        Raises:
            DatabaseError: E309 for a label that no live class has.
        """
        self._check_open()
        self._flush()
        before = self._snapshot.live_rows()
        classes = {self._classes.find(label) for label in labels}
        with self._change():
            for class_id in classes:
                self._classes.delete(class_id)
                self._changed = True
            self._snapshot = self._rows()
            self._kill(*self._snapshot.locate(np.fromiter(segment_ids, np.uint64)))
            for column, value in (("source", source), ("image_sha256", image_sha256)):
                if value is not None:
                    for shard, rows in list(self._snapshot.rows_where(column, value)):
                        self._kill(np.full(len(rows), shard, np.int32), rows)
            return before - self._snapshot.live_rows()

    def _kill(self, shards: npt.NDArray[np.int32], rows: npt.NDArray[np.int64]) -> None:
        """Add rows to the dead ones of their shards; shard -1 means nothing."""
        for shard in np.unique(shards[shards >= 0]).tolist():
            part = self._shards[shard]
            self._shards[shard] = replace(part, dead=part.dead | BitMap(rows[shards == shard].tolist()))
            self._changed = True
        self._snapshot = self._rows()

    def relabel(self, old: str, new: str) -> int:
        """Rename class `old`, or merge it into class `new` if that exists; the old name stays as an alias.

        Returns:
            Live segments of `old` that now count as `new`; 0 when that is its name already.
        """
        self._check_open()
        self._flush()
        count = self._snapshot.counts().get(self._classes.find(old), (0, 0))[0]
        if not self._classes.relabel(old, new):
            return 0
        self._snapshot, self._changed = self._rows(), True
        return count

    def declare(self, label: str, aliases: Iterable[str]) -> None:
        """Give class `label` further names by which it is found.

        Only segments make a class: without one, because all were stored under another label before, nothing happens.
        """
        self._check_open()
        if self._classes.knows(label):
            self._changed |= self._classes.declare(label, aliases)

    def relabel_segments(self, segment_ids: Iterable[int], new: str) -> int:
        """Give single segments the label `new` (`label_raw` stays): dead in place, added again to a new shard.

        Where `new` is an alias of a class that some of them leave, it becomes a class of its own.

        Returns:
            How many live segments changed their class.
        """
        self._check_open()
        require(bool(new.strip()), "new label", "a non-empty name", repr(new))
        self._flush()
        shards, rows = self._snapshot.locate(np.unique(np.fromiter(segment_ids, np.uint64)))
        places = {shard: rows[shards == shard] for shard in np.unique(shards[shards >= 0]).tolist()}
        leaving = {label for place in places.items() for label in self._snapshot.effective_classes(*place).tolist()}
        moved = 0
        with self._change():
            target = self._classes.destination(new, leaving)
            for shard, here in places.items():
                here = here[self._snapshot.effective_classes(shard, here) != target]
                if not len(here):
                    continue
                reader = self._shards[shard].reader
                table = tables.relabelled(reader.tables.rows(here), self._classes[target].name)
                self._kill(np.full(len(here), shard, np.int32), here)
                self._put(RowBatch(table, np.full(len(here), target, np.int32), reader.vectors[here]))
                moved += len(here)
            self._flush()
        return moved

    def compact(self, shards: Collection[str] | None = None) -> int:
        """Rewrite shards without their dead rows under new names, all that is derived made anew, nothing remapped.

        Args:
            shards: ids, those of other versions count nothing; by default the shards that are `worn`.

        Returns:
            How many shards were rewritten; what is live stays the same.
        """
        self._check_open()
        self._flush()
        wanted = set(worn(self._snapshot, self._shard_rows) if shards is None else shards)
        snapshot = self._snapshot
        old = [shard for shard, part in enumerate(snapshot.shards) if part.reader.entry.id in wanted]
        with self._change():
            for shard in old:
                for batch in live_batches(snapshot, shard):
                    self._put(batch)
            self._flush()
            self._shards = [part for part in self._shards if part.reader.entry.id not in wanted]
            self._snapshot = self._rows()
            self._changed |= bool(old)
        return len(old)

    def set_transform(self, kind: str) -> None:
        """Set the key transform of searches of the new version. Raises ValueError for an unknown kind."""
        self._check_open()
        check_kind(kind)
        self._transform, self._changed = kind, self._changed or kind != self._transform

    def record_models(self, models: Iterable[Mapping[str, str]]) -> None:
        """Add networks to those the version names (role, name, license, sha256); repeats add nothing.

        A record alone is no change worth a version: it travels with the next commit that has one.
        """
        self._check_open()
        fresh = [dict(model) for model in models]
        self._models = (*self._models, *(model for model in fresh if model not in self._models))

    def commit(self, note: str = "") -> Database:
        """Publish the changes as one new version and return it; without changes, return the newest version.

        Raises:
            DatabaseError: E305 when another writer published that version first, E310 when another folder has taken
                the place of the database; nothing changed then.
        """
        self._check_open()
        self._refuse_another()
        self._flush()
        self._open = False
        if not self._changed:
            return self._base
        counts = self._snapshot.counts()
        self._staging.publish({part.reader.entry.id for part in self._shards})
        draft = replace(
            self._base.manifest,
            transform=self._transform,
            classes=self._classes,
            counts=counts,
            shards=tuple(self._staging.entry(part) for part in self._shards),
            models=self._models,
        )
        return self._publish(draft, note)

    def _publish(self, draft: Manifest, note: str) -> Database:
        manifest = replace(
            draft,
            version=self._next,
            parent=self._base.version,
            created=timestamp(),
            operation=self._operation,
            note=note,
            program=self._program,
        )
        self._refuse_another()
        try:
            publish(self._path, manifest)
        except DatabaseError as error:
            if error.code == "E305":
                self._staging.forget()
            raise
        return Database.open(self._path, self._next)
