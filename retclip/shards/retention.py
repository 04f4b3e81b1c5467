"""Gives the space of old versions, and of what dead writers left, back.

Manifests go first and are flushed before any file they name: a crash in between leaves files that no manifest names,
which the next collection removes, and never a manifest whose files are gone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retclip.core.errors import DatabaseError, require
from retclip.shards import durable
from retclip.shards.leases import alone
from retclip.shards.ledger import job_folders
from retclip.shards.lock import writer_lock
from retclip.shards.manifest import Manifest, manifest_path, read_manifest, versions
from retclip.shards.media import FOLDER, forget_thumbnails, thumbnail_ids
from retclip.shards.shard_reader import ShardReader
from retclip.shards.sweep import abandoned, named_files, sweep, unnamed

_STALE_SHARE = 0.25  # of all pictures: to take some out, the others are written anew


@dataclass(frozen=True)
class Collected:
    """What was given back.

    Attributes:
        versions: numbers of the removed versions.
        bytes: of all files that went.
        in_use: older versions that stayed because they are read.
        leftovers: what killed programs had left in the database and beside it, as paths inside the folder of both.
        thumbnails: how many pictures of segments that no version holds went.
    """

    versions: tuple[int, ...]
    bytes: int
    in_use: tuple[int, ...]
    leftovers: tuple[str, ...] = ()
    thumbnails: int = 0


def collect(database: Path, keep: int, *, dry_run: bool = False) -> Collected:
    """Remove all versions but the newest `keep`, the files that only they name, and what killed programs left.

    Args:
        database: folder of the database.
        keep: how many versions stay, at least one.
        dry_run: only say what would go.

    Raises:
        DatabaseError: E316 while a manifest is damaged, E304 while somebody writes, E310 where removing is refused.
    """
    require(keep > 0, "keep", "> 0", keep)
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(writer_lock(database, "gc"))
            sweep(database)
        manifests = whole_manifests(database)
        left = [*unnamed(database, manifests), *abandoned(database.parent)]
        size = sum(map(durable.size, left))
        if not dry_run:
            for path in left:
                durable.remove(path)
        removed = remove_versions(database, manifests, [m.version for m in manifests[:-keep]], dry_run=dry_run)
        stale, stale_bytes = _stale_thumbnails(database, [m for m in manifests if m.version not in removed.versions])
        if len(stale) and not dry_run:
            forget_thumbnails(database, stale)
    names = tuple(str(path.relative_to(database.parent)) for path in left)
    return replace(removed, bytes=removed.bytes + size + stale_bytes, leftovers=names, thumbnails=len(stale))


def _stale_thumbnails(database: Path, kept: Sequence[Manifest]) -> tuple[list[int], int]:
    """Segment ids of pictures that no kept version needs, and about how many bytes they take; none while they are few.

    Nor while a build is unfinished, which stores pictures before the version that holds their segments, or while a
    shard is damaged, whose segments are not known.
    """
    pictures = thumbnail_ids(database)
    if not len(pictures) or job_folders(database):
        return [], 0
    entries = {entry.id: (entry, manifest.space.dim) for manifest in kept for entry in manifest.shards}
    try:
        held = [ShardReader(database / "shards" / name, *facts).row_ids for name, facts in entries.items()]
    except DatabaseError:
        return [], 0
    stale = np.setdiff1d(pictures, np.concatenate([np.zeros(0, np.uint64), *held]))
    if len(stale) < _STALE_SHARE * len(pictures):
        return [], 0
    size = durable.size(database / FOLDER)
    return stale.tolist(), size * len(stale) // len(pictures)


def whole_manifests(database: Path) -> list[Manifest]:
    """Every version, oldest first.

    Raises:
        DatabaseError: E316 when one is damaged: which files it names, and so which may go, is not known then.
    """
    manifests = []
    for version in versions(database):
        try:
            manifests.append(read_manifest(database, version))
        except DatabaseError as error:
            if error.code == "E306" and version not in versions(database):
                continue  # it was removed since it was listed
            if error.code != "E303":
                raise
            raise DatabaseError(
                "E316",
                f"Nothing of database '{database.stem}' is removed while one of its manifests is damaged.",
                why=error.what,
                fix="Put a copy of that manifest in its place, or remove it yourself, and run the command again.",
            ) from error
    return manifests


def remove_versions(
    database: Path, manifests: Sequence[Manifest], doomed: Collection[int], *, dry_run: bool = False
) -> Collected:
    """Remove some of all versions of a database, except those that somebody has open; only for the holder of the lock.

    Args:
        database: folder of the database.
        manifests: all its versions.
        doomed: numbers of those to remove.
        dry_run: only say what would go.
    """
    free, in_use, total = set(), [], 0
    for version in sorted(doomed):
        path = manifest_path(database, version)
        # One at a time, for there may be more versions than files that may be open; without its name it stays closed.
        # A dry run has no lock, and another program may remove the version first.
        with suppress(FileNotFoundError), alone(path) as unread:
            if not unread:
                in_use.append(version)
                continue
            total += path.stat().st_size
            free.add(version)
            if not dry_run:
                durable.remove(path)
    kept = named_files(m for m in manifests if m.version not in free)
    going = named_files(m for m in manifests if m.version in free)
    files = {path: size for path, size in going.items() if path not in kept}
    if free and not dry_run:
        durable.sync_folder(database / "manifests")
        for name in sorted(files):
            durable.remove(database / name)
    return Collected(tuple(sorted(free)), total + sum(files.values()), tuple(in_use))
