"""Thumbnails: kept, grown, forked, and harmless when the cache is gone or damaged."""

import errno
import hashlib
import os
import random
from pathlib import Path
from types import SimpleNamespace

import lmdb
import pytest

from retclip.core.errors import DatabaseError, ResourceError
from retclip.shards import Database, verify
from retclip.shards.media import forget_thumbnails

JPEG = b"\xff\xd8jpeg"


def test_thumbnails_come_back_and_do_not_make_versions(database):
    assert database.thumbnail(1) is None
    database.store_thumbnails({1: JPEG, (1 << 64) - 1: JPEG * 2})
    database.store_thumbnails({1: JPEG * 3})
    again = Database.open(database.path)
    assert again.thumbnail(1) == JPEG * 3
    assert again.thumbnail((1 << 64) - 1) == JPEG * 2
    assert again.thumbnail(2) is None
    assert again.version == database.version


def test_the_map_grows(database, monkeypatch):
    monkeypatch.setattr("retclip.shards.media.FIRST_MAP_BYTES", 1 << 16)
    monkeypatch.setattr("retclip.shards.media.TRANSACTION_BYTES", 1 << 18)
    pictures = {n: bytes([n]) * 30_000 for n in range(40)}
    database.store_thumbnails(pictures)
    assert all(database.thumbnail(n) == picture for n, picture in pictures.items())


