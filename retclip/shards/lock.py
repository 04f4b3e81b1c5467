"""The writer's lock: nobody writes without it, for a writer sweeps what it takes for the leftovers of dead ones.

Should two writers meet all the same, on a network folder whose machines do not see each other's locks, link() decides
which of them publishes, see durable.link_file.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from retclip.core.errors import DatabaseError
from retclip.shards.durable import explained

NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}  # what flock says where a file system has none


@contextmanager
def writer_lock(database: Path, operation: str) -> Iterator[Callable[[], None]]:
    """Hold `LOCK` of a database, see `held_lock`; gives what refuses when another folder has taken the path since.

    What is written goes by path. A folder may be moved away, or a link switched, while its lock is held, and what was
    made on one database must not come into another: ask before anything gets its name.
    """
    with explained(database):
        folder = os.open(database, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def refuse_another() -> None:
        with explained(database):
            same = os.path.samestat(os.fstat(folder), database.stat())
        if not same:
            raise DatabaseError(
                "E310",
                f"Another folder has taken the place of {database}, so nothing is published.",
                why="It was moved, replaced, or its link was switched since this write began; both are untouched.",
                fix="Run the command again: it starts from what is there now.",
            )

    busy = f"Database '{database.stem}' is being written by somebody else."
    try:
        with held_lock(database / "LOCK", busy, operation):
            yield refuse_another
    finally:
        with explained(database):
            os.close(folder)


@contextmanager
def held_lock(path: Path, busy: str, operation: str) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; the kernel frees it when the process dies.

    Args:
        path: the lock file; it is made, and left behind.
        busy: what to say when another process holds it.
        operation: what the holder does, for that message.

    Raises:
        DatabaseError: E304 when another process holds it, naming process, host and time; E321 where nothing can be
            locked.
    """
    with explained(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not try_lock(descriptor, path):
            raise DatabaseError(
                "E304",
                busy,
                why=f"Holder: {_holder(descriptor)}.",
                fix="Wait until that command has finished; readers are not affected.",
            )
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "operation": operation,
        }
        with explained(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        try:
            yield
        finally:
            # A child that was forked meanwhile has the descriptor too: closing ours would leave the lock with it.
            if os.getpid() == holder["pid"]:
                with explained(path):
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        with explained(path):
            os.close(descriptor)


def open_to_lock(path: Path) -> BinaryIO:
    """Open a file whose exclusive lock is asked for.

    For writing, since network file systems give exclusive locks to no others; where nothing may be written a file that
    is open for reading can be locked as well, and no more than looked at.
    """
    try:
        return path.open("rb+")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return path.open("rb")


def try_lock(descriptor: int, path: Path) -> bool:
    """Take the exclusive lock of an open file; False when somebody else has one.

    Raises:
        DatabaseError: E321 where the file system has no locks, E310 when the lock is refused for another reason.
    """
    with explained(path):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise DatabaseError(
                "E321",
                f"{path} cannot be locked, so nothing is written.",
                why=f"The file system has no locks ({error.strerror}); without them two writers could lose each "
                "other's files. Reading works.",
                fix="Mount the folder with locks (NFS: without `nolock`), or move the database to a local disk.",
            ) from error
    return True


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']} ({holder['operation']})"
    except (ValueError, KeyError, TypeError):
        # The holder has the lock but has not written its name yet.
        return "a process that has just started"
