"""What was erased is in no file: not in rows, masks, pictures, spills or old versions, whatever happened before."""

import hashlib
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from retclip.core.errors import DatabaseError
from retclip.shards import Database, Ledger, verify
from retclip.shards.erasure import Selection, erase
from retclip.shards.manifest import versions
from retclip.shards.search import write_indexes


def digest(number):
    return hashlib.sha256(f"picture {number}".encode()).hexdigest()


@pytest.fixture
def album(make, tmp_path):
    """Path, segments and vectors of a database with a past; its pictures hold three segments each."""
    segments, vectors = make.rows(60)
    segments = [replace(s, image_sha256=digest(n // 3), image_id=f"picture-{n // 3}") for n, s in enumerate(segments)]
    path = tmp_path / "album.retdb"
    make.build(path, segments, vectors, shard_rows=25)
    database = Database.open(path)
    database.store_thumbnails({s.segment_id: b"jpeg of %d " % n + bytes(50) for n, s in enumerate(segments)})
    with database.write("change", "tests") as transaction:
        transaction.delete(segment_ids=[segments[4].segment_id])
        transaction.relabel_segments([segments[5].segment_id], "pier")
        transaction.commit()
    ledger = Ledger(path, "job")
    ledger.put("one", segments[3:6], vectors[3:6], {"failures": []})
    ledger.put("two", segments[6:9], vectors[6:9], {"failures": []})
    return path, segments, vectors


def traces(path, segment, vector):
    """Files that hold an id, a digest, a vector or a thumbnail, found in the plainest way."""
    unit = (vector / np.linalg.norm(vector.astype(np.float64))).astype(np.float16)
    number = segment.segment_id
    needles = [number.to_bytes(8, "little"), number.to_bytes(8, "big"), segment.image_sha256.encode(), unit.tobytes()]
    return [p for p in path.rglob("*") if p.is_file() and any(n in p.read_bytes() for n in needles)]


def test_the_mean_of_a_class_of_one_row_goes_with_it(album, make):
    """Shards that are indexed together have mean keys of all classes, also of those that only others hold."""
    path, _, _ = album
    with Database.open(path).write("add", "tests") as transaction:
        transaction.add([replace(make.segment(99, "newcomer"), image_sha256=digest(99))], np.eye(8)[:1] + 0.25)
        database = transaction.commit()
    write_indexes(database, "none")
    files = list(path.rglob("index.safetensors"))
    assert len(files) == len(database.snapshot.shards) > 2
    vector = database.snapshot.shards[-1].reader.vectors[-1].astype(np.float32)
    mean = vector / np.linalg.norm(vector)
    for file in files:
        assert np.isclose(load_file(file)["centres"], mean, atol=1e-6).all(axis=1).any()
    staged = [file.parent / f".staging-{'a' * 32}" for file in files]  # of a builder that was killed
    for file, rest in zip(files, staged, strict=True):
        shutil.copyfile(file, rest)
    del database  # a reader of the version that must go
    erase(path, Selection("image_sha256", digest(99)), "tests")
    assert not list(path.rglob("index.*"))
    assert not any(rest.exists() for rest in staged)
    assert verify(path, deep=True).ok


def test_an_image_is_gone_from_every_file_and_the_rest_is_as_it_was(album):
    path, segments, vectors = album
    assert len(traces(path, segments[5], vectors[5])) > 3
    proof = erase(path, Selection("image_sha256", digest(1)), "tests")
    for number in (3, 4, 5):
        assert traces(path, segments[number], vectors[number]) == []
        assert b"jpeg of %d " % number not in (path / "cache.lmdb" / "data.mdb").read_bytes()
    assert (proof.segments, proof.images, proof.spills, proof.thumbnails, proof.shared) == (3, 1, 1, 3, 0)
    assert proof.versions == (2, 3)
    assert proof.strings >= 3 * 2 + 1 + 3
    assert versions(path) == [1, 4]
    database = Database.open(path)
    assert {s.segment_id for _, _, s in database.iter_segments()} == {
        s.segment_id for n, s in enumerate(segments) if n not in (3, 4, 5)
    }
    assert database.thumbnail(segments[9].segment_id) == b"jpeg of 9 " + bytes(50)
    assert Ledger(path, "job").units() == ["two"]
    assert verify(path, deep=True).ok
    stored = {str(p.relative_to(path)) for p in (path / "shards").iterdir()}
    assert stored == {f"shards/{entry.id}" for entry in database.manifest.shards}
    with pytest.raises(DatabaseError, match="E317"):
        erase(path, Selection("image_sha256", digest(1)), "tests")


def test_versions_that_never_held_it_stay(album, make):
    path = album[0]
    late = replace(make.segment(900, "late"), image_sha256=digest(900), source="gamma")
    with Database.open(path).write("add", "tests") as transaction:
        transaction.add([late], np.full((1, 8), 0.3, np.float32))
        transaction.commit()
    assert erase(path, Selection("source", "gamma"), "tests").versions == (4,)
    assert versions(path) == [1, 2, 3, 5]
    assert traces(path, late, np.full(8, 0.3, np.float32)) == []
    assert Database.open(path).content_hash() == Database.open(path, 3).content_hash()


def test_a_source_is_erased_although_others_share_its_pictures(album):
    """Pictures and vectors that other sources have too stay, and the proof says how many."""
    path, segments, vectors = album
    twin = replace(segments[4], source="twin", segment_id=12345678901234567)
    with Database.open(path).write("add", "tests") as transaction:
        transaction.add([twin], vectors[4:5])
        transaction.commit()
    proof = erase(path, Selection("source", "beta"), "tests")
    assert proof.segments == 15
    assert proof.shared == 16  # the pictures of all fifteen, and the vector of one
    left = list(Database.open(path).iter_segments())
    assert {s.source for _, _, s in left} == {"alpha", "twin"}
    assert len(left) == 46


def test_rows_that_only_old_versions_hold_are_erased(album):
    path, segments, vectors = album
    with Database.open(path).write("delete", "tests") as transaction:
        transaction.delete(image_sha256=digest(2))
        transaction.compact([entry.id for entry in Database.open(path).manifest.shards])
        now = transaction.commit().version
    proof = erase(path, Selection("image_sha256", digest(2)), "tests")
    assert (proof.segments, proof.versions) == (3, (2, 3))
    assert versions(path) == [1, now]
    assert traces(path, segments[7], vectors[7]) == []


def test_an_image_of_an_unfinished_build_alone_is_erased(album, make):
    path, _, vectors = album
    fresh = replace(make.segment(700, "new"), image_sha256=digest(700))
    Ledger(path, "other").put("unit", [fresh], vectors[:1], {})
    proof = erase(path, Selection("image_sha256", digest(700)), "tests")
    assert (proof.segments, proof.spills, proof.versions) == (1, 1, ())
    assert Ledger(path, "other").units() == []


def test_units_that_left_an_image_out_because_it_was_stored_are_forgotten(album):
    path, segments, vectors = album
    ledger = Ledger(path, "job")
    ledger.put("three", segments[9:12], vectors[9:12], {"stored": [segments[4].segment_id]})
    ledger.put("four", segments[9:12], vectors[9:12], {"stored": [segments[20].segment_id]})
    assert erase(path, Selection("image_sha256", digest(1)), "tests").spills == 2
    assert ledger.units() == ["four", "two"]


def test_readers_are_asked_to_leave_and_the_rest_is_done_later(album):
    path = album[0]
    reader = Database.open(path)
    selection = Selection("image_sha256", digest(1))
    with pytest.raises(DatabaseError, match=r"E304(.|\n)*being read"):
        erase(path, selection, "tests")
    assert reader.search(np.ones((1, 8), np.float32), 60).row.min() >= -1
    del reader
    erase(path, selection, "tests")
    assert verify(path, deep=True).ok


@pytest.mark.parametrize("step", ["forget_thumbnails", "_forget_spills", "_rewrite", "_remove_versions"])
@pytest.mark.parametrize("before", [True, False])
def test_an_interrupted_erasure_is_finished_by_the_next(album, monkeypatch, step, before):
    from retclip.shards import erasure

    path, segments, vectors = album
    real = getattr(erasure, step)

    def stop(*arguments):
        if not before:
            real(*arguments)
        raise KeyboardInterrupt

    selection = Selection("image_sha256", digest(1))
    with monkeypatch.context() as patch:
        patch.setattr(erasure, step, stop)
        with pytest.raises(KeyboardInterrupt):
            erase(path, selection, "tests")
    assert verify(path, deep=True).ok
    finished = step == "_remove_versions" and not before
    if finished:
        with pytest.raises(DatabaseError, match="E317"):
            erase(path, selection, "tests")
    else:
        erase(path, selection, "tests")
    for number in (3, 4, 5):
        assert traces(path, segments[number], vectors[number]) == []
    assert verify(path, deep=True).ok


def test_files_of_dead_writers_are_swept_however_young(album):
    path, segments, _ = album
    orphan = path / "shards" / ("e" * 32)
    orphan.mkdir()
    (orphan / "ids.u64").write_bytes(segments[5].segment_id.to_bytes(8, "little"))
    erase(path, Selection("image_sha256", digest(1)), "tests")
    assert not orphan.exists()


def test_a_copy_without_its_empty_folders_can_be_erased_from(album):
    path, segments, vectors = album
    shutil.rmtree(path / "jobs")
    erase(path, Selection("image_sha256", digest(1)), "tests")
    assert traces(path, segments[5], vectors[5]) == []


def test_a_trace_that_is_left_is_named(album):
    path, segments, _ = album
    note = path / "jobs" / "job" / "note.txt"
    note.write_bytes(b"0123" + segments[5].segment_id.to_bytes(8, "big") + b"89")
    with pytest.raises(DatabaseError, match=r"E318(.|\n)*jobs/job/note.txt"):
        erase(path, Selection("image_sha256", digest(1)), "tests")


def test_a_damaged_manifest_stops_an_erasure_before_anything_is_done(album):
    path = album[0]
    (path / "manifests" / "000000000002.json").write_bytes(b"{")
    with pytest.raises(DatabaseError, match="E316"):
        erase(path, Selection("image_sha256", digest(1)), "tests")
    assert Database.open(path).version == 3


def test_a_damaged_cache_is_thrown_away(album):
    path = album[0]
    data = path / "cache.lmdb" / "data.mdb"
    os.truncate(data, 5000)
    erase(path, Selection("image_sha256", digest(1)), "tests")
    assert Database.open(path).thumbnail(album[1][9].segment_id) is None


@pytest.mark.parametrize("step", ["_find", "forget_thumbnails", "_shared", "_search"])
def test_nobody_writes_while_files_are_read_or_moved(album, monkeypatch, step):
    """A writer would sweep the new cache, collect a shard before it is read, or name a staged one while it is."""
    from retclip.shards import erasure

    path, segments, _ = album
    real = getattr(erasure, step)

    def beside(*arguments):
        with pytest.raises(DatabaseError, match=r"E304(.|\n)*\(erase\)"), Database.open(path).write("add", "tests"):
            pass
        return real(*arguments)

    monkeypatch.setattr(erasure, step, beside)
    erase(path, Selection("image_sha256", digest(1)), "tests")
    assert Database.open(path).thumbnail(segments[9].segment_id) == b"jpeg of 9 " + bytes(50)


def test_a_spill_that_gets_its_name_during_the_search_is_searched_under_it(album, monkeypatch):
    from retclip.shards import erasure

    path, segments, _ = album
    staged = path / "jobs" / "job" / ".staging-1"
    staged.write_bytes(b"0123" + segments[5].segment_id.to_bytes(8, "big") + b"89")
    real = erasure.Traces.in_file

    def named(traces, file):
        if file == staged:
            file.rename(file.with_name("late"))
        return real(traces, file)

    monkeypatch.setattr(erasure.Traces, "in_file", named)
    monkeypatch.setattr(erasure, "_forget_spills", lambda *arguments: 0)
    with pytest.raises(DatabaseError, match=r"E318(.|\n)*jobs/job/late"):
        erase(path, Selection("image_sha256", digest(1)), "tests")


def test_vectors_too_short_to_tell_are_not_looked_for(make, tmp_path):
    segments, _ = make.rows(12)
    make.build(tmp_path / "d.retdb", segments, np.random.default_rng(0).normal(size=(12, 3)))
    proof = erase(tmp_path / "d.retdb", Selection("source", "beta"), "tests")
    assert (proof.segments, proof.strings, proof.shared) == (3, 6, 3)
    assert len(Database.open(tmp_path / "d.retdb")) == 9
