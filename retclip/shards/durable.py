"""Writing that survives a crash: every return checked, every file and folder flushed before it is named.

The order of the steps is the argument of docs/database-format.md, "How a version is written".
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from retclip.core.errors import DatabaseError, ResourceError

STAGING_PREFIX = ".staging-"
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and SHA-256 (hex) of a file."""

    bytes: int
    sha256: str


def new_id() -> str:
    """A random 32-digit hex name."""
    return secrets.token_hex(16)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError of writing `path` into E401 (no room) or E310 (may not write)."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise ResourceError(
                "E401",
                f"No room left to write {path}.",
                why=f"{error.strerror}; the last committed version is untouched.",
                fix="Free space on that disk (or raise the quota) and run the command again.",
            ) from error
        raise DatabaseError(
            "E310",
            f"Cannot write {path}.",
            why=f"{error.strerror or error}; the last committed version is untouched.",
            fix="Check the owner, the permissions and whether the disk is mounted read-only.",
        ) from error


def write_file(path: Path, parts: Iterable[bytes | memoryview]) -> FileEntry:
    """Create `path` (must not exist) from `parts`, flush it to the disk and return its size and digest."""
    digest = hashlib.sha256()
    total = 0
    with explained(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            for part in parts:
                view = memoryview(part).cast("B")
                digest.update(view)
                total += len(view)
                _write_all(descriptor, view)
            os.fsync(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    return FileEntry(total, digest.hexdigest())


def _write_all(descriptor: int, view: memoryview) -> None:
    """os.write may take less than it was given; repeat until nothing is left."""
    while len(view):
        view = view[os.write(descriptor, view[:_CHUNK_BYTES]) :]


def sync_folder(path: Path) -> None:
    """Flush the names inside a folder to the disk."""
    with explained(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def publish_folder(staged: Path, final: Path) -> None:
    """Give a folder whose files are already flushed its final name, durably.

    Raises:
        DatabaseError: E307 when `final` exists and is not empty.
    """
    sync_folder(staged)
    with explained(final):
        try:
            staged.rename(final)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise DatabaseError("E307", f"{final} already exists.", fix="Choose another name.") from error
            raise
    sync_folder(final.parent)


def publish_file(final: Path, parts: Iterable[bytes | memoryview]) -> FileEntry:
    """Write a file under a staging name and rename it to `final`, durably."""
    staged = final.with_name(STAGING_PREFIX + new_id())
    entry = _write_or_remove(staged, parts)
    with explained(final):
        staged.rename(final)
    sync_folder(final.parent)
    return entry


def link_file(final: Path, parts: Iterable[bytes | memoryview]) -> bool:
    """Write a file and give it the name `final` only if nobody has it; False when somebody was first."""
    staged = final.with_name(STAGING_PREFIX + new_id())
    _write_or_remove(staged, parts)
    try:
        with explained(final):
            try:
                os.link(staged, final)
            except FileExistsError:
                return False
        sync_folder(final.parent)
        return True
    finally:
        remove(staged)


def _write_or_remove(staged: Path, parts: Iterable[bytes | memoryview]) -> FileEntry:
    try:
        return write_file(staged, parts)
    except BaseException:
        discard(staged)
        raise


def make_folder(path: Path) -> None:
    """Create one folder (its parent must exist) with writing errors explained."""
    with explained(path):
        path.mkdir()


def ensure_folder(path: Path) -> None:
    """Create a folder and those above it, durably, where they are missing."""
    with explained(path):
        missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)


def sweep_staging(folder: Path) -> None:
    """Remove what writers left that died before publishing; only for the holder of the lock."""
    for leftover in folder.glob(STAGING_PREFIX + "*"):
        remove(leftover)


def remove(path: Path) -> None:
    """Remove a file or a folder with everything in it."""
    with explained(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def discard(staged: Path) -> None:
    """Remove a staged file where that is possible; the error for which it is given up says more than this one would."""
    with suppress(OSError):
        staged.unlink(missing_ok=True)


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder, as far as nobody removes them meanwhile."""
    total = 0
    with suppress(FileNotFoundError):
        for file in path.rglob("*") if path.is_dir() else [path]:
            total += file.stat().st_size if file.is_file() else 0
    return total


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file, read in chunks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
