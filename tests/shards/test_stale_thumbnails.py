"""Thumbnails of segments that no version holds go with a collection, once they are many."""

import pytest

from retclip.shards import Database, Ledger
from retclip.shards.media import thumbnail_ids
from retclip.shards.retention import collect


def pictured(make, tmp_path, doomed):
    """A database of 60 segments with pictures, of which the newest version lacks some, and its ids."""
    segments, vectors = make.rows(60)
    database = make.build(tmp_path / "d.retdb", segments, vectors)
    ids = [segment.segment_id for segment in segments]
    database.store_thumbnails(dict.fromkeys(ids, b"\xff\xd8jpeg" * 500))
    with database.write("delete", "tests") as transaction:
        transaction.delete(segment_ids=ids[:doomed])
        transaction.compact([entry.id for entry in database.manifest.shards])
        transaction.commit()
    return Database.open(database.path), ids


def test_pictures_go_with_the_last_version_that_holds_their_segments(make, tmp_path):
    database, ids = pictured(make, tmp_path, 40)
    del database
    assert collect(tmp_path / "d.retdb", 5).thumbnails == 0
    told = collect(tmp_path / "d.retdb", 1, dry_run=True)
    found = collect(tmp_path / "d.retdb", 1)
    assert (told.thumbnails, found.thumbnails) == (40, 40)
    assert told.bytes == found.bytes > 40 * 3000
    database = Database.open(tmp_path / "d.retdb")
    assert [database.thumbnail(number) is None for number in ids] == [True] * 40 + [False] * 20
    assert collect(tmp_path / "d.retdb", 1).thumbnails == 0
    assert (tmp_path / "d.retdb" / "cache.lmdb" / "data.mdb").stat().st_blocks * 512 < 40 * 3000


@pytest.mark.parametrize(("doomed", "unfinished"), [(10, False), (40, True)])
def test_pictures_stay_while_few_are_stale_or_a_build_is_unfinished(make, tmp_path, doomed, unfinished):
    pictured(make, tmp_path, doomed)
    path = tmp_path / "d.retdb"
    if unfinished:
        Ledger(path, "job")
    assert collect(path, 1).thumbnails == 0
    assert len(thumbnail_ids(path)) == 60


def test_a_damaged_shard_keeps_no_old_version_and_costs_no_picture(make, tmp_path):
    database, _ = pictured(make, tmp_path, 40)
    [shard] = database.manifest.shards
    (database.path / "shards" / shard.id / "ids.u64").write_bytes(b"")
    del database
    found = collect(tmp_path / "d.retdb", 1)
    assert (found.thumbnails, len(found.versions) > 0) == (0, True)
    assert len(thumbnail_ids(tmp_path / "d.retdb")) == 60
