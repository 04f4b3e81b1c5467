"""Searches through codes: nearly everything that is near, nothing that was not asked, and what happens in doubt."""

import os
import signal
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retclip.core.errors import DatabaseError
from retclip.core.segments import Neighbors
from retclip.shards.layers import LayeredIndex
from retclip.shards.search import Request, Searcher, ivf, planner, write_indexes

QUERIES = np.random.default_rng(4).normal(size=(40, 16)).astype(np.float32)


@pytest.fixture
def no_least(monkeypatch):
    """Plans that use an index however few rows are asked."""
    monkeypatch.setattr(planner, "_INDEX_ROWS", 0)


def share_found(found: Neighbors, true: Neighbors) -> float:
    return float(np.mean([np.isin(t, f).mean() for f, t in zip(found.segment_id, true.segment_id, strict=True)]))


def test_an_index_answers_with_live_rows_of_the_asked_classes(indexed):
    searcher = Searcher(indexed.snapshot)
    request = Request(10, (1, 3), None, "centre")
    found, true = searcher.search(QUERIES, request, "ivf"), searcher.search(QUERIES, request, "cpu")
    assert set(found.class_id.ravel().tolist()) == {1, 3}
    assert share_found(found, true) > 0.999
    for place in np.ndindex(found.row.shape):
        assert indexed.snapshot.live_mask(int(found.shard[place]))[found.row[place]]


@pytest.fixture(scope="module")
def clustered(make, tmp_path_factory):
    """6,000 rows of 300 numbers, more than are coded, around the centres of 12 classes that overlap."""
    rng = np.random.default_rng(5)
    segments, _ = make.rows(6_000, classes=12)
    centres = rng.normal(size=(12, 300))
    label = np.array([int(segment.label.split()[1]) for segment in segments])
    vectors = (1.5 + centres[label] + rng.normal(size=(6_000, 300))).astype(np.float32)
    database = make.build(tmp_path_factory.mktemp("ivf") / "c.retdb", segments, vectors, shard_rows=2_500)
    assert write_indexes(database, "none").recall > (0.999, 0.999)
    return database, centres


@pytest.mark.parametrize("known", [True, False])
def test_queries_of_asked_and_of_other_classes_find_what_is_near(clustered, known, monkeypatch):
    database, centres = clustered
    centre = centres[rng_labels(known)]
    queries = 1.5 + centre + np.random.default_rng(6).normal(size=centre.shape)
    searcher, request = Searcher(database.snapshot), Request(8, tuple(range(6)), None, "none")
    true, in_doubt = searcher.search(queries, request, "cpu"), spy_on_scan(searcher, monkeypatch)
    assert share_found(searcher.search(queries, request, "ivf"), true) > 0.999
    assert sum(len(question[0]) for question in in_doubt) < 0.2 * len(queries)


def spy_on_scan(searcher, monkeypatch):
    """A list of the questions that are left to the exact scan."""
    scan, questions = searcher._backend("cpu"), []
    spy = SimpleNamespace(candidates=lambda *question: questions.append(question) or scan.candidates(*question))
    monkeypatch.setattr(searcher._backend("ivf"), "_scan", spy)
    return questions


def rng_labels(known):
    return np.random.default_rng(7).integers(0, 6, 60) + (0 if known else 6)


@settings(max_examples=25, deadline=None)
@given(
    k=st.integers(1, 60),
    classes=st.sets(st.integers(0, 3), max_size=4),
    many=st.integers(0, 12),
)
def test_few_asked_rows_are_answered_exactly(few, same_bits, k, classes, many):
    """When every asked row is looked at, nothing is left to chance."""
    searcher, request = Searcher(few.snapshot), Request(k, tuple(sorted(classes)), None, "centre")
    queries = QUERIES[:many, :8]
    same_bits(searcher.search(queries, request, "ivf"), searcher.search(queries, request, "cpu"))


@pytest.fixture(scope="module")
def few(make, tmp_path_factory):
    segments, vectors = make.rows(20, classes=4)
    database = make.build(tmp_path_factory.mktemp("few") / "few.retdb", segments, vectors, shard_rows=7)
    write_indexes(database, "centre")
    return database


