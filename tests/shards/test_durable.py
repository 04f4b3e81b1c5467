"""Crashes, full disks and refused writes: the last committed version stays whole."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from retclip.core.errors import DatabaseError, RetclipError
from retclip.shards import Database, Ledger, durable, verify

CLOSE = os.close
ROOT = Path(__file__).resolve().parents[2]
CHILD = [sys.executable, str(Path(__file__).with_name("build_process.py"))]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def change(database, make, rows=7):
    """One write that touches every kind of file."""
    with database.write("change", "tests", shard_rows=3) as transaction:
        transaction.add([make.segment(n, "new") for n in range(300, 300 + rows)], np.ones((rows, 8), np.float32))
        transaction.delete(labels=["class 1"])
        transaction.delete(source="beta")
        return transaction.commit()


def attempt(database, make):
    """(deliberate error, new version) of `change`: one of the two is None."""
    try:
        return None, change(database, make)
    except RetclipError as error:
        return error, None


class FailingCalls:
    """Lets `after` calls of a system call pass and fails the next one."""

    def __init__(self, real, after, number):
        self.real, self.left, self.number, self.failed = real, after, number, False

    def __call__(self, *args, **kwargs):
        if self.left == 0 and not self.failed:
            self.failed = True
            if self.real is CLOSE:  # a failing close(2) has closed the descriptor all the same
                CLOSE(*args)
            raise OSError(self.number, os.strerror(self.number))
        self.left -= 1
        return self.real(*args, **kwargs)


@pytest.mark.parametrize("call", ["open", "write", "fsync", "close", "link", "rename", "mkdir"])
@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "E401"), (errno.EACCES, "E310")])
def test_every_failing_call_leaves_the_old_version_whole(
    database, rows, make, monkeypatch, tmp_path, call, number, code
):
    before = database.content_hash()
    after_change = change(make.build(tmp_path / "twin.retdb", *rows), make).content_hash()
    failures = 0
    for after in range(200):
        failing = FailingCalls(getattr(os, call), after, number)
        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            error, last = attempt(database, make)
        assert (error is not None) == failing.failed
        if not failing.failed:
            break
        assert error is not None
        assert (error.code, bool(error.why), bool(error.fix)) == (code, True, True)
        failures += 1
        now = Database.open(database.path)
        # A fault after link() is reported although the version is there; it must then be the whole new one.
        assert now.content_hash() == (after_change if now.manifest.operation == "change" else before)
        report = verify(database.path, deep=True)
        assert report.ok, report.problems
        if now.manifest.operation == "change":
            now.undo()
    assert failures >= {"link": 1, "rename": 3, "mkdir": 3}.get(call, 5)
    assert last is not None
    assert last.content_hash() == after_change


def test_short_writes_are_continued(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data[:3])))
    entry = durable.write_file(tmp_path / "file", [b"0123456789", memoryview(b"abc")])
    assert (tmp_path / "file").read_bytes() == b"0123456789abc"
    assert entry.bytes == 13
    assert entry.sha256 == durable.file_sha256(tmp_path / "file")


@pytest.mark.parametrize("maker", ["create", "ledger", "write"])
def test_every_folder_that_is_made_is_flushed_into_the_one_above(tmp_path, make, monkeypatch, maker):
    """Else a power loss takes it, with all that was flushed in it."""
    path = tmp_path / "new" / "home" / "d.retdb"
    if maker != "create":
        Database.create(path, make.space(), {})
        for name in ("shards", "deletes", "jobs"):  # git and archives keep no empty folders
            (path / name).rmdir()
    made, flushed = [], []
    mkdir, sync_folder = os.mkdir, durable.sync_folder
    monkeypatch.setattr(os, "mkdir", lambda path, *mode: made.append(Path(path)) or mkdir(path, *mode))
    monkeypatch.setattr(durable, "sync_folder", lambda path: flushed.append((path, set(made))) or sync_folder(path))
    {
        "create": lambda: Database.create(path, make.space(), {}),
        "ledger": lambda: Ledger(path, "job"),
        "write": lambda: Database.open(path).write("change", "tests").__enter__(),
    }[maker]()
    lasting = [folder for folder in made if folder.is_dir()]
    assert len(lasting) == 2
    for folder in lasting:
        assert any(path == folder.parent and folder in before for path, before in flushed), folder


def test_a_file_is_never_overwritten(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(DatabaseError, match="E310"):
        durable.write_file(tmp_path / "file", [b"new"])
    assert not durable.link_file(tmp_path / "file", [b"new"])
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def _limited_build(path: Path, limit: int) -> subprocess.CompletedProcess[str]:
    def limit_file_size() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [*CHILD, str(path), "1", "3000"], env=ENVIRONMENT, preexec_fn=limit_file_size, capture_output=True, text=True
    )


def test_a_real_write_limit_is_reported_and_harmless(tmp_path, make):
    database = Database.create(tmp_path / "d.retdb", make.space(32), {})
    result = _limited_build(database.path, 20_000)
    assert result.returncode == 1
    assert "E401" in result.stderr
    assert Database.open(database.path).version == 1
    assert verify(database.path, deep=True).ok
    assert list((database.path / "shards").iterdir()) == []
    assert _limited_build(database.path, 1 << 30).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_really_full_disk_is_reported_and_harmless(tmp_path, make):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        database = Database.create(tmp_path / "d.retdb", make.space(32), {})
        versions = 0
        for generations in range(1, 30):
            result = subprocess.run(
                [*CHILD, str(database.path), str(generations), "900"], env=ENVIRONMENT, capture_output=True, text=True
            )
            if result.returncode:
                break
            versions = generations
        assert "E401" in result.stderr, result.stderr
        full = Database.open(database.path)
        assert len(full) == versions * 899
        assert verify(database.path, deep=True).ok
        del full
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_folder_without_permission_is_explained(database, make, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DatabaseError, match=r"E310(.|\n)*Read-only(.|\n)*mounted read-only"):
        change(database, make)


def test_kill_9_at_random_moments(tmp_path, make):
    """Six kills; each time the database opens, is whole, and a later run reaches the content of an unbroken one."""
    calm, torn = (Database.create(tmp_path / f"{name}.retdb", make.space(32), {}) for name in ("calm", "torn"))
    subprocess.run([*CHILD, str(calm.path), "3", "600"], env=ENVIRONMENT, check=True, capture_output=True)
    expected = Database.open(calm.path).content_hash()
    rng = np.random.default_rng(0)
    killed = 0
    for _ in range(6):
        child = subprocess.Popen([*CHILD, str(torn.path), "3", "600"], env=ENVIRONMENT, stdout=subprocess.PIPE)
        started = time.monotonic()
        # Wait for the first trace of work, then a random moment: imports alone would eat most kills.
        while (
            child.poll() is None
            and time.monotonic() - started < 20
            and not any((torn.path / "shards").glob(".staging-*"))
        ):
            time.sleep(0.001)
        time.sleep(float(rng.uniform(0, 0.08)))
        child.kill()
        acknowledged = [int(line) for line in child.communicate()[0].split()]
        killed += child.returncode == -signal.SIGKILL
        now = Database.open(torn.path)
        assert now.version >= max(acknowledged, default=1)
        report = verify(torn.path, deep=True)
        assert report.ok, report.problems
    assert killed >= 3
    subprocess.run([*CHILD, str(torn.path), "3", "600"], env=ENVIRONMENT, check=True, capture_output=True)
    assert Database.open(torn.path).content_hash() == expected
    assert not list(torn.path.rglob(".staging-*"))
