"""Files and folders that vanish, may not be read, or are not what was written."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from retclip.core.errors import DatabaseError
from retclip.shards import Database, verify
from retclip.shards.manifest import current_manifest, manifest_path
from retclip.shards.search import write_indexes


@pytest.mark.parametrize("stage", ["open", "changed", "staged"])
def test_a_folder_that_vanishes_under_a_writer_is_explained(database, make, stage):
    segments = [make.segment(n, "new") for n in range(300, 310)]
    transaction = database.write("change", "tests", shard_rows=3 if stage == "staged" else 100)
    with pytest.raises(DatabaseError, match="E3"), transaction:  # noqa: PT012
        if stage != "open":
            transaction.add(segments, np.ones((10, 8), np.float32))
        shutil.rmtree(database.path)
        transaction.add(segments[:5], np.ones((5, 8), np.float32))
        transaction.set_transform("centre")
        transaction.commit()
    with pytest.raises(DatabaseError, match="E306"):
        Database.open(database.path)


def test_a_folder_that_vanishes_under_a_reader_is_explained(database):
    used, unused = Database.open(database.path), Database.open(database.path)
    queries = np.ones((2, 8), np.float32)
    answer = used.search(queries, 5).segment_id
    shutil.rmtree(database.path)
    np.testing.assert_array_equal(used.search(queries, 5).segment_id, answer)  # what is mapped stays readable
    with pytest.raises(DatabaseError, match=r"E303(.|\n)*No such file"):
        unused.search(queries, 5)


def test_a_folder_that_may_not_be_read_is_explained(database, monkeypatch):
    real = Path.read_bytes

    def refuse(path):
        if path.name == "FORMAT":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DatabaseError, match=r"E320(.|\n)*Permission denied(.|\n)*permissions"):
        Database.open(database.path)


@pytest.mark.parametrize("file", ["vectors.f16", "meta.parquet"])
def test_a_shard_file_that_may_not_be_read_is_not_called_damaged(database, monkeypatch, file):
    real = Path.open

    def refuse(path, *args, **kwargs):
        if path.name == file:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DatabaseError, match=rf"E320(.|\n)*{file}(.|\n)*Permission denied(.|\n)*permissions"):
        database.snapshot.shards[0].reader.checked(file)
    assert {problem.code for problem in verify(database.path, deep=True).problems} == {"E320"}


def test_a_manifest_that_was_cut_is_never_taken_for_a_version(database):
    """`test_manifest` cuts the bytes at every place; here they lie in a file."""
    with database.write("change", "tests") as transaction:
        transaction.set_transform("centre")
        transaction.commit()
    path = manifest_path(database.path, 3)
    whole = path.read_bytes()
    for length in (*range(0, len(whole) - 80, 29), *range(len(whole) - 80, len(whole))):
        path.write_bytes(whole[:length])
        assert current_manifest(database.path).version == 2, length
    assert Database.open(database.path).content_hash() == database.content_hash()
    with pytest.raises(DatabaseError, match="E303"):
        Database.open(database.path, 3)
    # Who goes on from the version before does not reuse the number of the torn one.
    assert database.restore(2).version == 4


def test_changed_bytes_of_every_kind_of_file_are_found(make, tmp_path):
    """Every byte of small files and of both ends of the others, and every eleventh between; one bit each."""
    segments, vectors = make.rows(9, classes=2)
    path = make.build(tmp_path / "tiny.retdb", segments, vectors).path
    with Database.open(path).write("delete", "tests") as transaction:
        transaction.delete(segment_ids=[segments[0].segment_id])
        database = transaction.commit()
    write_indexes(database, "none")
    shard = path / "shards" / database.manifest.shards[0].id
    bitmaps = [path / "deletes" / f"{entry.deletes.id}.roaring" for entry in database.manifest.shards]
    files = [path / "FORMAT", *bitmaps, *sorted(shard.iterdir()), *sorted((path / "manifests").iterdir())]
    assert len(files) == 1 + 1 + 8 + 3
    for file in files:
        whole = file.read_bytes()
        inner = range(48, len(whole) - 48)
        places = [place for place in range(len(whole)) if len(whole) <= 200 or place not in inner or place % 11 == 0]
        for place in places:
            changed = bytearray(whole)
            changed[place] ^= 1 << place % 8
            file.write_bytes(changed)
            named = {problem.file for problem in verify(path, deep=True).problems}
            assert str(file.relative_to(path)) in named, (file.name, place)
        file.write_bytes(whole)
    assert verify(path, deep=True).ok
