"""Index files: who reads them while others write, and what damage does."""

import json

import faiss
import numpy as np
import pytest

from retclip.core.errors import DatabaseError
from retclip.shards import durable
from retclip.shards.search import Request, Searcher, index_files, planner, write_indexes

QUERIES = np.random.default_rng(4).normal(size=(40, 16)).astype(np.float32)
REQUEST = Request(10, (1, 3), None, "centre")


@pytest.fixture(autouse=True)
def no_least(monkeypatch):
    """Plans that use an index however few rows are asked."""
    monkeypatch.setattr(planner, "_INDEX_ROWS", 0)


def test_a_new_index_takes_the_place_of_one_that_was_never_finished(indexed):
    folder = indexed.snapshot.shards[0].reader.folder
    (folder / "index.json").unlink()
    (folder / ".staging-x").write_bytes(b"half an index")
    assert write_indexes(indexed, "centre").shards == 1
    assert not (folder / ".staging-x").exists()


def test_an_index_of_the_earlier_kind_is_none_and_gives_way(indexed):
    folder = indexed.snapshot.shards[0].reader.folder
    note = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(note | {"classes": [0, 1]}))
    (folder / "index.faiss").write_bytes(b"lists")
    searcher = Searcher(indexed.snapshot)
    assert searcher.plan(40, REQUEST).backend == "cpu"
    assert write_indexes(indexed, "centre").shards == 1
    assert not (folder / "index.faiss").exists()


def index_newer_version(database, make):
    """What another program does: a version of other statistics, and `db index`, which replaces every index."""
    with database.write("add", "tests") as transaction:
        transaction.add([make.segment(9_001, "class 1")], np.eye(16, dtype=np.float32)[:1])
        newer = transaction.commit()
    assert write_indexes(newer, "centre").shards == 3


def remove_indexes(database, make):
    for shard in database.snapshot.shards:
        index_files.remove_index(shard.reader.folder)


@pytest.mark.parametrize("change", [index_newer_version, remove_indexes])
@pytest.mark.parametrize("moment", ["before the note is read", "after"])
def test_a_reader_whose_index_is_replaced_goes_on_without(indexed, make, monkeypatch, same_bits, change, moment):
    searcher = Searcher(indexed.snapshot)
    assert searcher.plan(40, REQUEST).backend == "ivf"
    if moment != "after":
        change(indexed, make)
    else:
        real, done = index_files._load, []

        def overtaken(*arguments):
            if not done:
                done.append(True)
                change(indexed, make)
            return real(*arguments)

        monkeypatch.setattr(index_files, "_load", overtaken)
    found = searcher.search(QUERIES, REQUEST)
    assert moment != "after" or done
    same_bits(found, searcher.search(QUERIES, REQUEST, "cpu"))
    assert (searcher.plan(40, REQUEST).backend, searcher.plan(40, REQUEST).exact) == ("cpu", True)


