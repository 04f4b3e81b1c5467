"""Every exact backend gives the bits of a brute-force search in float64; an index gives rows that were asked."""

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retclip.core.errors import DatabaseError
from retclip.core.segments import Neighbors
from retclip.shards import durable
from retclip.shards.search import Request, Searcher, planner, write_indexes
from retclip.shards.search.faiss_scan import FaissScan
from retclip.shards.search.kernels import CPU_KERNELS, float16_kernel
from retclip.shards.search.keys import KeyBudget
from retclip.shards.search.scan import Scan


def brute_force(searcher, database, queries, request):
    """All live rows measured one by one, ordered by (distance, segment id)."""
    transform = searcher.transform(request.transform)
    asked = queries.astype(np.float64)
    asked = transform.keys(asked / np.sqrt(np.add.reduce(asked * asked, axis=1))[:, None])
    rows = [
        (c, s, r, int(database.snapshot.shards[s].reader.row_ids[r]))
        for c in request.classes
        for s, found in database.snapshot.class_rows(c)
        for r in found.tolist()
    ]
    vectors = [database.snapshot.shards[s].reader.vectors[r] for _, s, r, _ in rows]
    keys = transform.keys(np.array(vectors, np.float16).reshape(len(rows), database.snapshot.dim))
    shape = (len(asked), request.k)
    answer = Neighbors(
        np.full(shape, np.inf, np.float32), *(np.full(shape, -1, t) for t in (np.int32, np.int32, np.int64)),
        np.zeros(shape, np.uint64),
    )  # fmt: skip
    for query, key in enumerate(asked):
        likeness = np.add.reduce(np.repeat(key[None], len(keys), axis=0) * keys, axis=1)
        distance = np.clip(1.0 - likeness, 0.0, 2.0).astype(np.float32)
        counts, place = {}, 0
        for i in sorted(range(len(rows)), key=lambda i: (distance[i], rows[i][3])):
            counts[rows[i][0]] = counts.get(rows[i][0], 0) + 1
            if place < request.k and (request.per_class_k is None or counts[rows[i][0]] <= request.per_class_k):
                cell = (query, place)
                answer.distance[cell] = distance[i]
                answer.class_id[cell], answer.shard[cell], answer.row[cell], answer.segment_id[cell] = rows[i]
                place += 1
    return answer


def cpu_knn(queries, keys, k):
    return faiss.knn(queries, keys, k, metric=faiss.METRIC_INNER_PRODUCT)


EXACT = {
    kernel.name: lambda kernel=kernel: Scan(kernel, KeyBudget(1 << 20))
    for kernel in (*CPU_KERNELS, float16_kernel("cpu"))
}
EXACT["faiss"] = lambda: FaissScan(cpu_knn, KeyBudget(1 << 20))


