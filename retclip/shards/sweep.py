"""Finds what dead writers left behind."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from retclip.shards import durable
from retclip.shards.lock import open_to_lock, try_lock
from retclip.shards.manifest import Manifest

_STAGED = re.compile(re.escape(durable.STAGING_PREFIX) + "[0-9a-f]{32}")
ORPHAN_AGE_SECONDS = 3600  # on a network folder whose machines do not see each other's locks a writer may be at work


def sweep(database: Path) -> None:
    """Remove staging names; only for the holder of the lock. Every write begins so, and no manifest is read for it."""
    durable.sweep_staging(database)
    for folder in ("manifests", "shards", "deletes"):
        durable.ensure_folder(database / folder)  # some copies (git, archives) drop empty folders
        durable.sweep_staging(database / folder)


def unnamed(database: Path, manifests: Iterable[Manifest], age: float = ORPHAN_AGE_SECONDS) -> list[Path]:
    """Shards and bitmaps older than `age` seconds that none of all manifests names.

    A writer that dies between naming them and linking its manifest leaves them. They cost nothing but room.
    """
    named, limit = named_files(manifests), time.time() - age
    found = []
    for folder in ("shards", "deletes"):
        for path in sorted((database / folder).glob("[!.]*")):
            # A dry run asks without the lock, and another program may remove the file first.
            with suppress(FileNotFoundError):
                if f"{folder}/{path.name}" not in named and path.stat().st_mtime <= limit:
                    found.append(path)
    return found


def abandoned(folder: Path) -> list[Path]:
    """Staged databases and exports of this user in a folder, whose makers were killed.

    Nothing was written there for an hour, and nobody has the lock.

    Raises:
        DatabaseError: E321 where the file system has no locks.
    """
    limit = time.time() - ORPHAN_AGE_SECONDS
    found = []
    for path in sorted(folder.glob(durable.STAGING_PREFIX + "*")):
        # Whose maker gives it its name just now is gone from here, and alive.
        with suppress(FileNotFoundError):
            ours = _STAGED.fullmatch(path.name) is not None and path.lstat().st_uid == os.geteuid()
            if ours and not path.is_symlink() and _last_write(path) <= limit and not _is_locked(path / "LOCK"):
                found.append(path)
    return found


def remove_abandoned(folder: Path) -> None:
    """Remove what killed programs left in a folder: who makes something there again begins with it."""
    for path in abandoned(folder):
        durable.remove(path)


def _last_write(path: Path) -> float:
    """Newest modification time of a file, or of a folder and what stands in it, in seconds of the system's clock."""
    return max(each.stat().st_mtime for each in (path, *path.glob("*")))


def _is_locked(lock: Path) -> bool:
    if not lock.is_file():
        return False
    with open_to_lock(lock) as stream:
        return not try_lock(stream.fileno(), lock)


def named_files(manifests: Iterable[Manifest]) -> dict[str, int]:
    """Shard folders and bitmaps that versions name, as paths inside the database, with their bytes."""
    files: dict[str, int] = {}
    for manifest in manifests:
        for entry in manifest.shards:
            files[f"shards/{entry.id}"] = sum(file.bytes for file in entry.files.values())
            if entry.deletes is not None:
                files[f"deletes/{entry.deletes.id}.roaring"] = entry.deletes.file.bytes
    return files
