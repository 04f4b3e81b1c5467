"""Gives a finished manifest its number, and brings old content back as a new version."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from retclip.core.errors import DatabaseError
from retclip.shards.creation import timestamp
from retclip.shards.durable import link_file
from retclip.shards.leases import Lease
from retclip.shards.lock import writer_lock
from retclip.shards.manifest import (
    Manifest,
    current_manifest,
    manifest_path,
    read_manifest,
    unreadable,
    versions,
)
from retclip.shards.succession import refuse_passed_over
from retclip.shards.sweep import sweep

_LAST_VERSION = 10**12 - 1  # the names of manifests have 12 digits


def next_version(database: Path) -> int:
    """The number that a writer will claim.

    Ask before reading the version that the change is made on: one published in between then makes the claim fail.

    Raises:
        DatabaseError: E303 when the largest number is taken.
    """
    number = max(versions(database), default=0) + 1
    if number > _LAST_VERSION:
        raise DatabaseError(
            "E303",
            f"Database '{database.stem}' has no number left for a new version.",
            why=f"The largest is taken by {manifest_path(database, _LAST_VERSION)}.",
            fix="No program counts so far: move that file away if `retclip db verify` calls it damaged.",
        )
    return number


def publish(database: Path, manifest: Manifest) -> None:
    """Link a manifest under its version number.

    Raises:
        DatabaseError: E305 when another writer has that number; nothing changed then.
    """
    if not link_file(manifest_path(database, manifest.version), [manifest.to_bytes()]):
        raise _outrun(database, manifest.version, manifest.parent)


def _outrun(database: Path, published: int, base: int) -> DatabaseError:
    return DatabaseError(
        "E305",
        f"Another writer published version {published} of database '{database.stem}' first.",
        why=f"This change was made on version {base}.",
        fix="Run the command again: it starts from the newest version.",
    )


def republish(database: Path, version: int, program: str, newest: int | None = None) -> int:
    """Publish the content of an older version as a new one and return its number.

    Only manifests of other versions are read: content can be brought back although the newest one has lost files.

    Args:
        database: folder of the database.
        version: whose content comes back.
        program: who does it.
        newest: the version that was the newest when `version` was chosen, None when that does not matter.

    Raises:
        DatabaseError: E305 when there is a newer one than `newest`.
    """
    with writer_lock(database, "restore") as refuse_another:
        sweep(database)
        number = next_version(database)
        current, old = current_manifest(database), read_manifest(database, version)
        if newest not in (None, current.version):
            raise _outrun(database, current.version, newest)
        classes = old.classes.copy()
        classes.next_id = max(classes.next_id, current.classes.next_id)
        manifest = replace(
            old,
            classes=classes,
            version=number,
            parent=current.version,
            created=timestamp(),
            operation="restore",
            note=f"content of version {version}",
            program=program,
        )
        refuse_another()
        publish(database, manifest)
    return number


def leased_manifest(database: Path, version: int | None) -> tuple[Manifest, Lease]:
    """A version, by default the current one, with a lease on it.

    Raises:
        DatabaseError: those of `read_manifest` and `current_manifest`.
    """
    while True:
        manifest = current_manifest(database) if version is None else read_manifest(database, version)
        try:
            return manifest, Lease(manifest_path(database, manifest.version))
        except FileNotFoundError:
            # It was removed since it was read; the next look finds a newer version, or says that it is gone.
            continue
        except OSError as error:
            raise unreadable(manifest_path(database, manifest.version), error) from error


def version_before(database: Path) -> int:
    """The version that the last change of content started from; a compaction changes none.

    Raises:
        DatabaseError: E306 when there is no such change, or the version before it was removed; E316 while
            a newer version is damaged.
    """
    manifest, known = current_manifest(database), versions(database)
    refuse_passed_over(database, manifest.version)
    while manifest.operation == "compact" and manifest.parent in known:
        manifest = read_manifest(database, manifest.parent)
    if manifest.parent not in known:
        first = f"Version {manifest.version} is its first."
        gone = f"Version {manifest.parent}, from which version {manifest.version} was made, was collected."
        raise DatabaseError(
            "E306",
            f"Database '{database.stem}' has nothing to undo.",
            why=gone if manifest.parent else first,
            fix=f"See what there is with: retclip db log {database.stem}",
        )
    return manifest.parent
