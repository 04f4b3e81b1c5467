"""Codes: what they estimate, how well, and for which shapes of keys."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retclip.shards.search import Searcher
from retclip.shards.search.coding import Coding
from retclip.shards.search.index_files import read_index, write_index
from retclip.shards.search.lists import Lists


def coded(database, kind):
    transform = Searcher(database.snapshot).transform(kind)
    readers = [shard.reader for shard in database.snapshot.shards]
    coding = Coding.fit(readers, transform)
    shards = {}
    for number, reader in enumerate(readers):
        write_index(reader, transform, coding)
        shards[number] = read_index(reader, transform)
    return coding, shards, transform


def all_keys(database, transform):
    return np.concatenate([transform.keys(np.asarray(shard.reader.vectors)) for shard in database.snapshot.shards])


@pytest.mark.parametrize("kind", ["none", "centre", "standardise", "whiten"])
def test_estimates_are_as_wrong_as_the_coding_says(make, tmp_path, kind):
    segments, _ = make.rows(1_200, classes=6)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(1_200, 200)) + rng.normal(size=(6, 200))[np.arange(1_200) % 6] + 0.5
    database = make.build(tmp_path / "d.retdb", segments, vectors.astype(np.float32), shard_rows=500)
    coding, shards, transform = coded(database, kind)
    keys = all_keys(database, transform).astype(np.float32)
    lists = Lists(database.snapshot, coding, shards)
    ids, score, beyond = lists.search(keys[::10], range(6), 1_200)
    assert np.array_equal(beyond, score[:, -1])
    assert np.array_equal(np.sort(ids, axis=1), np.tile(np.arange(1_200), (120, 1)))
    assert (np.diff(score, axis=1) <= 0).all()
    wrong = score - np.take_along_axis(keys[::10] @ keys.T, ids, axis=1)
    assert np.sqrt(np.mean(wrong**2)) == pytest.approx(coding.error[0], rel=0.15)
    assert coding.error[0] < 0.05
    assert shards[0].codes.shape == (500, len(coding.levels) // 2)


@settings(max_examples=30, deadline=None)
@given(width=st.integers(1, 12), rows=st.integers(1, 40), classes=st.integers(1, 5), seed=st.integers(0, 99))
def test_any_shape_of_keys_can_be_coded(make, tmp_path_factory, width, rows, classes, seed):
    segments, _ = make.rows(rows, classes=classes)
    vectors = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    database = make.build(tmp_path_factory.mktemp("any") / "d.retdb", segments, vectors, shard_rows=16)
    coding, shards, transform = coded(database, "none")
    keys = all_keys(database, transform).astype(np.float32)
    ids, score, beyond = Lists(database.snapshot, coding, shards).search(keys[:1], range(classes), rows + 3)
    if np.isposinf(beyond[0]):  # nothing can be told
        assert np.ptp(keys[:1] @ coding.directions.T @ coding.levels) < 1e-6
        return
    assert sorted(ids[0].tolist()) == [-1] * 3 + list(range(rows))
    assert np.isneginf(score[0, rows:]).all()
    assert np.isfinite(score[0, :rows]).all()


def test_codes_are_packed_as_the_page_of_the_format_says(make, tmp_path):
    segments, vectors = make.rows(50, classes=3)
    database = make.build(tmp_path / "d.retdb", segments, vectors[:, :7])
    coding, shards, transform = coded(database, "none")
    own = database.snapshot.shards[0].reader.row_classes()
    components = (all_keys(database, transform) - coding.centres[own]) @ coding.directions.T
    nearest = np.abs(components[:, :, None] - coding.levels).argmin(axis=2)
    halves = np.stack([shards[0].codes & 15, shards[0].codes >> 4], axis=2).reshape(50, 8)
    assert np.mean(halves[:, :7] == nearest) > 0.99  # but for ties of rounding
    assert coding.directions @ coding.directions.T == pytest.approx(np.eye(7), abs=1e-5)


def test_lists_hold_live_rows_and_answer_with_asked_classes(make, tmp_path):
    segments, vectors = make.rows(60, classes=3)
    database = make.build(tmp_path / "d.retdb", segments, vectors, shard_rows=40)
    with database.write("delete", "tests") as transaction:
        transaction.delete(segment_ids={segment.segment_id for segment in segments[::2]})
        database = transaction.commit()
    coding, shards, transform = coded(database, "none")
    lists = Lists(database.snapshot, coding, shards)
    ids, *_ = lists.search(all_keys(database, transform)[:2].astype(np.float32), (1,), 60)
    start, wanted = 0, set()
    for number, shard in enumerate(database.snapshot.shards):
        live = database.snapshot.live_mask(number) & (shard.reader.row_classes() == 1)
        wanted |= set((start + np.flatnonzero(live)).tolist())
        start += shard.reader.rows
    for row in ids:
        assert set(row[row >= 0].tolist()) == wanted
    assert (lists.search(np.ones((2, 8), np.float32), (), 4)[0] == -1).all()


def test_codings_are_told_apart_by_their_numbers(make, tmp_path):
    segments, vectors = make.rows(60)
    database = make.build(tmp_path / "d.retdb", segments, vectors)
    coding, *_ = coded(database, "none")
    other, *_ = coded(database, "centre")
    assert coding.digest() == coded(database, "none")[0].digest() != other.digest()
