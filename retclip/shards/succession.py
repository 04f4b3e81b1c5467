"""Newer versions that are damaged: readers go on to an older one, writers do not."""

from __future__ import annotations

from pathlib import Path

from retclip.core.errors import DatabaseError
from retclip.shards.manifest import read_manifest, spelled, versions


def passed_over(database: Path, version: int) -> list[int]:
    """Versions above `version` whose manifests are damaged, so that readers go on to an older one."""
    found = []
    for newer in versions(database):
        if newer > version:
            try:
                read_manifest(database, newer)
            except DatabaseError as error:
                if error.code == "E303":
                    found.append(newer)
    return found


def refuse_passed_over(database: Path, version: int) -> None:
    """Refuse to change `version` while a newer one is damaged: what that one holds would silently be left behind.

    Raises:
        DatabaseError: E316.
    """
    if newer := passed_over(database, version):
        name = database.stem
        raise DatabaseError(
            "E316",
            f"Nothing is written to database '{name}' while {spelled(newer)} cannot be used.",
            why=f"The manifest is damaged; a change would start from version {version} and leave out what came after.",
            fix=f"Restore the file from a backup, or go on from version {version}: retclip db restore {name} {version}",
        )