@pytest.mark.parametrize("equal", [True, False])
def test_a_query_in_doubt_is_scanned_exactly(make, tmp_path, same_bits, monkeypatch, equal):
    """Of rows that are all equal, or of so few estimates, no codes can tell which are the nearest."""
    segments, _ = make.rows(900, classes=2)
    vectors = np.ones((900, 8)) if equal else np.random.default_rng(1).normal(size=(900, 8))
    database = make.build(tmp_path / "equal.retdb", segments, vectors.astype(np.float32), shard_rows=400)
    write_indexes(database, "none")
    if not equal:
        monkeypatch.setattr(ivf, "ESTIMATES", (1, 2))
    searcher, request = Searcher(database.snapshot), Request(4, (0, 1), None, "none")
    asked = spy_on_scan(searcher, monkeypatch)
    queries = np.random.default_rng(2).normal(size=(9, 8))
    same_bits(searcher.search(queries, request, "ivf"), searcher.search(queries, request, "cpu"))
    assert [len(question[0]) for question in asked] == [9]


def test_a_shard_that_came_later_is_coded_on_its_own(make, tmp_path):
    """Codes of two codings are searched side by side."""
    segments, vectors = make.rows(1_600, classes=3)
    database = make.build(tmp_path / "two.retdb", segments[:1_000], vectors[:1_000])
    write_indexes(database, "none")
    with database.write("add", "tests") as transaction:
        transaction.add(segments[1_000:], vectors[1_000:])
        database = transaction.commit()
    searcher, request = Searcher(database.snapshot), Request(5, (0, 1, 2), None, "none")
    assert searcher.plan(9, request).exact
    assert write_indexes(database, "none").shards == 1
    searcher = Searcher(database.snapshot)
    true = searcher.search(QUERIES[:, :8], request, "cpu")
    assert share_found(searcher.search(QUERIES[:, :8], request, "ivf"), true) > 0.99
    assert len(searcher._backend("ivf")._lists(searcher._scope_of((0, 1, 2)), searcher.transform("none"))) == 2


def test_merged_classes_are_one(indexed):
    with indexed.write("merge", "tests") as transaction:
        transaction.relabel("class 1", "class 0")
        merged = transaction.commit()
    searcher = Searcher(merged.snapshot)
    [both] = {c.id for c in merged.classes} - {2, 3}
    request = Request(6, (both,), None, "centre")
    found, true = searcher.search(QUERIES, request, "ivf"), searcher.search(QUERIES, request, "cpu")
    assert share_found(found, true) > 0.999
    assert {0, 1} <= set(merged.snapshot.shards[0].reader.row_classes()[found.row[found.shard == 0]].tolist())


def test_plans_use_an_index_that_is_good_enough(indexed, no_least):
    searcher = Searcher(indexed.snapshot)
    request = Request(10, (1, 3), None, "centre")
    assert (searcher.plan(40, request).backend, searcher.plan(40, request).recall) == ("ivf", None)
    searcher.recall_sample(QUERIES, request)
    assert searcher.plan(40, request).recall > 0.98
    for other in (Request(10, (1, 3), 2, "centre"), Request(10, (1, 3), None, "none")):
        assert searcher.plan(40, other).backend == "cpu"


def test_an_index_that_was_found_wanting_is_not_used(indexed, no_least, monkeypatch, same_bits):
    searcher, request = Searcher(indexed.snapshot), Request(10, (0, 1, 2, 3), None, "centre")
    real = searcher._backend("ivf")
    monkeypatch.setattr(real, "candidates", lambda asked, request, scope, transform: ivf.Pairs.none())
    assert searcher.recall_sample(QUERIES, request) == 0
    assert searcher.plan(40, request).backend == "cpu"
    assert "below" in searcher.plan(40, request).reason
    same_bits(searcher.search(QUERIES, request), searcher.search(QUERIES, request, "cpu"))


def test_a_query_without_direction_is_answered(indexed, same_bits):
    """The key of the mean is zero under `centre`, and FAISS finds nothing for it."""
    searcher, request = Searcher(indexed.snapshot), Request(10, (1, 3), None, "centre")
    mean = searcher.transform("centre").offset[None]
    same_bits(searcher.search(mean, request, "ivf"), searcher.search(mean, request, "cpu"))


@pytest.mark.parametrize("layering", ["first", "merged"])
def test_layers_are_searched_through_their_indexes(indexed, make, tmp_path, no_least, layering):
    """Ids of classes are moved there; a copy is coded in the same way, and its lists must not be taken for others."""
    segments, _ = make.rows(1_500, classes=3, seed=3)
    other = [replace(item, segment_id=n, label=f"thing {item.label}") for n, item in enumerate(segments)]
    vectors = np.random.default_rng(8).normal(size=(1_500, 16)).astype(np.float32)
    mine = make.build(tmp_path / "mine.retdb", other, vectors)
    for database in (mine, indexed):
        write_indexes(database, "none")
    layers = LayeredIndex([mine, indexed, indexed], layering)
    searcher = layers._searcher
    request = Request(10, tuple(item.id for item in layers.classes), None, "none")
    assert searcher.plan(40, request).backend == "ivf"
    found, true = searcher.search(QUERIES, request, "ivf"), searcher.search(QUERIES, request, "cpu")
    assert share_found(found, true) > 0.999


