"""Scores of single rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retclip.shards.search import Searcher, row_scores
from retclip.shards.search.row_scores import fill_keys, row_starts, score_rows


@pytest.fixture(scope="module")
def database(make, tmp_path_factory):
    segments, vectors = make.rows(90)
    return make.build(tmp_path_factory.mktemp("rows") / "d.retdb", segments, vectors + 0.5, shard_rows=40)


def truth(database, transform):
    return np.concatenate([transform.keys(np.asarray(shard.reader.vectors)) for shard in database.snapshot.shards])


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["none", "centre", "standardise", "whiten"]),
    rows=st.lists(st.integers(0, 89), max_size=120),
    seed=st.integers(0, 99),
)
def test_scores_are_products_of_keys(database, kind, rows, seed):
    transform = Searcher(database.snapshot).transform(kind)
    keys, row = truth(database, transform), np.array(rows, np.int64)
    rng = np.random.default_rng(seed)
    asked = rng.normal(size=(4, keys.shape[1])).astype(np.float32)
    query = rng.integers(0, 4, len(row))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_scores, "_STEP_ROWS", 7)
        score = score_rows(database.snapshot, transform, asked, query, row)
    assert np.allclose(score, np.einsum("ij,ij->i", asked[query], keys[row]), atol=1e-5)


def test_rows_are_counted_through_all_shards(database):
    assert row_starts(database.snapshot).tolist() == [0, 40, 80, 90]


def test_keys_of_chosen_rows(database):
    transform = Searcher(database.snapshot).transform("centre")
    rows, out = np.array([39, 0, 7]), np.empty((3, 8), np.float32)
    fill_keys(database.snapshot.shards[1].reader, transform, rows, out)
    assert np.allclose(out, truth(database, transform)[40 + rows], atol=1e-6)
