"""Rewriting shards changes nothing that can be asked, and keeps a churned database small."""

import contextlib
import gc
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from retclip.core.errors import DatabaseError
from retclip.shards import Database, compaction, verify
from retclip.shards.compaction import SMALL_SHARDS, told, worn
from retclip.shards.copying import copy_database
from retclip.shards.retention import collect


def disk_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def rewritten(database, shards=None, shard_rows=1 << 18):
    with database.write("compact", "tests", shard_rows) as transaction:
        count = transaction.compact(shards)
        return count, transaction.commit()


def test_shards_past_a_fifth_of_dead_rows_are_worn(database):
    ids = [s.segment_id for shard, _, s in database.iter_segments() if shard == 0]
    for dead, expected in ((5, 0), (6, 1)):
        with database.write("delete", "tests") as transaction:
            transaction.delete(segment_ids=ids[:dead])
            after = transaction.commit()
        assert len(worn(after.snapshot, 60)) == expected
    assert worn(after.snapshot, 60) == [database.manifest.shards[0].id]


def test_many_small_shards_are_worn_and_few_are_not(make, tmp_path):
    database = Database.create(tmp_path / "d.retdb", make.space(), {})
    segments, vectors = make.rows(4 * (SMALL_SHARDS + 1))
    for n in range(SMALL_SHARDS + 1):
        assert worn(database.snapshot, 32) == []
        with database.write("add", "tests") as transaction:
            transaction.add(segments[4 * n : 4 * n + 4], vectors[4 * n : 4 * n + 4])
            database = transaction.commit()
    assert len(worn(database.snapshot, 32)) == SMALL_SHARDS + 1
    assert worn(database.snapshot, 31) == []
    count, after = rewritten(database, shard_rows=32)
    assert (count, [entry.rows for entry in after.manifest.shards]) == (SMALL_SHARDS + 1, [32, 4])
    assert after.content_hash() == database.content_hash()


@pytest.mark.parametrize("shard_rows", [7, 1 << 18])
def test_what_can_be_asked_stays_the_same(database, rows, shard_rows):
    with database.write("change", "tests") as transaction:
        transaction.delete(source="beta")
        transaction.delete(labels=["class 3"])
        transaction.relabel("class 1", "class 2")
        transaction.relabel_segments([rows[0][10].segment_id], "pier")
        before = transaction.commit()
    count, after = rewritten(before, [entry.id for entry in before.manifest.shards], shard_rows)
    assert count == len(before.manifest.shards)
    assert after.content_hash() == before.content_hash()
    assert after.classes == before.classes
    assert sum(entry.rows for entry in after.manifest.shards) == len(after) == len(before)
    assert not {entry.id for entry in after.manifest.shards} & {entry.id for entry in before.manifest.shards}
    for transform in ("none", "whiten"):
        old, new = (db.search(rows[1], 9, per_class_k=3, transform=transform) for db in (before, after))
        np.testing.assert_array_equal(old.distance, new.distance)
        np.testing.assert_array_equal(old.segment_id, new.segment_id)
        np.testing.assert_array_equal(old.class_id, new.class_id)
    stored = [{s.segment_id: s for _, _, s in db.iter_segments()} for db in (before, after)]
    assert stored[0] == stored[1]
    report = verify(after.path, deep=True)
    assert report.ok, report.problems


def test_a_compaction_in_a_change_is_part_of_its_version(database):
    with database.write("delete", "tests") as transaction:
        transaction.delete(labels=["class 0", "class 1"])
        assert transaction.compact() == 3
        after = transaction.commit()
    assert (after.version, sum(entry.rows for entry in after.manifest.shards)) == (3, 36)
    assert after.undo().content_hash() == database.content_hash()


def test_undo_takes_back_the_change_before_a_compaction(database):
    with database.write("delete", "tests") as transaction:
        transaction.delete(labels=["class 0", "class 1"])
        deleted = transaction.commit()
    _, compacted = rewritten(deleted)
    assert compacted.version == 4
    assert compacted.undo().content_hash() == database.content_hash()


def test_nothing_worn_makes_no_version(database):
    assert rewritten(database)[1].version == database.version
    assert rewritten(database, ["f" * 32])[1].version == database.version
    assert told(0) == ""
    assert "3" in told(3)


def test_rows_that_were_added_and_deleted_in_one_transaction_leave_nothing(database, make):
    segments = [make.segment(n, "new") for n in range(300, 310)]
    with database.write("change", "tests") as transaction:
        transaction.add(segments, np.ones((10, 8), np.float32))
        transaction.delete(segment_ids=[s.segment_id for s in segments])
        assert transaction.compact() == 1
        after = transaction.commit()
    assert after.content_hash() == database.content_hash()
    assert {p.name for p in (after.path / "shards").iterdir()} == {entry.id for entry in after.manifest.shards}


def test_leaving_a_compaction_without_commit_changes_nothing(database):
    before = sorted(str(path) for path in database.path.rglob("*"))
    with contextlib.suppress(RuntimeError), database.write("compact", "tests") as transaction:
        transaction.compact([entry.id for entry in database.manifest.shards])
        raise RuntimeError("the user's program fails")
    assert sorted(str(path) for path in database.path.rglob("*")) == before


def test_a_damaged_shard_is_refused_and_not_rewritten(database):
    entry = database.manifest.shards[0]
    path = database.path / "shards" / entry.id / "blobs.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DatabaseError, match="E303"):
        rewritten(Database.open(database.path), [entry.id])
    assert Database.open(database.path).version == database.version


def test_a_hundred_rounds_of_churn_stay_small_on_disk_and_in_memory(make, tmp_path, monkeypatch):
    """400 live rows, of which 60 are replaced a hundred times."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # nothing crashes here, and flushing is what takes time
    path = tmp_path / "churn.retdb"
    rng = np.random.default_rng(0)
    live = [make.segment(n, f"class {n % 5}") for n in range(400)]
    make.build(path, live, rng.normal(size=(400, 64)))
    held = []
    # What lines of the database hold, or what they call: threads that other tests left behind import at any time.
    ours = tracemalloc.Filter(True, str(Path(compaction.__file__).parent / "*"), all_frames=True)
    tracemalloc.start(4)
    for number in range(100):
        fresh = [make.segment(400 + 60 * number + n, f"class {n % 5}") for n in range(60)]
        with Database.open(path).write("churn", "tests") as transaction:
            transaction.delete(segment_ids=[s.segment_id for s in live[:60]])
            transaction.add(fresh, rng.normal(size=(60, 64)))
            transaction.compact()
            transaction.commit()
        live = live[60:] + fresh
        collect(path, 1)
        if number in (20, 99):
            gc.collect()
            held.append(tracemalloc.take_snapshot().filter_traces([ours]))
    tracemalloc.stop()
    database = Database.open(path)
    assert set(database.live_labels(s.segment_id for s in live)) == {s.segment_id for s in live}
    assert len(database) == 400
    copy = copy_database(database, tmp_path / "copy.retdb", [], "tests")
    assert disk_bytes(path) <= 1.5 * disk_bytes(copy.path)
    # Keeping one matrix of 400 x 64 binary16 a round would be four megabytes.
    growth = held[1].compare_to(held[0], "lineno")
    assert sum(line.size_diff for line in growth) < 200_000, "\n".join(map(str, growth[:12]))
