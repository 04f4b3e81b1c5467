"""Makes the folder of a new database, all at once."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from retclip.core.errors import DatabaseError
from retclip.shards import durable
from retclip.shards.manifest import FORMAT_BYTES, Manifest, manifest_path

FOLDERS = ("manifests", "shards", "deletes", "jobs")


def timestamp() -> str:
    """Now, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def refuse_existing(path: Path, what: str = "database", remedy: str = "add to the database that is there") -> None:
    """Raise DatabaseError E307 when there is something at the place of a new database, or of another new thing."""
    if path.exists() or path.is_symlink():
        raise DatabaseError(
            "E307",
            f"{path} already exists.",
            why=f"A new {what} never replaces anything.",
            fix=f"Choose another name, or {remedy}.",
        )


def create_folder(path: Path, first: Manifest) -> None:
    """Make a database with one version, staged beside its place and renamed when whole.

    Raises:
        DatabaseError: E307 when `path` exists.
    """
    refuse_existing(path)
    durable.ensure_folder(path.parent)
    staged = path.with_name(durable.STAGING_PREFIX + durable.new_id())
    durable.make_folder(staged)
    try:
        for name in FOLDERS:
            durable.make_folder(staged / name)
        durable.write_file(manifest_path(staged, first.version), [first.to_bytes()])
        durable.sync_folder(staged / "manifests")
        durable.write_file(staged / "FORMAT", [FORMAT_BYTES])
        durable.publish_folder(staged, path)
    except BaseException:
        if staged.exists():
            durable.remove(staged)
        raise
