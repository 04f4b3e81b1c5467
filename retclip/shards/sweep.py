"""Removes what dead writers left behind; only for the holder of the lock."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from retclip.core.errors import DatabaseError
from retclip.shards import durable
from retclip.shards.manifest import Manifest, read_manifest, versions

ORPHAN_AGE_SECONDS = 3600  # a crash between naming a shard and linking the manifest leaves it unnamed


def sweep(database: Path, orphan_age: float = ORPHAN_AGE_SECONDS) -> None:
    """Remove staging names, and shards and bitmaps older than `orphan_age` seconds that no manifest names."""
    durable.sweep_staging(database)
    for folder in ("manifests", "shards", "deletes"):
        # Some copies (git, archives) drop empty folders.
        if not (database / folder).is_dir():
            durable.make_folder(database / folder)
        durable.sweep_staging(database / folder)
    limit = time.time() - orphan_age
    old = [
        path
        for folder in ("shards", "deletes")
        for path in (database / folder).iterdir()
        if path.stat().st_mtime <= limit
    ]
    if not old:
        return
    named = _named(database)
    if named is None:
        return
    for path in old:
        if str(path.relative_to(database)) not in named:
            durable.remove(path)


def named_files(manifests: Iterable[Manifest]) -> dict[str, int]:
    """Shard folders and bitmaps that versions name, as paths inside the database, with their bytes."""
    files: dict[str, int] = {}
    for manifest in manifests:
        for entry in manifest.shards:
            files[f"shards/{entry.id}"] = sum(file.bytes for file in entry.files.values())
            if entry.deletes is not None:
                files[f"deletes/{entry.deletes.id}.roaring"] = entry.deletes.file.bytes
    return files


def _named(database: Path) -> dict[str, int] | None:
    """What any version names; None when a manifest is damaged, for its shards may still be rescued."""
    try:
        return named_files([read_manifest(database, version) for version in versions(database)])
    except DatabaseError as error:
        if error.code != "E303":
            raise
        return None
