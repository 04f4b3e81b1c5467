"""Writing: a model in plain dictionaries, idempotence, deletion, labels, locks and races."""

import contextlib
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retclip.core.errors import DatabaseError, ResourceError
from retclip.shards import Database, verify
from retclip.shards.manifest import Manifest, versions
from retclip.shards.publication import version_before


def test_segments_come_back_as_they_went_in(database, rows):
    segments, vectors = rows
    assert len(database) == 60
    back = {s.segment_id: (s, (shard, row)) for shard, row, s in database.iter_segments()}
    assert {i: s for i, (s, _) in back.items()} == {s.segment_id: s for s in segments}
    stored = database.vectors([back[s.segment_id][1] for s in segments])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(stored, unit, rtol=2**-11, atol=2**-24)
    assert database.image_count == 20
    assert database.sources == {"alpha": 45, "beta": 15}


def test_adding_again_adds_nothing_and_makes_no_version(database, rows):
    with database.write("again", "tests") as transaction:
        assert transaction.add(*rows) == 0
        assert transaction.commit().version == database.version
    assert set(database.live_labels([rows[0][3].segment_id, 1, 2])) == {rows[0][3].segment_id}


def test_doubles_in_one_call_and_across_shards_count_once(make, tmp_path):
    segments, vectors = make.rows(10)
    database = Database.create(tmp_path / "d.retdb", make.space(), {})
    with database.write("build", "tests", shard_rows=4) as transaction:
        assert transaction.add(segments + segments, np.vstack([vectors, vectors])) == 10
        assert transaction.add(segments[5:], vectors[5:]) == 0
        assert len(transaction.commit()) == 10


def test_stored_vectors_keep_their_bits_when_added_again(make, tmp_path, database):
    positions = [(s, r) for s, r, _ in database.iter_segments()]
    copy = make.build(tmp_path / "copy.retdb", database.segments(positions), database.vectors(positions))
    assert copy.content_hash() == database.content_hash()


def test_bad_vectors_are_refused(database, make):
    segments = [make.segment(1000, "new")]
    bad = [np.zeros((1, 8)), np.full((1, 8), np.nan), np.full((1, 8), np.inf), np.ones((1, 7)), np.ones((2, 8))]
    with database.write("add", "tests") as transaction:
        for vectors in bad:
            with pytest.raises(ValueError, match="vectors"):
                transaction.add(segments, vectors.astype(np.float32))
        assert transaction.commit().version == database.version


def test_segments_whose_text_is_refused_can_be_added_when_it_is_mended(database, make):
    segment = make.segment(1000, "new")
    with database.write("add", "tests") as transaction:
        with pytest.raises(ValueError, match="surrogates"):
            transaction.add([replace(segment, image_uri="caf\udce9.jpg")], np.ones((1, 8), np.float32))
        assert transaction.add([segment], np.ones((1, 8), np.float32)) == 1
        after = transaction.commit()
    assert after.live_labels([segment.segment_id]) == {segment.segment_id: "new"}
    assert [item.name for item in after.classes][-1] == "new"


