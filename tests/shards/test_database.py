"""Creating, opening and refusing; what costs nothing until it is asked."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from retclip.core.errors import DatabaseError
from retclip.shards import Database

ROOT = Path(__file__).resolve().parents[2]


def test_a_new_database_is_empty(tmp_path, make):
    database = Database.create(tmp_path / "deep" / "new.retdb", make.space(), {"k": [1, 2]}, "centre")
    again = Database.open(tmp_path / "deep" / "new.retdb")
    for db in (database, again):
        assert (db.name, db.version, len(db), db.classes) == ("new", 1, 0, ())
        assert (db.space, db.preset, db.transform) == (make.space(), {"k": [1, 2]}, "centre")
        assert (db.image_count, db.sources, list(db.iter_segments())) == (0, {}, [])
    assert sorted(p.name for p in tmp_path.joinpath("deep").iterdir()) == ["new.retdb"]


def test_a_new_database_never_replaces_anything(tmp_path, make, database):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for taken in (database.path, tmp_path / "empty", tmp_path / "file", tmp_path / "link"):
        with pytest.raises(DatabaseError, match="E307"):
            Database.create(taken, make.space(), {})
    assert len(Database.open(database.path)) == 60


def test_bad_settings_are_refused_before_anything_is_written(tmp_path, make):
    with pytest.raises(ValueError, match="transform"):
        Database.create(tmp_path / "a", make.space(), {}, "rotate")
    with pytest.raises(TypeError):
        Database.create(tmp_path / "a", make.space(), {"x": object()})
    assert list(tmp_path.iterdir()) == []


def test_format_file(database):
    file = database.path / "FORMAT"
    for data, code in ((b'{"retclip_db": 2}\n', "E308"), (b'{"retclip_db": 1}', "E303"), (b"", "E303")):
        file.write_bytes(data)
        with pytest.raises(DatabaseError, match=code):
            Database.open(database.path)
    file.unlink()
    with pytest.raises(DatabaseError, match="E306"):
        Database.open(database.path)
    with pytest.raises(DatabaseError, match="E306"):
        Database.open(database.path / "nothing")


def use_everything(database):
    database.search(np.ones((1, 8), np.float32), 3)
    database.segment(0, 0)


def test_missing_or_short_files_are_named_at_opening(database):
    entry = database.manifest.shards[1]
    for name in entry.files:
        path = database.path / "shards" / entry.id / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        with pytest.raises(DatabaseError, match=rf"E303(.|\n)*{entry.id}/{name}"):
            Database.open(database.path)
        path.unlink()
        with pytest.raises(DatabaseError, match=rf"E303(.|\n)*{entry.id}/{name}"):
            Database.open(database.path)
        path.write_bytes(whole)
    assert len(Database.open(database.path)) == 60


@pytest.mark.parametrize("name", ["meta.parquet", "classes.arrow", "ids.u64", "blobs.arrow"])
def test_a_changed_file_is_refused_when_it_is_first_used(database, name):
    path = database.path / "shards" / database.manifest.shards[0].id / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))
    damaged = Database.open(database.path)
    with pytest.raises(DatabaseError, match=rf"E303(.|\n)*{name}"):
        use_everything(damaged)


def test_rows_stay_readable_when_the_database_is_moved_after_their_first_use(database):
    reader = Database.open(database.path)
    assert sum(reader.sources.values()) == 60  # a column of the same files
    expected = database.segments([(0, 3)])
    database.path.rename(database.path.with_name("moved.retdb"))
    assert reader.segments([(0, 3)]) == expected


def test_a_changed_bitmap_is_refused(database):
    with database.write("delete", "tests") as transaction:
        transaction.delete(source="beta")
        transaction.commit()
    bitmap = next((database.path / "deletes").iterdir())
    whole = bitmap.read_bytes()
    bitmap.write_bytes(whole[:-1] + b"\x07")
    with pytest.raises(DatabaseError, match=rf"E303(.|\n)*{bitmap.name}"):
        Database.open(database.path)
    bitmap.unlink()
    with pytest.raises(DatabaseError, match=rf"E303(.|\n)*{bitmap.name}"):
        Database.open(database.path)
    assert len(Database.open(database.path, 2)) == 60


def test_an_older_version_is_served_beside_the_new_one(database):
    with database.write("delete", "tests") as transaction:
        transaction.delete(labels=["class 0"])
        transaction.commit()
    old, new = Database.open(database.path, 2), Database.open(database.path)
    assert (len(old), len(new), len(database)) == (60, 48, 60)
    assert old.content_hash() == database.content_hash() != new.content_hash()


def test_positions_outside_and_dead_rows_are_refused(database):
    for position in ((3, 0), (-1, 0), (0, 25), (0, -1)):
        with pytest.raises(ValueError, match="expected 0 to"):
            database.segment(*position)
        with pytest.raises(ValueError, match="expected 0 to"):
            database.vectors([position])
    with database.write("delete", "tests") as transaction:
        transaction.delete(segment_ids=[database.segment(1, 2).segment_id])
        after = transaction.commit()
    with pytest.raises(DatabaseError, match="E306"):
        after.segment(1, 2)
    assert database.segments([]) == []


def test_content_hash_tells_contents_apart(make, tmp_path):
    segments, vectors = make.rows(12)
    changed = vectors.copy()
    changed[3, 2] += 0.01
    hashes = [
        make.build(tmp_path / str(n), *rows).content_hash()
        for n, rows in enumerate(
            [(segments, vectors), (segments[:-1], vectors[:-1]), (segments, changed), make.rows(12, classes=4)]
        )
    ]
    assert len(set(hashes)) == 4


def test_equal_rows_give_equal_files(make, tmp_path):
    segments, vectors = make.rows(40)
    one = make.build(tmp_path / "one", segments, vectors)
    order = [*range(5), *range(39, 4, -1)]  # classes get their ids in the order of their first row
    two = make.build(tmp_path / "two", [segments[i] for i in order], vectors[order])
    assert one.manifest.shards[0].files == two.manifest.shards[0].files


def test_opening_and_listing_load_no_heavy_library(database):
    code = (
        "import sys; from pathlib import Path; from retclip.shards import Database;"
        f"d = Database.open(Path({str(database.path)!r})); len(d), d.classes, d.history();"
        "print([m for m in ('torch', 'pyarrow', 'lmdb') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_threads_share_the_rows_of_a_database(make, tmp_path):
    segments, vectors = make.rows(3000)
    database = make.build(tmp_path / "d.retdb", segments, vectors, shard_rows=700)
    positions = [(shard, row) for shard, row, _ in database.iter_segments()]
    expected = database.segments(positions)

    def read(seed):
        chosen = np.random.default_rng(seed).integers(0, len(positions), 20).tolist()
        return database.segments([positions[i] for i in chosen]) == [expected[i] for i in chosen]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(300)))
