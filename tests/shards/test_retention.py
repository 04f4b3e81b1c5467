"""Old versions go with all that only they need; kept versions, and versions that are read, are not touched."""

import fcntl
import multiprocessing
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from retclip.core.errors import DatabaseError
from retclip.shards import Database, retention, verify
from retclip.shards.leases import Lease, alone
from retclip.shards.manifest import manifest_path, versions
from retclip.shards.retention import collect
from retclip.shards.sweep import named_files


@pytest.fixture
def history(make, rows, tmp_path):
    """Path of a database with seven versions; every one has files of its own, and nobody has one open."""
    path = tmp_path / "d.retdb"
    make.build(path, *rows, shard_rows=25)
    for number in range(5):
        with Database.open(path).write("change", "tests") as transaction:
            transaction.delete(labels=[f"class {number}"])
            transaction.add([make.segment(500 + number, f"new {number}")], np.ones((1, 8), np.float32))
            if number % 2:
                transaction.compact()
            transaction.commit()
    return path


def files_on_disk(path):
    return {str(p.relative_to(path)) for folder in ("shards", "deletes") for p in (path / folder).iterdir()}


def sizes(path):
    """Bytes of every file but LOCK, which holds the name of the last writer."""
    return {p: p.stat().st_size for p in path.rglob("*") if p.is_file() and p.name != "LOCK"}


@pytest.mark.parametrize("keep", [1, 3, 7, 50])
def test_kept_versions_are_whole_and_nothing_else_is_left(history, keep):
    wanted = versions(history)[-keep:]
    contents = {version: Database.open(history, version).content_hash() for version in wanted}
    found = collect(history, keep)
    assert list(found.versions) == [v for v in range(1, 8) if v not in wanted]
    assert versions(history) == wanted
    assert files_on_disk(history) == set(named_files(Database.open(history, v).manifest for v in wanted))
    for version, content in contents.items():
        assert verify(history, version, deep=True).content_hash == content
    assert collect(history, keep).versions == ()


def test_a_dry_run_tells_the_truth_and_changes_nothing(history):
    before = sizes(history)
    told = collect(history, 2, dry_run=True)
    assert sizes(history) == before
    done = collect(history, 2)
    assert told == done
    assert done.bytes == sum(before.values()) - sum(sizes(history).values()) > 0


def test_a_version_that_is_read_stays_until_it_is_closed(history):
    reader = Database.open(history, 3)
    content = Database.open(history, 3).content_hash()
    found = collect(history, 1)
    assert (found.in_use, versions(history)) == ((3,), [3, 7])
    assert reader.content_hash() == content
    assert verify(history, 3, deep=True).ok
    del reader
    assert collect(history, 1).versions == (3,)
    with pytest.raises(DatabaseError, match=r"E306(.|\n)*has version 7\."):
        Database.open(history, 3)


def _hold(path, ready, stop):
    database = Database.open(path, 2)
    ready.set()
    stop.wait(timeout=120)
    assert len(database.search(np.ones((1, 8), np.float32), 3).row) == 1


def test_readers_in_other_processes_hold_their_version_and_dead_ones_do_not(history):
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    reader = context.Process(target=_hold, args=(history, ready, stop))
    reader.start()
    assert ready.wait(timeout=120)
    assert collect(history, 1).in_use == (2,)
    stop.set()
    reader.join(timeout=120)
    assert reader.exitcode == 0
    ready.clear()
    stop.clear()
    reader = context.Process(target=_hold, args=(history, ready, stop))
    reader.start()
    assert ready.wait(timeout=120)
    reader.kill()
    reader.join(timeout=120)
    assert collect(history, 1).versions == (2,)


def test_more_versions_can_go_than_files_may_be_open(make, tmp_path):
    path = tmp_path / "d.retdb"
    Database.create(path, make.space(), {})
    for number in range(40):
        with Database.open(path).write("transform", "tests") as transaction:
            transaction.set_transform("centre" if number % 2 == 0 else "none")
            transaction.commit()
    open_files = max(int(file.name) for file in Path("/proc/self/fd").iterdir())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files + 10, limits[1]))
    try:
        assert collect(path, 1, dry_run=True).versions == tuple(range(1, 41))
        assert collect(path, 1).versions == tuple(range(1, 41))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert versions(path) == [41]


def test_the_newest_version_is_found_when_the_listed_one_goes_meanwhile(history, monkeypatch):
    """Version 3 is read and stays, so without another look a reader would be taken back to it."""
    from retclip.shards import manifest

    reader = Database.open(history, 3)
    real = manifest.read_manifest

    def overtaken(path, version):
        monkeypatch.setattr(manifest, "read_manifest", real)
        with Database.open(history).write("transform", "tests") as transaction:
            transaction.set_transform("centre")
            transaction.commit()
        assert collect(history, 1).in_use == (reader.version,)
        return real(path, version)

    monkeypatch.setattr(manifest, "read_manifest", overtaken)
    assert Database.open(history).version == 8


def test_a_version_cannot_be_opened_while_it_is_removed(history):
    path = manifest_path(history, 2)
    with alone(path) as free:
        assert free
        with alone(path) as second:
            assert not second
    lease = Lease(path)
    with alone(path) as free:
        assert not free
    del lease
    with alone(path) as free:
        assert free


