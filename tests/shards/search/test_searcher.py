"""Exact search against a float64 oracle, and independence of how rows are stored."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retclip.core.errors import DatabaseError
from retclip.shards import TRANSFORMS
from retclip.shards.search import Request, Searcher
from retclip.shards.search.keys import KeyBudget
from retclip.shards.search.scope import Scope


def oracle(database, queries, k, classes=None, per_class_k=None, transform="none"):
    """Brute force over all live rows in float64: (distance, segment_id) per query, sorted."""
    positions = [(s, r) for s, r, _ in database.iter_segments(classes)]
    segments = database.segments(positions)
    every = database.vectors([(s, r) for s, r, _ in database.iter_segments()]).astype(np.float64)
    keys = database.vectors(positions).astype(np.float64)
    q = queries.astype(np.float64) / np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)
    mean = every.mean(axis=0)
    centred = every - mean
    if transform == "centre":
        keys, q = keys - mean, q - mean
    if transform == "standardise":
        keys, q = (keys - mean) / centred.std(axis=0), (q - mean) / centred.std(axis=0)
    if transform == "whiten":
        values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
        matrix = vectors / np.sqrt(values + 1e-3 * values.mean())
        keys, q = (keys - mean) @ matrix, (q - mean) @ matrix
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, keys)]
    distance = 1.0 - unit[0] @ unit[1].T
    result = []
    for row in distance:
        order = sorted(range(len(segments)), key=lambda i: (row[i], segments[i].segment_id))
        taken: dict[str, int] = {}
        kept = []
        for i in order:
            taken[segments[i].label] = taken.get(segments[i].label, 0) + 1
            if per_class_k is None or taken[segments[i].label] <= per_class_k:
                kept.append((row[i], segments[i].segment_id))
        result.append(kept[:k])
    return result


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("per_class_k", [None, 1, 3])
@pytest.mark.parametrize("classes", [None, (1,), (0, 3, 4)])
def test_search_equals_brute_force(database, transform, per_class_k, classes):
    queries = np.random.default_rng(5).normal(size=(7, 8)).astype(np.float32)
    found = database.search(queries, 9, classes, per_class_k, transform)
    expected = oracle(database, queries, 9, classes, per_class_k, transform)
    # Statistics are taken on a grid of 2^-16, so transformed distances agree to about that.
    tolerance = 1e-6 if transform == "none" else 5e-4
    for query, pairs in enumerate(expected):
        n = len(pairs)
        np.testing.assert_allclose(found.distance[query, :n], [d for d, _ in pairs], atol=tolerance)
        assert np.isinf(found.distance[query, n:]).all()
        assert (found.class_id[query, n:] == -1).all()
        assert (found.shard[query, n:] == -1).all()
        assert (found.row[query, n:] == -1).all()
        assert (found.segment_id[query, n:] == 0).all()
        if transform == "none":
            assert found.segment_id[query, :n].tolist() == [i for _, i in pairs]


def test_search_positions_name_the_segments(database):
    queries = np.eye(8, dtype=np.float32)
    found = database.search(queries, 4)
    for place in np.ndindex(found.row.shape):
        segment = database.segment(int(found.shard[place]), int(found.row[place]))
        assert segment.segment_id == found.segment_id[place]
        assert database.manifest.classes[int(found.class_id[place])].name == segment.label


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 40),
    shard_rows=st.integers(1, 40),
    k=st.integers(1, 50),
    per_class_k=st.none() | st.integers(1, 5),
    levels=st.integers(1, 3),
    seed=st.integers(0, 1000),
    transform=st.sampled_from(TRANSFORMS[:2]),
)
def test_search_does_not_depend_on_sharding_or_order(make, count, shard_rows, k, per_class_k, levels, seed, transform):
    """Coarse vectors make many exact ties, which segment ids must break alike."""
    rng = np.random.default_rng(seed)
    segments, _ = make.rows(count)
    vectors = rng.integers(-levels, levels + 1, size=(count, 8)).astype(np.float32)
    vectors[:, 0] = 1.0
    order = rng.permutation(count)
    queries = rng.normal(size=(3, 8)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        one = make.build(Path(folder) / "one.retdb", segments, vectors)
        many = make.build(Path(folder) / "many.retdb", [segments[i] for i in order], vectors[order], shard_rows)
        first = one.search(queries, k, None, per_class_k, transform)
        second = many.search(queries, k, None, per_class_k, transform)
        assert first.distance.tobytes() == second.distance.tobytes()
        assert first.segment_id.tobytes() == second.segment_id.tobytes()
        assert one.content_hash() == many.content_hash()


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_twenty_shards_give_the_same_bits_as_one(make, tmp_path, transform):
    segments, _ = make.rows(1000)
    vectors = np.random.default_rng(3).normal(size=(1000, 96)).astype(np.float32) + 0.5
    one = make.build(tmp_path / "one.retdb", segments, vectors)
    many = make.build(tmp_path / "many.retdb", segments[::-1], vectors[::-1], shard_rows=50)
    assert len(many.snapshot.shards) == 20
    for queries in (vectors[:50], vectors[:1]):
        first, second = (d.search(queries, 12, transform=transform) for d in (one, many))
        assert first.distance.tobytes() == second.distance.tobytes()
        assert first.segment_id.tobytes() == second.segment_id.tobytes()
    alone = one.search(vectors[7:8], 12, transform=transform)
    assert alone.distance.tobytes() == one.search(vectors[:50], 12, transform=transform).distance[7:8].tobytes()


def test_blocks_and_cache_do_not_change_the_answer(make, tmp_path, monkeypatch):
    segments, vectors = make.rows(300)
    database = make.build(tmp_path / "d.retdb", segments, vectors)
    request = Request(10, tuple(c.id for c in database.classes), 4, "centre")
    expected = database.search(vectors[:20], 10, per_class_k=4, transform="centre")
    monkeypatch.setattr("retclip.shards.search.keys.BLOCK_ROWS", 70)
    monkeypatch.setattr("retclip.shards.search.keys._STEP_ROWS", 9)
    monkeypatch.setattr("retclip.shards.search.scan._TILE_SCORES", 50)
    monkeypatch.setattr("retclip.shards.search.searcher.QUERY_BLOCK", 3)
    monkeypatch.setattr("retclip.shards.search.measure._PAIR_BLOCK", 5)
    for room in (1 << 20, 0):
        monkeypatch.setattr("retclip.shards.search.keys.shared_budget", {"cpu": KeyBudget(room)}.__getitem__)
        searcher = Searcher(database.snapshot)
        for _ in range(2):
            again = searcher.search(vectors[:20], request)
            assert again.distance.tobytes() == expected.distance.tobytes()
            assert again.segment_id.tobytes() == expected.segment_id.tobytes()


def test_equal_vectors_are_ordered_by_segment_id(make, tmp_path):
    segments, _ = make.rows(30)
    database = make.build(tmp_path / "d.retdb", segments, np.ones((30, 8), np.float32), shard_rows=4)
    found = database.search(np.ones((1, 8), np.float32), 30)
    assert found.segment_id[0].tolist() == sorted(s.segment_id for s in segments)


def test_dead_rows_are_not_found_and_cost_no_hit(database, rows):
    segments, vectors = rows
    dead = {s.segment_id for s in segments[::2]}
    with database.write("delete", "tests") as transaction:
        assert transaction.delete(segment_ids=dead) == 30
        after = transaction.commit()
    found = after.search(vectors[:6], 30)
    assert np.isfinite(found.distance).all()
    assert not dead & set(found.segment_id.ravel().tolist())


def test_no_rows_and_no_queries(make, tmp_path, database):
    empty = make.build(tmp_path / "empty.retdb", [], np.zeros((0, 8), np.float32))
    assert np.isinf(empty.search(np.ones((2, 8), np.float32), 3).distance).all()
    assert database.search(np.zeros((0, 8), np.float32), 3).distance.shape == (0, 3)
    assert np.isinf(database.search(np.ones((2, 8), np.float32), 3, classes=[]).distance).all()


def test_wrong_requests_are_refused(database):
    query = np.ones((1, 8), np.float32)
    with pytest.raises(DatabaseError, match="E309"):
        database.search(query, 3, classes=[99])
    for bad in (np.ones((1, 9), np.float32), np.ones(8, np.float32), np.full((1, 8), np.nan, np.float32)):
        with pytest.raises(ValueError, match="queries"):
            database.search(bad, 3)
    with pytest.raises(ValueError, match="lengths"):
        database.search(np.zeros((1, 8), np.float32), 3)
    with pytest.raises(ValueError, match="k"):
        database.search(query, 0)
    with pytest.raises(ValueError, match="transform"):
        database.search(query, 1, transform="rotate")


def test_a_plan_says_what_is_scanned(database):
    classes = tuple(c.id for c in database.classes)[:2]
    plan = database.plan(7, 3, classes)
    assert plan.exact
    assert plan.rows_scanned == sum(c.count for c in database.classes if c.id in classes)
    assert f"{plan.rows_scanned} of 60 rows" in plan.reason
    with pytest.raises(DatabaseError, match="E309"):
        database.plan(7, 3, [99])


def test_keys_are_read_once_per_vocabulary(database, monkeypatch):
    from retclip.shards.search import scan

    read = []
    original = scan.read_keys
    monkeypatch.setattr(scan, "read_keys", lambda *args: read.append(args) or original(*args))
    searcher = Searcher(database.snapshot)
    queries = np.eye(8, dtype=np.float32)
    for classes in ((0, 1), (2,), (0, 1), (2,)):
        searcher.search(queries, Request(3, classes, None, "none"))
    assert len(read) == 2


def test_threads_that_ask_about_other_classes_do_not_disturb(database):
    """Another thread's question comes between the making of a scope and its use."""

    class Crowded(Searcher):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "_scope" and value is not None and value[0] == (1,):
                super().__setattr__(name, ((2,), Scope.of(database.snapshot, (2,))))

    crowded = Crowded(database.snapshot)
    request = Request(5, (1,), None, "none")
    assert set(crowded.search(np.eye(8), request).class_id.ravel().tolist()) == {1}
