"""Erases what came from an image or a source, for good: from rows, masks, thumbnails, spills and old versions.

A deletion hides rows; erasing rewrites every shard that ever held them, removes the versions that name the old ones,
and then searches all files that are left. Blocks that the disk freed, and copies made elsewhere, are beyond its reach.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from retclip.core.errors import DatabaseError
from retclip.shards import durable, tables
from retclip.shards.database import Database
from retclip.shards.ledger import spills_with, spills_without
from retclip.shards.lock import writer_lock
from retclip.shards.manifest import Manifest
from retclip.shards.media import forget_thumbnails
from retclip.shards.retention import remove_versions, whole_manifests
from retclip.shards.search.index_files import remove_index
from retclip.shards.shard_reader import ShardReader
from retclip.shards.sweep import sweep, unnamed
from retclip.shards.traces import WINDOW_BYTES, Traces


@dataclass(frozen=True)
class Selection:
    """What to erase: all segments whose `column` holds `value`."""

    column: Literal["image_sha256", "source"]
    value: str

    def rows(self, reader: ShardReader) -> npt.NDArray[np.int64]:
        """Rows of a shard, dead ones too."""
        equal = np.asarray(tables.numbers(reader.tables.columns(self.column), self.column) == self.value, np.bool_)
        return np.flatnonzero(equal)


@dataclass
class Erased:
    """What was found in the shards of all versions.

    Attributes:
        shards: ids of the shards that hold it.
        ids, images: segment ids and image digests.
        vectors: rows of vectors.f16; those of less than 8 bytes, which other data may hold by chance, are left out.
    """

    shards: set[str] = field(default_factory=set)
    ids: set[int] = field(default_factory=set)
    images: set[str] = field(default_factory=set)
    vectors: set[bytes] = field(default_factory=set)

    def add(self, table: Any, vectors: npt.NDArray[np.floating]) -> None:
        """Note rows: a table with segment_id and image_sha256, and their (n, D) vectors."""
        self.ids.update(tables.numbers(table, "segment_id").tolist())
        self.images.update(table["image_sha256"].to_pylist())
        self.vectors.update(data for row in vectors if len(data := row.tobytes()) >= WINDOW_BYTES)


@dataclass(frozen=True)
class Proof:
    """What an erasure did, and what the search of all remaining files looked for and did not find.

    Attributes:
        segments, images: how many were erased.
        versions: numbers of the removed versions.
        spills, thumbnails: how many were removed.
        strings: segment ids (both byte orders), image digests and vectors that were looked for.
        shared: of the images and vectors, those that other segments have too: they stay, and were not looked for.
        files, bytes: what was searched.
    """

    segments: int
    images: int
    versions: tuple[int, ...]
    spills: int
    thumbnails: int
    strings: int
    shared: int
    files: int
    bytes: int


def survey(database: Path, selection: Selection) -> tuple[int, list[int]]:
    """How many segments `erase` would erase, and which versions it would remove.

    Raises:
        DatabaseError: E317 when there is nothing of it, E316 while a manifest is damaged, E304 while somebody writes.
    """
    with writer_lock(database, "erase"):
        found = _find(database, selection)
        return len(found.ids), _holding(whole_manifests(database), found)


def erase(database: Path, selection: Selection, program: str) -> Proof:
    """Erase a selection from all versions and caches of a database, and prove it.

    An erasure that was interrupted is finished by the same call.

    Raises:
        DatabaseError: E317 when there is nothing of it, E316 while a manifest is damaged, E304 while somebody writes or
            reads a version that must go, E318 when the search found a trace.
    """
    # Without the lock another writer would sweep the new cache, or collect a shard that is still to be read.
    with writer_lock(database, "erase"):
        found = _find(database, selection)
        # Rows last: as long as they are there, an interrupted erasure knows what is left to do.
        thumbnails = forget_thumbnails(database, found.ids)
    spills = _forget_spills(database, selection, found.ids)
    if found.shards:
        _rewrite(database, selection, found, program)
    strings = _strings(found)
    with writer_lock(database, "erase"):
        # What shards are coded with is drawn from rows of all of them; the mean key of a class may be that of one row.
        for shard in (database / "shards").iterdir():
            if shard.is_dir():
                remove_index(shard)
                durable.sync_folder(shard)
        versions = _remove_versions(database, found)
        shared = _shared(database, found)
        files, size = _search(database, strings - shared, selection)
    return Proof(
        segments=len(found.ids),
        images=len(found.images),
        versions=versions,
        spills=spills,
        thumbnails=thumbnails,
        strings=len(strings - shared),
        shared=len(shared),
        files=files,
        bytes=size,
    )


def _readers(database: Path, manifests: list[Manifest]) -> Iterator[ShardReader]:
    """Every shard that any version names, once."""
    entries = {entry.id: (entry, manifest.space.dim) for manifest in manifests for entry in manifest.shards}
    for shard_id, (entry, dim) in sorted(entries.items()):
        yield ShardReader(database / "shards" / shard_id, entry, dim)


def _find(database: Path, selection: Selection) -> Erased:
    """What there is to erase; raises E317 when there is nothing."""
    found = Erased()
    for reader in _readers(database, whole_manifests(database)):
        rows = selection.rows(reader)
        if len(rows):
            found.shards.add(reader.entry.id)
            found.add(reader.tables.columns("segment_id", "image_sha256").take(rows), reader.vectors[rows])
    for _, _, segments, vectors in spills_with(database, selection.column, selection.value):
        found.add(tables.from_segments(segments), vectors)
    if not found.ids:
        raise DatabaseError(
            "E317",
            f"Database '{database.stem}' holds nothing of {selection.column} '{selection.value}'.",
            why="No shard of any version and no unfinished build has a segment of it.",
            fix=f"Sources are shown by: retclip db info {database.stem}; an image is its file's SHA-256.",
        )
    return found


def _holding(manifests: list[Manifest], found: Erased) -> list[int]:
    """Versions that name a shard with something of it."""
    return [m.version for m in manifests if any(entry.id in found.shards for entry in m.shards)]


def _forget_spills(database: Path, selection: Selection, ids: set[int]) -> int:
    """Remove finished units that hold the selection or name its ids: a build that resumes does them again."""
    count = 0
    holding = ((ledger, key) for ledger, key, _, _ in spills_with(database, selection.column, selection.value))
    for ledger, key in chain(holding, spills_without(database, ids)):
        with ledger.running():
            ledger.forget([key])
        count += 1
    return count


def _rewrite(database: Path, selection: Selection, found: Erased, program: str) -> None:
    """A new version without the rows, in which no shard is left that holds them."""
    with Database.open(database).write("erase", program) as transaction:
        transaction.delete(
            source=selection.value if selection.column == "source" else None,
            image_sha256=selection.value if selection.column == "image_sha256" else None,
        )
        transaction.compact(found.shards)
        transaction.commit(f"erased {len(found.ids)} segments")


def _remove_versions(database: Path, found: Erased) -> tuple[int, ...]:
    """Remove the versions that name a shard with erased rows, and all that no version names; the lock is held."""
    manifests = whole_manifests(database)
    doomed = _holding(manifests, found)
    if doomed and doomed[-1] == manifests[-1].version:
        raise DatabaseError(
            "E305",
            f"Version {doomed[-1]} of database '{database.stem}' was restored while its segments were erased.",
            why="Another command published it in between.",
            fix="Run the command again.",
        )
    removed = remove_versions(database, manifests, doomed)
    if removed.in_use:
        raise DatabaseError(
            "E304",
            f"Versions {', '.join(map(str, removed.in_use))} of database '{database.stem}' are being read.",
            why="They hold what is to be erased, and a reader has them open.",
            fix="Stop the programs that use the database, and run the command again: it goes on from here.",
        )
    sweep(database)
    # The lock is ours, so what no version names belongs to nobody, however young it is.
    for path in unnamed(database, [m for m in manifests if m.version not in removed.versions], age=0):
        durable.remove(path)
    # A removal that is not flushed can be undone by a power loss. Copies may lack `jobs`, as `sweep` says.
    for folder in (database / "shards", *database.glob("jobs"), *database.glob("jobs/*/")):
        durable.sync_folder(folder)
    return removed.versions


def _strings(found: Erased) -> set[bytes]:
    ids = {segment_id.to_bytes(8, order) for segment_id in found.ids for order in ("little", "big")}
    return ids | {digest.encode() for digest in found.images} | found.vectors


def _shared(database: Path, found: Erased) -> set[bytes]:
    """Vectors and image digests that segments which stay have too."""
    shared: set[bytes] = set()
    for reader in _readers(database, whole_manifests(database)):
        images = set(reader.tables.columns("image_sha256")["image_sha256"].unique().to_pylist())
        shared |= {digest.encode() for digest in images & found.images}
        shared |= found.vectors.intersection(row.tobytes() for row in reader.vectors)
    return shared


def _search(database: Path, strings: set[bytes], selection: Selection) -> tuple[int, int]:
    """(files, bytes) that were searched. Raises E318 for anything that is left."""
    traces = Traces(strings)
    searched: dict[Path, int] = {}
    left = []
    # Builds store spills without the lock: one that loses its name here is searched under its next.
    while fresh := [path for path in _files(database) if path not in searched]:
        for path in fresh:
            with suppress(FileNotFoundError):
                if any(True for _ in traces.in_file(path)):
                    left.append(str(path.relative_to(database)))
                searched[path] = path.stat().st_size
    # Parquet is compressed: what it says is asked of its columns.
    for reader in _readers(database, whole_manifests(database)):
        if len(selection.rows(reader)):
            left.append(f"shards/{reader.entry.id}/meta.parquet")
    if left:
        raise DatabaseError(
            "E318",
            f"Database '{database.stem}' still holds traces of what was erased, in {len(left)} files.",
            why=", ".join(left[:5]),
            fix="Stop other programs that use the database, run the command again, then remove those files.",
        )
    return len(searched), sum(searched.values())


def _files(database: Path) -> list[Path]:
    # rglob raises when a folder vanishes.
    paths = (Path(folder, name) for folder, _, names in os.walk(database) for name in names)
    return sorted(path for path in paths if path.is_file())