def test_a_version_that_vanishes_while_it_is_opened_is_gone(history, monkeypatch):
    """The reader has read the manifest; before its lease the version is removed."""
    from retclip.shards import publication

    def removed(path):
        monkeypatch.undo()
        collect(history, 1)
        return Lease(path)

    monkeypatch.setattr(publication, "Lease", removed)
    with pytest.raises(DatabaseError, match="E306"):
        Database.open(history, 3)
    assert Database.open(history).version == 7


def test_damaged_manifests_stop_every_removal(history):
    path = manifest_path(history, 2)
    path.write_bytes(path.read_bytes()[:-1])
    before = files_on_disk(history)
    for dry_run in (True, False):
        with pytest.raises(DatabaseError, match=r"E316(.|\n)*000000000002"):
            collect(history, 1, dry_run=dry_run)
    assert files_on_disk(history) == before
    path.unlink()
    assert collect(history, 1).versions == (1, 3, 4, 5, 6)


def test_young_files_that_no_version_names_are_spared(history):
    """Where locks do not work they may be another writer's."""
    young = history / "shards" / ("e" * 32)
    young.mkdir()
    collect(history, 1)
    assert young.exists()


def test_old_files_that_no_version_names_go(history):
    """A writer that was killed between naming its shards and its manifest left them."""
    shard, bitmap = history / "shards" / ("e" * 32), history / "deletes" / f"{'e' * 32}.roaring"
    shard.mkdir()
    (shard / "vectors.f16").write_bytes(b"x" * 1000)
    bitmap.write_bytes(b"y" * 100)
    for path in (shard, bitmap):
        os.utime(path, (0, 0))
    wanted = files_on_disk(history) - {str(path.relative_to(history)) for path in (shard, bitmap)}
    contents = {version: Database.open(history, version).content_hash() for version in versions(history)}
    told = collect(history, 50, dry_run=True)
    assert shard.exists()
    assert collect(history, 50) == told
    assert (told.versions, told.bytes) == ((), 1100)
    assert told.leftovers == (f"d.retdb/shards/{'e' * 32}", f"d.retdb/deletes/{'e' * 32}.roaring")
    assert files_on_disk(history) == wanted
    assert {version: Database.open(history, version).content_hash() for version in versions(history)} == contents


def test_undo_of_a_collected_version_says_so(history):
    collect(history, 1)
    with pytest.raises(DatabaseError, match=r"E306 .*nothing to undo(.|\n)*[Vv]ersion 6.* was collected"):
        Database.open(history).undo()
    with pytest.raises(ValueError, match="keep"):
        collect(history, 0)


def test_what_is_left_is_named_without_what_went(history):
    for version in (2, 3, 5):
        manifest_path(history, version).unlink()
    with pytest.raises(DatabaseError, match=r"E306(.|\n)*versions 1, 4 and 6 to 7\."):
        Database.open(history, 2)


def test_an_unreadable_manifest_is_not_skipped(history, monkeypatch):
    """Serving the version before instead would be a silent step back in time."""
    from pathlib import Path

    real = Path.read_bytes

    def refuse(path):
        if path.name == "000000000007.json":
            raise PermissionError(13, os.strerror(13))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DatabaseError, match=r"E320(.|\n)*Permission denied"):
        Database.open(history)
    with pytest.raises(DatabaseError, match="E320"):
        collect(history, 1)


def test_the_log_leaves_out_what_is_collected_while_it_is_read(history, monkeypatch):
    from retclip.shards import manifest

    database = Database.open(history)
    real = manifest.read_manifest

    def overtaken(path, version):
        monkeypatch.setattr(manifest, "read_manifest", real)
        collect(history, 2)
        return real(path, version)

    monkeypatch.setattr(manifest, "read_manifest", overtaken)
    assert [entry.version for entry in database.history()] == [6, 7]


def test_a_dry_run_leaves_out_what_others_remove_meanwhile(history, monkeypatch):
    """Nobody is kept out of it: one file vanishes before it is looked at, another before it is counted."""
    early, late = (history / "shards" / (letter * 32) for letter in "de")
    for path in (early, late):
        path.mkdir()
        (path / "ids.u64").write_bytes(b"x")
        os.utime(path, (0, 0))
    real = Path.stat

    def vanishing(path, **options):
        if path in (early, late / "ids.u64") and os.path.lexists(path):
            shutil.rmtree(early if path == early else late)
        return real(path, **options)

    monkeypatch.setattr(Path, "stat", vanishing)
    told = collect(history, 50, dry_run=True)
    assert (told.leftovers, told.bytes) == ((f"d.retdb/shards/{'e' * 32}",), 0)


@pytest.mark.parametrize("step", ["read_manifest", "unnamed", "alone"])
def test_a_dry_run_leaves_out_versions_that_are_collected_meanwhile(history, monkeypatch, step):
    real = getattr(retention, step)

    def overtaken(*arguments):
        monkeypatch.setattr(retention, step, real)
        collect(history, 2)
        return real(*arguments)

    monkeypatch.setattr(retention, step, overtaken)
    told = collect(history, 1, dry_run=True)
    assert (told.versions, told.in_use) == ((6,), ())


def test_a_reader_sees_that_its_version_went_although_a_backup_links_its_manifest(history, tmp_path, monkeypatch):
    """As `cp -al` makes one."""
    os.link(manifest_path(history, 3), tmp_path / "backup.json")
    real = fcntl.flock

    def overtaken(*arguments):
        monkeypatch.setattr(fcntl, "flock", real)
        collect(history, 1)
        return real(*arguments)

    monkeypatch.setattr(fcntl, "flock", overtaken)
    with pytest.raises(FileNotFoundError):
        Lease(manifest_path(history, 3))
