"""System calls that fail, clocks that jump and folders that vanish: a clear message, and every version whole."""

import errno
import fcntl
import gc as garbage
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retclip.core.errors import DatabaseError, RetclipError
from retclip.shards import Database, Ledger, verify
from retclip.shards.copying import copy_database
from retclip.shards.erasure import Selection, erase
from retclip.shards.manifest import versions
from retclip.shards.parquet_exchange import export_parquet
from retclip.shards.retention import collect
from tests.shards.conftest import make_segment

CLOSE = os.close
CODES = {errno.ENOSPC: "E401", errno.EACCES: "E310", errno.EIO: "E310", errno.EROFS: "E310"}
CALLS = ("open", "write", "fsync", "close", "link", "rename", "mkdir", "unlink", "rmdir")
IMAGE = hashlib.sha256(b"picture").hexdigest()


def compact(path):
    with Database.open(path).write("compact", "tests", shard_rows=40) as transaction:
        transaction.compact([entry.id for entry in Database.open(path).manifest.shards])
        transaction.commit()


def gc(path):
    collect(path, 1)


def erase_image(path):
    if any(s.image_sha256 == IMAGE for v in versions(path) for _, _, s in Database.open(path, v).iter_segments()):
        erase(path, Selection("image_sha256", IMAGE), "tests")


def copy(path):
    target = path.with_name("copy.retdb")
    if not target.exists():
        copy_database(Database.open(path), target, [], "tests")


def build(path):
    """Two units through the ledger into one version, as a build of the indexer does it."""
    segments = [make_segment(n, "built") for n in range(600, 606)]
    ledger = Ledger(path, "job")
    with ledger.running():
        for unit in ("one", "two"):
            if not ledger.has(unit):
                part = slice(0, 3) if unit == "one" else slice(3, 6)
                ledger.put(unit, segments[part], np.ones((3, 8), np.float32), {})
        with Database.open(path).write("build", "tests", shard_rows=4) as transaction:
            for unit in ("one", "two"):
                transaction.add(*ledger.read(unit)[:2])
            transaction.commit()
        ledger.forget(ledger.units())


OPERATIONS = {"build": build, "compact": compact, "gc": gc, "erase": erase_image, "copy": copy}
# Calls that an operation makes at least so often: fewer would mean that it was not tested.
FEWEST = {
    "build": {"open": 25, "write": 15, "fsync": 20, "close": 25, "link": 1, "rename": 4, "mkdir": 3, "unlink": 3},
    "compact": {"open": 12, "write": 8, "fsync": 11, "close": 12, "link": 1, "rename": 1, "mkdir": 1, "unlink": 1},
    "gc": {"open": 3, "fsync": 1, "close": 3, "unlink": 9, "rmdir": 1},
    "erase": {"open": 20, "write": 8, "fsync": 15, "close": 20, "link": 1, "rename": 2, "unlink": 14, "rmdir": 2},
    "copy": {"open": 15, "write": 9, "fsync": 14, "close": 15, "link": 1, "rename": 2, "mkdir": 5, "unlink": 1},
}


class FailingCalls:
    """Lets `after` calls of a system call pass and fails the next one."""

    def __init__(self, call, after, number):
        self.real, self.left, self.number, self.failed = getattr(os, call), after, number, False

    def __call__(self, *args, **kwargs):
        if self.left == 0 and not self.failed:
            self.failed = True
            if self.real is CLOSE:  # a failing close(2) has closed the descriptor all the same
                CLOSE(*args)
            raise OSError(self.number, os.strerror(self.number))
        self.left -= 1
        return self.real(*args, **kwargs)


@pytest.fixture
def worn(make, tmp_path):
    """Path of a database of 30 rows with three versions, dead rows, thumbnails, and a picture that erase looks for."""
    segments, vectors = make.rows(30)
    segments[3:6] = [replace(s, image_sha256=IMAGE) for s in segments[3:6]]
    path = make.build(tmp_path / "made" / "worn.retdb", segments, vectors, shard_rows=20).path
    Database.open(path).store_thumbnails({segments[4].segment_id: b"jpeg"})
    with Database.open(path).write("delete", "tests") as transaction:
        transaction.delete(segment_ids=[s.segment_id for s in segments[10:14]])
        transaction.compact([Database.open(path).manifest.shards[0].id])
        transaction.commit()
    return path


