"""A single changed byte in any kind of file is found, and contradictions behind right digests too."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from retclip.shards import Database, durable, verification, verify
from retclip.shards.manifest import Deletes, manifest_path, read_manifest, versions
from retclip.shards.retention import collect
from retclip.shards.shard_writer import id_bytes
from retclip.shards.verification import untouched


@pytest.fixture
def busy(database):
    """A database with bitmaps, a deleted class and several versions."""
    with database.write("delete", "tests") as transaction:
        transaction.delete(source="beta")
        transaction.delete(labels=["class 4"])
        return transaction.commit()


def files(database):
    entry = database.manifest.shards[0]
    named = [database.path / "shards" / entry.id / name for name in entry.files]
    return [*named, database.path / "deletes" / f"{entry.deletes.id}.roaring", database.path / "FORMAT"]


def test_a_whole_database_is_whole(busy):
    report = verify(busy.path, deep=True)
    assert report.ok, report.problems
    assert report.content_hash == busy.content_hash()
    assert report.segments == len(busy)
    assert {str(p.relative_to(busy.path)) for p in files(busy)} <= set(report.checked)
    shallow = verify(busy.path)
    assert shallow.ok
    assert shallow.content_hash == ""
    assert verify(busy.path, version=1, deep=True).segments == 0


def test_every_kind_of_file_is_covered(busy):
    kinds = {p.name for p in files(busy)}
    assert {
        "vectors.f16",
        "meta.parquet",
        "blobs.arrow",
        "classes.arrow",
        "ids.u64",
        "moments.i64",
        "shard.json",
    } < kinds


def test_one_changed_byte_in_any_file_is_found(busy):
    rng = np.random.default_rng(0)
    for path in files(busy):
        whole = path.read_bytes()
        for place in {0, len(whole) - 1, *rng.integers(0, len(whole), 40).tolist()}:
            changed = bytearray(whole)
            changed[place] ^= 1 << int(rng.integers(0, 8))
            path.write_bytes(bytes(changed))
            report = verify(busy.path, deep=True)
            named = {problem.file for problem in report.problems}
            assert str(path.relative_to(busy.path)) in named, (path.name, place)
        path.write_bytes(whole)
    assert verify(busy.path, deep=True).ok


def test_every_changed_byte_of_a_manifest_is_found(busy):
    for version, step in ((1, 1), (3, 97)):
        path = manifest_path(busy.path, version)
        whole = path.read_bytes()
        for place in range(0, len(whole), step):
            changed = bytearray(whole)
            changed[place] ^= 1
            path.write_bytes(bytes(changed))
            problems = verify(busy.path).problems
            assert [p.file for p in problems] == [f"manifests/{version:012d}.json"]
            assert problems[0].code == "E303"
        path.write_bytes(whole)


def test_missing_files_are_listed(busy):
    for path in files(busy):
        whole = path.read_bytes()
        path.unlink()
        assert str(path.relative_to(busy.path)) in {p.file for p in verify(busy.path).problems}
        path.write_bytes(whole)


def test_missing_versions_and_folders(busy, tmp_path):
    assert [p.code for p in verify(busy.path, version=9).problems] == ["E306"]
    assert {p.code for p in verify(tmp_path / "nothing").problems} == {"E302", "E303"}


def forge(database, name, data, **changes):
    """Publish a version whose first shard has other bytes in one file, with digests that agree."""
    entry = database.manifest.shards[0]
    copy = replace(entry, id=durable.new_id())
    folder = database.path / "shards" / copy.id
    shutil.copytree(database.path / "shards" / entry.id, folder)
    (folder / name).unlink()
    copy = replace(copy, files={**entry.files, name: durable.write_file(folder / name, [data])})
    manifest = replace(database.manifest, version=4, shards=(copy, *database.manifest.shards[1:]), **changes)
    assert durable.link_file(manifest_path(database.path, 4), [manifest.to_bytes()])


@pytest.mark.parametrize("name", ["vectors.f16", "ids.u64", "moments.i64", "classes.arrow", "shard.json"])
def test_contradictions_behind_right_digests_are_found(busy, name):
    data = bytearray((busy.path / "shards" / busy.manifest.shards[0].id / name).read_bytes())
    if name == "shard.json":
        data = data.replace(b'"rows":25', b'"rows":26')
    elif name == "classes.arrow":
        from retclip.shards import tables

        columns, digests = tables.read_classes(busy.path / "shards" / busy.manifest.shards[0].id / name)
        data = bytearray(tables.class_bytes(columns, [digests[0][::-1], *digests[1:]]))
    elif name == "ids.u64":
        data = bytearray(id_bytes(np.arange(25, dtype=np.uint64)))
    else:
        data[1] ^= 64
    forge(busy, name, bytes(data))
    problems = verify(busy.path, deep=True).problems
    assert any(name in p.message for p in problems), problems


def test_a_vector_that_is_not_a_number_is_found(busy):
    vectors = np.array(busy.snapshot.shards[0].reader.vectors)
    vectors[4, 2] = np.nan
    forge(busy, "vectors.f16", vectors.tobytes())
    assert "finite" in verify(busy.path, deep=True).problems[0].message


def test_wrong_counts_and_doubled_ids_are_found(busy):
    manifest = replace(busy.manifest, version=4, counts={**busy.manifest.counts, 0: (1, 1)})
    durable.link_file(manifest_path(busy.path, 4), [manifest.to_bytes()])
    assert "counts" in verify(busy.path, deep=True).problems[0].message
    copies = [replace(entry, id=durable.new_id()) for entry in busy.manifest.shards]
    for entry, copy in zip(busy.manifest.shards, copies, strict=True):
        shutil.copytree(busy.path / "shards" / entry.id, busy.path / "shards" / copy.id)
    doubled = replace(busy.manifest, version=5, shards=(*busy.manifest.shards, *copies))
    durable.link_file(manifest_path(busy.path, 5), [doubled.to_bytes()])
    assert any("live twice" in p.message for p in verify(busy.path, deep=True).problems)


def test_a_bitmap_with_rows_that_do_not_exist_is_found(busy):
    from pyroaring import BitMap

    name = durable.new_id()
    file = durable.publish_file(busy.path / "deletes" / f"{name}.roaring", [BitMap([99]).serialize()])
    entry = replace(busy.manifest.shards[0], deletes=Deletes(name, 1, file))
    manifest = replace(busy.manifest, version=4, shards=(entry, *busy.manifest.shards[1:]))
    durable.link_file(manifest_path(busy.path, 4), [manifest.to_bytes()])
    assert [p.file for p in verify(busy.path, deep=True).problems] == [f"deletes/{name}.roaring"]
    assert len(Database.open(busy.path, 3)) == len(busy)


def collected(path):
    """What another process does meanwhile: a version without the shards of all others, and their removal."""
    with Database.open(path).write("compact", "tests") as transaction:
        transaction.compact([entry.id for entry in Database.open(path).manifest.shards])
        transaction.commit()
    return collect(path, 1)


def test_the_version_that_is_checked_stays_until_the_end(make, rows, tmp_path, monkeypatch):
    path = tmp_path / "d.retdb"
    make.build(path, *rows, shard_rows=25)
    real = verification._check_content
    gone = []

    def overtaken(*arguments):
        gone.append(collected(path))
        real(*arguments)

    monkeypatch.setattr(verification, "_check_content", overtaken)
    report = verify(path, deep=True)
    assert (report.version, report.problems, gone[0].in_use) == (2, [], (2,))
    assert collect(path, 1).versions == (2,)


@pytest.mark.parametrize(
    ("version", "reads", "checked"), [(None, 0, 3), (1, 0, 0), (2, 0, 0), (None, 1, 2), (1, 1, 0), (2, 1, 2)]
)
def test_versions_that_are_collected_meanwhile_are_no_damage(
    make, rows, tmp_path, monkeypatch, version, reads, checked
):
    """Before the newest is read, and between it and the first."""
    path = tmp_path / "d.retdb"
    make.build(path, *rows)
    real = verification.read_manifest
    numbers = []

    def overtaken(database, number):
        numbers.append(number)
        if len(numbers) == reads + 1:
            collected(path)
        return real(database, number)

    monkeypatch.setattr(verification, "read_manifest", overtaken)
    report = verify(path, version)
    assert report.version == checked
    assert [problem.code for problem in report.problems] == ([] if checked else ["E306"])


def test_only_versions_without_the_damaged_files_are_advised(busy):
    assert untouched(busy.path, verify(busy.path)) == versions(busy.path)
    shared = next(iter(busy.manifest.shards))
    (busy.path / "shards" / shared.id / "meta.parquet").write_bytes(b"")
    without = [v for v in versions(busy.path) if shared.id not in {e.id for e in read_manifest(busy.path, v).shards}]
    assert untouched(busy.path, verify(busy.path)) == without
    (busy.path / "FORMAT").write_bytes(b"")
    assert untouched(busy.path, verify(busy.path)) == []
