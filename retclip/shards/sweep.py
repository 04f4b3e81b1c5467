"""Removes what dead writers left behind; only for the holder of the lock."""

from __future__ import annotations

import time
from pathlib import Path

from retclip.core.errors import DatabaseError
from retclip.shards import durable
from retclip.shards.manifest import Manifest, read_manifest, versions

ORPHAN_AGE_SECONDS = 3600  # a crash between naming a shard and linking the manifest leaves it unnamed


def sweep(database: Path) -> None:
    """Remove staging names, and old shards and bitmaps that no manifest names."""
    for folder in ("manifests", "shards", "deletes"):
        # Some copies (git, archives) drop empty folders.
        if not (database / folder).is_dir():
            durable.make_folder(database / folder)
        durable.sweep_staging(database / folder)
    limit = time.time() - ORPHAN_AGE_SECONDS
    old = [
        path
        for folder in ("shards", "deletes")
        for path in (database / folder).iterdir()
        if path.stat().st_mtime < limit
    ]
    if not old:
        return
    named = _named(database)
    if named is None:
        return
    for path in old:
        if path.name.removesuffix(".roaring") not in named:
            durable.remove(path)


def _named(database: Path) -> set[str] | None:
    """Ids that any version names; None when a manifest is damaged, for its shards may still be rescued."""
    names: set[str] = set()
    for version in versions(database):
        try:
            names |= _ids(read_manifest(database, version))
        except DatabaseError as error:
            if error.code != "E303":
                raise
            return None
    return names


def _ids(manifest: Manifest) -> set[str]:
    return {e.id for e in manifest.shards} | {e.deletes.id for e in manifest.shards if e.deletes}
