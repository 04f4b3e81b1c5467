"""Leases of readers: who has a version open holds a shared flock on its manifest, so that nobody removes its files.

The kernel frees a lease when its process dies. Where flock does not work there are none, and a version that is removed
while it is read is reported as damaged (E303) by its reader.
"""

from __future__ import annotations

import errno
import fcntl
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class Lease:
    """A shared lock on a manifest for as long as the object lives.

    Raises:
        FileNotFoundError: the version does not exist (any more).
    """

    def __init__(self, manifest: Path) -> None:
        stream = manifest.open("rb")
        weakref.finalize(self, stream.close)
        _lock(stream.fileno(), fcntl.LOCK_SH)
        if os.fstat(stream.fileno()).st_nlink == 0:
            # It was removed between opening and locking.
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(manifest))


@contextmanager
def alone(manifest: Path) -> Iterator[bool]:
    """Whether nobody has the version open; as long as the block runs, nobody can open it then."""
    with manifest.open("rb+") as stream:  # for writing: network file systems give exclusive locks to no others
        yield _lock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _lock(descriptor: int, how: int) -> bool:
    """Take a lock; False when somebody else has it. True, without a lock, where the file system knows none."""
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    return True
