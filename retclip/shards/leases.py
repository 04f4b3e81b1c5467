"""Leases of readers: who has a version open holds a shared flock on its manifest, so that nobody removes its files.

The kernel frees a lease when its process dies. Where the file system has no locks readers go without: no version is
removed there, for removing needs a lock too.
"""

from __future__ import annotations

import errno
import fcntl
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retclip.shards.lock import NO_LOCKS, open_to_lock, try_lock


class Lease:
    """A shared lock on a manifest for as long as the object lives.

    Raises:
        FileNotFoundError: the version does not exist (any more).
    """

    def __init__(self, manifest: Path) -> None:
        stream = manifest.open("rb")
        weakref.finalize(self, stream.close)
        try:
            fcntl.flock(stream, fcntl.LOCK_SH)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        # It may have been removed between opening and locking; a backup may hold it by another link.
        if not os.path.samestat(os.fstat(stream.fileno()), manifest.stat()):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(manifest))


@contextmanager
def alone(manifest: Path) -> Iterator[bool]:
    """Whether nobody has the version open; as long as the block runs, nobody can open it then.

    Raises:
        DatabaseError: E321 where the file system has no locks, E310 when the lock is refused for another reason.
    """
    with open_to_lock(manifest) as stream:
        yield try_lock(stream.fileno(), manifest)
