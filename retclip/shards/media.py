"""Thumbnails in LMDB: a cache that may be missing, damaged or removed at any time without harm to the database."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import numpy.typing as npt

from retclip.core.errors import require
from retclip.shards import durable
from retclip.shards.picture_pages import BadPage, PictureFile

FOLDER, DATA, LOCK = "cache.lmdb", "data.mdb", "lock.mdb"
FIRST_MAP_BYTES = 64 << 20
TRANSACTION_BYTES = 32 << 20
MAX_VALUE_BYTES = 1 << 20
LOOKS = 3  # a writer takes pages over that somebody reads; the next look finds its newer state
_DIGEST_BYTES = 8
_LOCK_BYTES = 8_192  # as LMDB makes it for its usual 126 readers
_LITTLE_BYTES = TRANSACTION_BYTES + MAX_VALUE_BYTES  # free space that one transaction may need
_log = logging.getLogger(__name__)
# LMDB refuses a second environment on one file in a process, so they are opened for one call at a time.
_guard = threading.Lock()


def _fresh_guard() -> None:
    """A child of fork must not inherit a guard that a thread of its parent holds."""
    global _guard
    _guard = threading.Lock()


os.register_at_fork(after_in_child=_fresh_guard)


def read_thumbnail(database: Path, segment_id: int) -> bytes | None:
    """JPEG bytes, or None when the cache does not have them whole."""
    data, key = database / FOLDER / DATA, _key(segment_id)
    if not data.is_file():
        return None
    problem: object = "a picture is not what was stored"
    for _ in range(LOOKS):
        try:
            with PictureFile.open(data, MAX_VALUE_BYTES) as pictures:
                value = pictures.get(key)
        except (BadPage, OSError) as error:
            problem = error
            continue
        jpeg = None if value is None else _whole(key, value)
        if value is None or jpeg is not None:
            return jpeg
    _log.warning("The thumbnail cache %s cannot be read and is ignored: %s", data.parent, problem)
    return None


def write_thumbnails(database: Path, thumbnails: Mapping[int, bytes], *, overwrite: bool = True) -> None:
    """Store JPEG bytes by segment id; a damaged cache is thrown away and started again.

    Args:
        database: folder of the database.
        thumbnails: JPEG bytes by segment id.
        overwrite: whether they take the place of those that are there.

    Raises:
        ValueError: for a picture of a megabyte or more; nothing is stored then.
    """
    largest = max(map(len, thumbnails.values()), default=0)
    require(largest <= MAX_VALUE_BYTES - _DIGEST_BYTES, "thumbnail", "less than 1 MiB", largest)
    folder = database / FOLDER
    with durable.explained(folder):
        try:
            _write(folder, thumbnails, overwrite=overwrite)
        except lmdb.Error as error:
            if refused := _refusal(folder, error):
                raise refused from error
            _log.warning("The thumbnail cache %s is damaged and is started again: %s", folder, error)
            durable.remove(folder)
            _write(folder, thumbnails)


def forget_thumbnails(database: Path, segment_ids: Collection[int]) -> int:
    """Remove pictures without a trace, and say how many there were; a damaged cache is thrown away whole.

    LMDB leaves what it deletes in free pages, so all other pictures move to a new environment.
    """
    folder = database / FOLDER
    if not folder.is_dir():
        return 0
    old, staged = (database / (durable.STAGING_PREFIX + durable.new_id()) for _ in range(2))
    gone = set(segment_ids)
    count = 0
    with durable.explained(folder):
        try:
            for batch in _stored_batches(folder):
                count += len(gone & set(batch))
                _write(staged, {number: jpeg for number, jpeg in batch.items() if number not in gone})
        except BadPage as error:
            _log.warning("The thumbnail cache %s is damaged and is thrown away: %s", folder, error)
        except (lmdb.Error, OSError) as error:
            durable.remove(staged)
            if isinstance(error, OSError):
                raise
            raise _refusal(database, error) or OSError(errno.EIO, str(error)) from error
        folder.rename(old)
        if staged.is_dir():
            _give_name(staged, folder)
        durable.remove(old)
    durable.sync_folder(database)
    return count


def thumbnail_ids(database: Path) -> npt.NDArray[np.uint64]:
    """(n,) segment ids of all stored pictures; none where the cache cannot be read."""
    data = database / FOLDER / DATA
    try:
        with PictureFile.open(data, MAX_VALUE_BYTES) as pictures:
            return np.fromiter((int.from_bytes(key, "big") for key in pictures), np.uint64)
    except (BadPage, OSError):
        return np.zeros(0, np.uint64)


def _give_name(staged: Path, folder: Path) -> None:
    try:
        staged.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        # A build, which stores pictures without the writer's lock, has begun a cache there; its pictures are newer.
        for batch in _stored_batches(staged):
            _write(folder, batch, overwrite=False)
        durable.remove(staged)


def _stored_batches(folder: Path) -> Iterator[dict[int, bytes]]:
    """Whole pictures by segment id, in pieces of bounded size; none of a folder whose removal was interrupted."""
    if not (folder / DATA).exists():
        return
    batch: dict[int, bytes] = {}
    size = 0
    with PictureFile.open(folder / DATA, MAX_VALUE_BYTES) as pictures:
        for key, value in pictures.items():
            jpeg = _whole(key, value)
            if jpeg is not None:
                batch[int.from_bytes(key, "big")] = jpeg
                size += len(value)
            if size >= TRANSACTION_BYTES:
                yield batch
                batch, size = {}, 0
    yield batch


def _refusal(folder: Path, error: lmdb.Error) -> OSError | None:
    """What the system said when it refused to write, of which LMDB hands on the text alone; nothing is damaged then."""
    number = next((n for n in (*durable.NO_SPACE, errno.EIO) if os.strerror(n) in str(error)), None)
    cut_short = number == errno.EIO and shutil.disk_usage(folder).free < _LITTLE_BYTES
    if cut_short or isinstance(error, lmdb.DiskError):
        number = errno.ENOSPC
    return OSError(number, os.strerror(number)) if number else None


def _write(folder: Path, thumbnails: Mapping[int, bytes], *, overwrite: bool = True) -> None:
    with _environment(folder) as env:
        for batch in _batches(thumbnails):
            while True:
                try:
                    with env.begin(write=True) as transaction:
                        for key, value in batch:
                            transaction.put(key, value, overwrite=overwrite)
                    break
                except lmdb.MapFullError:
                    # No transaction is open here, which is the only time the map may grow.
                    env.set_mapsize(2 * env.info()["map_size"])
        pages = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    _pad(folder / DATA, pages + MAX_VALUE_BYTES)


def _pad(data: Path, size: int) -> None:
    """Lengthen the file with a hole, so that a damaged length of a value reads zeros instead of raising SIGBUS."""
    if data.stat().st_size < size:
        os.truncate(data, size)


def _batches(thumbnails: Mapping[int, bytes]) -> Iterator[list[tuple[bytes, bytes]]]:
    """Keys and values in transactions of bounded size."""
    batch: list[tuple[bytes, bytes]] = []
    size = 0
    for segment_id, jpeg in thumbnails.items():
        key = _key(segment_id)
        batch.append((key, _digest(key + jpeg) + jpeg))
        size += len(jpeg)
        if size >= TRANSACTION_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@contextmanager
def _environment(folder: Path) -> Iterator[Any]:
    """An environment for one call: nothing stays open that a fork could inherit."""
    data = folder / DATA
    _allocate(folder)
    # 3.0 of py-lmdb bundles two engines whose files do not read each other; 0.9 is the older, wider one.
    pinned: dict[str, Any] = {"lib_version": 0} if hasattr(lmdb, "BadChecksumError") else {}
    size = max(FIRST_MAP_BYTES, 2 * data.stat().st_size if data.exists() else 0)
    with _guard:
        env = lmdb.open(str(folder), map_size=size, max_dbs=0, **pinned)
        try:
            pages = env.info()["last_pgno"] + 1
            if data.stat().st_size < pages * env.stat()["psize"] and pages > 2:
                # Touching a page behind the end of the file would kill the process with SIGBUS.
                raise lmdb.CorruptedError(f"{data} is shorter than its {pages} pages")
            yield env
        finally:
            env.close()


def _allocate(folder: Path) -> None:
    """Give LMDB's lock file its blocks: it maps a hole, and to write there on a full disk would kill the process."""
    folder.mkdir(exist_ok=True)
    if hasattr(os, "posix_fallocate"):
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.posix_fallocate(descriptor, 0, _LOCK_BYTES)
        finally:
            os.close(descriptor)


def _whole(key: bytes, value: bytes) -> bytes | None:
    """JPEG bytes of a stored value, None when it is damaged or another key's."""
    digest, jpeg = value[:_DIGEST_BYTES], value[_DIGEST_BYTES:]
    # The first writers of format 1 left the key out.
    return jpeg if digest in (_digest(key + jpeg), _digest(jpeg)) else None


def _key(segment_id: int) -> bytes:
    return segment_id.to_bytes(8, "big")


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()[:_DIGEST_BYTES]
