"""Index files: who reads them while others write, and what damage does."""

import hashlib
import json

import faiss
import numpy as np
import pytest

from retclip.core.errors import DatabaseError
from retclip.core.sealed import seal, unseal
from retclip.shards import verify
from retclip.shards.search import Request, Searcher, index_files, ivf, planner, write_indexes
from retclip.shards.verification import untouched

QUERIES = np.random.default_rng(4).normal(size=(40, 16)).astype(np.float32)
REQUEST = Request(10, (1, 3), None, "centre")


@pytest.fixture(autouse=True)
def no_least(monkeypatch):
    """Plans that use an index however few rows are asked."""
    monkeypatch.setattr(planner, "_INDEX_ROWS", 0)


def test_a_new_index_takes_the_place_of_one_that_was_never_finished(indexed):
    folder = indexed.snapshot.shards[0].reader.folder
    (folder / "index.safetensors").unlink()
    (folder / ".staging-x").write_bytes(b"half an index")
    assert write_indexes(indexed, "centre").shards == 1
    assert not (folder / ".staging-x").exists()


def test_an_index_of_the_earlier_kind_is_none_and_gives_way(indexed):
    folder = indexed.snapshot.shards[0].reader.folder
    (folder / "index.safetensors").unlink()
    old = [folder / "index.json", folder / "index.faiss"]
    for path in old:
        path.write_bytes(b"lists")
    assert Searcher(indexed.snapshot).plan(40, REQUEST).backend == "cpu"
    assert verify(indexed.path, deep=True).ok
    assert write_indexes(indexed, "centre").shards == 1
    assert not any(path.exists() for path in old)


def test_digests_are_what_the_page_of_the_format_says(indexed):
    data = (indexed.snapshot.shards[0].reader.folder / "index.safetensors").read_bytes()
    told = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    transform = told.pop("transform")
    assert transform == index_files.fingerprint(Searcher(indexed.snapshot).transform("centre"))
    arrays, _ = unseal(data)
    assert set(told) == {f"sha256:{name}" for name in arrays}
    for name, array in arrays.items():
        head = json.dumps([name, str(array.dtype), array.shape, [["transform", transform]]])
        assert told[f"sha256:{name}"] == hashlib.sha256(head.encode() + array.tobytes()).hexdigest()


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
@pytest.mark.parametrize("moment", ["before", "between"])
def test_a_reader_whose_index_is_replaced_goes_on_without(indexed, make, monkeypatch, same_bits, change, moment):
    searcher = Searcher(indexed.snapshot)
    assert searcher.plan(40, REQUEST).backend == "ivf"
    if moment == "before":
        change(indexed, make)
    else:
        real, read = index_files.read_index, []

        def overtaken(*arguments):
            read.append(real(*arguments))
            if len(read) == 1:
                change(indexed, make)
            return read[-1]

        monkeypatch.setattr(ivf, "read_index", overtaken)
    found = searcher.search(QUERIES, REQUEST)
    same_bits(found, searcher.search(QUERIES, REQUEST, "cpu"))
    assert (searcher.plan(40, REQUEST).backend, searcher.plan(40, REQUEST).exact) == ("cpu", True)


def test_an_index_in_memory_serves_until_its_reader_ends(indexed, make, same_bits):
    searcher = Searcher(indexed.snapshot)
    before = searcher.search(QUERIES, REQUEST)
    index_newer_version(indexed, make)
    same_bits(searcher.search(QUERIES, REQUEST), before)
    assert searcher.plan(40, REQUEST).backend == "ivf"


def is_refused(database, code="E311"):
    """By searches, and named by a deep check, which says of no version that it is touched."""
    reader = database.snapshot.shards[0].reader
    with pytest.raises(DatabaseError, match=reader.folder.name) as caught:
        Searcher(database.snapshot).search(np.ones((1, 16)), Request(3, (0,), None, "centre"), "ivf")
    report = verify(database.path, deep=True)
    [problem] = report.problems
    assert caught.value.code == problem.code == code
    assert problem.file == f"shards/{reader.entry.id}/index.safetensors"
    assert untouched(database.path, report) == ([1, 2, 3] if code == "E311" else [1])
    return True


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "head", "nested", "nonsense", "folder"])
def test_a_damaged_index_is_named_and_refused(indexed, damage):
    index = indexed.snapshot.shards[0].reader.folder / "index.safetensors"
    data = bytearray(index.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    elif damage == "head":
        data[:8] = b"\xff" * 8
    elif damage == "nested":
        data = (200_000).to_bytes(8, "little") + b"[" * 200_000
    other = {"cut": data[:-1], "empty": b"", "nonsense": b"no arrays"}
    if damage == "folder":
        index.unlink()
        index.mkdir()
    else:
        index.write_bytes(other.get(damage, data))
    assert is_refused(indexed, "E320" if damage == "folder" else "E311")
    if damage not in ("flip", "cut"):  # their heads are whole
        with pytest.raises(DatabaseError):
            Searcher(indexed.snapshot).plan(40, REQUEST)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("codes", lambda a: a[1:]),
        ("codes", lambda a: a[:, :1]),
        ("codes", lambda a: a.astype(np.int8)),
        ("codes", lambda a: np.zeros((), np.uint8)),
        ("centres", lambda a: a[:0]),
        ("centres", lambda a: a[:, :1]),
        ("centres", lambda a: a[:, 0]),
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
    path = indexed.snapshot.shards[0].reader.folder / "index.safetensors"
    arrays, notes = unseal(path.read_bytes())
    arrays.pop(name, None) if change is None else arrays.update({name: change(arrays.get(name))})
    path.write_bytes(seal(arrays, notes))
    assert is_refused(indexed)


def test_keys_of_another_length_never_reach_faiss(indexed):
    path = indexed.snapshot.shards[0].reader.folder / "index.safetensors"
    arrays, notes = unseal(path.read_bytes())
    shorter = {name: np.ascontiguousarray(arrays[name][:, :15]) for name in ("centres", "directions")}
    fewer = {"levels": arrays["levels"][:15], "directions": shorter["directions"][:15]}
    path.write_bytes(seal({**arrays, **shorter, **fewer}, notes))
    with pytest.raises(DatabaseError, match="not as long"):
        index_files.read_index(indexed.snapshot.shards[0].reader, Searcher(indexed.snapshot).transform("centre"))


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