CHANGES = {
    "add": lambda transaction, make: transaction.add(
        [make.segment(n, "new") for n in range(100, 107)], np.ones((7, 8), np.float32)
    ),
    "delete": lambda transaction, make: transaction.delete(labels=["class 0"], source="beta"),
    "relabel_segments": lambda transaction, make: transaction.relabel_segments(
        [make.segment(n, "x", "alpha" if n % 4 else "beta").segment_id for n in range(60)], "class 1"
    ),
    "compact": lambda transaction, make: transaction.compact([part.reader.entry.id for part in transaction._shards]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_failed_in_the_middle_is_never_committed(database, make, monkeypatch, change):
    """Whoever catches the error must not publish half of it: rows would be missing, or live twice."""

    def fail(*args):
        raise ResourceError("E401", "No room left.")

    with database.write(change, "tests", shard_rows=4) as transaction:
        with monkeypatch.context() as patch:
            patch.setattr("retclip.shards.staging.write_shard", fail)
            patch.setattr("retclip.shards.snapshot.column_of", fail)
            with pytest.raises(ResourceError):
                CHANGES[change](transaction, make)
        for attempt in (lambda: CHANGES[change](transaction, make), lambda: transaction.set_transform("centre")):
            with pytest.raises(DatabaseError, match=r"E310(.|\n)*in the middle(.|\n)*in a new write"):
                attempt()
        with pytest.raises(DatabaseError, match=r"E310(.|\n)*in the middle"):
            transaction.commit()
    assert Database.open(database.path).version == database.version
    assert not list(database.path.rglob(".staging-*"))


def test_a_commit_for_which_there_was_no_room_can_be_repeated(database, make, monkeypatch):
    def fail(*args):
        raise ResourceError("E401", "No room left.")

    with database.write("add", "tests") as transaction:
        transaction.add([make.segment(100, "new")], np.ones((1, 8), np.float32))
        with monkeypatch.context() as patch:
            patch.setattr("retclip.shards.staging.write_shard", fail)
            with pytest.raises(ResourceError):
                transaction.commit()
        assert len(transaction.commit()) == 61


def test_leaving_without_commit_changes_nothing(database, rows, make):
    before = sorted(str(p) for p in database.path.rglob("*"))
    with contextlib.suppress(RuntimeError), database.write("add", "tests", shard_rows=2) as transaction:
        transaction.add([make.segment(n, "new") for n in range(100, 107)], np.ones((7, 8), np.float32))
        transaction.delete(labels=["class 1"])
        raise RuntimeError("the user's program fails")
    assert sorted(str(p) for p in database.path.rglob("*")) == before
    assert Database.open(database.path).content_hash() == database.content_hash()


def test_a_closed_transaction_refuses_work(database, rows):
    with database.write("add", "tests") as transaction:
        transaction.commit()
        with pytest.raises(ValueError, match="Transaction"):
            transaction.add(*rows)
    with pytest.raises(ValueError, match="Transaction"):
        database.write("add", "tests").add(*rows)


def test_deleting_a_class_kills_all_its_segments_for_good(database, rows):
    segments, vectors = rows
    with database.write("delete", "tests") as transaction:
        assert transaction.delete(labels=["Class_2"]) == 12
        after = transaction.commit()
    assert "class 2" not in {c.name for c in after.classes}
    assert len(after) == 48
    assert not any(s.label == "class 2" for _, _, s in after.iter_segments())
    with after.write("add", "tests") as transaction:
        assert transaction.add(segments, vectors) == 12
        again = transaction.commit()
    assert {c.id for c in again.classes} == {0, 1, 3, 4, 5}
    assert again.content_hash() == database.content_hash()


def test_delete_by_image_and_source(database, rows):
    with database.write("delete", "tests") as transaction:
        assert transaction.delete(image_sha256=rows[0][0].image_sha256) == 3
        assert transaction.delete(source="beta") == 14
        assert transaction.delete(segment_ids=[1, 2, 3]) == 0
        with pytest.raises(DatabaseError, match=r"E309.*\n.*class 1"):
            transaction.delete(labels=["clas 1"])
        after = transaction.commit()
    assert len(after) == 43
    assert after.sources == {"alpha": 43}


def test_restore_and_undo_give_the_old_content_as_a_new_version(database, rows):
    with database.write("delete", "tests") as transaction:
        transaction.delete(labels=["class 1"])
        transaction.set_transform("whiten")
        changed = transaction.commit("gone")
    assert changed.transform == "whiten"
    back = changed.undo()
    assert (back.version, back.transform, back.content_hash()) == (4, "none", database.content_hash())
    assert back.undo().content_hash() == changed.content_hash()
    assert [h.operation for h in back.history()] == ["create", "build", "delete", "restore", "restore"]
    assert [h.segments for h in back.history()] == [0, 60, 48, 60, 48]
    with pytest.raises(DatabaseError, match="E306"):
        back.restore(99)


def test_undo_does_not_drop_what_another_writer_published_meanwhile(database, monkeypatch):
    def change():
        with database.write("transform", "tests") as transaction:
            transaction.set_transform("centre")
            transaction.commit()

    before = version_before
    monkeypatch.setattr("retclip.shards.database.version_before", lambda path: (before(path), change())[0])
    with pytest.raises(DatabaseError, match=r"E305(.|\n)*version 3(.|\n)*on version 2"):
        database.undo()
    assert (Database.open(database.path).version, Database.open(database.path).transform) == (3, "centre")


def test_nothing_to_undo(make, tmp_path):
    with pytest.raises(DatabaseError, match="E306"):
        Database.create(tmp_path / "d.retdb", make.space(), {}).undo()


def test_second_writer_is_told_who_writes(database):
    with database.write("slow import", "tests"):
        with pytest.raises(DatabaseError, match=rf"E304(.|\n)*process {os.getpid()} on .*slow import"):
            database.write("other", "tests").__enter__()
        assert len(Database.open(database.path)) == 60
    with database.write("other", "tests"):
        pass


def test_link_decides_when_the_lock_does_not_work(database, make, monkeypatch):
    unlocked = contextlib.nullcontext(lambda: None)
    monkeypatch.setattr("retclip.shards.transaction.writer_lock", lambda path, operation: unlocked)
    with database.write("first", "tests") as first:
        first.add([make.segment(200, "new")], np.ones((1, 8), np.float32))
        with database.write("second", "tests") as second:
            second.delete(labels=["class 0"])
            winner = second.commit()
        with pytest.raises(DatabaseError, match="E305"):
            first.commit()
    assert Database.open(database.path).content_hash() == winner.content_hash()
    assert verify(database.path, deep=True).ok
    assert {p.name for p in (database.path / "shards").iterdir()} == {e.id for e in winner.manifest.shards}


def test_a_writer_starts_from_the_newest_version(database, rows, make):
    with database.write("one", "tests") as transaction:
        transaction.delete(labels=["class 0"])
        transaction.commit()
    with database.write("two", "tests") as transaction:
        transaction.delete(labels=["class 1"])
        assert len(transaction.commit()) == 36


def test_the_sweep_removes_what_dead_writers_left(database):
    staged = database.path / "shards" / ".staging-dead"
    staged.mkdir()
    (staged / "vectors.f16").write_bytes(b"half")
    (database.path / "manifests" / ".staging-dead").write_bytes(b"{")
    Database.open(database.path)
    assert staged.exists()
    with database.write("next", "tests"):
        assert not staged.exists()
        assert not (database.path / "manifests" / ".staging-dead").exists()


def test_a_commit_costs_the_same_after_any_history(database, monkeypatch):
    """What it is made on and what it published are read; a dead writer may have left shards, and all files be old."""
    (database.path / "shards" / ("e" * 32)).mkdir()

    def change(database, name):
        with database.write("relabel", "tests") as transaction:
            transaction.relabel("class 0", name)
            return transaction.commit()

    read = []
    real = Manifest.from_bytes.__func__
    monkeypatch.setattr(Manifest, "from_bytes", classmethod(lambda kind, data: read.append(1) or real(kind, data)))
    costs = []
    for number in range(12):
        for path in database.path.rglob("*"):
            os.utime(path, (0, 0))
        read.clear()
        database = change(database, f"class 0!{'!' * number}")
        costs.append(len(read))
    assert costs == [2] * 12


def test_the_number_of_a_damaged_manifest_is_not_given_again(database):
    (database.path / "manifests" / "000000000009.json").write_bytes(b"{")
    after = database.restore(2)
    assert (after.version, after.manifest.parent) == (10, 2)


def test_no_version_is_published_where_nobody_would_find_it(database):
    """A stray file may have the last name of 12 digits; one with 13 is no manifest."""
    stray = database.path / "manifests" / "999999999999.json"
    stray.write_bytes(b"")
    for write in (lambda: database.write("change", "tests").__enter__(), lambda: database.restore(1)):
        with pytest.raises(DatabaseError, match=r"E303(.|\n)*no number left(.|\n)*999999999999.json"):
            write()
    stray.unlink()
    assert database.restore(1).version == 3


def _append(path: str, base: int, start) -> None:
    """Append 4 generations of one row each, however often others are first."""
    from retclip.core.segments import StoredSegment

    template = next(s for _, _, s in Database.open(Path(path)).iter_segments())
    start.wait(timeout=120)
    done = 0
    while done < 4:
        segment: StoredSegment = replace(template, segment_id=base + done, label=f"process {base}")
        try:
            with Database.open(Path(path)).write("append", "tests") as transaction:
                transaction.add([segment], np.ones((1, 8), np.float32))
                transaction.commit(f"{base + done}")
        except DatabaseError as error:
            if error.code not in ("E304", "E305"):
                raise
        else:
            done += 1


def test_racing_processes_lose_nothing_and_readers_see_whole_versions(database):
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    writers = [context.Process(target=_append, args=(str(database.path), base, start)) for base in (100, 200)]
    for writer in writers:
        writer.start()
    # A writer that dies before the start breaks the barrier instead of leaving the test to wait for ever.
    start.wait(timeout=120)
    while any(writer.is_alive() for writer in writers):
        seen = Database.open(database.path)
        assert len(seen) == 60 + seen.version - 2
        assert sum(1 for _ in seen.iter_segments()) == len(seen)
    assert [writer.exitcode for writer in writers] == [0, 0]
    final = Database.open(database.path)
    assert final.version == 10
    assert set(final.live_labels([100, 101, 102, 103, 200, 201, 202, 203])) == {*range(100, 104), *range(200, 204)}


def test_versions_are_numbered_without_gaps(database):
    assert versions(database.path) == [1, 2]