def same_bits(first, second):
    for name in ("distance", "class_id", "shard", "row", "segment_id"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes(), name


@pytest.fixture(scope="module")
def databases(make, tmp_path_factory):
    """Several shards with dead rows and a merged class: random vectors, and coarse ones full of exact ties."""
    folder, built = tmp_path_factory.mktemp("backends"), []
    rng = np.random.default_rng(11)
    segments, _ = make.rows(700, classes=9)
    for name, vectors in (
        ("random", rng.normal(size=(700, 16)) + 0.7),
        ("ties", np.hstack([np.ones((700, 1)), rng.integers(-1, 2, (700, 15)) * (rng.random((700, 15)) < 0.2)])),
    ):
        database = make.build(folder / f"{name}.retdb", segments, vectors.astype(np.float32), shard_rows=190)
        with database.write("delete", "tests") as transaction:
            transaction.delete(segment_ids={s.segment_id for s in segments[::7]})
            built.append(transaction.commit())
    return built


@pytest.mark.parametrize("backend", EXACT)
@settings(max_examples=12, deadline=None)
@given(
    which=st.integers(0, 1),
    k=st.integers(1, 60),
    per_class_k=st.none() | st.integers(1, 9),
    classes=st.sets(st.integers(0, 8), max_size=9),
    transform=st.sampled_from(["none", "centre", "standardise", "whiten"]),
    seed=st.integers(0, 99),
)
def test_exact_backends_give_the_bits_of_brute_force(
    databases, backend, which, k, per_class_k, classes, transform, seed
):
    database = databases[which]
    request = Request(k, tuple(sorted(classes)), per_class_k, transform)
    queries = np.random.default_rng(seed).normal(size=(3, 16)).astype(np.float32)
    queries[0] = database.vectors([(0, 5)])[0]
    searcher = Searcher(database.snapshot)
    searcher._backends["cpu"] = EXACT[backend]()
    same_bits(searcher.search(queries, request, "cpu"), brute_force(searcher, database, queries, request))


def test_faiss_in_doubt_scores_in_full(make, tmp_path):
    """More equal rows than faiss was asked for: the tie must be broken by segment id, not by what faiss returned."""
    segments, _ = make.rows(300)
    database = make.build(tmp_path / "d.retdb", segments, np.ones((300, 8), np.float32))
    searcher = Searcher(database.snapshot)
    searcher._backends["cpu"] = FaissScan(cpu_knn, KeyBudget(1 << 20))
    found = searcher.search(np.ones((2, 8), np.float32), Request(5, tuple(range(5)), None, "none"), "cpu")
    assert found.segment_id[0].tolist() == sorted(s.segment_id for s in segments)[:5]


@pytest.fixture
def indexed(make, tmp_path):
    """Two shards of 2,000 rows in four classes, some dead, with an index for `centre`."""
    segments, _ = make.rows(4_000, classes=4)
    vectors = np.random.default_rng(2).normal(size=(4_000, 16)).astype(np.float32) + 0.5
    database = make.build(tmp_path / "indexed.retdb", segments, vectors, shard_rows=2_000)
    with database.write("delete", "tests") as transaction:
        transaction.delete(segment_ids={s.segment_id for s in segments[::5]})
        database = transaction.commit()
    assert write_indexes(database, "centre") == len(database.snapshot.shards) == 2
    assert write_indexes(database, "centre") == 0
    return database


def test_a_new_index_takes_the_place_of_one_that_was_never_finished(indexed):
    folder = indexed.snapshot.shards[0].reader.folder
    (folder / "index.json").unlink()
    (folder / ".staging-x").write_bytes(b"half an index")
    assert write_indexes(indexed, "centre") == 1
    assert not (folder / ".staging-x").exists()


def test_an_index_answers_with_live_rows_of_the_asked_classes(indexed):
    searcher = Searcher(indexed.snapshot)
    request = Request(10, (1, 3), None, "centre")
    queries = np.random.default_rng(4).normal(size=(30, 16)).astype(np.float32)
    found, true = searcher.search(queries, request, "ivf"), searcher.search(queries, request, "cpu")
    assert set(found.class_id.ravel().tolist()) == {1, 3}
    # So few lists are all looked into: only rounding to one byte can lose a row, and twice as many are asked for.
    assert np.mean(found.segment_id == true.segment_id) > 0.99
    for place in np.ndindex(found.row.shape):
        assert indexed.snapshot.live_mask(int(found.shard[place]))[found.row[place]]


def test_plans_use_an_index_that_is_good_enough(indexed, monkeypatch):
    monkeypatch.setattr(planner, "_IVF_WORK", 1)
    searcher = Searcher(indexed.snapshot)
    queries = np.random.default_rng(4).normal(size=(40, 16)).astype(np.float32)
    request = Request(10, (1, 3), None, "centre")
    assert (searcher.plan(40, request).backend, searcher.plan(40, request).recall) == ("ivf", None)
    searcher.search(queries, request)
    assert searcher.plan(40, request).recall > 0.98
    for other in (Request(10, (1, 3), 2, "centre"), Request(10, (1, 3), None, "none")):
        assert searcher.plan(40, other).backend == "cpu"


def test_an_index_that_finds_too_little_is_not_used(indexed, monkeypatch):
    monkeypatch.setattr(planner, "_IVF_WORK", 1)
    monkeypatch.setattr("retclip.shards.search.ivf._LEAST_PROBES", 1)
    searcher = Searcher(indexed.snapshot)
    queries = np.random.default_rng(4).normal(size=(40, 16)).astype(np.float32)
    request = Request(10, (0, 1, 2, 3), None, "centre")
    answer = searcher.search(queries, request)
    assert searcher.plan(40, request).backend == "cpu"
    assert "below" in searcher.plan(40, request).reason
    same_bits(answer, searcher.search(queries, request, "cpu"))


def index_newer_version(database, make):
    """What another program does: a version of other statistics, and `db index`, which replaces every index."""
    with database.write("add", "tests") as transaction:
        transaction.add([make.segment(9_001, "class 1")], np.eye(16, dtype=np.float32)[:1])
        newer = transaction.commit()
    assert write_indexes(newer, "centre") == 3


def remove_indexes(database, make):
    for shard in database.snapshot.shards:
        (shard.reader.folder / "index.json").unlink()
        (shard.reader.folder / "index.faiss").unlink()


@pytest.mark.parametrize("change", [index_newer_version, remove_indexes])
@pytest.mark.parametrize("moment", ["before the note is read", "after"])
def test_a_reader_whose_index_is_replaced_goes_on_without(indexed, make, monkeypatch, change, moment):
    monkeypatch.setattr(planner, "_IVF_WORK", 1)
    searcher = Searcher(indexed.snapshot)
    queries = np.random.default_rng(4).normal(size=(40, 16)).astype(np.float32)
    request = Request(10, (1, 3), None, "centre")
    assert searcher.plan(40, request).backend == "ivf"
    if moment != "after":
        change(indexed, make)
    else:
        real = durable.file_sha256

        def overtaken(path):
            monkeypatch.setattr(durable, "file_sha256", real)
            change(indexed, make)
            return real(path)

        monkeypatch.setattr(durable, "file_sha256", overtaken)
    found = searcher.search(queries, request)
    assert durable.file_sha256.__name__ == "file_sha256"
    same_bits(found, searcher.search(queries, request, "cpu"))
    assert (searcher.plan(40, request).backend, searcher.plan(40, request).exact) == ("cpu", True)


def test_an_index_in_memory_serves_until_its_reader_ends(indexed, make, monkeypatch):
    monkeypatch.setattr(planner, "_IVF_WORK", 1)
    searcher = Searcher(indexed.snapshot)
    queries = np.random.default_rng(4).normal(size=(40, 16)).astype(np.float32)
    request = Request(10, (1, 3), None, "centre")
    before = searcher.search(queries, request)
    index_newer_version(indexed, make)
    same_bits(searcher.search(queries, request), before)
    assert searcher.plan(40, request).backend == "ivf"


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "note", "shape"])
def test_a_damaged_index_is_named_and_refused(indexed, damage):
    folder = indexed.snapshot.shards[0].reader.folder
    index, note = folder / "index.faiss", folder / "index.json"
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


def test_new_statistics_make_an_index_unusable_and_verify_passes(indexed, make):
    with indexed.write("add", "tests") as transaction:
        transaction.add([make.segment(9_001, "class 1")], np.eye(16, dtype=np.float32)[:1])
        newer = transaction.commit()
    searcher = Searcher(newer.snapshot)
    assert not searcher._is_indexed(searcher._scope_of((1,)), "centre")
    assert write_indexes(newer, "centre") == 3
    assert searcher.search(np.ones((1, 16)), Request(3, (1,), None, "centre"), "ivf").row.shape == (1, 3)