def test_an_older_version_is_searched_through_an_index_of_a_newer_one(make, tmp_path, no_least):
    """Whose coding knows a class that the older one has not."""
    segments, vectors = make.rows(1_200, classes=3)
    older = make.build(tmp_path / "d.retdb", segments[:900], vectors[:900])
    with older.write("add", "tests") as transaction:
        transaction.add([replace(item, label="new") for item in segments[900:]], vectors[900:])
        newer = transaction.commit()
    write_indexes(newer, "none")
    searcher, request = Searcher(older.snapshot), Request(10, (0, 1, 2), None, "none")
    assert searcher.plan(40, request).backend == "ivf"
    queries = QUERIES[:, :8]
    assert share_found(searcher.search(queries, request, "ivf"), searcher.search(queries, request, "cpu")) > 0.999


def test_a_child_that_is_forked_after_a_search_answers(indexed):
    """FAISS's threads are not copied with it."""
    searcher, request = Searcher(indexed.snapshot), Request(4, (0, 2), None, "centre")
    before = searcher.search(QUERIES, request, "ivf").segment_id
    child = os.fork()
    if not child:
        same = np.array_equal(searcher.search(QUERIES, request, "ivf").segment_id, before)
        os._exit(0 if same else 1)
    for _ in range(600):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert done
    assert os.waitstatus_to_exitcode(status) == 0


def test_the_best_row_does_not_vanish_where_classes_are_far_apart(make, tmp_path):
    """FAISS's sums of 16 bits have no room above the product with the farthest centre, if none is made."""
    rng = np.random.default_rng(0)
    segments, _ = make.rows(3_000, classes=2)
    side = np.array([1.0 if segment.label == "class 0" else -1.0 for segment in segments])
    rare = rng.choice([-1, 0, 1], size=(3_000, 3), p=[0.07, 0.86, 0.07]) * 0.002 * np.linspace(1, 1.3, 3)
    vectors = np.column_stack([side, rare + rng.normal(size=(3_000, 3)) * 6e-5]).astype(np.float32)
    database = make.build(tmp_path / "far.retdb", segments, vectors)
    write_indexes(database, "none")
    searcher, request = Searcher(database.snapshot), Request(4, (0, 1), None, "none")
    queries = np.column_stack([np.full(200, 0.9), rng.uniform(0.1, 0.5, (200, 3))])
    found, true = searcher.search(queries, request, "ivf"), searcher.search(queries, request, "cpu")
    assert np.array_equal(found.distance, true.distance)


def test_a_limit_per_class_is_kept_exactly(indexed, same_bits):
    searcher, request = Searcher(indexed.snapshot), Request(6, (0, 1, 2, 3), 2, "centre")
    same_bits(searcher.search(QUERIES, request, "ivf"), searcher.search(QUERIES, request, "cpu"))


def test_estimates_are_held_for_few_queries_at_a_time(indexed, same_bits, monkeypatch):
    searcher, request = Searcher(indexed.snapshot), Request(10, (1, 3), None, "centre")
    whole = searcher.search(QUERIES, request, "ivf")
    monkeypatch.setattr(ivf, "_COLUMNS", 700)
    same_bits(searcher.search(QUERIES, request, "ivf"), whole)


def test_a_damaged_index_stops_only_those_who_need_it(make, tmp_path):
    segments, vectors = make.rows(900, classes=3)
    order = sorted(range(900), key=lambda n: segments[n].label)
    database = make.build(tmp_path / "d.retdb", [segments[n] for n in order], vectors[order], shard_rows=300)
    write_indexes(database, "none")
    searcher = Searcher(database.snapshot)
    alone = {c for c in (0, 1, 2) if len(list(database.snapshot.class_rows(c))) == 1}
    broken = next(iter(alone))
    [(shard, _)] = database.snapshot.class_rows(broken)
    path = database.snapshot.shards[shard].reader.folder / "index.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    other = next(c for c in (0, 1, 2) if shard not in {s for s, _ in database.snapshot.class_rows(c)})
    assert (searcher.search(vectors[:4], Request(3, (other,), None, "none"), "ivf").class_id == other).all()
    with pytest.raises(DatabaseError, match="is damaged"):
        searcher.search(vectors[:4], Request(3, (broken,), None, "none"), "ivf")
