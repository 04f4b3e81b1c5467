"""Which pairs stay in reach of the answer."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retclip.shards.search.pairs import Pairs, in_reach, kth_best, rank_in_run


def make_pairs(query, class_id, score):
    return Pairs(
        np.array(query, np.int64), np.arange(len(query)), np.array(class_id, np.int32), np.array(score, np.float32)
    )


def test_rank_in_run():
    a, b = np.array([0, 0, 0, 1, 1]), np.array([5, 5, 6, 6, 6])
    assert rank_in_run(a).tolist() == [0, 1, 2, 0, 1]
    assert rank_in_run(a, b).tolist() == [0, 1, 0, 0, 1]
    assert rank_in_run(np.zeros(0)).tolist() == []


@given(
    cells=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(-8, 8)), max_size=40),
    k=st.integers(1, 6),
    cap=st.none() | st.integers(1, 5),
    window=st.sampled_from([0.0, 0.125, 0.5]),
)
def test_in_reach_equals_the_plain_rule(cells, k, cap, window):
    """A pair stays unless `cap` of its class, or k capped ones, are better by more than the window."""
    pairs = make_pairs([c[0] for c in cells], [c[1] for c in cells], [c[2] / 8 for c in cells])
    kept, floor = in_reach(pairs, 3, k, cap, window)
    expected = set()
    for query in range(3):
        mine = sorted(((s / 8, c, i) for i, (q, c, s) in enumerate(cells) if q == query), reverse=True)
        by_class = {c: [s for s, other, _ in mine if other == c] for c in range(4)}
        counted = sorted((s for scores in by_class.values() for s in scores[:cap]), reverse=True)
        floor_here = counted[k - 1] if len(counted) >= k else -np.inf
        assert floor[query] == floor_here
        for s, c, i in mine:
            own = by_class[c][cap - 1] if cap is not None and len(by_class[c]) >= cap else -np.inf
            if s >= max(own, floor_here) - window:
                expected.add(i)
    assert set(kept.position.tolist()) == expected


@given(
    cells=st.lists(st.tuples(st.integers(0, 3), st.integers(-8, 8)), max_size=40),
    k=st.integers(1, 5),
)
def test_kth_best(cells, k):
    query, score = (np.array([c[i] for c in cells], np.int64) for i in (0, 1))
    floor = kth_best(query, (score / 8).astype(np.float32), 4, k)
    for q in range(4):
        mine = sorted((s / 8 for other, s in cells if other == q), reverse=True)
        assert floor[q] == (mine[k - 1] if len(mine) >= k else -np.inf)