def test_an_index_in_memory_serves_until_its_reader_ends(indexed, make, same_bits):
    searcher = Searcher(indexed.snapshot)
    before = searcher.search(QUERIES, REQUEST)
    index_newer_version(indexed, make)
    same_bits(searcher.search(QUERIES, REQUEST), before)
    assert searcher.plan(40, REQUEST).backend == "ivf"


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "note", "shape"])
def test_a_damaged_index_is_named_and_refused(indexed, damage):
    folder = indexed.snapshot.shards[0].reader.folder
    index, note = folder / "index.safetensors", folder / "index.json"
    data = bytearray(index.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        index.write_bytes(data)
    elif damage == "cut":
        index.write_bytes(data[:-1])
    elif damage == "gone":
        index.unlink()
    else:
        note.write_text("{" if damage == "note" else "[]")
    with pytest.raises(DatabaseError, match=folder.name) as caught:
        Searcher(indexed.snapshot).search(np.ones((1, 16)), Request(3, (0,), None, "centre"), "ivf")
    assert caught.value.code == "E311"


def vouch_for(reader, data):
    """A note that fits, whatever it says it fits."""
    entry = durable.publish_file(reader.folder / "index.safetensors", [data])
    note = json.loads((reader.folder / "index.json").read_text()) | {"bytes": entry.bytes, "sha256": entry.sha256}
    (reader.folder / "index.json").write_text(json.dumps(note))


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"no arrays"])
def test_a_note_that_vouches_for_nonsense_does_not_help_it(indexed, content):
    reader = indexed.snapshot.shards[0].reader
    vouch_for(reader, content)
    with pytest.raises(DatabaseError, match="is damaged") as caught:
        index_files.read_index(reader, Searcher(indexed.snapshot).transform("centre"))
    assert caught.value.code == "E311"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("codes", lambda a: a[1:]),
        ("codes", lambda a: a[:, :1]),
        ("codes", lambda a: a.astype(np.int8)),
        ("codes", lambda a: np.zeros((), np.uint8)),
        ("centres", lambda a: a[:0]),
        ("centres", lambda a: a[:, :1]),
        ("centres", lambda a: a.astype(np.float64)),
        ("centres", lambda a: a * np.nan),
        ("classes", lambda a: np.arange(3_000_000, dtype=np.int32)),
        ("classes", lambda a: a[::-1].copy()),
        ("directions", lambda a: np.ones((1_000_000, 1), np.float32)),
        ("levels", lambda a: a[:, :1]),
        ("levels", lambda a: a[:0]),
        ("error", lambda a: a[:0]),
        ("numbers", lambda a: a + 1),
        ("numbers", lambda a: a * 0),
        ("numbers", lambda a: -a),
        ("numbers", lambda a: a[::-1].copy()),
        ("numbers", lambda a: a.astype(np.float32)),
        ("numbers", None),
        ("more", lambda a: np.zeros(1)),
    ],
)
def test_arrays_that_do_not_fit_together_never_reach_faiss(indexed, name, change):
    reader = indexed.snapshot.shards[0].reader
    arrays = index_files.load((reader.folder / "index.safetensors").read_bytes())
    arrays.pop(name, None) if change is None else arrays.update({name: change(arrays.get(name))})
    vouch_for(reader, index_files.save({key: np.ascontiguousarray(array) for key, array in arrays.items()}))
    with pytest.raises(DatabaseError, match="is damaged") as caught:
        Searcher(indexed.snapshot).search(QUERIES, REQUEST, "ivf")
    assert caught.value.code == "E311"


@pytest.mark.parametrize("note", ["folder", "[" * 200_000])
def test_a_note_that_cannot_be_read_is_told(indexed, note):
    path = indexed.snapshot.shards[0].reader.folder / "index.json"
    path.unlink()
    if note == "folder":
        path.mkdir()
    else:
        path.write_text(note)
    with pytest.raises(DatabaseError) as caught:
        Searcher(indexed.snapshot).plan(40, REQUEST)
    assert caught.value.code == ("E320" if note == "folder" else "E311")


def test_new_statistics_make_an_index_unusable(indexed, make):
    with indexed.write("add", "tests") as transaction:
        transaction.add([make.segment(9_001, "class 1")], np.eye(16, dtype=np.float32)[:1])
        newer = transaction.commit()
    searcher = Searcher(newer.snapshot)
    assert not searcher._is_indexed(searcher._scope_of((1,)), "centre")
    assert write_indexes(newer, "centre").shards == 3
    assert searcher.search(np.ones((1, 16)), Request(3, (1,), None, "centre"), "ivf").row.shape == (1, 3)


def test_without_faiss_an_index_is_refused_and_searches_go_on(indexed, monkeypatch):
    monkeypatch.setattr(index_files.importlib.util, "find_spec", lambda name: None)
    assert faiss.__version__
    searcher = Searcher(indexed.snapshot)
    assert searcher.plan(40, REQUEST).backend == "cpu"
    with pytest.raises(Exception, match="needs FAISS") as caught:
        write_indexes(indexed, "centre")
    assert caught.value.code == "E312"