def contents(path):
    """Content hash of every version, which all must be whole."""
    found = {}
    for version in versions(path):
        report = verify(path, version, deep=True)
        assert report.ok, report.problems
        found[version] = report.content_hash
    return found


def placed(worn, place):
    shutil.copytree(worn, place / "worn.retdb")
    return place / "worn.retdb"


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_failing_call_is_explained_and_leaves_every_version_whole(worn, tmp_path, monkeypatch, operation, call):
    """Each call in turn fails with each error in turn; the same command then ends as if nothing had happened."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # nothing crashes here
    run = OPERATIONS[operation]
    calm = placed(worn, tmp_path / "calm")
    before = contents(calm)
    run(calm)
    expected = contents(calm)
    failures = 0
    for after in range(400):
        number, code = list(CODES.items())[after % len(CODES)]
        path = placed(worn, tmp_path / str(after))
        failing = FailingCalls(call, after, number)
        error = None
        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            try:
                run(path)
            except RetclipError as caught:
                error = caught
        if not failing.failed:
            break
        failures += 1
        now = contents(path)
        if error is None:  # the call did not matter, such as mkdir of a folder that exists
            assert now == expected
            continue
        # Removing a folder closes a descriptor twice when the first time fails, and hears of a bad one.
        assert error.code in ((code, "E310") if call == "close" else (code,)), (after, number)
        assert error.why
        assert error.fix
        assert set(now.values()) <= {*before.values(), *expected.values()}
        assert now[max(now)] in (before[3], expected[max(expected)])
        del error
        garbage.collect()  # what a traceback still holds would read the version that an erasure removes
        run(path)
        assert contents(path)[max(versions(path))] == expected[max(expected)]
        assert not list(path.parent.rglob(".staging-*/*"))
        shutil.rmtree(path.parent)
    assert failures >= FEWEST[operation].get(call, 0)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_short_writes_are_continued_in_every_operation(worn, tmp_path, monkeypatch, operation):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    calm, slow = placed(worn, tmp_path / "calm"), placed(worn, tmp_path / "slow")
    OPERATIONS[operation](calm)
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data[:97])))
    OPERATIONS[operation](slow)
    monkeypatch.undo()
    assert contents(slow) == contents(calm)


# Clocks.


def test_clocks_that_jump_do_no_harm(database, make, monkeypatch):
    """Versions are ordered by number; a time is shown to people and never compared."""
    from retclip.shards import publication, transaction

    for number, time in enumerate(
        ("2030-01-01T00:00:00+00:00", "1970-01-01T00:00:00+00:00", "2026-01-01T00:00:00+00:00")
    ):
        for module in (publication, transaction):
            monkeypatch.setattr(module, "timestamp", lambda time=time: time)
        with database.write("add", "tests") as change:
            change.add([make.segment(400 + number, "new")], np.ones((1, 8), np.float32))
            database = change.commit()
        assert (database.created, database.version) == (time, number + 3)
    assert Database.open(database.path).version == 5
    assert [entry.version for entry in database.history()] == [1, 2, 3, 4, 5]
    assert database.undo().content_hash() == Database.open(database.path, 4).content_hash()


@pytest.mark.parametrize("seconds", [-4e9, 4e9])
def test_files_from_the_future_or_the_past_stay_when_a_version_names_them(database, monkeypatch, seconds):
    import time

    before = database.content_hash()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + seconds)
    with database.write("change", "tests") as transaction:
        transaction.set_transform("centre")
        transaction.commit()
    for path in database.path.rglob("*"):
        os.utime(path, (0, 0) if seconds > 0 else (now + 4e9, now + 4e9))
    with database.write("change", "tests") as transaction:
        transaction.set_transform("none")
        transaction.commit()
    collect(database.path, 2)
    assert Database.open(database.path).content_hash() == before
    assert verify(database.path, deep=True).ok


# Locks.


def without_locks(number):
    """flock as on a file system that has none."""

    def flock(descriptor, how):
        raise OSError(number, os.strerror(number))

    return flock


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_where_nothing_can_be_locked_nothing_is_written(worn, monkeypatch, operation, number):
    def files():
        """All but the lock files, which are made to be locked, and thumbnails, which can go at any time."""
        found = (path for path in worn.parent.rglob("*") if path.is_file() and path.parent.name != "cache.lmdb")
        return {path: path.read_bytes() for path in found if path.name != "LOCK"}

    before = files()
    monkeypatch.setattr(fcntl, "flock", without_locks(number))
    with pytest.raises(DatabaseError, match=rf"E321(.|\n)*{os.strerror(number)}(.|\n)*fix: ") as caught:
        OPERATIONS[operation](worn)
    assert caught.value.exit_code == 5
    assert files() == before
    assert Database.open(worn).search(np.ones((1, 8), np.float32), 3).row.shape == (1, 3)  # readers do without


def test_a_lock_that_fails_in_another_way_is_explained(worn, monkeypatch):
    transaction = Database.open(worn).write("change", "tests")
    monkeypatch.setattr(fcntl, "flock", without_locks(errno.EIO))
    with pytest.raises(DatabaseError, match=r"E310(.|\n)*LOCK(.|\n)*Input/output error"), transaction:
        pass
    with pytest.raises(DatabaseError, match=r"E320(.|\n)*Input/output error"):
        Database.open(worn)


# Read-only mounts. Tests may run as root, whom permissions do not stop, so the calls are refused.


@pytest.fixture
def read_only(monkeypatch):
    """From now on nothing opens for writing, and nothing is made or removed."""
    real_open, real_os_open = Path.open, os.open

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def path_open(path, mode="r", *args, **kwargs):
        return real_open(path, mode, *args, **kwargs) if set(mode) <= set("rbt") else refuse()

    def os_open(path, flags, *args, **kwargs):
        return refuse() if flags & (os.O_WRONLY | os.O_RDWR) else real_os_open(path, flags, *args, **kwargs)

    def mount():
        monkeypatch.setattr(Path, "open", path_open)
        monkeypatch.setattr(os, "open", os_open)
        for call in ("unlink", "rename", "link", "mkdir", "rmdir"):
            monkeypatch.setattr(os, call, refuse)

    return mount


def test_on_a_read_only_mount_a_dry_run_tells_and_a_collection_is_explained(worn, read_only):
    left = worn.with_name(".staging-" + "0" * 32)
    left.mkdir()
    (left / "LOCK").touch()
    for path in (left / "LOCK", left):
        os.utime(path, (0, 0))
    read_only()
    assert collect(worn, 1, dry_run=True).leftovers == (left.name,)
    with pytest.raises(DatabaseError, match=r"E310(.|\n)*Read-only"):
        collect(worn, 1)


def test_an_export_to_a_read_only_mount_is_explained(database, tmp_path, read_only):
    read_only()
    with pytest.raises(DatabaseError, match=r"E310(.|\n)*out\.parquet(.|\n)*Read-only"):
        export_parquet(database, tmp_path / "out.parquet")


# Dead writers.

DIE = """
import os, sys
from pathlib import Path
import numpy as np
from retclip.shards import Database, Ledger
path = Path(sys.argv[1])
with Ledger(path, "job").running(), Database.open(path).write("long import", "child") as transaction:
    transaction.compact([entry.id for entry in Database.open(path).manifest.shards])
    os.kill(os.getpid(), 9)
"""


def test_the_lock_of_a_dead_writer_is_free_and_its_staging_swept(database):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, "-c", DIE, str(database.path)], env=environment, capture_output=True)
    assert done.returncode == -9, done.stderr
    assert b"long import" in (database.path / "LOCK").read_bytes()
    assert list((database.path / "shards").glob(".staging-*"))
    with Ledger(database.path, "job").running(), database.write("next", "tests") as transaction:
        assert not list((database.path / "shards").glob(".staging-*"))
        transaction.set_transform("centre")
        assert transaction.commit().version == 3
    assert verify(database.path, deep=True).ok
