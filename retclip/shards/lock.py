"""The writer's lock: a courtesy between writers. Correctness rests on link(), see durable.link_file."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from retclip.core.errors import DatabaseError
from retclip.shards.durable import explained


def writer_lock(database: Path, operation: str) -> AbstractContextManager[None]:
    """Hold `LOCK` of a database: see `held_lock`."""
    return held_lock(database / "LOCK", f"Database '{database.stem}' is being written by somebody else.", operation)


@contextmanager
def held_lock(path: Path, busy: str, operation: str) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; the kernel frees it when the process dies.

    Args:
        path: the lock file; it is made, and left behind.
        busy: what to say when another process holds it.
        operation: what the holder does, for that message.

    Raises:
        DatabaseError: E304 when another process holds it, naming process, host and time.
    """
    with explained(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatabaseError(
                "E304",
                busy,
                why=f"Holder: {_holder(descriptor)}.",
                fix="Wait until that command has finished; readers are not affected.",
            ) from error
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "operation": operation,
        }
        with explained(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        with explained(path):
            os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']} ({holder['operation']})"
    except (ValueError, KeyError, TypeError):
        # The holder has the lock but has not written its name yet.
        return "a process that has just started"