def test_a_missing_or_damaged_cache_never_breaks_the_database(database, caplog):
    database.store_thumbnails({n: bytes([n]) * 9000 for n in range(50)})
    data = database.path / "cache.lmdb" / "data.mdb"
    whole = data.read_bytes()
    for broken in (whole[: len(whole) // 4], whole[:100], b"", b"\0" * 9000, random.Random(0).randbytes(1 << 16)):
        data.write_bytes(broken)
        caplog.clear()
        found = database.thumbnail(3)
        assert found == b"\x03" * 9000 or (found is None and "ignored" in caplog.text)
        assert len(Database.open(database.path)) == 60
        assert verify(database.path, deep=True).ok
        database.store_thumbnails({3: JPEG})
        assert database.thumbnail(3) == JPEG
    data.write_bytes(whole.replace(b"\x03" * 9000, b"\x03" * 8999 + b"\x04"))
    assert database.thumbnail(3) is None
    assert database.thumbnail(4) == b"\x04" * 9000


def test_a_child_of_fork_reads_and_writes(database):
    database.store_thumbnails({1: JPEG})
    child = os.fork()
    if child == 0:
        status = 1
        try:
            database.store_thumbnails({2: database.thumbnail(1) or b""})
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert database.thumbnail(2) == JPEG


def test_pictures_have_a_limit(database):
    with pytest.raises(ValueError, match="thumbnail"):
        database.store_thumbnails({1: JPEG, 2: b"x" * (1 << 20)})
    assert database.thumbnail(1) is None


def test_a_changed_length_of_a_value_kills_no_process(database):
    """Node headers hold the length; the last pages of the file are where a longer one would reach too far."""
    database.store_thumbnails({n: bytes([n]) * 3000 for n in range(30)})
    data = database.path / "cache.lmdb" / "data.mdb"
    whole = data.read_bytes()
    stored = (3008).to_bytes(2, "little")
    places = [i for i in range(len(whole) - 1) if whole[i : i + 2] == stored]
    assert len(places) >= 30
    for place in places:
        for low, high in ((0xFF, 0xFF), (0xC0, 0xFF)):
            changed = bytearray(whole)
            changed[place : place + 4] = bytes([low, high, 0x0E, 0])
            data.write_bytes(bytes(changed))
            assert sum(database.thumbnail(n) is None for n in range(30)) == 1
    forget_thumbnails(database.path, [29])  # reads all others, of which the last change has damaged one
    assert sum(database.thumbnail(n) is None for n in range(30)) in (1, 2)


def test_no_changed_byte_gives_a_wrong_picture_or_kills_the_reader(database):
    """LMDB's own reader dies of some of these (SIGBUS), and a changed key leads to the picture of another segment."""
    pictures = {n << 40 | n: bytes([n]) * (700 if n % 2 else 5000) for n in range(1, 9)}
    database.store_thumbnails(pictures)
    data = database.path / "cache.lmdb" / "data.mdb"
    whole = data.read_bytes()
    used = whole.rstrip(b"\0")
    # Inside the pictures themselves, which are runs of one byte, every place is like its neighbours.
    places = [n for n in range(16, len(used)) if not used[n] == used[n - 1] == used[n - 16] or n % 97 == 0]
    assert len(places) > 600
    lost = 0
    with data.open("r+b", buffering=0) as stream:
        for place in places:
            for change in (1 << place % 8, 0xFF):
                stream.seek(place)
                stream.write(bytes([whole[place] ^ change]))
                found = {n: database.thumbnail(n) for n in pictures}
                assert all(found[n] in (None, picture) for n, picture in pictures.items()), place
                lost += None in found.values()
            stream.seek(place)
            stream.write(whole[place : place + 1])
    assert lost > 300
    assert {n: database.thumbnail(n) for n in pictures} == pictures


def test_many_pictures_stand_in_a_tree_and_all_are_found(database):
    """Two levels of branches, keys in no order, small values in the leaves and large ones on pages of their own."""
    rng = random.Random(1)
    pictures = {rng.getrandbits(64): rng.randbytes(rng.choice([10, 900, 3000])) for _ in range(3000)}
    for part in range(3):
        database.store_thumbnails(dict(list(pictures.items())[part::3]))
    assert all(database.thumbnail(n) == picture for n, picture in pictures.items())
    assert not any(database.thumbnail(rng.getrandbits(64)) for _ in range(100))
    gone = list(pictures)[:1500]
    assert forget_thumbnails(database.path, gone) == 1500
    assert not any(database.thumbnail(n) for n in gone)
    assert all(database.thumbnail(n) == pictures[n] for n in list(pictures)[1500:])


def test_pictures_of_the_first_writers_are_read(database, monkeypatch):
    monkeypatch.setattr("retclip.shards.media._digest", lambda value: hashlib.sha256(value[8:]).digest()[:8])
    database.store_thumbnails({7: JPEG})
    monkeypatch.undo()
    assert database.thumbnail(7) == JPEG


def test_a_reader_beside_a_writer_never_gets_a_wrong_picture(database):
    database.store_thumbnails({n: bytes([n]) * 2000 for n in range(40)})
    child = os.fork()
    if child == 0:
        for turn in range(60):
            database.store_thumbnails({n: bytes([n]) * (2000 + turn) for n in range(40)})
        os._exit(0)
    found = set()
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        for n in range(40):
            picture = database.thumbnail(n)
            assert picture is None or set(picture) == {n}
            found.add(picture is not None)
    assert True in found


def test_writing_errors_are_explained(database, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("lmdb.open", refuse)
    with pytest.raises(DatabaseError, match="E310"):
        database.store_thumbnails({1: JPEG})


def test_pictures_that_a_build_stores_while_others_are_forgotten_stay(database, monkeypatch):
    database.store_thumbnails({n: bytes([n]) * 300 for n in range(40)})
    real = Path.rename

    def beside(path, target):
        if target.name == "cache.lmdb":
            database.store_thumbnails({7: b"newer", 99: JPEG})
        return real(path, target)

    monkeypatch.setattr(Path, "rename", beside)
    assert forget_thumbnails(database.path, [3]) == 1
    assert [n for n in range(40) if database.thumbnail(n) is None] == [3]
    assert (database.thumbnail(7), database.thumbnail(99)) == (b"newer", JPEG)
    assert not list(database.path.glob(".staging-*"))


@pytest.mark.parametrize(("free", "code"), [(1_000, "E401"), (1 << 40, "E310")])
def test_a_refused_write_does_not_cost_the_pictures_that_are_there(database, monkeypatch, free, code):
    database.store_thumbnails({1: JPEG})

    def cut_short(*args):
        raise lmdb.Error("mdb_txn_commit: Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("retclip.shards.media._batches", cut_short)
        patch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
        with pytest.raises((DatabaseError, ResourceError), match=code):
            database.store_thumbnails({2: JPEG})
        with pytest.raises((DatabaseError, ResourceError), match=code):
            forget_thumbnails(database.path, [7])
    assert database.thumbnail(1) == JPEG
    assert not [path.name for path in database.path.iterdir() if path.name.startswith(".staging-")]


def test_the_lock_file_has_its_blocks_before_it_is_mapped(database, monkeypatch):
    """A write into a hole of a mapped file ends the process where the disk is full."""

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", full)
        with pytest.raises(ResourceError, match="E401"):
            database.store_thumbnails({1: JPEG})
    database.store_thumbnails({1: JPEG})
    assert (database.path / "cache.lmdb" / "lock.mdb").stat().st_blocks * 512 >= 8_192
