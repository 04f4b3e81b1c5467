"""Finds what dead writers left behind."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from retclip.shards import durable
from retclip.shards.manifest import Manifest

ORPHAN_AGE_SECONDS = 3600  # on a network folder whose machines do not see each other's locks a writer may be at work


def sweep(database: Path) -> None:
    """Remove staging names; only for the holder of the lock. Every write begins so, and no manifest is read for it."""
    durable.sweep_staging(database)
    for folder in ("manifests", "shards", "deletes"):
        # Some copies (git, archives) drop empty folders.
        if not (database / folder).is_dir():
            durable.make_folder(database / folder)
        durable.sweep_staging(database / folder)


def unnamed(database: Path, manifests: Iterable[Manifest], age: float = ORPHAN_AGE_SECONDS) -> list[Path]:
    """Shards and bitmaps older than `age` seconds that none of all manifests names.

    A writer that dies between naming them and linking its manifest leaves them. They cost nothing but room.
    """
    named, limit = named_files(manifests), time.time() - age
    return [
        path
        for folder in ("shards", "deletes")
        for path in sorted((database / folder).glob("[!.]*"))
        if f"{folder}/{path.name}" not in named and path.stat().st_mtime <= limit
    ]


def named_files(manifests: Iterable[Manifest]) -> dict[str, int]:
    """Shard folders and bitmaps that versions name, as paths inside the database, with their bytes."""
    files: dict[str, int] = {}
    for manifest in manifests:
        for entry in manifest.shards:
            files[f"shards/{entry.id}"] = sum(file.bytes for file in entry.files.values())
            if entry.deletes is not None:
                files[f"deletes/{entry.deletes.id}.roaring"] = entry.deletes.file.bytes
    return files
